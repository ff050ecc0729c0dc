"""The NumPy runtime beside the torch modules."""

import numpy as np
import torch

from cases import Case, assert_same
from isas import everywhere

CASE = Case(9, 31, 2, proj_size=13, T=7, B=5)


def state_of(lstm, values):
    """A state with these h and c, [layers, B, size]."""
    h, c = values
    state = lstm.state(h.shape[1])
    state.h[...], state.c[...] = h, c
    return state


def result(y, state):
    """As the modules return it: (y, (h, c)) of tensors."""
    return tuple(map(torch.from_numpy, (y, state.h, state.c)))


def forward(lstm, x, values, **options):
    """y, h, c."""
    state = state_of(lstm, values)
    return result(lstm.forward(x, state, **options), state)


def check(lstm, x, values, expected, message="", **options):
    y, h, c = everywhere(forward)(lstm, x, values, **options)
    assert_same((y, (h, c)), expected, message)


def same_state(a, b):
    return np.array_equal(a.h, b.h) and np.array_equal(a.c, b.c)
