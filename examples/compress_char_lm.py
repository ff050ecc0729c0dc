"""Compress the quickstart's character model by training, every method on its own and all at once.

    python examples/compress_char_lm.py

prints bits per character on held-out modules of the model in 4 bits, of one with 80% zeros in 8
bits, and of one that is pruned, factorized and quantized: calibrated alone, and after ``--steps``
of quantization-aware training on the text, and on the text and the float model's logits
(distillation), for each ``--seed``. With ``--out`` the last one is saved, to be run by the Python
package, the NumPy runtime or C++.
"""

import argparse
import contextlib
import copy
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import lstm_fastkernels as lfk
from char_lm import CharLM, bits_per_character, load_corpus, load_model, save_model, text_sample
from train_char_lm import Options, add_options, options_from, progress

FLOAT = Path(__file__).with_name("char_lm.safetensors")
DEFAULTS = Options(
    steps=600,
    warmup=20,
    batch_size=128,
    learning_rate=5e-4,
    scale_rate=6.0,
    weight_decay=0.0,
    beta2=0.99,
)


@dataclass(frozen=True)
class Recipe:
    """What becomes of the LSTM: shares of zeros and ranks by matrix, and the precision."""

    base: lfk.Int8Config | lfk.Int4Config
    zeros: dict[str, float] | None = None
    ranks: dict[str, int] | None = None

    def reduce(self, model: CharLM, steps: int) -> lfk.Pruner | None:
        """Put factors and masks on, the masks to grow during the first half of the steps."""
        if self.ranks:
            lfk.factorize_(model, lfk.LowRankConfig(rank=self.ranks), calibration=calibration())
        if not self.zeros:
            return None
        schedule = lfk.CubicSchedule(0, max(1, steps // 2)) if steps else None
        return lfk.prune_(model, lfk.PruneConfig(self.zeros, schedule=schedule))


RECIPES = {
    "4 bits": Recipe(lfk.Int4Config()),
    "80% zeros, 8 bits": Recipe(lfk.Int8Config(), {"weight_ih_l1": 0.8, "weight_hh": 0.8}),
    "50% zeros, rank 64, 4 and 8 bits": Recipe(
        lfk.Int8Config(precision={"weight_ih_l0": "int4"}),
        {"weight_hh": 0.5},
        {"weight_ih_l1": 64},
    ),
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Compress the character language model of the quickstart by training.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES), help="what to make")
    add("--seeds", type=int, default=3, help="runs of each, with seeds from --seed on")
    add("--out", type=Path, help="file of the last model made")
    add_options(parser, DEFAULTS)
    return parser.parse_args()


def calibrated(recipe: Recipe, model: CharLM) -> CharLM:
    """Compress a model without training it."""
    model = copy.deepcopy(model)
    if recipe.reduce(model, 0):
        lfk.remove_pruning_(model)
    lfk.quantize_(model, recipe.base, calibration=calibration())
    return model


def trained(recipe: Recipe, model: CharLM, options: Options, taught: bool) -> CharLM:
    """Compress a model while it is trained, and taught by what it was before if that is wanted."""
    student = copy.deepcopy(model).train()
    pruner = recipe.reduce(student, options.steps)
    lfk.quantize_(student, lfk.QATConfig(recipe.base, "prepare"), calibration=calibration())
    teacher = model if taught else None
    training, _ = load_corpus()
    with bfloat16_products(options.bfloat16):
        options = replace(options, bfloat16=False)  # autocast would round what is not multiplied
        for _ in progress(student, training, options, "training", teacher=teacher):
            if pruner:
                pruner.step()
    lfk.quantize_(student, lfk.QATConfig(recipe.base, "convert"))
    return student.eval()


@contextlib.contextmanager
def bfloat16_products(enabled: bool) -> Iterator[None]:
    """Round the operands of float32 matrix products to bfloat16: the gradients', not the LSTM's."""
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    if enabled:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def calibration() -> Sequence[torch.Tensor]:
    """Return batches of training text."""
    return text_sample(load_corpus()[0], streams=64, length=256).split(8)


def spread(values: list[float]) -> str:
    """Say the mean, and half of the range, of several seeds."""
    half = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):.4f} ± {half:.4f}"


def main() -> None:
    """Make every recipe in every way and print what comes out."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    options = options_from(arguments)
    _, held_out = load_corpus()
    sample = text_sample(held_out, streams=120)
    model, _ = load_model(FLOAT)
    print(f"float32: {bits_per_character(model, sample):.4f} bits per character", flush=True)
    last = model
    for name in arguments.recipe:
        recipe = RECIPES[name]
        bits = bits_per_character(calibrated(recipe, model), sample)
        print(f"{name}\n  calibrated: {bits:.4f}", flush=True)
        for taught in (False, True):
            found = []
            for seed in range(arguments.seed, arguments.seed + arguments.seeds):
                torch.manual_seed(seed)
                last = trained(recipe, model, options, taught)
                found.append(bits_per_character(last, sample))
            way = "trained on text and logits" if taught else "trained on text"
            size = last.lstm.packed_bytes()
            print(f"  {way}: {spread(found)}, {size:,} bytes", flush=True)
    if arguments.out:
        save_model(last, arguments.out, {"recipe": arguments.recipe[-1]})


if __name__ == "__main__":
    main()
