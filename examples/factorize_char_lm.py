"""Factorize the quickstart's character model to some ranks, with data and without, and train it on.

    python examples/factorize_char_lm.py

prints bits per character on held-out modules for each rank: of the model as it is factorized, and
after ``--steps`` of training the factors. The first matrix, whose input is narrow, stays whole.
"""

import argparse
from pathlib import Path

import torch

import lstm_fastkernels as lfk
from char_lm import bits_per_character, load_corpus, load_model, text_sample
from train_char_lm import Options, add_options, options_from, progress

DENSE = Path(__file__).with_name("char_lm.safetensors")
MATRICES = ("weight_hh*", "weight_ih_l1")
DEFAULTS = Options(steps=300, warmup=30, learning_rate=2e-3)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Factorize the character language model of the quickstart, and measure it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rank", type=int, nargs="+", default=(64, 128), help="of each matrix")
    add_options(parser, DEFAULTS)
    return parser.parse_args()


def measure(rank: int, with_data: bool, arguments: argparse.Namespace) -> str:
    """Factorize and train a model; return its line of the table."""
    torch.manual_seed(arguments.seed)
    training, held_out = load_corpus()
    sample = text_sample(held_out)
    model, _ = load_model(DENSE)
    calibration = text_sample(training, streams=64, length=256).split(8) if with_data else None
    report = lfk.factorize_(
        model, lfk.LowRankConfig(rank, matrices=MATRICES), calibration=calibration
    )
    share = report.parameters / report.parameters_before
    factorized = bits_per_character(model, sample)
    for _ in progress(model.train(), training, options_from(arguments), f"rank {rank}"):
        pass
    trained = bits_per_character(model.eval(), sample)
    data = "with data" if with_data else "without"
    return f"{rank:4}  {data:9}  {share:10.0%}  {factorized:10.4f}  {trained:15.4f}"


def main() -> None:
    """Measure the dense model and each factorized one."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    model, _ = load_model(DENSE)
    bits = bits_per_character(model, text_sample(load_corpus()[1]))
    lines = [f"dense: {bits:.4f} bits per character\n", "rank             parameters  factorized"]
    lines[-1] += f"  {arguments.steps:5} steps on"
    for rank in arguments.rank:
        lines += [measure(rank, with_data, arguments) for with_data in (False, True)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
