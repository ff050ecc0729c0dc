"""Character models side by side: size, accuracy and speed, measured and printed."""

import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from char_lm import CharLM, bits_per_character

ROUNDS = 25
STREAMED_CHARACTERS = 40  # timed in each round, in calls of one character
SEQUENCE_LENGTH = 100
SEQUENCES = 4  # timed in each round


@dataclass
class Candidate:
    """One row of the table. The model is None where this torch cannot make it."""

    name: str
    model: CharLM | None
    size: int = 0  # bytes
    bits: float = 0.0
    streaming: list[float] = field(default_factory=list)  # seconds a character, one figure a round
    sequence: list[float] = field(default_factory=list)


def fast_candidate(fast: CharLM, name: str) -> Candidate:
    """Make a row for a model with a fast LSTM in it."""
    return Candidate(name, fast, fast.lstm.packed_bytes())


def float_bytes(lstm: nn.LSTM) -> int:
    """Return the bytes of an nn.LSTM's parameters."""
    return sum(parameter.nbytes for parameter in lstm.parameters())


def cpu_name() -> str:
    """Return the CPU's name as the operating system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def time_streaming(lstm: nn.Module, inputs: Tensor) -> float:
    """Return the seconds a character when each comes in a call of its own, the state carried."""
    steps = inputs[:, :STREAMED_CHARACTERS].split(1, dim=1)
    _, state = lstm(steps[0])
    start = time.perf_counter()
    for step in steps:
        _, state = lstm(step, state)
    return (time.perf_counter() - start) / len(steps)


def time_sequence(lstm: nn.Module, inputs: Tensor) -> float:
    """Return the seconds a character when SEQUENCE_LENGTH characters come in one call."""
    start = time.perf_counter()
    for _ in range(SEQUENCES):
        lstm(inputs)
    return (time.perf_counter() - start) / (SEQUENCES * inputs.size(1))


@torch.inference_mode()
def measure(candidates: list[Candidate], sample: Tensor, inputs: Tensor) -> None:
    """Fill in bits and times.

    A round times every candidate, so that a slow moment of the machine hits all of them alike.
    """
    present = [(c, c.model) for c in candidates if c.model is not None]
    with tqdm(total=len(present) + ROUNDS, desc="measuring", leave=False, disable=None) as progress:
        for candidate, model in present:
            candidate.bits = bits_per_character(model, sample)
            progress.update()
        for _ in range(ROUNDS):
            for candidate, model in present:
                candidate.streaming.append(time_streaming(model.lstm, inputs))
                candidate.sequence.append(time_sequence(model.lstm, inputs))
            progress.update()


def microseconds(seconds: list[float]) -> float:
    """Return the median of some times."""
    return statistics.median(seconds) * 1e6


def print_table(candidates: list[Candidate]) -> None:
    """Print one line a candidate; speed-ups are against the first one."""
    sequence = f"sequence, T={SEQUENCE_LENGTH}"
    print(f"{'':39}{'':6}{'bits per':>10}{'streaming, T=1':>22}{sequence:>22}")
    print(f"{'':39}{'MB':>6}{'character':>10}" + 2 * f"{'us/char':>12}{'speed-up':>10}")
    for candidate in candidates:
        line = f"{candidate.name:39}"
        if candidate.model is None:
            print(line + "  not available in this torch")
            continue
        line += f"{candidate.size / 1e6:6.2f}{candidate.bits:10.4f}"
        for mode in ("streaming", "sequence"):
            time_taken = microseconds(getattr(candidate, mode))
            reference = microseconds(getattr(candidates[0], mode))
            line += f"{time_taken:12.1f}{reference / time_taken:9.1f}x"
        print(line)
