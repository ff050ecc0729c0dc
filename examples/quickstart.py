"""Swap nn.LSTM for FastQuantLSTM in a trained model, measure it, and let it write some Python.

    python examples/quickstart.py

The model is a character language model with two LSTM layers (``train_char_lm.py`` trained it); the
text is the Python standard library of this machine. The swap is one line:

    model.lstm = lfk.FastQuantLSTM.from_float(model.lstm)

or, for every nn.LSTM in a model, ``model = lfk.convert(model)``, which returns a copy. With some
inputs to calibrate with, the outputs come closer to the float model's:

    lfk.quantize_(model, lfk.Int8Config(), calibration=batches)
"""

import copy
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import lstm_fastkernels as lfk
from char_lm import (
    HIDDEN_SIZE,
    CharLM,
    decode,
    encode,
    load_corpus,
    load_model,
    text_sample,
)
from comparison import (
    SEQUENCE_LENGTH,
    Candidate,
    cpu_name,
    fast_candidate,
    float_bytes,
    measure,
    print_table,
)

WEIGHTS = Path(__file__).with_name("char_lm.safetensors")
PRUNED_WEIGHTS = Path(__file__).with_name("char_lm_pruned.safetensors")
PROMPT = "class Parser:\n    def __init__(self, "
LINES_TO_WRITE = 12
LONGEST_TEXT = 800
TEMPERATURE = 0.5
SEED = 4


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


def calibrated(
    model: CharLM, config: lfk.Int8Config | lfk.Int4Config, training: list[Tensor]
) -> CharLM:
    """Quantize a copy of the model, with 16 pieces of the training text to calibrate with."""
    model = copy.deepcopy(model)
    batches = text_sample(training, 16, 512)[:, :-1].split(4)
    lfk.quantize_(model, config, calibration=batches)
    return model


def make_candidates(model: CharLM, training: list[Tensor]) -> list[Candidate]:
    """Make the rows of the table, the float model first."""
    dynamic = quantize_dynamic(model)
    pruned, metadata = load_model(PRUNED_WEIGHTS)
    zeros = f"{float(metadata['sparsity']):.0%} zeros"
    wide = lfk.convert(model, activations="int16")
    in8 = calibrated(model, lfk.Int8Config(), training)
    in4 = calibrated(model, lfk.Int4Config(), training)
    return [
        Candidate("nn.LSTM, float32", model, float_bytes(model.lstm)),
        Candidate("torch.ao quantize_dynamic", dynamic, saved_size(dynamic.lstm) if dynamic else 0),
        fast_candidate(lfk.convert(model), "FastQuantLSTM, int8"),
        fast_candidate(in8, "FastQuantLSTM, int8, calibrated"),
        fast_candidate(in4, "FastQuantLSTM, int4, calibrated"),
        fast_candidate(wide, "FastQuantLSTM, int16 activations"),
        fast_candidate(pruned, f"FastQuantLSTM, int8, {zeros}"),
    ]


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
    training, held_out = load_corpus()
    sample = text_sample(held_out)
    inputs = model.embedding(sample[:1, :SEQUENCE_LENGTH]).detach()
    candidates = make_candidates(model, training)

    print(f"{cpu_name()}, one thread; kernels: {lfk.get_isa()}; torch {torch.__version__}")
    print(f"2 LSTM layers of {HIDDEN_SIZE} units, trained on the {metadata['corpus']};")
    print(f"tested on {sample[:, 1:].numel():,} characters of modules it has never seen\n")
    measure(candidates, sample, inputs)
    print_table(candidates)

    print(f"\nThe int8 model writes Python, one character at a time (temperature {TEMPERATURE}):\n")
    write_python(lfk.convert(model))


if __name__ == "__main__":
    main()
