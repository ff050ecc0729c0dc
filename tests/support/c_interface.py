"""lstm_fastkernels.h in ctypes."""

import ctypes
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_uint,
    c_void_p,
)
from pathlib import Path

import numpy as np

import lstm_fastkernels as lfk

OK, INVALID_ARGUMENT, INVALID_FILE, IO_ERROR = range(4)


class Tensor(Structure):
    _fields_ = [
        ("dtype", c_char_p),
        ("shape", POINTER(c_int64)),
        ("dimensions", c_size_t),
        ("data", c_void_p),
        ("bytes", c_size_t),
    ]


class Shape(Structure):
    _fields_ = [
        (name, c_int64)
        for name in ("input_size", "hidden_size", "proj_size", "num_layers", "num_directions")
    ]


class Sequence(Structure):
    _fields_ = [
        ("time_steps", c_int64),
        ("batch_size", c_int64),
        ("x", c_void_p),
        ("y", c_void_p),
        ("x_time_stride", c_int64),
        ("x_row_stride", c_int64),
        ("y_time_stride", c_int64),
        ("y_row_stride", c_int64),
        ("lengths", c_void_p),
        ("threads", c_int),
        ("ids", c_void_p),
    ]


class Tick(Structure):
    _fields_ = [
        ("streams", c_void_p),
        ("count", c_int64),
        ("x", c_void_p),
        ("y", c_void_p),
        ("x_row_stride", c_int64),
        ("y_row_stride", c_int64),
        ("threads", c_int),
        ("ids", c_void_p),
    ]


# name: what it returns and what it takes; handles are void pointers
FUNCTIONS = {
    "version": (c_char_p,),
    "last_error": (c_char_p,),
    "file_open": (c_int, c_char_p, c_void_p),
    "file_map": (c_int, c_char_p, c_void_p),
    "file_from_memory": (c_int, c_void_p, c_size_t, c_void_p),
    "file_free": (None, c_void_p),
    "file_tensor": (c_int, c_void_p, c_char_p, POINTER(Tensor)),
    "file_num_lstms": (c_size_t, c_void_p),
    "file_lstm_name": (c_char_p, c_void_p, c_size_t),
    "lstm_load": (c_int, c_void_p, c_char_p, c_void_p),
    "lstm_free": (None, c_void_p),
    "lstm_shape": (Shape, c_void_p),
    "lstm_takes_ids": (c_uint, c_void_p),  # no status
    "lstm_shares_file": (c_uint, c_void_p),
    "lstm_forward": (c_int, c_void_p, POINTER(Sequence), c_void_p),
    "lstm_step": (c_int, c_void_p, c_void_p, c_void_p, c_void_p),
    "lstm_step_ids": (c_int, c_void_p, c_void_p, c_void_p, c_void_p),
    "release_memory": (None,),
    "state_new": (c_int, c_void_p, c_int64, c_void_p),
    "state_clone": (c_int, c_void_p, c_void_p),
    "state_free": (None, c_void_p),
    "state_batch_size": (c_int64, c_void_p),
    "state_h": (POINTER(c_float), c_void_p),
    "state_c": (POINTER(c_float), c_void_p),
    "state_reset": (None, c_void_p),
    "state_reset_row": (c_int, c_void_p, c_int64),
    "state_copy_row": (c_int, c_void_p, c_int64, c_void_p, c_int64),
    "state_bytes": (c_size_t, c_void_p),
    "state_save": (c_int, c_void_p, c_void_p, c_size_t),
    "state_restore": (c_int, c_void_p, c_size_t, c_void_p),
    "streams_new": (c_int, c_void_p, c_int64, c_void_p),
    "streams_free": (None, c_void_p),
    "streams_capacity": (c_int64, c_void_p),
    "streams_size": (c_int64, c_void_p),
    "streams_join": (c_int, c_void_p, c_void_p),
    "streams_fork": (c_int, c_void_p, c_int64, c_void_p),
    "streams_leave": (c_int, c_void_p, c_int64),
    "streams_reset": (c_int, c_void_p, c_int64),
    "streams_reorder": (c_int, c_void_p, c_void_p, c_void_p, c_int64),
    "streams_bytes": (c_size_t, c_void_p),
    "streams_save": (c_int, c_void_p, c_int64, c_void_p, c_size_t),
    "streams_restore": (c_int, c_void_p, c_int64, c_void_p, c_size_t),
    "streams_tick": (c_int, c_void_p, POINTER(Tick)),
}


def _load():
    library = ctypes.CDLL(str(Path(lfk.get_library_dir(), "liblstm_fastkernels_file.so")))
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(library, f"lfk_{name}")
        function.restype, function.argtypes = result, arguments
    return library


LIBRARY = _load()


def call(name, *arguments):
    """The status of lfk_<name>, or what it returns."""
    return getattr(LIBRARY, f"lfk_{name}")(*arguments)


def last_error():
    return call("last_error").decode()


class Handle(c_void_p):
    """What lfk_<name> makes of the arguments; freed with its last reference."""

    def __init__(self, name, *arguments):
        super().__init__()
        self.kind = name.partition("_")[0]
        status = call(name, *arguments, byref(self))
        assert status == OK, last_error()

    def __del__(self):
        call(f"{self.kind}_free", self)


class State(Handle):
    """h and c are views."""

    def __init__(self, lstm, batch_size=1):
        super().__init__("state_new", lstm, batch_size)
        self.h, self.c = views(self, call("lstm_shape", lstm))


def views(state, shape):
    """h and c of a state."""
    layers = shape.num_layers * shape.num_directions, call("state_batch_size", state)
    sizes = shape.proj_size or shape.hidden_size, shape.hidden_size
    return [
        np.ctypeslib.as_array(call(f"state_{name}", state), (*layers, size))
        for name, size in zip("hc", sizes, strict=True)
    ]


def state_of(lstm, values):
    """A state of (h, c)."""
    state = State(lstm, values[0].shape[1])
    state.h[...], state.c[...] = values
    return state
