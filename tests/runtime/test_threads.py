"""The NumPy runtime on several Python threads."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lstm_fastkernels as lfk
from cases import Case, drawn
from io_cases import refuse
from isas import everywhere
from lstm_fastkernels import runtime
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


# In a process of its own, where nobody else has threads.
SCRIPT = """
import os, sys, time
import numpy as np
from lstm_fastkernels import runtime

def tasks():
    return len(os.listdir("/proc/self/task"))

lstm = runtime.LSTM.load(sys.argv[1])
x = np.ones((300, 64, 31), np.float32)
one, before = lstm.forward(x), tasks()
many = lstm.forward(x, threads=4000)
assert np.array_equal(one, many), "outputs do not depend on threads"
assert tasks() - before <= len(os.sched_getaffinity(0)) - 1, tasks()
runtime.release_memory()
end = time.monotonic() + 20
while tasks() > before and time.monotonic() < end:
    time.sleep(0.01)
assert tasks() == before, "idle workers end"
assert np.array_equal(one, lstm.forward(x, threads=4000)), "and others come"
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not list threads")
def test_as_many_threads_as_processors(path):
    lfk.save_file(drawn(Case(31, 64)), path)
    command = [sys.executable, "-c", SCRIPT, str(path)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_memory_is_released_between_calls(load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    expected = lstm.forward(x)
    for _ in range(3):
        runtime.release_memory()
        assert np.array_equal(lstm.forward(x), expected)
