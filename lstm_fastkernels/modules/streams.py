"""Many streams through one LSTM, a time step at a time."""

from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

from lstm_fastkernels.modules.lstm import FastLSTM
from lstm_fastkernels.modules.states import State, States, two_states
from lstm_fastkernels.ops import eager
from lstm_fastkernels.weights.formats import INPUT_DTYPES


class StreamBatch:
    """The states of up to `capacity` streams, side by side, and a call that moves any of them on.

    lstm: a FastQuantLSTM or FastSparseLSTM of one direction; its weights as they are at each tick.
    A stream has the bits that it would have alone, by `step`. It is named by an int, 0 or above;
    that of one that has left is given to no other. States are float32, on the LSTM's device.

    Methods raise ValueError for streams that are not there, for one that is given twice where each
    may be given once and for wrong sizes, TypeError for other types; then nothing has changed. One
    thread may use a StreamBatch at a time.
    """

    def __init__(self, lstm: FastLSTM, capacity: int) -> None:
        if not isinstance(lstm, FastLSTM):
            raise TypeError(
                "lstm must be a FastQuantLSTM or a FastSparseLSTM, got "
                f"{type(lstm).__name__}: from_float makes one"
            )
        if lstm.bidirectional:
            raise ValueError(
                "a StreamBatch needs an LSTM of one direction: the other one begins at a stream's "
                "end"
            )
        if index(capacity) < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.lstm = lstm
        self.capacity = index(capacity)
        with torch.inference_mode(False):
            self._state = lstm.new_state(self.capacity)
        self._rows: dict[int, int] = {}  # of the state, by streams
        self._next = list(range(self.capacity))  # the next stream of each row
        self._free = self._next[::-1]  # rows without a stream, the next one to be taken last

    @property
    def streams(self) -> list[int]:
        """Those that are there, in ascending order."""
        return sorted(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    # ---- between ticks ----

    def join(self) -> int:
        """A new stream of zeros. ValueError where `capacity` of them are there."""
        if not self._free:
            raise ValueError(f"all {self.capacity} places are taken: a stream must leave first")
        row = self._free[-1]
        self._state.reset(row)
        self._free.pop()
        stream = self._next[row]
        self._next[row] += self.capacity
        self._rows[stream] = row
        return stream

    def fork(self, stream: int) -> int:
        """A new one with the state of a stream."""
        source = self._row(stream)
        forked = self.join()
        self._state.copy_row(self._rows[forked], self._state, source)
        return forked

    def leave(self, stream: int) -> None:
        """The stream's number and place are free, the number for nobody."""
        self._free.append(self._row(stream))
        del self._rows[stream]

    def reset(self, stream: int) -> None:
        """Zeros."""
        self._state.reset(self._row(stream))

    def reorder(self, streams: Sequence[int] | Tensor, sources: Sequence[int] | Tensor) -> None:
        """Each of `streams` takes the state that its source had before the call, all at once.

        A stream is in `streams` once at most, in `sources` as often as you like: after a step of a
        beam search, the beams that were kept.
        """
        to, origin = self._own_rows(streams), self._rows_of(sources)
        if len(to) != len(origin):
            raise ValueError(
                f"sources must have one for each of the {len(to)} streams, got {len(origin)}"
            )
        rows, from_rows = self._as_index(to), self._as_index(origin)
        for tensor in self._state:
            tensor.index_copy_(1, rows, tensor.index_select(1, from_rows))

    def get_state(self, stream: int) -> State:
        """A copy of a stream's state, of one row: what `forward` and `step` of the LSTM take."""
        row = self._row(stream)
        return State(*(tensor[:, row : row + 1].clone() for tensor in self._state))

    def set_state(self, stream: int, state: States) -> None:
        """Takes over a state of one row, as get_state and new_state(1) give it, for a stream that
        is there."""
        row = self._row(stream)
        for name, own, given in zip("hc", self._state, two_states(state), strict=True):
            expected = own.shape[0], 1, own.shape[2]
            if not isinstance(given, Tensor) or given.dtype not in INPUT_DTYPES:
                kind = getattr(given, "dtype", type(given).__name__)
                raise TypeError(f"{name} must be a float32 tensor, got {kind}")
            if given.shape != expected:
                raise ValueError(f"{name} must be {list(expected)}, got {list(given.shape)}")
        with torch.no_grad():
            self._state.copy_row(row, state, 0)

    # ---- ticks ----

    def tick(self, streams: Sequence[int] | Tensor, x: Tensor) -> Tensor:
        """y [n, output size] of one time step of n streams, each once at most, from x [n, I].

        x: float32, float16 or bfloat16 on the LSTM's device, row i for streams[i]; y has its dtype.
        If the LSTM takes_ids, x is [n], int64 or int32, and y float32. Other streams keep their
        states. Hooks do not run, and y has no gradient. Raises as the LSTM's `step`, too.
        """
        rows = self._own_rows(streams)
        columns = [] if self.lstm.takes_ids else [self.lstm.input_size]
        if isinstance(x, Tensor) and (x.dim() != 1 + len(columns) or x.shape[0] != len(rows)):
            raise ValueError(
                f"x must be {[len(rows), *columns]}, a row for each stream, got {list(x.shape)}"
            )
        done = eager.step(self.lstm, x, self._state, None, rows)
        return self._tick(rows, x) if done is None else done

    @torch.no_grad()
    def _tick(self, rows: list[int], x: Tensor) -> Tensor:
        """The same by step, on a copy of the rows."""
        places = self._as_index(rows)
        state = State(*(tensor.index_select(1, places) for tensor in self._state))
        y = self.lstm.step(x, state)
        for tensor, after in zip(self._state, state, strict=True):
            tensor.index_copy_(1, places, after)
        return y

    # ---- rows ----

    def _row(self, stream: int) -> int:
        row = self._rows.get(index(stream))
        if row is None:
            raise ValueError(
                f"there is no stream {stream}" + (": it has left, or never joined" * (stream >= 0))
            )
        return row

    def _rows_of(self, streams: Sequence[int] | Tensor) -> list[int]:
        numbers = streams.tolist() if isinstance(streams, Tensor) else streams
        return [self._row(stream) for stream in numbers]

    def _own_rows(self, streams: Sequence[int] | Tensor) -> list[int]:
        rows = self._rows_of(streams)
        if len(set(rows)) < len(rows):
            repeated = next(row for i, row in enumerate(rows) if row in rows[:i])
            stream = self._next[repeated] - self.capacity
            raise ValueError(f"stream {stream} is given twice")
        return rows

    def _as_index(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self._state.h.device)
