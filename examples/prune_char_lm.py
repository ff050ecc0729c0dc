"""Prune the quickstart's character model to 50, 80 and 90%, in blocks and without, and measure it.

    python examples/prune_char_lm.py

trains what is missing in ``--models`` (a run that was stopped goes on with the next model), then
prints size, accuracy and speed of all, and draws them. Each model starts from the dense one, is
pruned gradually along a cubic schedule during the first half of the steps and fine-tuned during the
rest. Beside each sparsity stands a dense model with as many weights, trained from scratch for as
many steps as the dense and the pruned model together.

    python examples/prune_char_lm.py --sparsity 0.8 --pattern 8x4 --steps 16000 --bfloat16

is how the pruned weights beside this file were made, in about an hour on one core.
"""

import argparse
import math
from pathlib import Path

import torch
from tqdm import tqdm

import lstm_fastkernels as lfk
from char_lm import (
    EMBEDDING_SIZE,
    CharLM,
    bits_per_character,
    held_out_sample,
    load_corpus,
    load_model,
    save_model,
)
from train_char_lm import Options, add_options, options_from, train

DENSE = Path(__file__).with_name("char_lm.safetensors")
SPARSITIES = (0.5, 0.8, 0.9)
PATTERNS: dict[str, tuple[int, int] | None] = {
    "8x4": (8, 4),
    "16x32": (16, 32),
    "unstructured": None,
}
DEFAULTS = Options(steps=2500, warmup=100, learning_rate=2e-3)
RENEWALS = 100  # of the masks while sparsity grows


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Prune the character language model of the quickstart, and measure it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--models", type=Path, default=Path("pruned"), help="folder of the trained models")
    add("--sparsity", type=float, nargs="+", default=SPARSITIES, help="shares of zeros")
    add("--pattern", nargs="+", choices=PATTERNS, default=list(PATTERNS), help="of the zeros")
    add_options(parser, DEFAULTS)
    return parser.parse_args()


def prune(model: CharLM, arguments: argparse.Namespace, sparsity: float, pattern: str) -> None:
    """Prune the model's LSTM gradually while it is trained; its zeros are permanent then."""
    options = options_from(arguments)
    ramp = max(1, options.steps // 2)
    config = lfk.PruneConfig(
        sparsity=sparsity,
        block_size=PATTERNS[pattern],
        scope="global",
        schedule=lfk.CubicSchedule(0, ramp, max(1, ramp // RENEWALS)),
    )
    pruner = lfk.prune_(model, config)
    training, _ = load_corpus()
    steps = tqdm(
        train(model, training, options),
        total=options.steps,
        desc=f"{sparsity:.0%} {pattern}",
        unit="step",
        dynamic_ncols=True,
    )
    for step, loss in enumerate(steps, start=1):
        pruner.step()
        if step % 10 == 0:
            now = f"{loss:.3f} bits/char, {pruner.sparsity:.1%} zeros"
            steps.set_postfix_str(now, refresh=False)
    lfk.remove_pruning_(model)


def equally_large(sparsity: float) -> int:
    """Return the hidden size of a dense model with the weights that the sparsity leaves."""
    model = CharLM()
    wanted = (1 - sparsity) * sum(p.numel() for p in model.lstm.parameters() if p.dim() == 2)
    # 4 H (E + H) + 4 H (H + H) weights: 12 H^2 + 4 E H = wanted.
    e = EMBEDDING_SIZE
    return round((math.sqrt(16 * e * e + 48 * wanted) - 4 * e) / 24)


def finish(model: CharLM, path: Path, arguments: argparse.Namespace, **metadata: object) -> None:
    """Evaluate a trained model and save it."""
    _, held_out = load_corpus()
    bits = bits_per_character(model.eval(), held_out_sample(held_out))
    print(f"{path.stem}: {bits:.4f} bits per character on held-out modules", flush=True)
    metadata |= {"steps": arguments.steps, "seed": arguments.seed, "bits_per_character": bits}
    save_model(model, path, metadata)


def train_missing(arguments: argparse.Namespace) -> None:
    """Train every model that the folder lacks."""
    arguments.models.mkdir(parents=True, exist_ok=True)
    for sparsity in arguments.sparsity:
        for pattern in arguments.pattern:
            path = arguments.models / f"{sparsity:.0%}-{pattern}.safetensors"
            if not path.exists():
                torch.manual_seed(arguments.seed)
                model, _ = load_model(DENSE)
                prune(model.train(), arguments, sparsity, pattern)
                finish(model, path, arguments, sparsity=sparsity, pattern=pattern)


def main() -> None:
    """Train what is missing, measure everything, draw it."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    train_missing(arguments)


if __name__ == "__main__":
    main()
