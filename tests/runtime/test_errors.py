"""What the NumPy runtime refuses."""

import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import nn

import lstm_fastkernels as lfk
from cases import Case
from io_cases import refuse
from lstm_fastkernels.runtime import LSTM, State, set_isa
from numpy_runtime import CASE

zeros = np.zeros


X = zeros((3, 2, 9), np.float32)


@pytest.mark.parametrize(
    "dtype", ["f8", "i4", "u1", "O", "?", "c8", ">f4", ">f2", "g", "S4", "V4", "M8[s]"]
)
def test_dtypes(dtype, load):
    lstm, x = load(Case().fast()), zeros(X.shape, dtype)
    for use in (lambda: lstm.forward(x), lambda: lstm.step(x[0], lstm.state(2))):
        refuse(use, None, "must be float32 or float16", str(x.dtype), kind=TypeError)


# name: x, the other arguments, what the message names
BAD_CALLS = {
    "columns": (zeros((3, 2, 8), np.float32), {}, "9 columns", "(3, 2, 8)"),
    "columns of one": (zeros((3, 8), np.float32), {}, "9 columns", "(3, 8)"),
    "0-D": (zeros((), np.float32), {}, "2 or 3 dimensions", "()"),
    "1-D": (X[0, 0], {}, "2 or 3 dimensions", "(9,)"),
    "4-D": (X[None], {}, "2 or 3 dimensions", "(1, 3, 2, 9)"),
    "no steps": (X[:0], {}, "time_steps", "at least 1", "0"),
    "fewer lengths": (X, {"lengths": [3]}, "each of the 2 rows", "(1,)"),
    "2-D lengths": (X, {"lengths": [[3, 3]]}, "each of the 2 rows", "(1, 2)"),
    "one number as lengths": (X, {"lengths": 3}, "each of the 2 rows", "()"),
    "length 0": (X, {"lengths": [3, 0]}, "1..3", "got 0 for row 1"),
    "length below 0": (X, {"lengths": [-2, 3]}, "1..3", "got -2 for row 0"),
    "length above T": (X, {"lengths": np.array([4, 1], np.uint8)}, "1..3", "got 4 for row 0"),
    "a huge length": (X, {"lengths": np.array([1, 2**64 - 1], np.uint64)}, "1..3", "row 1"),
    "no threads": (X, {"threads": 0}, "threads must be at least 1", "got 0"),
    "fewer threads": (X, {"threads": -1}, "threads must be at least 1", "got -1"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name, load):
    x, options, *words = BAD_CALLS[name]
    refuse(lambda: load(Case().fast()).forward(x, **options), None, *words)


@pytest.mark.parametrize("lengths", [[3.0, 2.0], [True, True], "ab", [[1], [1, 2]], [None, 3]])
def test_lengths_that_are_no_integers(lengths, load):
    lstm = load(Case().fast())
    refuse(lambda: lstm.forward(X, lengths=lengths), None, "lengths", "integers", kind=TypeError)


def test_bad_steps(load):
    lstm = load(Case().fast())
    state = lstm.state(2)
    refuse(lambda: lstm.step(X, state), None, "1 or 2 dimensions", "(3, 2, 9)")
    refuse(lambda: lstm.step(X[0, :, :4], state), None, "9 columns", "(2, 4)")
    refuse(lambda: lstm.step(X[0, 0], state), None, "state", "2 rows", "x has 1")


def test_states_that_do_not_fit(load):
    lstm = load(Case().fast())
    for other in (Case(hidden_size=32), Case(num_layers=2), Case(proj_size=5)):
        state = load(other.fast()).state(2)
        refuse(lambda state=state: lstm.forward(X, state), None, "state", "another LSTM")
    refuse(lambda: lstm.forward(X, lstm.state(3)), None, "state", "3 rows", "x has 2")


ARRAY = "x must be a NumPy array, got "
STATE = "state must be a State, got "
MASKED = "must be a plain NumPy array, got MaskedArray: use .filled(value)"

# The call, and how its TypeError begins: what came, what was expected, what to do.
OTHER_TYPES = {
    "tensor": (lambda m, s: m.forward(torch.zeros(3, 2, 9)), ARRAY + "Tensor: use .numpy()"),
    "list": (lambda m, s: m.forward([[1.0] * 9]), ARRAY + "list: use numpy.asarray(x"),
    "None": (lambda m, s: m.forward(None), ARRAY + "NoneType: use numpy.asarray(x"),
    "scalar": (lambda m, s: m.step(np.float32(3), s), ARRAY + "float32: use numpy.asarray(x"),
    "tensor step": (lambda m, s: m.step(torch.zeros(2, 9), s), ARRAY + "Tensor: use .numpy()"),
    "masked x": (lambda m, s: m.forward(np.ma.array(X)), "x " + MASKED),
    "masked lengths": (
        lambda m, s: m.forward(X, lengths=np.ma.array([3, 3], mask=[0, 1])),
        "lengths " + MASKED,
    ),
    "tuple": (lambda m, s: m.forward(X, (s.h, s.c)), STATE + "tuple: lstm.state(batch_size) makes"),
    "no state": (lambda m, s: m.step(X[0], None), STATE + "NoneType"),
    "threads": (lambda m, s: m.forward(X, threads=1.5), "threads must be an integer, got float"),
    "no threads": (lambda m, s: m.forward(X, threads=None), "threads must be an integer, got Non"),
    "batch_size": (lambda m, s: m.state(2.0), "batch_size must be an integer, got float"),
    "row": (lambda m, s: s.reset("1"), "row must be an integer, got str"),
    "copied row": (lambda m, s: s.copy_row(0.5, s, 0), "row must be an integer, got float"),
    "source row": (lambda m, s: s.copy_row(0, s, None), "source_row must be an integer, got Non"),
    "source": (lambda m, s: s.copy_row(0, s.h, 0), "source must be a State, got ndarray"),
    "text": (lambda m, s: State.restore("text"), "saved must be bytes, got str"),
    "bytearray": (
        lambda m, s: State.restore(bytearray(s.save())),
        "saved must be bytes, got bytearray: use bytes(saved)",
    ),
    "path": (lambda m, s: LSTM.load(3), ""),
    "name": (lambda m, s: LSTM.load("nowhere", 3), "name must be a str, got int"),
    "no name": (lambda m, s: LSTM.load("nowhere", None), "name must be a str, got NoneType"),
    "isa": (lambda m, s: set_isa(2), "name must be a str, got int"),
    "LSTM": (lambda m, s: LSTM(), ""),
    "State": (lambda m, s: State(), ""),
}


@pytest.mark.parametrize("name", OTHER_TYPES)
def test_other_types(name, load):
    call, begin = OTHER_TYPES[name]
    lstm = load(Case().fast())
    with pytest.raises(TypeError) as caught:
        call(lstm, lstm.state(2))
    assert str(caught.value).startswith(begin)


@pytest.mark.parametrize("value", [2**63, 2**70, -(2**70)])
def test_integers_beyond_the_machines(value, load):
    lstm = load(Case().fast())
    state = lstm.state(2)
    for name, call in {
        "threads": lambda: lstm.forward(X, threads=value),
        "batch_size": lambda: lstm.state(value),
        "row": lambda: state.reset(value),
        "source_row": lambda: state.copy_row(0, state, value),
    }.items():
        refuse(call, None, f"{name} is out of range, got {value}")


def test_what_python_takes_for_an_integer(load):
    lstm = load(Case().fast())
    expected = lstm.forward(X)
    for threads in (np.int8(2), np.uint64(2), True, 2**31, 2**62):
        assert np.array_equal(lstm.forward(X, threads=threads), expected)
    for lengths in (
        torch.tensor([3, 3]),
        (3, 3),
        np.array([3, 3], ">i2"),
        np.array([3, 0, 3])[::2],
    ):
        assert np.array_equal(lstm.forward(X, lengths=lengths), expected)


def test_files_that_cannot_be_read(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        LSTM.load(path)
    with pytest.raises(IsADirectoryError):
        LSTM.load(path.parent)
    os.mkfifo(path)  # opened, it would wait for a writer
    for special in (path, "/dev/zero"):
        with pytest.raises(OSError, match=f"not a regular file: '{special}'"):
            LSTM.load(special)


def test_broken_files(path):
    """The C++ tests have the rest: this is what Python makes of the errors."""
    lfk.save_file(Case().fast(), path)
    whole = path.read_bytes()
    for contents in (b"", b"abc", whole[:-1], whole + b"\0", b"\x80\x02}q\x00." * 20):
        path.write_bytes(contents)
        refuse(lambda: LSTM.load(path), path)
    for text in (b"{]", b'{"\xff\xfe":1}', b'{"a\0\x01'):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        refuse(lambda: LSTM.load(path), path, "JSON")
    save_tensors(load_tensors(whole), path)
    refuse(lambda: LSTM.load(path), path, "no LSTM ''")


def test_broken_tensors_are_named(path):
    sparse = replace(CASE, layout="block_sparse", density=0.4).fast()
    lfk.save_file(nn.ModuleDict({"encoder": sparse}), path)
    contents = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for name, element, value, words in (
        ("weight_hh_l1_scale", 3, np.nan, ["encoder.weight_hh_l1", "scale", "finite"]),
        ("weight_ih_l0_col_indices", 0, 99, ["encoder.weight_ih_l0", "99"]),
        ("bias_l1", 1, np.inf, ["encoder.bias_l1", "finite"]),
    ):
        tensors = load_tensors(contents)
        tensors[f"encoder.{name}"].flatten()[element] = value
        save_tensors(tensors, path, metadata)
        refuse(lambda: LSTM.load(path, "encoder"), path, *words)


def test_a_path_that_is_no_text(tmp_path):
    """File names are bytes: this one has one that is no UTF-8."""
    path = tmp_path / "\udcff.safetensors"
    lfk.save_file(Case().fast(), path)
    LSTM.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"\?\.safetensors: too short"):
        LSTM.load(path)


def test_lengths_that_change_x(load):
    """Whatever code lengths run, it comes before anything of x is read."""
    lstm, x = load(Case().fast()), X.copy()

    class Lengths:
        def __array__(self, dtype=None, copy=None):
            x.shape = 2, 3, 9
            return np.array([3, 3])

    refuse(lambda: lstm.forward(x, lengths=Lengths()), None, "each of the 3 rows", "(2,)")
