"""Say how well a model predicts a text, one character a call: what the C++ example does.

    python examples/score_char_lm.py build/char_lm_int8.safetensors < build/held_out.txt

The output layer and the probabilities are in float64, as there.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from char_lm import CharLM, encode, load_model


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Say how well a model predicts the text on standard input."
    )
    parser.add_argument("model", type=Path, help="file that export_char_lm.py wrote")
    return parser.parse_args()


@torch.inference_mode()
def score(model: CharLM, tokens: Tensor) -> tuple[float, float, float]:
    """Return bits per character, and the median seconds of an LSTM step and of a character."""
    weight, bias = model.output.weight.double(), model.output.bias.double()
    state = None
    nats = 0.0
    step_times, times = [], []
    for token, following in zip(tokens[None, :-1].split(1, 1), tokens[1:].tolist(), strict=True):
        begin = time.perf_counter()
        embedded = model.embedding(token)
        step_begin = time.perf_counter()
        hidden, state = model.lstm(embedded, state)
        step_end = time.perf_counter()
        logits = F.linear(hidden[0, 0].double(), weight, bias)
        nats -= logits.log_softmax(0)[following].item()
        times.append(time.perf_counter() - begin)
        step_times.append(step_end - step_begin)
    bits = nats / len(times) / math.log(2)
    return bits, statistics.median(step_times), statistics.median(times)


def main() -> None:
    """Load, score, print."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    model, _ = load_model(arguments.model)
    tokens = encode(sys.stdin.buffer.read().decode("utf-8", "replace"))
    if len(tokens) < 2:
        sys.exit("the text has fewer than two characters: nothing to predict")
    bits, step, character = score(model, tokens)
    print(f"{bits:.6f} bits per character\n{len(tokens) - 1} characters")
    print(f"{1e6 * step:.2f} us an LSTM step, {1e6 * character:.2f} us a character (medians)")


if __name__ == "__main__":
    main()
