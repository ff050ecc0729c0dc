"""Calls that nn.LSTM refuses, and how a test says what an error must be."""

import pytest
import torch

from cases import Case

CASE = Case(5, 4, 2, T=3, B=2)
X = CASE.x()
H, C = CASE.state()
zeros = torch.zeros

# Where nn.LSTM has no such mistake.
REFUSED = (RuntimeError, ValueError)


def error_of(call):
    try:
        call()
    except Exception as error:
        return error
    return pytest.fail("nothing was raised")


def check(error, kind, *words):
    assert isinstance(error, kind), f"not {kind}: {error!r}"
    for word in words:
        assert word.lower() in str(error).lower(), f"{word!r} is not in: {error}"


# name: the arguments of the call and what its message names: what was expected, what came
BAD_CALLS = {
    "feature size": ((zeros(3, 2, 6),), "5", "6"),
    "feature size unbatched": ((zeros(3, 6),), "5", "6"),
    "1-D input": ((zeros(5),), "2D or 3D", "1D"),
    "4-D input": ((zeros(1, 3, 2, 5),), "2D or 3D", "4D"),
    "float64": ((X.double(),), "float64", ".float()"),
    "integers": ((X.long(),), "int64", "float32"),
    "another device": ((X.to("meta"),), "meta", "cpu"),
    "no time steps": ((X[:0],), "sequence length"),
    "no time steps unbatched": ((X[:0, 0],), "sequence length"),
    "h0 batch": ((X, (zeros(2, 3, 4), C)), "hidden[0]", "(2, 2, 4)", "2, 3, 4"),
    "c0 batch": ((X, (H, zeros(2, 3, 4))), "hidden[1]", "(2, 2, 4)", "2, 3, 4"),
    "h0 layers": ((X, (zeros(1, 2, 4), C)), "hidden[0]", "(2, 2, 4)", "1, 2, 4"),
    "h0 size": ((X, (zeros(2, 2, 7), C)), "hidden[0]", "(2, 2, 4)", "2, 2, 7"),
    "2-D state": ((X, (H[:, 0], C[:, 0])), "3-D", "2-D"),
    "3-D state unbatched": ((X[:, 0], (H, C)), "2-D", "3-D"),
    "three states": ((X, (H, C, C)), "two"),
    "one tensor as state": ((X, H[0]), ""),
    "float64 state": ((X, (H.double(), C.double())), "float64"),
    "float64 c0": ((X, (H, C.double())), "float64"),
    "state elsewhere": ((X, (H.to("meta"), C.to("meta"))), "meta", "cpu"),
}
