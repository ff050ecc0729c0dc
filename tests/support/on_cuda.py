"""The same module on the CPU and on CUDA."""

import copy
from dataclasses import replace

from cases import Case, assert_same, moved

CASE = Case(9, 31, 2, T=5, B=3)
STACKS = [
    CASE,
    replace(CASE, proj_size=13, T=70, B=6),
    replace(CASE, bidirectional=True, batch_first=True, T=70, B=6, bias=False),
]


def both(fast):
    """A module on the CPU and its twin on CUDA."""
    return fast, copy.deepcopy(fast).cuda()


def check(modules, *arguments, lengths=None, message=""):
    """The twin on CUDA gives what the module on the CPU gives; returns it."""
    on_cpu, fast = modules
    expected = on_cpu(*arguments, lengths=lengths)
    result = fast(*(moved(a, "cuda") for a in arguments), lengths=lengths)
    assert {tensor.device.type for tensor in (result[0], *result[1])} == {"cuda"}
    assert_same(moved(result, "cpu"), expected, message)
    return result
