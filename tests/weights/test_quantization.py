"""The quantizer: int8 rows whose squared error is small and whose pairs, where that is asked for,
cannot saturate a vpmaddubsw."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import lstm_fastkernels as lfk
import quantizer
from cases import AWKWARD


def pair_sums(q):
    """w[2k] + w[2k + 1] of each row; an odd column pairs with zero."""
    q = q.to(torch.int32)
    return torch.nn.functional.pad(q, (0, q.shape[1] % 2)).unflatten(1, (-1, 2)).sum(2)


def squared_error(weight, q, scale):
    return (weight.double() - q.double() * scale.double()[:, None]).square().sum(1)


def rounding_of_float32(weight):
    """Squared, of the weights that a row's integers and its scale give."""
    absmax = weight.double().abs().amax(1)
    return weight.shape[1] * (2**-23 * absmax).square()


def absmax_error(weight, limit=127):
    """What plain rounding to [-limit, limit] leaves, and what float32 adds. With 64 all pairs are
    safe."""
    absmax = weight.double().abs().amax(1)
    scale = torch.where(absmax > 0, absmax, 1)[:, None] / limit
    rounding = ((weight.double() / scale).round() * scale - weight).square().sum(1)
    return 1.00001 * rounding + rounding_of_float32(weight)


def check_form(weight, q, scale):
    assert (q.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert q.shape == weight.shape
    assert scale.shape == weight.shape[:1]
    assert q.min() >= -127, "-128 is for rows that have it already"
    assert scale.isfinite().all()
    assert (scale >= 0).all()


WEIGHTS = {
    "normal": lambda n, k: torch.randn(n, k),
    "uniform": lambda n, k: torch.rand(n, k) * 2 - 1,
    "heavy-tailed": lambda n, k: torch.randn(n, k) ** 5,
    "positive": lambda n, k: torch.rand(n, k),
    "sparse": lambda n, k: torch.randn(n, k) * (torch.rand(n, k) < 0.1),
    "small integers": lambda n, k: torch.randint(-3, 4, (n, k)).float(),
    "hundredths": lambda n, k: torch.randint(-100, 101, (n, k)) * 0.01,
    "repeated": lambda n, k: torch.tensor([0.3, -0.1, 0.7])[torch.randint(3, (n, k))],
    "constant": lambda n, k: torch.rand(n, 1).expand(n, k),
    "zeros among others": lambda n, k: torch.randn(n, k) * (torch.arange(n) % 2)[:, None],
    "down to subnormal": lambda n, k: torch.cat(
        [torch.ones(n, 1), torch.randn(n, k - 1) * 10 ** (-45 * torch.rand(n, k - 1))], 1
    ),
    "huge": lambda n, k: (torch.rand(n, k) * 2 - 1) * 3.4e38,
}


@pytest.mark.parametrize("columns", AWKWARD)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_free_rows_are_no_worse_than_absmax_rows(kind, columns):
    torch.manual_seed(columns)
    weight = WEIGHTS[kind](64, columns)
    q, scale = lfk.quantize_rows(weight, pair_safe=False)
    check_form(weight, q, scale)
    assert (squared_error(weight, q, scale) <= absmax_error(weight)).all()


@pytest.mark.parametrize("columns", AWKWARD)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_pairs_are_safe(kind, columns):
    torch.manual_seed(columns)
    weight = WEIGHTS[kind](64, columns)
    q, scale = lfk.quantize_rows(weight, pair_safe=True)
    check_form(weight, q, scale)
    assert pair_sums(q).abs().max() <= 128
    assert squared_error(weight, q, scale).sum() <= absmax_error(weight, 64).sum()


@pytest.mark.parametrize("pair_safe", [True, False])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_rows_are_as_good_as_those_of_plain_torch(kind, pair_safe):
    for columns in (1, 2, 3, 31, 32, 33, 151, 1024):
        torch.manual_seed(columns)
        weight = WEIGHTS[kind](64, columns)
        expected = squared_error(weight, *quantizer.quantize_rows(weight, pair_safe))
        actual = squared_error(weight, *lfk.quantize_rows(weight, pair_safe=pair_safe))
        limit = expected * (1 + 1e-6) + rounding_of_float32(weight)
        assert (actual <= limit).all(), f"{columns} columns"


def test_most_rows_are_those_of_plain_torch():
    """Sums in another order decide between a few."""
    for pair_safe in (True, False):
        torch.manual_seed(0)
        weight = torch.randn(256, 151)
        expected, _ = quantizer.quantize_rows(weight, pair_safe)
        q, _ = lfk.quantize_rows(weight, pair_safe=pair_safe)
        assert (q == expected).all(1).float().mean() > 0.95


# Two of their scales leave errors that only float32's rounding tells apart, and then different ones
# when least squares has set the final scale.
NEAR_TIES = {
    True: [-69, -2, 8, -3, 41, 88, -9, -57, 36, -23, 52, 100, 6, 38, -75, -62],
    False: [-38, -37, 12, 42, -20, 59, -22, -53, 25, 66, -71, -57, -88, 64, -51, -50],
}


@pytest.mark.parametrize("pair_safe", NEAR_TIES)
def test_near_ties_are_decided_by_the_final_error(pair_safe):
    weight = torch.tensor([NEAR_TIES[pair_safe]]) * 0.01
    expected = squared_error(weight, *quantizer.quantize_rows(weight, pair_safe))
    actual = squared_error(weight, *lfk.quantize_rows(weight, pair_safe=pair_safe))
    assert actual <= expected * (1 + 1e-6) + rounding_of_float32(weight)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("pair_safe", [True, False, "auto"])
@pytest.mark.parametrize("columns", AWKWARD)
def test_what_a_weight_is_stored_as_makes_no_difference(columns, pair_safe, threads):
    torch.manual_seed(columns)
    weight = torch.randn(37, columns).half().float()
    expected = lfk.quantize_rows(weight, pair_safe=pair_safe)
    for stored in (
        weight.half(),
        weight.double(),
        weight.T.contiguous().T,
        torch.cat([weight, weight], 1)[:, :columns],
        weight.repeat_interleave(2, 1)[:, ::2],
        torch.nn.Parameter(weight),
    ):
        assert same(lfk.quantize_rows(stored, pair_safe=pair_safe), expected)
    brain = weight.bfloat16()
    assert same(lfk.quantize_rows(brain), lfk.quantize_rows(brain.float()))
    threads(3)
    assert same(lfk.quantize_rows(weight, pair_safe=pair_safe), expected)


def test_threads_make_no_difference(threads):
    weight = torch.randn(1000, 151)
    expected = lfk.quantize_rows(weight)
    threads(4)
    assert same(lfk.quantize_rows(weight), expected)


@pytest.mark.gpu
def test_a_device_makes_no_difference():
    weight = torch.randn(37, 151)
    q, scale = lfk.quantize_rows(weight.cuda())
    assert q.is_cuda
    assert scale.is_cuda
    assert same((q.cpu(), scale.cpu()), lfk.quantize_rows(weight))


@pytest.mark.parametrize(("kind", "allowed"), [("normal", 3), ("uniform", 6)])
def test_what_pair_safety_costs(kind, allowed):
    """In dB of the weights. Plain rounding to [-64, 64] costs 6; uniform rows come near to that,
    since most of their weights are large."""
    torch.manual_seed(0)
    weight = WEIGHTS[kind](256, 512)
    safe = squared_error(weight, *lfk.quantize_rows(weight, pair_safe=True)).sum()
    free = squared_error(weight, *lfk.quantize_rows(weight, pair_safe=False)).sum()
    assert 10 * torch.log10(safe / free) < allowed


@pytest.mark.parametrize(
    ("kind", "safe"),
    [
        ("normal", True),
        ("heavy-tailed", True),
        ("sparse", True),
        ("small integers", True),
        ("uniform", False),
        ("positive", False),
        ("hundredths", False),
    ],
)
def test_pairs_are_safe_unless_that_doubles_the_error(kind, safe):
    torch.manual_seed(0)
    weight = WEIGHTS[kind](64, 33)
    always, never = (lfk.quantize_rows(weight, pair_safe=rule) for rule in (True, False))
    error = squared_error(weight, *always).sum()
    assert (error <= 2 * squared_error(weight, *never).sum()) == safe
    assert same(lfk.quantize_rows(weight), always if safe else never)


@pytest.mark.parametrize("pair_safe", ["auto", False])
@given(
    q=arrays(np.int8, array_shapes(min_dims=2, max_dims=2, max_side=9)),
    scale=st.floats(2**-20, 2**20, width=32),
)
@settings(max_examples=150)
def test_what_is_quantized_comes_back(pair_safe, q, scale):
    """-128 included; integers with a common factor may become smaller ones of the same weights."""
    q = torch.from_numpy(q)
    weight = q * torch.tensor(scale)
    back, scales = lfk.quantize_rows(weight, pair_safe=pair_safe)
    assert torch.equal(back * scales[:, None], weight)
    for n, row in enumerate(q.tolist()):
        assert back[n].tolist() == row or math.gcd(*row) != 1


def test_what_is_quantized_and_pair_safe_comes_back_pair_safe():
    torch.manual_seed(0)
    q = torch.randint(-64, 65, (50, 33)).to(torch.int8)
    q[:, 0] = 1  # no common factor
    scale = torch.rand(50) + 0.5
    for pair_safe in (True, "auto", False):
        back, scales = lfk.quantize_rows(q * scale[:, None], pair_safe=pair_safe)
        assert torch.equal(back, q)
        assert torch.equal(scales, scale)


@given(
    weight=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    pair_safe=st.booleans(),
)
@settings(max_examples=150)
def test_any_rows(weight, pair_safe):
    weight = torch.from_numpy(weight)
    q, scale = lfk.quantize_rows(weight, pair_safe=pair_safe)
    assert scale.isfinite().all()
    # Half a step each, of absmax / 64 at most.
    step = weight.double().abs().amax(1) * (2 / 127 if pair_safe else 1 / 127)
    tiny = 1e-30  # below it a row may count as zero
    error = squared_error(weight, q, scale)
    assert (error <= weight.shape[1] * (step / 2 * 1.00001 + tiny).square()).all()
    assert not pair_safe or pair_sums(q).abs().max() <= 128


@pytest.mark.parametrize("pair_safe", [True, False])
@pytest.mark.parametrize("columns", AWKWARD)
def test_rows_with_a_plain_answer(columns, pair_safe):
    """Zero, constant and one-outlier rows come out exact, or as near as 127 steps allow."""
    rows = torch.zeros(5, columns)
    rows[1] = 0.3
    rows[2] = -2e-5
    rows[3, 0] = 40.0
    rows[4] = 1e-3
    rows[4, -1] = -40.0
    q, scale = lfk.quantize_rows(rows, pair_safe=pair_safe)
    check_form(rows, q, scale)
    back = q.float() * scale[:, None]
    assert not back[0].any()
    torch.testing.assert_close(back[1:4], rows[1:4], rtol=1e-6, atol=0)
    assert (back[4] - rows[4]).abs().max() <= 40 / 127


@pytest.mark.parametrize("pair_safe", [True, False])
@pytest.mark.parametrize("size", [1e-44, 1e-39, 1e-20, 1e20, 1e36, 3e38])
def test_extreme_rows(size, pair_safe):
    torch.manual_seed(0)
    weight = (torch.rand(8, 31) * 2 - 1) * size
    q, scale = lfk.quantize_rows(weight, pair_safe=pair_safe)
    check_form(weight, q, scale)
    error = squared_error(weight, q, scale)
    assert (error <= weight.double().square().sum(1)).all(), "no worse than zeros"
    if size > 1e-30:
        assert (error <= 1e-3 * weight.double().square().sum(1)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_non_finite_rows_are_refused(value, threads):
    weight = torch.ones(3000, 40, dtype=torch.float64)
    weight[2001, 2] = value
    for count in (1, 3):
        threads(count)
        with pytest.raises(ValueError, match="weight must be finite"):
            lfk.quantize_rows(weight)


@pytest.mark.parametrize("pair_safe", [None, 1, "always"])
def test_another_rule_for_pairs_is_refused(pair_safe):
    with pytest.raises(ValueError, match='pair_safe must be "auto", True or False, got'):
        lfk.quantize_rows(torch.ones(2, 2), pair_safe=pair_safe)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), r"matrix .* got \(3,\)"),
        (torch.ones(3, 2, 2), r"matrix .* got \(3, 2, 2\)"),
        (torch.ones(0, 2), r"not empty, got \(0, 2\)"),
        (torch.ones(2, 0), r"not empty, got \(2, 0\)"),
        (torch.ones(2, 3, dtype=torch.int8), "floating point, got torch.int8"),
    ],
)
def test_what_is_no_matrix_of_floats_is_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        lfk.quantize_rows(weight)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), "must be a matrix"),
        (torch.ones(3, 2, dtype=torch.float64), "float32, got float64"),
        (torch.ones(3, 2, dtype=torch.int8), "float32, got int8"),
        (torch.ones(3, 0), "must have columns"),
        (torch.full((3, 2), float("nan")), "must be finite"),
    ],
)
def test_the_op_checks_for_itself(weight, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        torch.ops.lstm_fastkernels.quantize_rows(weight, True)


def test_the_op_under_tracers():
    op = torch.ops.lstm_fastkernels.quantize_rows.default
    for weight in (torch.randn(5, 9), torch.randn(9, 5).T, torch.empty(0, 9)):
        for pair_safe in (None, True):
            torch.library.opcheck(op, (weight, pair_safe))


def test_rows_are_quantized_one_by_one():
    torch.manual_seed(0)
    weight = torch.randn(9, 31)
    q, scale = lfk.quantize_rows(weight, pair_safe=True)
    for n in range(9):
        alone_q, alone_scale = lfk.quantize_rows(weight[n : n + 1], pair_safe=True)
        assert torch.equal(alone_q[0], q[n])
        assert torch.equal(alone_scale[0], scale[n])
