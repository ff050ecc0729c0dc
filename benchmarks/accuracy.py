"""The accuracy of random LSTMs as we and other quantizers quantize them: docs/accuracy.md.

python benchmarks/accuracy.py --json out.json --markdown out.md
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import lstm_fastkernels as lfk
from measuring import publish, snr_db, surroundings
from quantizers import Quantizer, available_quantizers
from report import table

# Arguments of nn.LSTM.
SHAPES: dict[str, dict[str, Any]] = {
    "40 -> 128": {"input_size": 40, "hidden_size": 128},
    "256 -> 512": {"input_size": 256, "hidden_size": 512},
    "512 -> 1024": {"input_size": 512, "hidden_size": 1024},
    **{
        f"80 -> 256, {layers} layers": {"input_size": 80, "hidden_size": 256, "num_layers": layers}
        for layers in range(1, 7)
    },
    "65 -> 151, 2 layers": {"input_size": 65, "hidden_size": 151, "num_layers": 2},
    "128 -> 256, 2 layers, bidirectional": {
        "input_size": 128,
        "hidden_size": 256,
        "num_layers": 2,
        "bidirectional": True,
    },
    "40 -> 128, projected to 64": {"input_size": 40, "hidden_size": 128, "proj_size": 64},
    "40 -> 128, projected to 64, bidirectional": {
        "input_size": 40,
        "hidden_size": 128,
        "proj_size": 64,
        "bidirectional": True,
    },
}
WEIGHTS = {
    "normal": "normal-distributed weights, as trained ones are",
    "uniform": "weights as nn.LSTM initializes them",
}
STEPS, ROWS = 100, 4
SEEDS = range(3)

OURS = {
    "ours int8": {},
    "pair_safe=False": {"pair_safe": False},
    "mixed": {"activations": "mixed"},
    "int16": {"activations": "int16"},
    "int4": {"activations": "int4"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    cases = [(weights, shape) for weights in WEIGHTS for shape in SHAPES]
    report = {
        **surroundings(),
        "isa": lfk.get_isa(),
        "steps": STEPS,
        "rows": ROWS,
        "seeds": len(SEEDS),
        "cases": [
            {"weights": weights, "shape": shape, "snr_db": measure(weights, shape)}
            for weights, shape in tqdm(cases, leave=False, disable=None)
        ],
    }
    publish(arguments, report, markdown(report))


def measure(weights: str, shape: str) -> dict[str, list[float]]:
    """By quantizer, the SNR in dB of the outputs of each seed's model."""
    rows: dict[str, list[float]] = {}
    for seed in SEEDS:
        lstm, x = random_lstm(weights, shape, seed)
        expected = exact(lstm, x)
        for name, quantize in (ours() | available_quantizers(lstm)).items():
            rows.setdefault(name, []).append(snr_db(outputs(quantize(lstm), x), expected))
    return rows


def random_lstm(weights: str, shape: str, seed: int) -> tuple[nn.LSTM, torch.Tensor]:
    """A model of WEIGHTS and SHAPES, and its input [STEPS, ROWS, I]."""
    torch.manual_seed(seed)
    lstm = nn.LSTM(**SHAPES[shape]).eval().requires_grad_(False)
    if weights == "normal":
        for parameter in lstm.parameters():
            nn.init.normal_(parameter, std=(3 * lstm.hidden_size) ** -0.5)
    return lstm, torch.randn(STEPS, ROWS, lstm.input_size)


def ours() -> dict[str, Quantizer]:
    return {
        name: partial(lfk.FastQuantLSTM.from_float, **options) for name, options in OURS.items()
    }


def exact(lstm: nn.LSTM, x: torch.Tensor) -> np.ndarray:
    """The outputs of nn.LSTM in float64."""
    return outputs(copy.deepcopy(lstm).double(), x.double())


@torch.inference_mode()
def outputs(lstm: nn.Module, x: torch.Tensor) -> np.ndarray:
    """What an LSTM gives, in float64."""
    return lstm(x)[0].double().numpy()


def markdown(report: dict[str, Any]) -> str:
    """A table for each kind of weights."""
    names = list(dict.fromkeys(name for case in report["cases"] for name in case["snr_db"]))
    sections = []
    for weights, description in WEIGHTS.items():
        rows = [
            [case["shape"], *(show(case["snr_db"].get(name, [])) for name in names)]
            for case in report["cases"]
            if case["weights"] == weights
        ]
        sections.append(f"With {description}:\n\n{table(['LSTM', *names], rows)}\n")
    return "\n".join(sections)


def show(snr: list[float]) -> str:
    """The mean of the seeds, and how far they are from it."""
    return f"{np.mean(snr):.1f} ± {np.ptp(snr) / 2:.1f}" if snr else ""


if __name__ == "__main__":
    main()
