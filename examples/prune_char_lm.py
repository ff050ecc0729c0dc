"""Prune the quickstart's character model to 50, 80 and 90%, in blocks and without, and measure it.

    python examples/prune_char_lm.py

trains what is missing in ``--models``, some minutes each (a run that was stopped goes on with the
model that it was at), then prints size, accuracy and speed of all, and with ``--plot`` draws them.
Each model starts from the dense one, is pruned gradually along a cubic schedule during the first
half of the steps and fine-tuned during the rest. Beside each sparsity stands a dense model with as
many weights, trained from scratch for as many steps as the dense and the pruned one together.

    python examples/prune_char_lm.py --sparsity 0.8 --pattern 8x4 --steps 10000 --bfloat16

is how the pruned weights beside this file were made, in less than an hour on one core; they are
kept as int8, by ``lfk.convert``.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

import lstm_fastkernels as lfk
from char_lm import (
    EMBEDDING_SIZE,
    CharLM,
    bits_per_character,
    load_corpus,
    load_model,
    save_model,
    text_sample,
)
from comparison import (
    SEQUENCE_LENGTH,
    Candidate,
    cpu_name,
    fast_candidate,
    float_bytes,
    measure,
    microseconds,
    print_table,
)
from train_char_lm import Options, add_options, options_from, progress

DENSE = Path(__file__).with_name("char_lm.safetensors")
SPARSITIES = (0.5, 0.8, 0.9)
PATTERNS: dict[str, tuple[int, int] | None] = {
    "8x4": (8, 4),
    "16x32": (16, 32),
    "unstructured": None,
}
DEFAULTS = Options(steps=1000, warmup=100, learning_rate=2e-3)

# How many weights the gates keep, in relation to each other: the cell input needs most of them, as
# pruning with scope="tensor" and the Taylor importance finds.
GATE_WEIGHTS = {"g": 0.48, "o": 0.18, "i": 0.08, "f": 0.06}
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
    add("--plot", type=Path, help="PNG to draw size, speed and accuracy into; needs matplotlib")
    add_options(parser, DEFAULTS)
    return parser.parse_args()


def gate_sparsities(sparsity: float) -> dict[str, float]:
    """Share the weights that stay out to the gates by GATE_WEIGHTS, to each at most all it has."""
    left, weights = 4 * (1 - sparsity), sum(GATE_WEIGHTS.values())
    sparsities = {}
    for gate, weight in GATE_WEIGHTS.items():
        density = min(1.0, left * weight / weights)
        left, weights = left - density, weights - weight
        sparsities |= {f"weight_ih.{gate}": 1 - density, f"weight_hh.{gate}": 1 - density}
    return sparsities


def prune(model: CharLM, arguments: argparse.Namespace, sparsity: float, pattern: str) -> None:
    """Prune the model's LSTM gradually while it is trained; its zeros are permanent then."""
    options = options_from(arguments)
    ramp = max(1, options.steps // 2)
    config = lfk.PruneConfig(
        sparsity=gate_sparsities(sparsity),
        block_size=PATTERNS[pattern],
        importance="taylor",
        schedule=lfk.CubicSchedule(0, ramp, max(1, ramp // RENEWALS)),
    )
    pruner = lfk.prune_(model, config)
    training, _ = load_corpus()
    title = f"{sparsity:.0%} {pattern}"
    for _ in progress(model, training, options, title, lambda: f"{pruner.sparsity:.1%} zeros"):
        pruner.step()
    lfk.remove_pruning_(model)


def train_dense(model: CharLM, arguments: argparse.Namespace) -> None:
    """Train a dense model for as long as the dense and the pruned one were, one after the other."""
    steps = Options().steps + arguments.steps
    options = replace(Options(), steps=steps, bfloat16=arguments.bfloat16)
    training, _ = load_corpus()
    for _ in progress(model, training, options, f"dense, H={model.lstm.hidden_size}"):
        pass


def equally_large(sparsity: float) -> int:
    """Return the hidden size of a dense model with the weights that the sparsity leaves."""
    model = CharLM()
    wanted = (1 - sparsity) * sum(p.numel() for p in model.lstm.parameters() if p.dim() == 2)
    # 4 H (E + H) + 4 H (H + H) weights: 12 H^2 + 4 E H = wanted.
    e = EMBEDDING_SIZE
    return round((math.sqrt(16 * e * e + 48 * wanted) - 4 * e) / 24)


def finish(model: CharLM, path: Path, arguments: argparse.Namespace, sparsity: float) -> None:
    """Evaluate a trained model and save it, its LSTM in blocks where most of them are zero."""
    _, held_out = load_corpus()
    bits = bits_per_character(model.eval(), text_sample(held_out))
    print(f"{path.stem}: {bits:.4f} bits per character on held-out modules", flush=True)
    metadata = {
        "steps": arguments.steps,
        "seed": arguments.seed,
        "sparsity": sparsity,
        "held_out_bits_per_character": f"{bits:.4f}",
    }
    save_model(lfk.convert(model, weights="float32"), path, metadata)


def train_missing(arguments: argparse.Namespace) -> None:
    """Train every model that the folder lacks."""
    arguments.models.mkdir(parents=True, exist_ok=True)
    for sparsity in arguments.sparsity:
        for pattern in arguments.pattern:
            path = model_path(arguments, sparsity, pattern)
            if path.exists():
                continue
            torch.manual_seed(arguments.seed)
            model, _ = load_model(DENSE)
            prune(model.train(), arguments, sparsity, pattern)
            finish(model, path, arguments, sparsity)
        path = model_path(arguments, sparsity, "dense")
        if not path.exists():
            torch.manual_seed(arguments.seed)
            model = CharLM(equally_large(sparsity))
            train_dense(model, arguments)
            finish(model, path, arguments, 0.0)


def model_path(arguments: argparse.Namespace, sparsity: float, pattern: str) -> Path:
    """Return the file of a model: 80-8x4.safetensors, or 80-dense for the one of equal size."""
    return arguments.models / f"{100 * sparsity:.0f}-{pattern}.safetensors"


def candidates(arguments: argparse.Namespace) -> list[Candidate]:
    """Make the rows of the table: each model as it is trained and in int8."""
    model, _ = load_model(DENSE)
    rows = [Candidate("nn.LSTM, float32", model, float_bytes(model.lstm))]
    rows.append(fast_candidate(lfk.convert(model), "dense, int8"))
    for sparsity in arguments.sparsity:
        for pattern in (*arguments.pattern, "dense"):
            model, metadata = load_model(model_path(arguments, sparsity, pattern))
            model.lstm = model.lstm.to_dense()
            name = f"{sparsity:.0%} {pattern}"
            if pattern == "dense":
                name = f"dense, H={model.lstm.hidden_size}"
            name += f" ({metadata['steps']} steps)"
            rows.append(fast_candidate(lfk.convert(model, weights="float32"), f"{name}, float32"))
            rows.append(fast_candidate(lfk.convert(model), f"{name}, int8"))
    return rows


def draw(rows: list[Candidate], path: Path) -> None:
    """Plot bits per character against size and against time, float32 and int8."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    markers = {"8x4": "s", "16x32": "D", "unstructured": "x", "dense": "o"}
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for row in rows:
        pattern = next((p for p in PATTERNS if p in row.name), "dense")
        style = {
            "marker": markers[pattern],
            "color": "tab:orange" if row.name.endswith("int8") else "tab:blue",
        }
        axes[0].plot(row.size / 1e6, row.bits, **style)
        axes[1].plot(microseconds(row.sequence), row.bits, **style)
    for axis, label in zip(axes, ("MB, LSTM as it is run", "us a character, T=100"), strict=True):
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("bits per character, held out")
    handles = [
        pyplot.Line2D([], [], marker=m, color="gray", linestyle="", label=p)
        for p, m in markers.items()
    ]
    handles += [
        pyplot.Line2D([], [], color=c, linewidth=4, label=w)
        for w, c in (("float32", "tab:blue"), ("int8", "tab:orange"))
    ]
    axes[1].legend(handles=handles)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train what is missing, measure everything, draw it."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    train_missing(arguments)

    torch.set_num_threads(1)
    _, held_out = load_corpus()
    sample = text_sample(held_out)
    rows = candidates(arguments)
    inputs = rows[0].model.embedding(sample[:1, :SEQUENCE_LENGTH]).detach()
    print(f"\n{cpu_name()}, one thread; kernels: {lfk.get_isa()}; torch {torch.__version__}\n")
    measure(rows, sample, inputs)
    print_table(rows)
    if arguments.plot:
        draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
