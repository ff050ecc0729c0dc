"""The StreamBatch of NumPy and that of C, with the methods of torch's."""

import ctypes
from ctypes import byref

import numpy as np
import torch

import lstm_fastkernels as lfk
from c_interface import OK, Handle, Tick, call, last_error
from lstm_fastkernels import runtime


class NumpyBatch(runtime.StreamBatch):
    def tick(self, streams, x):
        return torch.from_numpy(super().tick(streams, x.numpy()))

    def get_state(self, stream):
        state = runtime.State.restore(self.save(stream))
        return lfk.State(torch.from_numpy(state.h.copy()), torch.from_numpy(state.c.copy()))

    def set_state(self, stream, state):
        own = runtime.State.restore(self.save(stream))
        own.h[...], own.c[...] = state
        self.restore(stream, own.save())


class CBatch:
    """Of the C interface's LSTM; x is float32, or ids."""

    def __init__(self, lstm, capacity):
        self.shape, self.takes_ids = call("lstm_shape", lstm), call("lstm_takes_ids", lstm)
        self.handle = Handle("streams_new", lstm, capacity)
        self.there = set()  # C has no list of them

    @property
    def streams(self):
        return sorted(self.there)

    @property
    def capacity(self):
        return call("streams_capacity", self.handle)

    def __len__(self):
        return call("streams_size", self.handle)

    def call(self, name, *arguments):
        assert call(f"streams_{name}", self.handle, *arguments) == OK, last_error()

    def new(self, name, *arguments):
        stream = ctypes.c_int64()
        self.call(name, *arguments, byref(stream))
        self.there.add(stream.value)
        return stream.value

    def join(self):
        return self.new("join")

    def fork(self, stream):
        return self.new("fork", stream)

    def leave(self, stream):
        self.call("leave", stream)
        self.there.remove(stream)

    def reset(self, stream):
        self.call("reset", stream)

    def reorder(self, streams, sources):
        to, origin = np.array(streams, np.int64), np.array(sources, np.int64)
        self.call("reorder", to.ctypes.data, origin.ctypes.data, len(streams))

    def saved(self, stream):
        saved = ctypes.create_string_buffer(call("streams_bytes", self.handle))
        self.call("save", stream, saved, len(saved))
        return bytes(saved)

    def get_state(self, stream):
        state = runtime.State.restore(self.saved(stream))
        return lfk.State(torch.from_numpy(state.h.copy()), torch.from_numpy(state.c.copy()))

    def set_state(self, stream, state):
        own = runtime.State.restore(self.saved(stream))
        own.h[...], own.c[...] = state
        saved = own.save()
        self.call("restore", stream, saved, len(saved))

    def tick(self, streams, x):
        """y in every second row of another array, ids in every third place of one."""
        ready, count = np.array(streams, np.int64), len(streams)
        columns = self.shape.proj_size or self.shape.hidden_size
        y = np.zeros((count, 2, columns), np.float32)
        tick = Tick(ready.ctypes.data, count, y=y.ctypes.data, y_row_stride=2 * columns, threads=2)
        if self.takes_ids:
            x = np.repeat(x.numpy().astype(np.int64), 3)
            tick.ids, tick.x_row_stride = x.ctypes.data, 3
        else:
            x = x.numpy()
            tick.x, tick.x_row_stride = x.ctypes.data, self.shape.input_size
        self.call("tick", byref(tick))
        assert not y[:, 1].any()
        return torch.from_numpy(y[:, 0].copy())
