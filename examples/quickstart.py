"""Swap nn.LSTM for FastQuantLSTM in a trained model, measure it, and let it write some Python.

    python examples/quickstart.py

The model is a character language model with two LSTM layers (``train_char_lm.py`` trained it); the
text is the Python standard library of this machine. The swap is one line:

    model.lstm = lfk.FastQuantLSTM.from_float(model.lstm)

or, for every nn.LSTM in a model, ``model = lfk.convert(model)``, which returns a copy.
"""

import copy
import io
import platform
import statistics
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import lstm_fastkernels as lfk
from char_lm import (
    HIDDEN_SIZE,
    CharLM,
    bits_per_character,
    decode,
    encode,
    held_out_sample,
    load_corpus,
    load_model,
)

WEIGHTS = Path(__file__).with_name("char_lm.safetensors")
ROUNDS = 25
STREAMED_CHARACTERS = 40  # timed in each round, in calls of one character
SEQUENCE_LENGTH = 100
SEQUENCES = 4  # timed in each round

PROMPT = "class Parser:\n    def __init__(self, "
LINES_TO_WRITE = 12
LONGEST_TEXT = 800
TEMPERATURE = 0.5
SEED = 4


@dataclass
class Candidate:
    """One row of the table. The model is None where this torch cannot make it."""

    name: str
    model: CharLM | None
    size: int = 0  # bytes
    bits: float = 0.0
    streaming: list[float] = field(default_factory=list)  # seconds a character, one figure a round
    sequence: list[float] = field(default_factory=list)


def cpu_name() -> str:
    """Return the CPU's name as the operating system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def quantize_dynamic(model: CharLM) -> CharLM | None:
    """Quantize the LSTM as torch does; None where this deprecated part of torch is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torch.ao import quantization

            quantized: CharLM = quantization.quantize_dynamic(model, {nn.LSTM}, dtype=torch.qint8)
            return quantized
        except (ImportError, AttributeError, RuntimeError):
            return None


def saved_size(module: nn.Module) -> int:
    """Return the bytes of saved weights; torch's packed ones tell their size in no other way."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(module.state_dict(), buffer)
    return buffer.tell()


def swap(model: CharLM, name: str, activations: str) -> Candidate:
    """Put FastQuantLSTM where nn.LSTM is, in a copy of the model."""
    swapped = copy.deepcopy(model)
    swapped.lstm = fast = lfk.FastQuantLSTM.from_float(model.lstm, activations=activations)
    return Candidate(name, swapped, fast.packed_bytes())


def make_candidates(model: CharLM) -> list[Candidate]:
    """Make the rows of the table, the float model first."""
    float_size = sum(4 * parameter.numel() for parameter in model.lstm.parameters())
    dynamic = quantize_dynamic(model)
    return [
        Candidate("nn.LSTM, float32", model, float_size),
        Candidate("torch.ao quantize_dynamic", dynamic, saved_size(dynamic.lstm) if dynamic else 0),
        swap(model, "FastQuantLSTM, int8", "int8"),
        swap(model, "FastQuantLSTM, int16 activations", "int16"),
    ]


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
    print(f"{'':33}{'':6}{'bits per':>10}{'streaming, T=1':>22}{sequence:>22}")
    print(f"{'':33}{'MB':>6}{'character':>10}" + 2 * f"{'us/char':>12}{'speed-up':>10}")
    for candidate in candidates:
        line = f"{candidate.name:33}"
        if candidate.model is None:
            print(line + "  not available in this torch")
            continue
        line += f"{candidate.size / 1e6:6.2f}{candidate.bits:10.4f}"
        for mode in ("streaming", "sequence"):
            time_taken = microseconds(getattr(candidate, mode))
            reference = microseconds(getattr(candidates[0], mode))
            line += f"{time_taken:12.1f}{reference / time_taken:9.1f}x"
        print(line)


@torch.inference_mode()
def write_python(model: CharLM) -> None:
    """Let the model continue PROMPT; each character is printed when drawn, and fed back (T=1)."""
    generator = torch.Generator().manual_seed(SEED)
    print(PROMPT, end="")
    logits, state = model(encode(PROMPT)[None])
    lines = 0
    for _ in range(LONGEST_TEXT):
        token = torch.multinomial((logits[0, -1] / TEMPERATURE).softmax(0), 1, generator=generator)
        character = decode(int(token))
        print(character, end="", flush=True)
        lines += character == "\n"
        if lines == LINES_TO_WRITE:
            break
        logits, state = model(token[None], state)
    print()


def main() -> None:
    """Load, compare, write."""
    torch.set_num_threads(1)
    model, metadata = load_model(WEIGHTS)
    _, held_out = load_corpus()
    sample = held_out_sample(held_out)
    inputs = model.embedding(sample[:1, :SEQUENCE_LENGTH]).detach()
    candidates = make_candidates(model)

    print(f"{cpu_name()}, one thread; kernels: {lfk.get_isa()}; torch {torch.__version__}")
    print(f"2 LSTM layers of {HIDDEN_SIZE} units, trained on the {metadata['corpus']};")
    print(f"tested on {sample[:, 1:].numel():,} characters of modules it has never seen\n")
    measure(candidates, sample, inputs)
    print_table(candidates)

    print(f"\nThe int8 model writes Python, one character at a time (temperature {TEMPERATURE}):\n")
    write_python(lfk.convert(model))


if __name__ == "__main__":
    main()
