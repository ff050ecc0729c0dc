"""The C interface, called as any other language would: the same bits as the modules, and errors
that say why. It has no function to choose the instruction set: the best one runs."""

import ctypes
from ctypes import byref
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_tensors

import golden
from c_interface import (
    FUNCTIONS,
    INVALID_ARGUMENT,
    INVALID_FILE,
    IO_ERROR,
    OK,
    Handle,
    Sequence,
    State,
    Tensor,
    call,
    last_error,
    state_of,
    views,
)
from calls import GRID
from calls import call as run_module
from cases import Case, assert_same

CASE = Case(9, 31, 2, proj_size=13, T=7, B=5)


@pytest.fixture
def load(load_c):
    return load_c


def sequence(x, y, lengths=None, threads=0):
    """Of arrays [T, B, ...], whose last dimension is contiguous."""
    strides = [stride // 4 for array in (x, y) for stride in array.strides[:2]]
    counts = None if lengths is None else lengths.ctypes.data
    return Sequence(*x.shape[:2], x.ctypes.data, y.ctypes.data, *strides, counts, threads)


def columns(lstm):
    shape = call("lstm_shape", lstm)
    return shape.num_directions * (shape.proj_size or shape.hidden_size)


def forward(lstm, x, state, **options):
    """y [T, B, O] for x [T, B, I]."""
    y = np.full((*x.shape[:2], columns(lstm)), np.nan, np.float32)
    assert call("lstm_forward", lstm, sequence(x, y, **options), state) == OK, last_error()
    return y


def result(y, state):
    y, h, c = map(torch.from_numpy, (y, state.h, state.c))
    return y, (h, c)


@pytest.mark.parametrize("case", GRID[::3], ids=str)
def test_grid(case, load, kind):
    case = replace(case, **kind)
    fast = case.fast()
    lstm, x = load(fast), case.x().numpy()
    x = x.transpose(1, 0, 2) if case.batch_first else x
    for form, lengths in (("padded", None), ("lengths", case.lengths().numpy())):
        state = state_of(lstm, case.state())
        y = forward(lstm, x, state, lengths=lengths)
        assert_same(result(y, state), run_module(fast, case, form, True), f"{case} {form}")
    state = State(lstm, case.B)
    y = forward(lstm, x, state)
    assert_same(result(y, state), run_module(fast, case, "padded", False), str(case))


def test_step(load, kind):
    case = replace(CASE, **kind)
    fast = case.fast()
    lstm, x = load(fast), case.x().numpy()
    state, y = state_of(lstm, case.state()), np.empty((7, 5, 13), np.float32)
    for t in range(case.T):
        assert call("lstm_step", lstm, x[t].ctypes.data, state, y[t].ctypes.data) == OK
    assert_same(result(y, state), fast(case.x(), case.state()))


def test_strides(load):
    """x in every second row of a wider array, y in a narrower part of another."""
    fast = CASE.fast()
    lstm, wide = load(fast), np.full((5, 7, 2, 20), np.nan, np.float32)
    x = wide[:, :, 0, 2:11].transpose(1, 0, 2)
    x[...] = CASE.x()
    room = np.full((7, 5, 30), 8, np.float32)
    state, y = state_of(lstm, CASE.state()), room[::-1, :, 3:16]
    assert call("lstm_forward", lstm, sequence(x, y, threads=2), state) == OK
    assert_same(result(y.copy(), state), fast(CASE.x(), CASE.state()))
    assert (room[..., :3] == 8).all()
    assert (room[..., 16:] == 8).all()


def test_zeros_stand_for_strides_without_gaps(load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    y, state = np.empty((7, 5, 13), np.float32), State(lstm, 5)
    gapless = Sequence(7, 5, x.ctypes.data, y.ctypes.data)
    assert call("lstm_forward", lstm, gapless, state) == OK
    assert np.array_equal(y, forward(lstm, x, State(lstm, 5)))


# Files


def test_golden_file():
    """The file is freed before its LSTMs run."""
    file = Handle("file_open", bytes(golden.PATH))
    names = [call("file_lstm_name", file, n) for n in range(call("file_num_lstms", file))]
    assert names == sorted(name.encode() for name in golden.CASES)
    assert call("file_lstm_name", file, len(names)) is None
    lstms = {name.decode(): Handle("lstm_load", file, name) for name in names}
    del file
    tensors = load_tensors(golden.PATH)
    for name, lstm in lstms.items():
        x, h0, c0, *expected = (tensors[f"{name}_{key}"] for key in ("x", "h0", "c0", *"yhc"))
        state = state_of(lstm, (h0, c0))
        y = forward(lstm, x.numpy(), state)
        assert_same(result(y, state), (expected[0], expected[1:]), name)


def test_tensors(path):
    contents = golden.PATH.read_bytes()
    file = Handle("file_from_memory", contents, len(contents))
    tensor = Tensor()
    for name, expected in load_tensors(golden.PATH).items():
        assert call("file_tensor", file, name.encode(), byref(tensor)) == OK
        assert tuple(tensor.shape[: tensor.dimensions]) == expected.shape
        assert ctypes.string_at(tensor.data, tensor.bytes) == expected.numpy().tobytes()
    assert call("file_tensor", file, b"halves", byref(tensor)) == OK
    assert tensor.dtype == b"F16"


def test_shape(load):
    shape = call("lstm_shape", load(Case(7, 9, 2, bidirectional=True, proj_size=3).fast()))
    values = [getattr(shape, name) for name, _ in shape._fields_]
    assert values == [7, 9, 3, 2, 2]


# States


def same(a, b):
    return np.array_equal(a.h, b.h) and np.array_equal(a.c, b.c)


def test_clone_save_and_restore(load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state = state_of(lstm, CASE.state())
    saved = ctypes.create_string_buffer(call("state_bytes", state))
    assert call("state_save", state, saved, len(saved)) == OK
    others = Handle("state_clone", state), Handle("state_restore", saved, len(saved))
    y = forward(lstm, x, state)
    for other in others:
        other.h, other.c = views(other, call("lstm_shape", lstm))
        assert not same(other, state)
        assert np.array_equal(forward(lstm, x, other), y)
        assert same(other, state)


def test_rows(load):
    lstm = load(CASE.fast())
    h, c = (s.numpy().copy() for s in CASE.state())
    state, other = state_of(lstm, (h, c)), State(lstm, 2)
    assert call("state_copy_row", other, 1, state, 3) == OK
    assert np.array_equal(other.h[:, 1], h[:, 3])
    assert np.array_equal(other.c[:, 1], c[:, 3])
    assert not other.h[:, 0].any()
    assert call("state_reset_row", state, 2) == OK
    h[:, 2], c[:, 2] = 0, 0
    assert same(state, state_of(lstm, (h, c)))
    call("state_reset", state)
    assert same(state, State(lstm, 5))


# Errors


def fails(status, *words):
    """A function that calls lfk_<name>, which must fail with that status and those words."""

    def check(name, *arguments):
        assert call(name, *arguments) == status
        for word in words:
            assert word in last_error(), f"{word!r} is not in: {last_error()}"

    return check


def test_files_that_are_refused(path):
    handle = ctypes.c_void_p()
    fails(IO_ERROR, str(path), "No such file")("file_open", bytes(path), byref(handle))
    fails(IO_ERROR, str(path.parent))("file_open", bytes(path.parent), byref(handle))
    fails(IO_ERROR, str(path), "No such file")("file_map", bytes(path), byref(handle))
    path.write_bytes(b"abc")
    fails(INVALID_FILE, f"{path}: too short")("file_open", bytes(path), byref(handle))
    fails(INVALID_FILE, f"{path}: too short")("file_map", bytes(path), byref(handle))
    fails(INVALID_FILE, "memory: too short")("file_from_memory", b"abc", 3, byref(handle))
    file = Handle("file_open", bytes(golden.PATH))
    fails(INVALID_FILE, f"{golden.PATH}: no LSTM 'nobody'", "'encoder.wide'")(
        "lstm_load", file, b"nobody", byref(handle)
    )
    fails(INVALID_FILE, "nothing is missing")("file_tensor", file, b"nothing", byref(Tensor()))
    assert handle.value is None


def test_arguments_that_are_refused(load):
    lstm, x, y = load(CASE.fast()), CASE.x().numpy(), np.full((7, 5, 13), 8, np.float32)
    other = State(load(Case().fast()), 5)
    state, handle = state_of(lstm, CASE.state()), ctypes.c_void_p()
    refused = fails(INVALID_ARGUMENT, "different LSTMs")
    refused("state_copy_row", state, 0, other, 0)
    refused = fails(INVALID_ARGUMENT, "state", "another LSTM")
    refused("lstm_forward", lstm, sequence(x, y), other)
    refused = fails(INVALID_ARGUMENT, "it holds 5 rows, batch_size is 4")
    refused("lstm_forward", lstm, sequence(x[:, :4], y[:, :4]), state)
    refused = fails(INVALID_ARGUMENT, "time_steps must be at least 1, got 0")
    refused("lstm_forward", lstm, sequence(x[:0], y[:0]), state)
    refused = fails(INVALID_ARGUMENT, "lengths must be in 1..7, got 8 for row 4")
    refused("lstm_forward", lstm, sequence(x, y, np.array([1, 2, 3, 4, 8])), state)
    refused = fails(INVALID_ARGUMENT, "row must be in 0..4, got 5")
    refused("state_reset_row", state, 5)
    refused("state_copy_row", state, 0, state, 5)
    fails(INVALID_ARGUMENT, "batch_size", "-1")("state_new", lstm, -1, byref(handle))
    fails(INVALID_ARGUMENT, "bytes, not 7")("state_save", state, b"", 7)
    fails(INVALID_FILE, "saved state")("state_restore", b"abc", 3, byref(handle))
    assert handle.value is None
    assert (y == 8).all()
    assert same(state, state_of(lstm, CASE.state()))


def test_null_is_refused_where_there_is_a_status():
    for name, (returned, *arguments) in FUNCTIONS.items():
        if returned is ctypes.c_int:
            nulls = [0 if kind in (ctypes.c_int64, ctypes.c_size_t) else None for kind in arguments]
            fails(INVALID_ARGUMENT, "must not be NULL")(name, *nulls)


def test_null_may_be_freed():
    for kind in ("file", "lstm", "state", "streams"):
        call(f"{kind}_free", None)


def test_null_as_data(load):
    lstm = load(CASE.fast())
    state = State(lstm, 5)
    fails(INVALID_ARGUMENT, "x, y", "null")("lstm_step", lstm, None, state, None)
    fails(INVALID_ARGUMENT, "null")("lstm_forward", lstm, Sequence(7, 5), state)
