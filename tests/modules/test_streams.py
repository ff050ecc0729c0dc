"""StreamBatch: each stream has the bits that it has alone, whatever is done between ticks."""

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from isas import assert_same_bits
from lstm_fastkernels.ops import eager
from stream_cases import CASE, CASES, OTHERS, check_schedules, random_input


def batch_of(fast, count=3, capacity=4):
    """A batch with streams that have heard something."""
    batch = lfk.StreamBatch(fast, capacity)
    for _ in range(count):
        batch.join()
    batch.tick(batch.streams, random_input(fast, count))
    return batch


def states_of(batch):
    return tuple((stream, *batch.get_state(stream)) for stream in batch.streams)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_streams_are_as_alone(name, dtype):
    fast = CASES[name].fast()
    check_schedules(fast, lambda capacity: lfk.StreamBatch(fast, capacity), dtype)


def goes_short(batch, x, rows):
    """On copies of the states."""
    return eager.step(batch.lstm, x, batch._state.copy(), None, rows) is not None


@pytest.mark.parametrize(
    ("make", "dtype"),
    [(CASE.fast, torch.float32), (CASE.fast, torch.float16), (OTHERS["token ids"], None)],
    ids=["float32", "float16", "ids"],
)
def test_ticks_by_the_op_are_the_same(make, dtype, monkeypatch):
    fast = make()
    assert goes_short(batch_of(fast), random_input(fast, 2, dtype), [0, 2])
    monkeypatch.setattr(eager, "step", lambda *arguments: None)
    check_schedules(fast, lambda capacity: lfk.StreamBatch(fast, capacity), dtype)


