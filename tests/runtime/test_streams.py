"""StreamBatch on NumPy and in C: each stream has the bits that it has alone."""

from concurrent.futures import ThreadPoolExecutor
from ctypes import byref

import numpy as np
import pytest
import torch

import lstm_fastkernels as lfk
import malformed
from c_interface import INVALID_ARGUMENT, INVALID_FILE, OK, Tick, call, last_error
from cases import Case
from io_cases import refuse
from isas import assert_same_bits, chosen
from lstm_fastkernels.runtime import StreamBatch
from stream_batches import CBatch, NumpyBatch
from stream_cases import CASE, CASES, OTHERS, Schedule, check_schedules, random_input


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_streams_are_as_alone(name, dtype, load):
    fast = CASES[name].fast()
    lstm = load(fast)
    check_schedules(fast, lambda capacity: NumpyBatch(lstm, capacity), dtype)


@pytest.mark.parametrize("name", OTHERS)
def test_streams_of_other_lstms_are_as_alone(name, load):
    fast = OTHERS[name]()
    lstm = load(fast)
    check_schedules(fast, lambda capacity: NumpyBatch(lstm, capacity))


@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_streams_in_c_are_as_alone(name, load_c):
    """C has no function to choose the instruction set."""
    fast = CASES[name].fast() if name in CASES else OTHERS[name]()
    lstm = load_c(fast)
    for capacity in (1, 2, 9):
        with chosen(lfk.supported_isas()[-1]):
            Schedule(fast, CBatch(lstm, capacity), torch.float32, capacity).run(50)


def batch_of(lstm, count=3, capacity=4):
    """A batch with streams that have heard something."""
    batch = StreamBatch(lstm, capacity)
    for _ in range(count):
        batch.join()
    batch.tick(batch.streams, random_input(lstm, count).numpy())
    return batch


def saved(batch):
    return tuple((stream, batch.save(stream)) for stream in batch.streams)


def test_what_it_says_of_itself(load):
    batch = batch_of(load(CASE.fast()))
    assert (batch.capacity, len(batch), batch.streams) == (4, 3, [0, 1, 2])
    batch.leave(1)
    assert (len(batch), batch.streams) == (2, [0, 2])
    assert batch.join() == 5


def test_what_numpy_and_python_take_for_integers(load):
    batch, x = batch_of(load(CASE.fast())), CASE.random(2, 9).numpy()
    before = {stream: batch.save(stream) for stream in batch.streams}
    expected = None
    for streams in ([2, 0], (2, 0), np.array([2, 0]), np.array([2, 9, 0], np.uint8)[::2]):
        for stream, bytes_before in before.items():
            batch.restore(np.int32(stream), bytes_before)
        y = batch.tick(streams, x, threads=2)
        expected = y if expected is None else expected
        assert_same_bits(y, expected)


def test_x_in_any_layout(load):
    batch, x = batch_of(load(CASE.fast())), CASE.random(3, 9).numpy()
    before = saved(batch)
    expected = batch.tick([0, 1, 2], x)
    wide = np.zeros((3, 20), np.float32)
    wide[:, 5:14] = x
    views = wide[:, 5:14], x[::-1].copy()[::-1], np.asfortranarray(x), x.repeat(2, 0)[::2]
    for view in views:
        for stream, bytes_before in before:
            batch.restore(stream, bytes_before)
        assert_same_bits(batch.tick([0, 1, 2], view), expected)


def test_a_row_for_all_streams(load):
    """Strides of 0 are as good as others."""
    batch, x = StreamBatch(load(CASE.fast()), 3), CASE.random(1, 9).numpy()
    streams = [batch.join() for _ in range(3)]
    y = batch.tick(streams, np.broadcast_to(x, (3, 9)))
    assert np.array_equal(y, y[[0, 0, 0]])
    batch.reset(0)
    assert_same_bits(batch.tick([0], x), y[:1])


