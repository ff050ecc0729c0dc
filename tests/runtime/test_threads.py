"""The NumPy runtime on several Python threads."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from cases import Case
from io_cases import refuse
from isas import everywhere
from numpy_runtime import CASE, same_state, state_of

zeros = np.zeros


def elsewhere(function):
    """What it returns on another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_a_state_in_use_is_refused(load):
    """NumPy asks these lengths for their values while the call already has the state."""
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state, free, refused = lstm.state(5), lstm.state(5), []
    uses = [
        lambda: lstm.forward(x, state),
        lambda: lstm.step(x[0], state),
        state.copy,
        state.save,
        state.reset,
        lambda: state.copy_row(0, free, 0),
        lambda: free.copy_row(0, state, 0),
    ]

    class Lengths:
        def __array__(self, dtype=None, copy=None):
            for use in uses:
                with pytest.raises(ValueError, match="another thread is using it") as caught:
                    elsewhere(use)
                refused.append(caught)
            lstm.forward(x, free)
            return np.full(5, 7)

    y = lstm.forward(x, state, lengths=Lengths())
    assert len(refused) == len(uses)
    assert same_state(state, free)
    assert np.array_equal(y, lstm.forward(x))
    for use in uses:
        elsewhere(use)


def test_a_failed_call_frees_the_state(load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state = state_of(lstm, CASE.state())
    before = state.copy()
    refuse(lambda: lstm.forward(x, state, lengths=[0] * 5), None, "lengths")
    assert same_state(state, before)
    lstm.forward(x, state)


def test_threads_with_states_of_their_own(load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()

    def stream(seed):
        state = state_of(lstm, replace(CASE, seed=seed).state())
        return [lstm.step(x[n % 7], state) for n in range(300)]

    def together():
        with ThreadPoolExecutor(4) as pool:
            return tuple(tuple(outputs) for outputs in pool.map(stream, range(4)))

    for seed, outputs in enumerate(everywhere(together)()):
        assert np.array_equal(outputs, stream(seed))


def test_other_threads_go_on_during_a_call(load):
    """With no forced switches, another thread gets its turn only where the call gives it up."""
    case = Case(64, 256, T=400, B=4)
    lstm, x = load(case.fast()), case.x().numpy()
    turns, done = 0, threading.Event()

    def take_turns():
        nonlocal turns
        while not done.wait(1e-4):
            turns += 1

    interval = sys.getswitchinterval()
    other = threading.Thread(target=take_turns)
    sys.setswitchinterval(1e6)
    try:
        other.start()
        for _ in range(100):  # calls, for a machine that is busy
            before = turns
            lstm.forward(x)
            if turns > before:
                return
        pytest.fail("no turn during 100 calls")
    finally:
        done.set()
        other.join()
        sys.setswitchinterval(interval)
