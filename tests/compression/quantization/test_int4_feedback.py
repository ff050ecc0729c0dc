"""Rounding to 4 bits with error feedback: what it minimizes, and what it must keep."""

import math

import pytest
import torch

from lstm_fastkernels.compression.quantization import int4_feedback
from lstm_fastkernels.compression.quantization.int4_feedback import round_groups_with_feedback
from lstm_fastkernels.weights.int4 import (
    GROUP_SIZES,
    INT4_MAX,
    INT4_MIN,
    quantize_groups,
    unpack_int4,
)
from rounding_cases import expected_error, inputs, plain_feedback, weights, with_damping

# Columns that groups do not divide, fewer than a group, one more and one less than two of them.
SIZES = [(1, 1), (3, 2), (8, 7), (5, 33), (12, 129), (33, 151), (40, 255)]

each_size = pytest.mark.parametrize(("rows", "columns"), SIZES)
each_group_size = pytest.mark.parametrize("group_size", GROUP_SIZES)


def spread(scale, columns, group_size):
    """Of groups [N, G] to their columns [N, K]."""
    return scale.repeat_interleave(group_size, 1)[:, :columns]


def rounded(integers, scale, group_size):
    return integers.double() * spread(scale.double(), integers.shape[1], group_size)


def to_the_nearest(weight, group_size):
    packed, scale = quantize_groups(weight, group_size=group_size)
    return rounded(unpack_int4(packed, weight.shape[1]), scale, group_size)


@each_group_size
@each_size
def test_the_error_is_less_than_by_rounding_to_the_nearest(rows, columns, group_size):
    weight, moment = weights(rows, columns), inputs(columns)
    integers, scale = round_groups_with_feedback(weight, moment, group_size=group_size)
    assert (integers.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert integers.shape == (rows, columns)
    assert scale.shape == (rows, math.ceil(columns / group_size))
    assert ((integers >= INT4_MIN) & (integers <= INT4_MAX)).all()
    assert (scale.isfinite() & (scale > 0)).all()
    found = expected_error(weight, rounded(integers, scale, group_size), moment)
    plain = expected_error(weight, to_the_nearest(weight, group_size), moment)
    assert found <= plain * 1.001  # both are zero for one column
    if columns > 100:
        assert found < plain / 2


@each_group_size
@each_size
def test_integers_are_those_of_the_plain_algorithm(rows, columns, group_size, monkeypatch):
    monkeypatch.setattr(int4_feedback, "_FACTORS", (1.0,))
    monkeypatch.setattr(int4_feedback, "_FITS", 0)
    weight, moment = weights(rows, columns), inputs(columns)
    integers, scale = round_groups_with_feedback(weight, moment, group_size=group_size)
    assert torch.equal(scale, quantize_groups(weight, group_size=group_size)[1])
    steps = spread(scale, columns, group_size)
    expected = plain_feedback(weight, moment, steps, INT4_MIN, INT4_MAX)
    assert (integers == expected).double().mean() > 0.999, "sums in another order decide ties only"


@each_group_size
@each_size
def test_it_is_as_good_as_the_plain_algorithm(rows, columns, group_size):
    """By the error that is minimized, of the damped moment."""
    weight, moment = weights(rows, columns), inputs(columns)
    start = quantize_groups(weight, group_size=group_size)[1]
    steps = spread(start, columns, group_size)
    plain = plain_feedback(weight, moment, steps, INT4_MIN, INT4_MAX) * steps.double()
    found = rounded(*round_groups_with_feedback(weight, moment, group_size=group_size), group_size)
    minimized = with_damping(moment)
    least = expected_error(weight, plain, minimized)
    assert expected_error(weight, found, minimized) <= least * (1 + 1e-9)


@each_group_size
def test_rounding_anew_with_fitted_scales_helps(group_size, monkeypatch):
    weight, moment = weights(33, 151), inputs(151)
    errors = []
    for fits in (2, 0):
        monkeypatch.setattr(int4_feedback, "_FITS", fits)
        found = round_groups_with_feedback(weight, moment, group_size=group_size)
        errors.append(expected_error(weight, rounded(*found, group_size), with_damping(moment)))
    assert errors[0] < errors[1]


@each_group_size
def test_scales_are_fitted_to_integers(group_size):
    """No other scale of one group is better, to first order; a group of zeros keeps its own."""
    weight, moment = weights(9, 151), with_damping(inputs(151))
    packed, scale = quantize_groups(weight, group_size=group_size)
    integers = unpack_int4(packed, 151).double()
    integers[4, :group_size] = 0
    fitted = int4_feedback._fit(weight, integers, scale, moment, group_size)
    assert fitted[4, 0] == scale[4, 0]

    def error(scale):
        return expected_error(weight, rounded(integers, scale, group_size), moment)

    assert error(fitted) < error(scale)
    for group in range(scale.shape[1]):
        for factor in (0.99, 1.01):
            other = fitted.clone()
            other[:, group] *= factor
            assert error(other) > error(fitted)


@each_group_size
def test_zeros_stay_zeros(group_size):
    """Also a group and a row of them, whose scale is zero."""
    weight = weights(16, 151)
    weight[:, 5:30] = 0
    weight[3] = 0
    weight[7, :group_size] = 0
    integers, scale = round_groups_with_feedback(weight, inputs(151), group_size=group_size)
    assert (integers[weight == 0] == 0).all()
    assert (scale[3] == 0).all()
    assert scale[7, 0] == 0
    assert (scale > 0).sum() == scale.numel() - scale.shape[1] - 1


@each_group_size
def test_what_is_on_a_grid_comes_back(group_size):
    integers = torch.randint(-8, 8, (16, 151), generator=torch.Generator().manual_seed(0))
    integers[:, ::group_size] = -8
    integers[:, 1::group_size] = 7
    groups = math.ceil(151 / group_size)
    scale = torch.arange(1, 16 * groups + 1).view(16, groups) / 64  # products are exact
    weight = integers * spread(scale, 151, group_size)
    found, scales = round_groups_with_feedback(weight, inputs(151), group_size=group_size)
    assert torch.equal(found.long(), integers)
    assert torch.equal(scales, scale)


@pytest.mark.parametrize("moment", [torch.zeros(70, 70), torch.eye(70)], ids=["zeros", "identity"])
def test_without_a_common_part_weights_are_rounded_each_by_itself(moment):
    """A moment of zeros says nothing: it is as if all columns were alike."""
    weight = weights(9, 70)
    integers, scale = round_groups_with_feedback(weight, moment.double(), group_size=32)
    steps = spread(scale.double(), 70, 32)
    nearest = (weight.double() / steps).round().clamp(INT4_MIN, INT4_MAX)
    assert torch.equal(integers.double(), nearest)


def test_it_is_a_function_of_its_arguments():
    weight, moment = weights(33, 151), inputs(151)
    before = weight.clone(), moment.clone()
    expected = round_groups_with_feedback(weight, moment, group_size=64)
    assert torch.equal(weight, before[0])
    assert torch.equal(moment, before[1])
    torch.manual_seed(1)
    forms = (weight, weight.double(), weight.T.contiguous().T, torch.nn.Parameter(weight))
    for form in forms:
        found = round_groups_with_feedback(form, moment, group_size=64)
        assert all(map(torch.equal, found, expected))
        assert not any(tensor.requires_grad for tensor in found)
