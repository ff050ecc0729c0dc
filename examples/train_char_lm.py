"""Train the quickstart's character language model on the sources of the Python standard library.

    python examples/train_char_lm.py --bfloat16 --threads 1

is how the weights beside this file were made, in about an hour on one core of a CPU that has
bfloat16 instructions.

Truncated backpropagation through time: the text is cut into ``--batch-size`` parallel streams, each
step reads the next ``--sequence-length`` characters of all of them, and the state is carried from
step to step. The evaluation is in float32.
"""

import argparse
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import lstm_fastkernels as lfk
from char_lm import (
    HIDDEN_SIZE,
    CharLM,
    State,
    bits_per_character,
    load_corpus,
    save_model,
    text_sample,
)

MINIMUM_RATE = 0.01  # where the cosine ends, as a share of the peak learning rate


@dataclass(frozen=True)
class Options:
    """How to train; the defaults made the weights beside this file."""

    steps: int = 13000
    warmup: int = 200
    batch_size: int = 32
    sequence_length: int = 100
    learning_rate: float = 3e-3
    scale_rate: float = 1.0
    weight_decay: float = 0.01
    beta2: float = 0.999
    clip: float = 1.0
    bfloat16: bool = False


def add_options(parser: argparse.ArgumentParser, defaults: Options) -> None:
    """Let the command line set what Options has, and what torch needs."""
    add = parser.add_argument
    add("--steps", type=int, default=defaults.steps, help="optimizer steps")
    add("--warmup", type=int, default=defaults.warmup, help="steps until the learning rate peaks")
    add("--batch-size", type=int, default=defaults.batch_size, help="parallel streams of text")
    add(
        "--sequence-length",
        type=int,
        default=defaults.sequence_length,
        help="characters of each stream in a step",
    )
    add("--learning-rate", type=float, default=defaults.learning_rate, help="its peak")
    add(
        "--scale-rate",
        type=float,
        default=defaults.scale_rate,
        help="how much faster scales of quantized weights are learned",
    )
    add("--weight-decay", type=float, default=defaults.weight_decay, help="of AdamW")
    add("--beta2", type=float, default=defaults.beta2, help="of AdamW")
    add("--clip", type=float, default=defaults.clip, help="largest norm of the gradient")
    add("--bfloat16", action="store_true", help="multiply in bfloat16, where the CPU is good at it")
    add("--seed", type=int, default=0, help="of the weights and of the order of the modules")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch")


def options_from(arguments: argparse.Namespace) -> Options:
    """Take the Options out of the command line."""
    return Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train the character language model of the quickstart.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path(__file__).with_name("char_lm.safetensors"), help="weights")
    add("--hidden-size", type=int, default=HIDDEN_SIZE, help="units of each of the two layers")
    add("--save-every", type=int, default=1000, help="steps between evaluations and checkpoints")
    add_options(parser, Options())
    return parser.parse_args()


def batches(modules: list[Tensor], batch_size: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, targets) [batch_size, length] without end.

    Row k continues row k of the batch before. Each pass joins the modules in a new random order.
    """
    while True:
        order = torch.randperm(len(modules)).tolist()
        tokens = torch.cat([modules[k] for k in order])
        streams = tokens[: len(tokens) // batch_size * batch_size].view(batch_size, -1)
        for start in range(0, streams.size(1) - length, length):
            yield streams[:, start : start + length], streams[:, start + 1 : start + length + 1]


def rate_at(step: int, warmup: int, steps: int) -> float:
    """Return the share of the peak rate: linear warmup, then a cosine down to MINIMUM_RATE."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return MINIMUM_RATE + (1 - MINIMUM_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: CharLM, modules: list[Tensor], options: Options, teacher: CharLM | None = None
) -> Iterator[float]:
    """Train the model; after each optimizer step, yield the loss in bits per character.

    With a teacher the loss is the distance from its distributions, without labels.
    """
    device = model.output.weight.device
    scales, others = [], []
    for name, parameter in model.named_parameters():
        (scales if name.endswith("log2_gain") else others).append(parameter)
    rate = options.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": others, "lr": rate},
            {"params": scales, "lr": rate * options.scale_rate},
        ],
        betas=(0.9, options.beta2),
        weight_decay=options.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, options.warmup, options.steps)
    )
    text = batches(modules, options.batch_size, options.sequence_length)
    state: State | None = None
    taught: State | None = None  # the teacher's state
    for _ in range(options.steps):
        inputs, targets = (part.to(device) for part in next(text))
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
            logits, (h, c) = model(inputs, state)
            if teacher is None:
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            else:
                with torch.no_grad():
                    expected, taught = teacher(inputs, taught)
                loss = lfk.distillation_loss(logits, expected, temperature=1.0)
        state = h.detach(), c.detach()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        schedule.step()
        yield loss.item() / math.log(2)


def progress(
    model: CharLM,
    modules: list[Tensor],
    options: Options,
    title: str,
    note: Callable[[], str] = str,
    teacher: CharLM | None = None,
) -> Iterator[float]:
    """Train the model behind a progress bar with the loss and a note; yield after each step."""
    steps = tqdm(
        train(model, modules, options, teacher),
        total=options.steps,
        desc=title,
        unit="step",
        dynamic_ncols=True,
    )
    for step, loss in enumerate(steps, start=1):
        yield loss
        if step % 10 == 0:
            steps.set_postfix_str(f"{loss:.3f} bits/char {note()}", refresh=False)


def main() -> None:
    """Train, evaluate and save from time to time."""
    arguments = parse_arguments()
    options = options_from(arguments)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)

    training, held_out = load_corpus()
    sample = text_sample(held_out)
    train_size, held_out_size = (sum(map(len, modules)) for modules in (training, held_out))
    print(f"{train_size:,} characters to train on, {held_out_size:,} held out")

    model = CharLM(arguments.hidden_size)
    for step, _ in enumerate(progress(model, training, options, "training"), start=1):
        if step % arguments.save_every == 0 or step == options.steps:
            bits = f"{bits_per_character(model, sample):.4f}"
            tqdm.write(f"step {step}: {bits} bits per character on held-out modules")
            metadata = {
                "steps": step,
                "seed": arguments.seed,
                "held_out_bits_per_character": bits,
                "corpus": f"standard library of Python {platform.python_version()}",
            }
            save_model(model, arguments.out, metadata)


if __name__ == "__main__":
    main()