def test_streams_and_states_read_each_other(load):
    lstm = load(CASE.fast())
    batch, state, x = batch_of(lstm), lstm.state(), CASE.random(1, 9).numpy()
    y = lstm.step(x, state)
    stream = batch.join()
    assert_same_bits(batch.tick([stream], x), y)
    assert batch.save(stream) == state.save()
    batch.restore(0, state.save())
    assert batch.save(0) == state.save()


X = np.ones((2, 9), np.float32)
ARRAY = "x must be a NumPy array"
MISUSES = {
    "left": (lambda b: b.tick([0, 1], X), ValueError, "no stream 1: it has left"),
    "unknown": (lambda b: b.tick([0, 9], X), ValueError, "no stream 9"),
    "negative": (lambda b: b.tick([0, -1], X), ValueError, "no stream -1"),
    "twice": (lambda b: b.tick([2, 2], X), ValueError, "stream 2 is given twice"),
    "more than fit": (lambda b: b.tick([0, 2, 4, 0], X[[0] * 4]), ValueError, "count must be in"),
    "no integers": (lambda b: b.tick([0.0, 2.0], X), TypeError, "streams must be integers"),
    "no sequence": (lambda b: b.tick(0, X), TypeError, "streams must be a sequence of integers"),
    "no streams": (lambda b: b.tick(None, X), TypeError, "streams must be a sequence of integers"),
    "rows of streams": (lambda b: b.tick([[0, 2]], X), TypeError, "a sequence of integers"),
    "fewer rows": (lambda b: b.tick([0, 2], X[:1]), ValueError, "each of the 2 streams, got (1, 9"),
    "one dimension": (lambda b: b.tick([0], X[0]), ValueError, "2 dimensions, got (9,)"),
    "columns": (lambda b: b.tick([0, 2], X[:, 1:]), ValueError, "9 columns, got (2, 8)"),
    "float64": (lambda b: b.tick([0, 2], X.astype("f8")), TypeError, "float32 or float16, got f"),
    "tensor": (lambda b: b.tick([0, 2], torch.ones(2, 9)), TypeError, ARRAY),
    "masked": (lambda b: b.tick([0, 2], np.ma.array(X)), TypeError, "use .filled(value)"),
    "threads": (lambda b: b.tick([0, 2], X, threads=0), ValueError, "threads must be at least 1"),
    "leave": (lambda b: b.leave(1), ValueError, "no stream 1"),
    "leave a float": (lambda b: b.leave(0.0), TypeError, "stream must be an integer"),
    "leave too much": (lambda b: b.leave(2**70), ValueError, "stream is out of range"),
    "reset": (lambda b: b.reset(1), ValueError, "no stream 1"),
    "fork": (lambda b: b.fork(1), ValueError, "no stream 1"),
    "full": (lambda b: b.join(), ValueError, "all 3 places are taken"),
    "full fork": (lambda b: b.fork(0), ValueError, "all 3 places are taken"),
    "save": (lambda b: b.save(1), ValueError, "no stream 1"),
    "restore": (lambda b: b.restore(1, b.save(0)), ValueError, "no stream 1"),
    "text": (lambda b: b.restore(0, "text"), TypeError, "saved must be bytes, got str"),
    "sources": (lambda b: b.reorder([0, 2], [0]), ValueError, "each of the 2 streams, got 1"),
    "source": (lambda b: b.reorder([0, 2], [2, 1]), ValueError, "no stream 1"),
    "order": (lambda b: b.reorder([0, 0], [2, 4]), ValueError, "stream 0 is given twice"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_and_changes_nothing(name, load):
    call, kind, words = MISUSES[name]
    batch = batch_of(load(CASE.fast()), capacity=3)
    batch.leave(1)
    assert batch.join() == 4
    before = saved(batch)
    refuse(lambda: call(batch), None, words, kind=kind)
    assert saved(batch) == before


IDS = np.array([3, 4])
WRONG_IDS = {
    "below 0": (np.array([3, -1]), ValueError, "in 0..22, got -1 at time step 0 of row 1"),
    "too large": (np.array([23, 3], np.int32), ValueError, "in 0..22, got 23"),
    "beyond int32": (np.array([3, 2**32]), ValueError, f"got {2**32}"),
    "values": (X[:, 0], TypeError, "token ids, int64 or int32, got float32"),
    "unsigned": (IDS.astype(np.uint64), TypeError, "token ids, int64 or int32, got uint64"),
    "columns": (IDS[:, None], ValueError, "1 dimension, got (2, 1)"),
    "one of two": (IDS[:1], ValueError, "a row for each of the 2 streams, got (1,)"),
    "a list": ([3, 4], TypeError, ARRAY),
}


@pytest.mark.parametrize("name", WRONG_IDS)
def test_ids_that_are_refused_change_nothing(name, load):
    ids, kind, words = WRONG_IDS[name]
    batch = batch_of(load(OTHERS["token ids"]()))
    before = saved(batch)
    refuse(lambda: batch.tick([0, 2], ids), None, words, kind=kind)
    assert saved(batch) == before


def test_ids_in_any_layout(load):
    batch = batch_of(load(OTHERS["token ids"]()))
    before = saved(batch)
    expected = batch.tick([0, 2], IDS)
    wide = np.full((2, 3), -1)
    wide[:, 1] = IDS
    for view in (wide[:, 1], IDS[::-1].copy()[::-1]):
        for stream, bytes_before in before:
            batch.restore(stream, bytes_before)
        assert_same_bits(batch.tick([0, 2], view), expected)
    for stream in batch.streams:
        batch.restore(stream, before[0][1])
    y = batch.tick(batch.streams, np.broadcast_to(IDS[0], (3,)))
    assert np.array_equal(y, y[[0, 0, 0]])
    batch.restore(0, before[0][1])
    assert_same_bits(batch.tick([0], IDS[:1]), y[:1])


def test_states_that_do_not_fit(load):
    lstm = load(CASE.fast())
    batch = batch_of(lstm)
    before = saved(batch)
    for state in malformed.states():
        refuse(lambda state=state: batch.restore(0, state.contents), None, *state.python)
    refuse(lambda: batch.restore(0, lstm.state(2).save()), None, "holds 2 rows, a stream has one")
    other = load(Case(9, 30, 2).fast()).state().save()
    refuse(lambda: batch.restore(0, other), None, "of another LSTM")
    assert saved(batch) == before


def test_batches_that_cannot_be(load):
    lstm = load(CASE.fast())
    for capacity in (0, -1, 2**31):
        refuse(lambda n=capacity: StreamBatch(lstm, n), None, "capacity must be in 1..2147483647")
    refuse(lambda: StreamBatch(lstm, 1.5), None, "capacity must be an integer", kind=TypeError)
    refuse(lambda: StreamBatch(CASE.fast(), 1), None, "lstm must be a LSTM, got", kind=TypeError)
    both = load(Case(bidirectional=True).fast())
    refuse(lambda: StreamBatch(both, 1), None, "an LSTM of one direction")


def test_no_streams(load):
    batch = batch_of(load(CASE.fast()))
    before = saved(batch)
    assert batch.tick([], X[:0]).shape == (0, 31)
    batch.reorder([], [])
    assert saved(batch) == before


def test_a_batch_in_use_is_refused(load):
    """NumPy asks these numbers for their values while the call already has the batch."""
    batch = batch_of(load(CASE.fast()))
    saved_state, before, refused = batch.save(0), saved(batch), []
    uses = [
        batch.join,
        lambda: len(batch),
        lambda: batch.streams,
        lambda: batch.fork(0),
        lambda: batch.leave(0),
        lambda: batch.reset(0),
        lambda: batch.reorder([0, 1], [1, 0]),
        lambda: batch.save(0),
        lambda: batch.restore(0, saved_state),
        lambda: batch.tick([0], X[:1]),
    ]

    class Numbers:
        def __array__(self, dtype=None, copy=None):
            with ThreadPoolExecutor(1) as pool:
                for use in uses:
                    refuse(pool.submit(use).result, None, "streams: another thread is using it")
                    refused.append(use)
            return np.array([0, 9])

    refuse(lambda: batch.tick(Numbers(), X), None, "no stream 9")
    assert refused == uses
    assert saved(batch) == before


def fails(status, words, name, *arguments):
    """lfk_<name> must fail with that status and those words."""
    assert call(name, *arguments) == status
    assert words in last_error()


def test_misuse_in_c(load_c):
    lstm = load_c(CASE.fast())
    batch, other = CBatch(lstm, 2), CBatch(load_c(Case(9, 30).fast()), 1)
    for _ in range(2):
        batch.join()
    batch.tick([0, 1], torch.from_numpy(X))
    batch.leave(0)
    stream = batch.join()
    assert batch.streams == [1, 2]
    before = [batch.saved(stream) for stream in batch.streams]
    x, y, ids = X.copy(), np.full((2, 31), 8, np.float32), np.array([1, 0])
    tick = Tick(ids.ctypes.data, 2, x.ctypes.data, y.ctypes.data)
    state = other.saved(other.join())
    handle = batch.handle

    fails(INVALID_ARGUMENT, "no stream 0", "streams_tick", handle, byref(tick))
    ids[1] = 1
    fails(INVALID_ARGUMENT, "stream 1 is given twice", "streams_tick", handle, byref(tick))
    tick.count = 3
    fails(INVALID_ARGUMENT, "count must be in 0..2", "streams_tick", handle, byref(tick))
    tick.count, tick.y_row_stride = 2, 30
    ids[1] = 2
    fails(INVALID_ARGUMENT, "rows overlap", "streams_tick", handle, byref(tick))
    for name in ("leave", "reset"):
        fails(INVALID_ARGUMENT, "no stream 0", f"streams_{name}", handle, 0)
    fails(INVALID_ARGUMENT, "all 2 places", "streams_fork", handle, 1, byref(tick))
    fails(INVALID_ARGUMENT, "another LSTM", "streams_restore", handle, 1, state, len(state))
    fails(INVALID_FILE, "magic", "streams_restore", handle, 1, bytes(99), 99)
    fails(INVALID_ARGUMENT, "capacity must be in", "streams_new", lstm, 0, byref(tick))
    tick.y_row_stride, tick.ids = 0, ids.ctypes.data
    fails(INVALID_ARGUMENT, "give x or ids, not both", "streams_tick", handle, byref(tick))
    tick.x = None
    fails(INVALID_ARGUMENT, "this LSTM reads values", "streams_tick", handle, byref(tick))
    assert [batch.saved(stream) for stream in batch.streams] == before
    assert (y == 8).all()
    assert stream == 2


def test_ids_in_c_are_checked(load_c):
    batch, ready, ids = CBatch(load_c(OTHERS["token ids"]()), 2), np.array([0, 1]), IDS.copy()
    for _ in ready:
        batch.join()
    batch.tick(ready, torch.from_numpy(ids))
    before = [batch.saved(stream) for stream in batch.streams]
    y = np.full((2, 31), 8, np.float32)
    tick = Tick(ready.ctypes.data, 2, y=y.ctypes.data, ids=ids.ctypes.data)
    for wrong in (-1, 23, 2**32):
        ids[1] = wrong
        message = f"token ids must be in 0..22, got {wrong} at time step 0 of row 1"
        fails(INVALID_ARGUMENT, message, "streams_tick", batch.handle, byref(tick))
    tick.ids = None
    fails(INVALID_ARGUMENT, "reads token ids", "streams_tick", batch.handle, byref(tick))
    assert [batch.saved(stream) for stream in batch.streams] == before
    assert (y == 8).all()
    assert call("streams_tick", batch.handle, byref(Tick())) == OK
