"""Instruction sets, side by side inside a test: what it says of one result holds for all."""

from contextlib import contextmanager

import numpy as np
import torch

import lstm_fastkernels as lfk

try:
    from lstm_fastkernels import runtime

    CHOOSERS = [lfk, runtime]
except ImportError:  # a build without the NumPy runtime
    CHOOSERS = [lfk]


@contextmanager
def chosen(isa):
    """With this instruction set in use, by the torch ops and the NumPy runtime."""
    before = [(module, module.get_isa()) for module in CHOOSERS]
    try:
        for module in CHOOSERS:
            module.set_isa(isa)
        yield
    finally:
        for module, name in before:
            module.set_isa(name)


def everywhere(call):
    """`call` under each instruction set: its result under the first, the plain loops, from which
    none of the others' may differ by a bit."""

    def run(*arguments, **options):
        first, *others = lfk.supported_isas()
        with chosen(first):
            expected = call(*arguments, **options)
        for isa in others:
            with chosen(isa):
                assert_same_bits(call(*arguments, **options), expected, isa)
        return expected

    return run


def assert_same_bits(actual, expected, message=""):
    """Tensors, arrays and tuples of them are equal bit by bit, signs of zeros included; a NaN
    equals any other."""
    assert type(actual) is type(expected), f"{message}: {type(actual)}, not {type(expected)}"
    if isinstance(expected, tuple):
        for n, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert_same_bits(a, e, f"{message}[{n}]")
    elif isinstance(expected, np.ndarray):
        assert_same_bits(torch.from_numpy(actual), torch.from_numpy(expected), message)
    elif isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype, f"{message}: {actual.dtype}, not {expected.dtype}"
        assert actual.shape == expected.shape, f"{message}: {actual.shape}, not {expected.shape}"
        equal = (actual == expected) & (actual.signbit() == expected.signbit())
        different = ~(equal | (actual.isnan() & expected.isnan()))
        assert not different.any(), (
            f"{message}: {int(different.sum())} of {different.numel()} elements differ,"
            f" first at {different.nonzero()[0].tolist()}"
        )
    else:
        assert actual == expected, message
