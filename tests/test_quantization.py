"""The quantizer: int8 rows whose squared error is small and whose pairs, where that is asked for,
cannot saturate a vpmaddubsw; and weights from elsewhere, which must run exactly all the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import lstm_fastkernels as lfk
from cases import AWKWARD, Case, assert_by_contract


def pair_sums(q):
    """w[2k] + w[2k + 1] of each row; an odd column pairs with zero."""
    q = q.to(torch.int32)
    return torch.nn.functional.pad(q, (0, q.shape[1] % 2)).unflatten(1, (-1, 2)).sum(2)


def squared_error(weight, q, scale):
    return (weight.double() - q.double() * scale.double()[:, None]).square().sum(1)


def absmax_error(weight, limit=127):
    """What plain rounding to [-limit, limit] leaves, and what float32 adds. With 64 all pairs are
    safe."""
    absmax = weight.double().abs().amax(1)
    scale = torch.where(absmax > 0, absmax, 1)[:, None] / limit
    rounding = ((weight.double() / scale).round() * scale - weight).square().sum(1)
    return 1.00001 * rounding + weight.shape[1] * (2**-23 * absmax).square()


def check_form(weight, q, scale):
    assert (q.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert q.shape == weight.shape
    assert scale.shape == weight.shape[:1]
    assert q.abs().max() <= 127, "-128 is not used"
    assert scale.isfinite().all()
    assert (scale >= 0).all()


WEIGHTS = {
    "normal": lambda n, k: torch.randn(n, k),
    "uniform": lambda n, k: torch.rand(n, k) * 2 - 1,
    "heavy-tailed": lambda n, k: torch.randn(n, k) ** 5,
    "positive": lambda n, k: torch.rand(n, k),
    "sparse": lambda n, k: torch.randn(n, k) * (torch.rand(n, k) < 0.1),
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
    q, scale = lfk.quantize_rows(weight)
    check_form(weight, q, scale)
    assert pair_sums(q).abs().max() <= 128
    assert squared_error(weight, q, scale).sum() <= absmax_error(weight, 64).sum()


@pytest.mark.parametrize(("kind", "allowed"), [("normal", 3), ("uniform", 6)])
def test_what_pair_safety_costs(kind, allowed):
    """In dB of the weights. Plain rounding to [-64, 64] costs 6; uniform rows come near to that,
    since most of their weights are large."""
    torch.manual_seed(0)
    weight = WEIGHTS[kind](256, 512)
    safe = squared_error(weight, *lfk.quantize_rows(weight)).sum()
    free = squared_error(weight, *lfk.quantize_rows(weight, pair_safe=False)).sum()
    assert 10 * torch.log10(safe / free) < allowed


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
    check_form(weight, q, scale)
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_rows_are_refused(value):
    weight = torch.ones(3, 4)
    weight[1, 2] = value
    with pytest.raises((ValueError, RuntimeError), match="finite"):
        lfk.quantize_rows(weight)


def test_rows_are_quantized_one_by_one():
    torch.manual_seed(0)
    weight = torch.randn(9, 31)
    q, scale = lfk.quantize_rows(weight)
    for n in range(9):
        alone_q, alone_scale = lfk.quantize_rows(weight[n : n + 1])
        assert torch.equal(alone_q[0], q[n])
        assert torch.equal(alone_scale[0], scale[n])


# Weights from elsewhere


def foreign(case, fill):
    """The module of a case with all int8 weights replaced; scales keep the gates near 1."""
    fast = case.fast()
    state = fast.state_dict()
    for name, tensor in state.items():
        if tensor.dtype == torch.int8:
            state[name] = fill(tensor.shape).to(torch.int8)
            scale = 1.0 / (127 * tensor.shape[1])
            state[name + "_scale"] = torch.full((tensor.shape[0],), scale)
    fast.load_state_dict(state)
    return fast


def one_pair(shape, first):
    """Zeros but for an unsafe pair in columns first, first + 1."""
    weight = torch.zeros(shape)
    weight[:, first : first + 2] = 127
    return weight


FILLS = {
    "127": lambda shape: torch.full(shape, 127),
    "-127": lambda shape: torch.full(shape, -127),
    "alternating": lambda shape: 127 - 254 * (torch.arange(shape[1]) % 2).expand(shape),
    "first pair": lambda shape: one_pair(shape, 0),
    "last pair": lambda shape: one_pair(shape, shape[1] // 2 * 2 - 2),
    "barely unsafe": lambda shape: torch.full(shape, 65),
    "barely safe": lambda shape: torch.full(shape, 64),
    "random": lambda shape: torch.randint(-127, 128, shape),
}
INPUTS = {
    "ones": lambda x: torch.ones_like(x),
    "minus ones": lambda x: -torch.ones_like(x),
    "signs": lambda x: x.sign(),
    "random": lambda x: x,
}


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [8, 31, 151])
def test_foreign_weights_run_exactly(size, fill, x, activations):
    torch.manual_seed(size)
    case = Case(size, size, T=1, B=3, activations=activations)
    fast = foreign(case, FILLS[fill])
    x, (h, c) = INPUTS[x](case.x()), case.state()
    h = INPUTS["signs"](h) if size == 31 else h
    assert_by_contract(fast, x, (h, c), message=str(case))


def test_safe_and_unsafe_matrices_side_by_side():
    """Each matrix picks its own kernel: only W_hh is unsafe here, then only W_ih."""
    case = Case(31, 31, T=1)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        fast = case.fast()
        state = fast.state_dict()
        state[name] = torch.full_like(state[name], 127)
        state[name + "_scale"] = torch.full_like(state[name + "_scale"], 1 / (127 * 31))
        fast.load_state_dict(state)
        assert_by_contract(fast, case.x(), case.state(), message=name)


@pytest.mark.parametrize("fill", ["127", "barely safe"])
def test_widest_sums_do_not_overflow(fill, activations):
    """Rows of one sign: int16 activations lower their range for them, and the sum of a row that
    corrects offset activations is beyond 16 bits."""
    case = Case(4096, 1, T=1, B=2, activations=activations)
    fast = foreign(case, FILLS[fill])
    x = torch.ones_like(case.x())
    x[:, 1] = -1
    assert_by_contract(fast, x, message=str(case))


def test_foreign_weights_in_a_stack(activations):
    torch.manual_seed(0)
    case = Case(129, 151, 2, proj_size=31, T=4, activations=activations)
    fast = foreign(case, FILLS["random"])
    assert_by_contract(fast, case.x(), case.state(), message=str(case))
