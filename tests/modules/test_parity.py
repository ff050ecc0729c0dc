"""The fast modules do what nn.LSTM does, in every shape of call that nn.LSTM has."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from calls import EPILOGUE, FORMS, GRID, call, cases
from cases import (
    AWKWARD,
    KINDS,
    Case,
    assert_by_contract,
    assert_same,
    by_contract,
    drawn,
    flat,
    to_float,
)
from isas import everywhere


@cache
def expectation(case, form, with_state):
    """The module, what it should give in float64, and what an ideal module of its kind gives."""
    fast = case.fast()
    lstm = to_float(fast)
    with torch.no_grad():
        float32 = flat(call(lstm, case, form, with_state))
        exact = flat(call(lstm.double(), case, form, with_state))
    if case.activations == "float32":
        return fast, exact, float32
    batch, time = (0, 1) if case.batch_first else (1, 0)
    rows = 1 if form == "unbatched" else case.B
    x = case.x().narrow(batch, 0, rows).double()
    state = tuple(s[:, :rows].double() for s in case.state()) if with_state else None
    lengths = case.lengths() if form in ("packed", "lengths") else None
    y, h, c = flat(by_contract(fast, x, state, lengths))
    return fast, exact, (y.movedim(time, 0), h, c)


def rms(actual, exact):
    """Root mean square of the error over y, h and c."""
    errors = [(a - e).flatten() for a, e in zip(actual, exact, strict=True)]
    return torch.cat(errors).square().mean().sqrt().item()


def check(case, form, with_state):
    """The error against float64 is at most twice that of the contract in float64, or of float32
    nn.LSTM."""
    fast, exact, ideal = expectation(case, form, with_state)
    actual = flat(everywhere(call)(fast, case, form, with_state))
    label = f"{case} {form} state={with_state}"
    shapes = [tuple(a.shape) for a in actual], [tuple(e.shape) for e in exact]
    assert shapes[0] == shapes[1], f"{label}: {shapes[0]}, nn.LSTM has {shapes[1]}"
    error, allowed = rms(actual, exact), rms(ideal, exact)
    assert error <= 2 * allowed + EPILOGUE, f"{label}: {error:.2e}, ideal {allowed:.2e}"


@pytest.mark.parametrize("with_state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", GRID, ids=str)
@pytest.mark.parametrize("name", ["int8", "int16", "float32"])
def test_grid(name, case, form, with_state):
    check(replace(case, **KINDS[name]), form, with_state)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", GRID, ids=str)
@pytest.mark.parametrize("name", ["int8-sparse", "int16-sparse"])
def test_grid_in_blocks(name, case, form):
    """Integers are the same in blocks, and so is every bit of the output."""
    case = replace(case, **KINDS[name])
    dense = replace(case, layout="dense").fast()
    run = everywhere(call)
    assert_same(run(case.fast(), case, form, True), run(dense, case, form, True), str(case))


@pytest.mark.parametrize("input_size", AWKWARD)
@pytest.mark.parametrize("hidden_size", AWKWARD)
def test_sizes(input_size, hidden_size, kind):
    case = Case(input_size, hidden_size, T=3, B=2, seed=hidden_size, **kind)
    check(case, "padded", True)


@pytest.mark.parametrize("B", [1, 2, 3, 4, 5, 8, 13, 33])
def test_batches(B, kind):
    check(Case(B=B, T=2, seed=B, **kind), "padded", True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_long_sequences(bidirectional, form, kind):
    """Longer than the chunks in which the kernels form the input products."""
    case = Case(num_layers=2, bidirectional=bidirectional, T=300, B=5, **kind)
    check(case, form, True)


@given(case=cases(), form=st.sampled_from(FORMS), with_state=st.booleans())
@settings(max_examples=60)
def test_any(case, form, with_state):
    check(case, form, with_state)


@pytest.mark.parametrize("case", GRID[::3], ids=str)
def test_outputs_look_like_those_of_nn_lstm(case):
    lstm, fast = case.lstm(), everywhere(case.fast())
    for x in (case.x(), case.x()[0]):
        with torch.no_grad():
            expected = flat(lstm(x))
        for a, e in zip(flat(fast(x)), expected, strict=True):
            assert (a.shape, a.dtype, a.device) == (e.shape, e.dtype, e.device)
            assert a.is_contiguous() or not e.is_contiguous()


@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequence(bidirectional, enforce_sorted, kind):
    case = Case(num_layers=2, bidirectional=bidirectional, T=6, B=5, **kind)
    lengths = case.lengths().sort(descending=True).values if enforce_sorted else case.lengths()
    packed = pack_padded_sequence(case.x(), lengths, enforce_sorted=enforce_sorted)
    fast = everywhere(case.fast())
    y, state = fast(packed, case.state())
    with torch.no_grad():
        expected, _ = case.lstm()(packed, case.state())

    assert isinstance(y, nn.utils.rnn.PackedSequence)
    assert y.data.shape == expected.data.shape
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        a, e = getattr(y, field), getattr(expected, field)
        assert (a is None and e is None) or torch.equal(a, e), field
    padded, _ = pad_packed_sequence(y)
    assert_same((padded, state), fast(case.x(), case.state(), lengths=lengths), str(lengths))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("with_state", [False, True], ids=["zeros", "state"])
def test_half_precision_widens_and_narrows(dtype, with_state, kind):
    case = Case(num_layers=2, proj_size=7, **kind)
    fast = everywhere(case.fast())
    x, state = case.x().to(dtype), tuple(s.to(dtype) for s in case.state())
    wide = fast(x.float(), tuple(s.float() for s in state) if with_state else None)
    y, h, c = (tensor.to(dtype) for tensor in flat(wide))
    assert_same(fast(x, state if with_state else None), (y, (h, c)), str(case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_float32_state(dtype, kind):
    case = Case(T=6, **kind)
    fast, x = everywhere(case.fast()), case.x().to(dtype)
    y, state = fast(x.float(), case.state())
    assert_same(fast(x, case.state()), (y.to(dtype), state), str(case))


def test_empty_batch(kind):
    case = Case(num_layers=2, bidirectional=True, proj_size=4, **kind)
    x = torch.empty(5, 0, case.input_size)
    with torch.no_grad():
        expected = case.lstm()(x)
    assert_same(everywhere(case.fast())(x), expected)


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("hidden_size", AWKWARD)
def test_cell_is_one_step_of_the_module(hidden_size, bias, batched, kind):
    case = Case(9, hidden_size, bias=bias, T=1, **kind)
    fast, fast_cell, cell = everywhere(case.fast()), everywhere(case.fast_cell()), case.cell()
    x, (h, c) = case.x()[0], (s[0] for s in case.state())
    if not batched:
        x, h, c = x[0], h[0], c[0]
    for state in (None, (h, c)):
        over_time = None if state is None else tuple(s[None] for s in state)
        y, (h_n, c_n) = fast(x[None], over_time)
        new_h, new_c = fast_cell(x, state)
        with torch.no_grad():
            expected = cell(x, state)
        assert new_h.shape == expected[0].shape
        assert_same((new_h, (new_h, new_c)), (y[0], (h_n[0], c_n[0])), str(case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cell_in_half_precision(dtype, kind):
    case = Case(T=1, **kind)
    cell, x = everywhere(case.fast_cell()), case.x()[0].to(dtype)
    for narrow, wide in zip(cell(x), cell(x.float()), strict=True):
        assert torch.equal(narrow, wide.to(dtype))


@pytest.mark.parametrize("row", [0, 17, 35])
def test_the_row_with_the_largest_sums_may_be_any(row):
    """It says how large 16-bit activations may be, for all rows."""
    case = Case(1200, 9, T=2, B=2, activations="int16")
    fast = drawn(case)
    fast.weight_ih_l0.zero_()
    fast.weight_ih_l0[row] = 127
    x = torch.full_like(case.x(), 3.0)
    assert_by_contract(fast, x)
