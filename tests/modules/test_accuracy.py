"""SNR against float64, compared with what the numeric contract can give."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import by_contract
from isas import everywhere

T, B = 100, 1
BANDS = {"int8": (37, 44), "int16": (41.5, 49)}  # dB, what the contract gives in float64


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
    with torch.no_grad():
        exact = lstm.double()(x.double())[0].numpy()
    return fast, x, exact, snr(by_contract(fast, x.double())[0].numpy(), exact)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["normal", "uniform"])
@pytest.mark.parametrize("hidden_size", [128, 512, 1024])
def test_snr_is_that_of_the_contract(hidden_size, weights, activations):
    fast, x, exact, expected = workload(hidden_size, weights, activations)
    low, high = BANDS[activations]
    assert low <= expected <= high
    assert snr(fast(x)[0].numpy(), exact) >= expected - 0.5
    everywhere(fast)(x[:5])
