"""States of the NumPy runtime: views, copies, rows, saved bytes."""

import copy
import pickle

import numpy as np
import pytest

import malformed
from cases import Case
from io_cases import refuse
from lstm_fastkernels.runtime import State
from numpy_runtime import CASE, same_state, state_of

zeros = np.zeros


def test_h_and_c_are_views(load):
    lstm = load(CASE.fast())
    state = lstm.state(5)
    assert state.batch_size == 5
    h, c = state.h, state.c
    assert (h.shape, c.shape) == ((2, 5, 13), (2, 5, 31))
    assert h.dtype == c.dtype == np.float32
    assert h.flags.writeable
    lstm.forward(CASE.x().numpy(), state)
    assert h.any()
    assert c.any()
    h[1, 2, 3] = 4
    assert state.h[1, 2, 3] == 4
    before = h.copy(), c.copy()
    del state
    others = [lstm.state(5) for _ in range(9)]  # where the state was, had it been freed
    assert np.array_equal(h, before[0])
    assert np.array_equal(c, before[1])
    assert not others[0].h.any()


@pytest.mark.parametrize(
    "clone",
    [
        State.copy,
        copy.copy,
        copy.deepcopy,
        lambda state: State.restore(state.save()),
        lambda state: pickle.loads(pickle.dumps(state)),
    ],
    ids=["copy", "copy.copy", "deepcopy", "save", "pickle"],
)
def test_copies_of_states(clone, load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state = state_of(lstm, CASE.state())
    other = clone(state)
    assert same_state(state, other)
    y = lstm.forward(x, state)
    assert not same_state(state, other)
    assert np.array_equal(lstm.forward(x, other), y)
    assert same_state(state, other)


def test_reset(load):
    lstm = load(CASE.fast())
    h, c = (s.numpy().copy() for s in CASE.state())
    state = state_of(lstm, (h, c))
    state.reset(2)
    h[:, 2], c[:, 2] = 0, 0
    assert same_state(state, state_of(lstm, (h, c)))
    state.reset(row=0)
    assert state.h[:, 1].any()
    state.reset()
    assert same_state(state, lstm.state(5))


def test_copy_row(load):
    lstm = load(CASE.fast())
    source = state_of(lstm, CASE.state())
    state = lstm.state(2)
    state.copy_row(1, source, 3)
    assert not state.h[:, 0].any()
    for a, b in ((state.h, source.h), (state.c, source.c)):
        assert np.array_equal(a[:, 1], b[:, 3])
    state.copy_row(row=0, source=state, source_row=1)
    assert np.array_equal(state.h[:, 0], source.h[:, 3])


def test_bad_rows_and_sizes(load):
    lstm, other = load(CASE.fast()), load(Case().fast())
    state = state_of(lstm, CASE.state())
    before = state.copy()
    for row in (-1, 5):
        for wrong in (
            lambda row=row: state.reset(row),
            lambda row=row: state.copy_row(row, state, 0),
            lambda row=row: state.copy_row(0, state, row),
        ):
            refuse(wrong, None, "row must be in 0..4", f"got {row}")
    refuse(lambda: state.copy_row(0, other.state(), 0), None, "different LSTMs")
    for size in (-1, 2**31):
        refuse(lambda size=size: lstm.state(size), None, "batch_size must be in", f"got {size}")
    assert same_state(state, before)


@pytest.mark.parametrize("state", malformed.states(), ids=lambda state: state.name)
def test_bytes_that_are_no_state(state):
    refuse(lambda: State.restore(state.contents), None, *state.python)
