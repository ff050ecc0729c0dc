"""Token ids in NumPy and in C: the same bits as the modules, and the same refusals."""

import numpy as np
import pytest
import torch

import lstm_fastkernels as lfk
from c_interface import INVALID_ARGUMENT, OK, Sequence, call, last_error
from c_interface import state_of as c_state_of
from cases import assert_same
from id_cases import CLASSES, OTHERS, STACKS, folded, ids_of
from isas import everywhere
from lstm_fastkernels.runtime import LSTM
from numpy_runtime import check, result, state_of

CASE = STACKS[1]


def outputs(y, state):
    """As the modules return it."""
    y, *states = result(y, state)
    return y, tuple(states)


WRONG = [-1, CLASSES, 2**40]


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_files_go_through_every_reader(case, others, path):
    fast, ids, lengths = folded(case, others), ids_of(case), case.lengths()
    lfk.save_file(fast, path)
    read, lstm = lfk.load_file(path), LSTM.load(path)
    assert read.precision == fast.precision
    assert lstm.takes_ids
    assert lstm.input_size == CLASSES
    for counts in (None, lengths):
        expected = fast(ids, case.state(), counts)
        assert_same(read(ids, case.state(), counts), expected)
        numbers = None if counts is None else counts.numpy()
        check(lstm, ids.numpy(), case.state(), expected, lengths=numbers)
        check(lstm, ids.int().numpy(), case.state(), expected, lengths=numbers)


def test_arrays_of_other_layouts(load):
    fast, ids = folded(CASE), ids_of(CASE)
    lstm, expected = load(fast), fast(ids, CASE.state())
    wide = np.full((*ids.shape, 3), -1)
    wide[..., 1] = ids
    bytes_and_ids = np.zeros(ids.numel() * 8 + 1, np.uint8)
    misaligned = bytes_and_ids[1:].view(np.int64).reshape(ids.shape)
    misaligned[...] = ids
    for view in (wide[..., 1], misaligned, ids.numpy()[::-1].copy()[::-1], np.asfortranarray(ids)):
        check(lstm, view, CASE.state(), expected)


def test_one_sequence_and_steps(load):
    fast, ids = folded(CASE), ids_of(CASE)
    lstm, expected = load(fast), fast(ids[:, 0])
    state = lstm.state()
    y = everywhere(lstm.forward)(ids[:, 0].numpy())
    assert np.array_equal(y, expected[0])
    for t in range(CASE.T):
        y = lstm.step(ids[t, 0].numpy(), state)
        assert np.array_equal(y, expected[0][t])
    assert np.array_equal(state.h[:, 0], expected[1][0])
    state = state_of(lstm, CASE.state())
    y = np.stack([lstm.step(row, state) for row in ids.numpy()])
    assert_same(outputs(y, state), fast(ids, CASE.state()))


def test_arrays_that_are_refused(load):
    fast, ids = folded(CASE), ids_of(CASE).numpy()
    lstm, plain = load(fast), load(CASE.fast())
    assert not plain.takes_ids
    for wrong in (ids.astype(np.float32), ids.astype(np.int16), ids.astype(np.uint64), ids > 3):
        with pytest.raises(TypeError, match="x must be token ids, int64 or int32"):
            lstm.forward(wrong)
    with pytest.raises(TypeError, match="x must be float32 or float16, got int64"):
        plain.forward(np.zeros((3, 2, 12), np.int64))
    for wrong in (ids[None], ids[0, 0]):
        with pytest.raises(ValueError, match="x must have 1 or 2 dimensions"):
            lstm.forward(np.asarray(wrong))
    with pytest.raises(ValueError, match="x must have 0 or 1 dimensions"):
        lstm.step(ids, lstm.state())
    for wrong in WRONG:
        bad, state = ids.copy(), state_of(lstm, CASE.state())
        bad[17, 2] = wrong
        with pytest.raises(ValueError, match=rf"in 0\.\.22, got {wrong} at time step 17 of row 2"):
            lstm.forward(bad, state)
        assert_same(
            outputs(lstm.forward(ids, state), state), fast(torch.from_numpy(ids), CASE.state())
        )


def test_c(load_c):
    fast, ids, lengths = folded(CASE), ids_of(CASE).numpy(), CASE.lengths().numpy()
    lstm, shape = load_c(fast), (CASE.T, CASE.B)
    assert call("lstm_takes_ids", lstm) == 1
    assert call("lstm_takes_ids", load_c(CASE.fast())) == call("lstm_takes_ids", None) == 0
    for counts in (None, lengths):
        state, y = c_state_of(lstm, CASE.state()), np.full((*shape, 31), 8, np.float32)
        sequence = Sequence(*shape, y=y.ctypes.data, ids=ids.ctypes.data)
        sequence.lengths = None if counts is None else counts.ctypes.data
        assert call("lstm_forward", lstm, sequence, state) == OK, last_error()
        tensors = None if counts is None else torch.from_numpy(counts)
        assert_same(outputs(y, state), fast(torch.from_numpy(ids), CASE.state(), tensors))
    state, y = c_state_of(lstm, CASE.state()), np.empty((*shape, 31), np.float32)
    for t in range(CASE.T):
        at = ids[t].ctypes.data, state, y[t].ctypes.data
        assert call("lstm_step_ids", lstm, *at) == OK, last_error()
    assert_same(outputs(y, state), fast(torch.from_numpy(ids), CASE.state()))


def test_c_is_told(load_c):
    ids, y = ids_of(CASE).numpy(), np.full((CASE.T, CASE.B, 31), 8, np.float32)
    lstm, plain = load_c(folded(CASE)), load_c(CASE.fast())
    state = c_state_of(lstm, CASE.state())

    def refused(message, name, *arguments):
        assert call(name, *arguments) == INVALID_ARGUMENT
        assert message in last_error()
        assert (y == 8).all()
        assert np.array_equal(state.h, CASE.state()[0])

    both = {"x": y.ctypes.data, "y": y.ctypes.data, "ids": ids.ctypes.data}
    of = lambda *names: Sequence(CASE.T, CASE.B, **{n: both[n] for n in names})  # noqa: E731
    refused("give x or ids, not both", "lstm_forward", lstm, of("x", "y", "ids"), state)
    refused("reads token ids", "lstm_forward", lstm, of("x", "y"), state)
    refused("reads token ids", "lstm_step", lstm, y.ctypes.data, state, y.ctypes.data)
    refused("reads values", "lstm_forward", plain, of("y", "ids"), state)
    refused("reads values", "lstm_step_ids", plain, ids.ctypes.data, state, y.ctypes.data)
    refused("must not be null", "lstm_step_ids", lstm, None, state, y.ctypes.data)
    for wrong in WRONG:
        ids[-1, 1] = wrong
        message = f"token ids must be in 0..22, got {wrong} at time step 69 of row 1"
        refused(message, "lstm_forward", lstm, of("y", "ids"), state)
