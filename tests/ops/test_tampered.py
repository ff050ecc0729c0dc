"""Packed weights that someone changed, as in an exported program: refused or read within bounds."""

import re

import pytest
import torch

from bad_calls import REFUSED
from cases import KINDS, Case
from isas import everywhere

HEADER, RECORD, SLICE = 64, 256, 16


def run(case, packed):
    """The op's y, or the message of the error that refuses the weights."""
    try:
        return torch.ops.lstm_fastkernels.lstm(
            case.x(), None, None, None, packed, case.shape(), False
        )[0]
    except REFUSED as error:
        return str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_changed_words(kind):
    case = Case(5, 9, T=2, B=1, **KINDS[kind])
    packed = case.fast().packed
    named = set()
    for offset in range(HEADER + RECORD, len(packed), 4):
        changed = packed.clone()
        changed[offset : offset + 4] = 0x7F
        message = everywhere(run)(case, changed)
        if isinstance(message, str):
            named |= set(re.findall(r"packed weights: (\w+): ", message)) or {message}
    assert named <= {"weight_ih_l0", "weight_hh_l0", "bias_l0"}
    assert len(named) == 3 or kind in ("int8", "int16")


@pytest.mark.parametrize("kind", ["int8-sparse", "int16-sparse", "float32"])
def test_indices_beyond_the_matrix(kind):
    """A slice that starts elsewhere, one without an end, a strip and a column that do not exist."""
    case = Case(5, 9, T=2, B=1, **KINDS[kind])
    slices = HEADER + RECORD
    columns = slices + 64  # of 8 strips: one slice, and the next multiple of 64
    for offset, count in ((slices, 4), (slices + 4, 4), (slices + 8, 1), (columns, 2)):
        changed = case.fast().packed.clone()
        changed[offset : offset + count] = 0xFF
        message = everywhere(run)(case, changed)
        assert "packed weights: weight_ih_l0: " in message


def test_good_weights_stay_good():
    """A refusal is not remembered, nor are good weights forgotten by one."""
    case = Case(5, 9, T=2, B=1, **KINDS["float32"])
    packed = case.fast().packed
    expected = run(case, packed)
    changed = packed.clone()
    changed[HEADER + RECORD] = 0xFF
    for _ in range(2):
        assert "weight_ih_l0" in run(case, changed)
        assert torch.equal(run(case, packed), expected)
    changed.copy_(packed)
    assert torch.equal(run(case, changed), expected)
