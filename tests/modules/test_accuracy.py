"""SNR against float64, compared with what the numeric contract can give."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from accuracy import exact, outputs, random_lstm
from cases import by_contract
from isas import everywhere

T, B = 100, 1
BANDS = {"int8": (37, 44), "int16": (41.5, 49)}  # dB, what the contract gives in float64

# dB, the least for int8 without data; by weights and shape, as benchmarks/accuracy.py has them.
LEAST = {
    ("normal", "80 -> 256, 4 layers"): 45,
    ("normal", "80 -> 256, 6 layers"): 45,
    ("normal", "65 -> 151, 2 layers"): 37,
    ("normal", "128 -> 256, 2 layers, bidirectional"): 37.5,
    ("uniform", "40 -> 128, projected to 64"): 40,
    ("uniform", "40 -> 128, projected to 64, bidirectional"): 40,
}


def snr(actual, exact):
    return 10 * np.log10(np.sum(exact**2) / np.sum((actual - exact) ** 2))


@cache
def workload(hidden_size, weights, activations):
    """The module, its input, the float64 output and the SNR of the contract in float64."""
    torch.manual_seed(hidden_size)
    lstm = nn.LSTM(hidden_size // 2, hidden_size)
    if weights == "normal":
        for parameter in lstm.parameters():
            nn.init.normal_(parameter, std=(3 * hidden_size) ** -0.5)
    x = torch.randn(T, B, lstm.input_size)
    fast = lfk.FastQuantLSTM.from_float(lstm, activations=activations)
    expected = exact(lstm, x)
    return fast, x, expected, snr(by_contract(fast, x.double())[0].numpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["normal", "uniform"])
@pytest.mark.parametrize("hidden_size", [128, 512, 1024])
def test_snr_is_that_of_the_contract(hidden_size, weights, activations):
    fast, x, expected, best = workload(hidden_size, weights, activations)
    low, high = BANDS[activations]
    assert low <= best <= high
    assert snr(outputs(fast, x), expected) >= best - 0.5
    everywhere(fast)(x[:5])


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "shape"), LEAST)
def test_stacks_directions_and_projections(weights, shape):
    lstm, x = random_lstm(weights, shape, seed=0)
    fast = lfk.FastQuantLSTM.from_float(lstm)
    assert snr(outputs(fast, x), exact(lstm, x)) >= LEAST[weights, shape]
