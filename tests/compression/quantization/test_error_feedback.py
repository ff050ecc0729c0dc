"""Rounding with error feedback: what it minimizes, and what it must keep."""

import pytest
import torch

import lstm_fastkernels as lfk
from lstm_fastkernels.compression.quantization import error_feedback
from lstm_fastkernels.compression.quantization.error_feedback import round_with_feedback
from rounding_cases import expected_error, inputs, plain_feedback, weights

SIZES = [(1, 1), (3, 2), (8, 7), (5, 129), (40, 33), (64, 300)]


def error(weight, integers, scale, moment):
    return expected_error(weight, integers.double() * scale.double()[:, None], moment)


@pytest.mark.parametrize("pair_safe", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_the_error_is_less_than_by_rounding_to_the_nearest(rows, columns, pair_safe):
    weight, moment = weights(rows, columns), inputs(columns)
    integers, scale = round_with_feedback(weight, moment, pair_safe=pair_safe)
    assert (integers.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert (integers.shape, scale.shape) == ((rows, columns), (rows,))
    plain = error(weight, *lfk.quantize_rows(weight, pair_safe=pair_safe), moment)
    found = error(weight, integers, scale, moment)
    assert found <= plain * 1.001  # both are zero for one column
    if columns > 100:
        assert found < plain / 2


@pytest.mark.parametrize("pair_safe", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_integers_are_those_of_the_plain_algorithm(rows, columns, pair_safe, monkeypatch):
    monkeypatch.setattr(
        error_feedback, "_scales", lambda weight, pairs: [weight.abs().amax(1) / 127]
    )
    weight, moment = weights(rows, columns), inputs(columns)
    integers, scale = round_with_feedback(weight, moment, pair_safe=pair_safe)
    expected = plain_feedback(weight, moment, scale[:, None], -128, 127, pair_safe)
    assert (integers == expected).double().mean() > 0.999, "sums in another order decide ties only"


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_pairs_are_safe(rows, columns):
    weight = weights(rows, columns).sign() * 0.9 + 0.1 * weights(rows, columns, 1)
    integers, _ = round_with_feedback(weight, inputs(columns), pair_safe=True)
    pairs = integers.int()[:, : columns // 2 * 2].unflatten(1, (-1, 2)).sum(2)
    assert ((pairs >= -128) & (pairs <= 128)).all()


def test_auto_is_safe_where_that_at_most_doubles_the_error():
    moment = inputs(64)
    alike = weights(16, 64).abs() * 0.01 + 1  # neighbours that add up to much
    for weight in (weights(16, 64), alike):
        found = {
            rule: error(weight, *round_with_feedback(weight, moment, pair_safe=rule), moment)
            for rule in (False, True, "auto")
        }
        assert found["auto"] == found[found[True] <= 2 * found[False]]
    assert found["auto"] == found[False] < found[True] / 2


def test_without_a_common_part_columns_are_rounded_each_by_itself():
    weight, moment = weights(9, 33), torch.eye(33, dtype=torch.float64)
    integers, scale = round_with_feedback(weight, moment, pair_safe=False)
    nearest = (weight.double() / scale.double()[:, None]).round().clamp(-128, 127)
    assert torch.equal(integers.double(), nearest)


def test_zeros_stay_zeros():
    weight = weights(16, 40)
    weight[:, 8:24] = 0
    weight[3] = 0
    integers, scale = round_with_feedback(weight, inputs(40))
    assert (integers[weight == 0] == 0).all()
    assert scale[3] == 0


@pytest.mark.parametrize("pair_safe", [False, "auto"])
def test_what_is_on_a_grid_comes_back(pair_safe):
    integers = torch.randint(-128, 128, (16, 40), generator=torch.Generator().manual_seed(0))
    integers[:, 0] = torch.tensor([127, -128] * 8)
    integers[:, 1] = 1  # no factor in common
    scale = torch.linspace(0.001, 2, 16)
    weight = integers * scale[:, None]
    found, scales = round_with_feedback(weight, inputs(40), pair_safe=pair_safe)
    assert torch.equal(found.long(), integers)
    assert torch.equal(scales, scale)


def test_inputs_that_are_zero():
    """A moment of zeros says nothing: it is as if all columns were alike."""
    weight = weights(4, 6)
    integers, scale = round_with_feedback(weight, torch.zeros(6, 6, dtype=torch.float64))
    assert (weight - integers * scale[:, None]).abs().max() < weight.abs().max() / 100