ROWS = {
    "out of range": [0, 4],
    "below 0": [0, -1],
    "beyond the machine's": [0, 2**64],
    "repeated": [2, 2],
    "fewer": [0],
    "more": [0, 1, 2],
    "floats": [0, 1.0],
    "a tuple": (0, 1),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_no_short_call_takes(name):
    """Whoever gives them: nothing is read or written beside the states."""
    batch, x = batch_of(CASE.fast()), torch.ones(2, 9)
    before = batch._state.copy()
    assert goes_short(batch, x, [0, 3])
    assert eager.step(batch.lstm, x, batch._state, None, ROWS[name]) is None
    assert_same_bits(tuple(batch._state), tuple(before))
    one = batch.lstm.new_state()
    assert eager.step(batch.lstm, x[0], one, None, [0]) is None
    assert not one.h.any()


@pytest.mark.parametrize("name", OTHERS)
def test_streams_of_other_lstms_are_as_alone(name):
    fast = OTHERS[name]()
    check_schedules(fast, lambda capacity: lfk.StreamBatch(fast, capacity))


def test_ticks_are_forward():
    fast, x = CASE.fast(), CASE.x()
    batch = lfk.StreamBatch(fast, 3)
    streams = [batch.join() for _ in range(3)]
    y = torch.stack([batch.tick(streams[::-1], rows.flip(0)).flip(0) for rows in x])
    expected, state = fast(x)
    assert_same_bits(y, expected)
    for row, stream in enumerate(streams):
        got = batch.get_state(stream)
        assert_same_bits(tuple(got), tuple(tensor[:, row : row + 1] for tensor in state))


def test_streams_may_be_a_tensor():
    batch, twin = (batch_of(CASE.fast(), count) for count in (3, 3))
    for stream in twin.streams:
        twin.set_state(stream, batch.get_state(stream))
    x = torch.randn(2, 9)
    assert_same_bits(batch.tick(torch.tensor([2, 0]), x), twin.tick([2, 0], x))
    batch.reorder(torch.tensor([0, 1]), torch.tensor([1, 0]))
    twin.reorder((0, 1), (1, 0))
    assert_same_bits(states_of(batch), states_of(twin))


def test_numbers_are_given_once():
    batch, given = lfk.StreamBatch(CASE.fast(), 2), []
    for _ in range(5):
        given += [batch.join(), batch.join()]
        batch.leave(given[-2])
        given.append(batch.join())
        for stream in batch.streams:
            batch.leave(stream)
    assert sorted(set(given)) == sorted(given)
    assert given[:2] == [0, 1]


def test_a_stream_goes_on_alone_and_comes_back():
    fast = CASE.fast()
    batch, x = batch_of(fast), torch.randn(1, 9)
    state = batch.get_state(1)
    y = fast.step(x, state)
    assert_same_bits(batch.tick([1], x), y)
    stream = batch.join()
    batch.set_state(stream, state)
    assert_same_bits(tuple(batch.get_state(stream)), tuple(batch.get_state(1)))


def test_weights_that_change_are_run():
    fast = CASE.fast()
    batch, x = batch_of(fast), torch.randn(1, 9)
    before = batch.get_state(0)
    with torch.no_grad():
        fast.bias_l0.add_(0.5)
    expected = fast.step(x, before)
    assert_same_bits(batch.tick([0], x), expected)


def test_x_is_left_alone():
    batch = batch_of(CASE.fast())
    wide = torch.randn(6, 20)
    x, before = wide[::3, 4:13], wide.clone()
    y = batch.tick([0, 2], x)
    assert torch.equal(wide, before)
    assert not y.requires_grad
    repeated = torch.randn(1, 9).expand(2, -1)
    twin = batch.fork(0)
    y = batch.tick([0, twin], repeated)
    assert_same_bits(y[:1], y[1:])


def test_modes():
    """A batch made in one mode is used in the others."""
    with torch.inference_mode():
        batch = batch_of(CASE.fast())
    batch.reset(0)
    y = batch.tick([0], torch.ones(1, 9, requires_grad=True))
    with torch.inference_mode():
        batch.reset(0)
        assert torch.equal(batch.tick([0], torch.ones(1, 9)), y)


MISUSES = {
    "left": (lambda b, x: b.tick([0, 1], x), ValueError, "no stream 1: it has left"),
    "unknown": (lambda b, x: b.tick([0, 9], x), ValueError, "no stream 9"),
    "negative": (lambda b, x: b.tick([0, -1], x), ValueError, "no stream -1"),
    "twice": (lambda b, x: b.tick([2, 2], x), ValueError, "stream 2 is given twice"),
    "no integer": (lambda b, x: b.tick([0, 2.0], x), TypeError, "float"),
    "no sequence": (lambda b, x: b.tick(0, x), TypeError, "int"),
    "fewer rows": (lambda b, x: b.tick([0, 2], x[:1]), ValueError, r"\[2, 9\], a row for each"),
    "one dimension": (lambda b, x: b.tick([0], x[0]), ValueError, r"\[1, 9\]"),
    "columns": (lambda b, x: b.tick([0, 2], x[:, 1:]), RuntimeError, "input_size"),
    "float64": (lambda b, x: b.tick([0, 2], x.double()), ValueError, "float64"),
    "array": (lambda b, x: b.tick([0, 2], x.numpy()), TypeError, "input must be"),
    "leave": (lambda b, x: b.leave(1), ValueError, "no stream 1"),
    "reset": (lambda b, x: b.reset(1), ValueError, "no stream 1"),
    "fork": (lambda b, x: b.fork(1), ValueError, "no stream 1"),
    "full": (lambda b, x: b.join(), ValueError, "all 3 places are taken"),
    "full fork": (lambda b, x: b.fork(0), ValueError, "all 3 places are taken"),
    "get": (lambda b, x: b.get_state(1), ValueError, "no stream 1"),
    "set": (lambda b, x: b.set_state(1, b.get_state(0)), ValueError, "no stream 1"),
    "rows of a state": (
        lambda b, x: b.set_state(0, b.lstm.new_state(2)),
        ValueError,
        r"h must be \[2, 1, 31\], got \[2, 2, 31\]",
    ),
    "c of another": (
        lambda b, x: b.set_state(0, (b.get_state(2).h, torch.ones(2, 1, 30))),
        ValueError,
        r"c must be \[2, 1, 31\]",
    ),
    "float64 state": (
        lambda b, x: b.set_state(0, (b.get_state(2).h, torch.ones(2, 1, 31).double())),
        TypeError,
        "c must be a float32 tensor, got torch.float64",
    ),
    "no state": (lambda b, x: b.set_state(0, (1, 2)), TypeError, "h must be a float32 tensor"),
    "three states": (lambda b, x: b.set_state(0, (x, x, x)), RuntimeError, "two tensors"),
    "sources": (lambda b, x: b.reorder([0, 2], [0]), ValueError, "each of the 2 streams, got 1"),
    "source": (lambda b, x: b.reorder([0, 2], [2, 1]), ValueError, "no stream 1"),
    "order": (lambda b, x: b.reorder([0, 0], [2, 4]), ValueError, "stream 0 is given twice"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_and_changes_nothing(name):
    call, kind, words = MISUSES[name]
    batch = batch_of(CASE.fast(), capacity=3)
    batch.leave(1)
    batch.set_state(batch.join(), batch.get_state(2))
    before = states_of(batch)
    assert [stream for stream, *_ in before] == [0, 2, 4]
    with pytest.raises(kind, match=words):
        call(batch, torch.randn(2, 9))
    assert_same_bits(states_of(batch), before)


WRONG_IDS = {
    "below 0": (torch.tensor([3, -1]), RuntimeError, "in 0..22, got -1 at time step 0 of row 1"),
    "too large": (torch.tensor([3, 23]), RuntimeError, "in 0..22, got 23"),
    "beyond int32": (torch.tensor([2**32, 3]), RuntimeError, f"got {2**32}"),
    "values": (torch.ones(2), ValueError, "token ids"),
    "int16": (torch.ones(2).short(), ValueError, "token ids"),
    "columns": (torch.ones(2, 1).long(), ValueError, r"\[2\], a row for each stream, got \[2, 1\]"),
    "one of two": (torch.ones(1).long(), ValueError, r"\[2\], a row for each stream, got \[1\]"),
    "a list": ([3, 4], TypeError, "input must be"),
}


@pytest.mark.parametrize("name", WRONG_IDS)
def test_ids_that_are_refused_change_nothing(name):
    ids, kind, words = WRONG_IDS[name]
    batch = batch_of(OTHERS["token ids"]())
    before = states_of(batch)
    with pytest.raises(kind, match=words):
        batch.tick([0, 2], ids)
    assert_same_bits(states_of(batch), before)


def test_batches_that_cannot_be():
    fast = CASE.fast()
    for capacity in (0, -1):
        with pytest.raises(ValueError, match=f"capacity must be at least 1, got {capacity}"):
            lfk.StreamBatch(fast, capacity)
    for capacity in (1.5, "2", None):
        with pytest.raises(TypeError):
            lfk.StreamBatch(fast, capacity)
    for other in (nn.LSTM(9, 31), CASE.fast_cell(), None):
        with pytest.raises(TypeError, match="lstm must be a FastQuantLSTM or a FastSparseLSTM"):
            lfk.StreamBatch(other, 1)
    with pytest.raises(ValueError, match="one direction"):
        lfk.StreamBatch(lfk.FastQuantLSTM(9, 31, bidirectional=True), 1)


def test_a_tick_of_no_streams():
    batch = batch_of(CASE.fast())
    before = states_of(batch)
    assert batch.tick([], torch.empty(0, 9)).shape == (0, 31)
    batch.reorder([], [])
    assert_same_bits(states_of(batch), before)
