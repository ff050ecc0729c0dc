"""The NumPy runtime and the C interface on files that are mapped."""

import gc
import os

import numpy as np
import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from c_interface import OK, Handle, State, last_error
from c_interface import call as call_c
from cases import Case
from io_cases import refuse
from isas import assert_same_bits, everywhere
from kept_cases import NAMES, STACKS, ids_of, made
from lstm_fastkernels.runtime import LSTM
from packed_files import OUTDATED, change, mappings, write_packed


def input_of(lstm):
    """x [T, B, I] or ids [T, B]."""
    if lstm.takes_ids:
        return ids_of(STACKS[2]).numpy()
    return np.random.default_rng(1).standard_normal((5, 3, lstm.input_size), np.float32)


def assert_runs_as(mapped, fast):
    x = input_of(mapped)
    expected, _ = fast(torch.from_numpy(x))
    assert np.array_equal(everywhere(mapped.forward)(x), expected.numpy())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cell"])
def test_everything_runs_from_the_file(name, path):
    fast = made(name)
    write_packed(nn.ModuleDict({"rnn": fast}), path)
    mapped = LSTM.load(path, "rnn", mmap=True)
    assert mapped.shares_file
    assert mapped.packed_bytes == fast.packed_bytes()
    assert_runs_as(mapped, fast)
    for other in (LSTM.load(path, "rnn"), LSTM.load(path, name="rnn", mmap=False)):
        assert not other.shares_file
        assert_runs_as(other, fast)


def test_a_cell(path):
    cell = Case().fast_cell()
    write_packed(cell, path)
    mapped, x = LSTM.load(path, mmap=True), torch.randn(3, 9)
    assert mapped.shares_file
    assert np.array_equal(mapped.step(x.numpy(), mapped.state(3)), cell(x)[0].numpy())


@pytest.mark.parametrize("name", OUTDATED)
def test_outdated_packed_weights_are_left(name, path):
    write_packed(Case().fast(), path)
    change(path, OUTDATED[name])
    mapped = LSTM.load(path, mmap=True)
    assert not mapped.shares_file
    assert not mappings(path)
    assert_runs_as(mapped, lfk.load_file(path))


def test_damaged_packed_weights_are_refused(path):
    write_packed(nn.ModuleDict({"rnn": Case().fast()}), path)
    change(path, lambda parts: parts.put("rnn.packed", -4, b"\0\0\xc0\x7f"))
    message = "rnn.packed: packed weights: bias_l0: value of "
    refuse(lambda: LSTM.load(path, "rnn", mmap=True), path, message)
    assert_runs_as(LSTM.load(path, "rnn"), Case().fast())


def test_files_that_cannot_be_read(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        LSTM.load(path, mmap=True)
    with pytest.raises(IsADirectoryError):
        LSTM.load(path.parent, mmap=True)
    os.mkfifo(path)  # opened, it would wait for a writer
    for special in (path, "/dev/zero"):
        with pytest.raises(OSError, match=f"not a regular file: '{special}'"):
            LSTM.load(special, mmap=True)
    path.unlink()
    write_packed(Case().fast(), path)
    whole = path.read_bytes()
    for contents in (b"", whole[:100], whole[:-1], whole + b"\0"):
        path.write_bytes(contents)
        refuse(lambda: LSTM.load(path, mmap=True), path)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_other_values_of_the_option(value, path):
    with pytest.raises(TypeError, match="mmap must be True or False, got"):
        LSTM.load(path, mmap=value)


def test_no_handle_stays_open(path):
    write_packed(Case().fast(), path)
    before = len(os.listdir("/proc/self/fd"))
    mapped = LSTM.load(path, mmap=True)
    refuse(lambda: LSTM.load(path, "nobody", mmap=True), path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert mapped.shares_file


def test_the_file_may_go(path):
    fast, other = Case().fast(), Case().new()
    write_packed(fast, path)
    mapped = LSTM.load(path, mmap=True)
    write_packed(other, path)
    assert_runs_as(LSTM.load(path, mmap=True), other)
    path.unlink()
    assert_runs_as(mapped, fast)


def test_nothing_stays_mapped_when_the_lstm_is_gone(path):
    write_packed(Case().fast(), path)
    mapped = LSTM.load(path, mmap=True)
    batch, state = mapped.state(1), mappings(path)
    assert state["Rss"] > 0
    del mapped, batch
    gc.collect()
    assert not mappings(path)


def test_only_packed_weights_stay_in_memory(path):
    write_packed(Case(1024, 1024).new(), path)
    mapped = LSTM.load(path, mmap=True)
    mapped.forward(input_of(mapped))
    # Of a file that is more than twice as long.
    assert 1 <= mappings(path)["Rss"] * 1024 / mapped.packed_bytes < 1.3


def test_the_c_interface_maps(path):
    fast = Case().fast()
    write_packed(fast, path)
    file = Handle("file_map", bytes(path))
    lstm = Handle("lstm_load", file, b"")
    del file
    gc.collect()
    path.unlink()
    assert call_c("lstm_shares_file", lstm) == 1
    x, y = torch.randn(3, 9), np.empty((3, 31), np.float32)
    state = State(lstm, 3)
    arrays = [array.ctypes.data for array in (x.numpy(), y)]
    assert call_c("lstm_step", lstm, arrays[0], state, arrays[1]) == OK, last_error()
    assert_same_bits(torch.from_numpy(y), fast(x.unsqueeze(0))[0][0])
