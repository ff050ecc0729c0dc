"""Streaming for a long time: the error against float64 does not grow."""

from functools import cache

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk

STEPS, CALL = 100_000, 50
BLOCK = 200  # steps, ten times the memory of the slowest unit: means of blocks are independent


@cache
def streamed():
    """An LSTM whose units forget 50% to 5% of c a step, its input, and its float64 output."""
    torch.manual_seed(0)
    lstm = nn.LSTM(32, 64).requires_grad_(False)
    for parameter in lstm.parameters():
        nn.init.normal_(parameter, std=(3 * lstm.hidden_size) ** -0.5)
    lstm.bias_ih_l0.chunk(4)[1].copy_(torch.linspace(0, 3, lstm.hidden_size))
    x = torch.randn(STEPS, 1, lstm.input_size)
    return lstm, x, lstm.double()(x.double())[0]


@pytest.mark.slow
def test_the_error_does_not_grow(activations):
    lstm, x, exact = streamed()
    fast = lfk.FastQuantLSTM.from_float(lstm.float(), activations=activations)
    state, outputs = None, []
    for steps in x.split(CALL):
        y, state = fast(steps, state)
        outputs.append(y)
    squares = (torch.cat(outputs) - exact).square().mean((1, 2))
    first, *_, last = squares.view(10, -1, BLOCK).mean(2)
    # Of the difference between two means of blocks: five standard errors.
    margin = 5 * ((first.var() + last.var()) / len(first)).sqrt()
    assert last.mean() <= first.mean() + margin
