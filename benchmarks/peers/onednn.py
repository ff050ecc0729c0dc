"""oneDNN's int8 lstm_forward, of PyPI's `onednn`, whose CPU engine is a SYCL device.

x, h and the outputs have one static scale, which is tuned to the workload's inputs.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np
from torch import nn

from peers.peer import Run, in_place
from workloads import Workload

PREFIX = Path(sys.prefix)
os.environ["OCL_ICD_FILENAMES"] = str(PREFIX / "lib/libintelocl.so")
# Before OpenVINO loads an older one, on which the SYCL device does not start.
ctypes.CDLL(str(PREFIX / "lib/libtbb.so.12"))

ARRAY = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")


def _make(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if workload.bidirectional or workload.num_layers > 1:
        return None
    library = _library(threads)
    inputs = workload.inputs().numpy()
    steps = 1 if workload.streaming else workload.steps
    state = {name: tensor.numpy() for name, tensor in lstm.state_dict().items()}
    fault = ctypes.create_string_buffer(256)
    handle = library.create(
        *(steps, workload.batch, workload.input_size, workload.hidden_size),
        float(np.abs(inputs).max()),
        *(state["weight_ih_l0"], state["weight_hh_l0"]),
        state["bias_ih_l0"] + state["bias_hh_l0"],
        fault,
    )
    if not handle:
        raise RuntimeError(fault.value.decode())
    outputs = (steps, workload.batch, workload.hidden_size)

    def call(frames: np.ndarray, of: None) -> np.ndarray:
        y = np.empty(outputs, np.float32)
        library.run(handle, frames.ctypes.data, y.ctypes.data)
        return y

    run = in_place(call, np.split(inputs, len(inputs) // steps), lambda: library.reset(handle))
    weakref.finalize(run, library.destroy, handle)
    return run


@functools.cache
def _library(threads: int) -> ctypes.CDLL:
    """onednn_lstm.cpp, compiled; a process has one engine, and so one number of threads."""
    os.environ["DPCPP_CPU_NUM_CUS"] = str(threads)
    source = Path(__file__).with_name("onednn_lstm.cpp")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "onednn_lstm.so")
        command = [
            *(os.environ.get("CXX", "g++"), "-O3", "-march=native", "-std=c++17"),
            *("-shared", "-fPIC", source, "-o", target),
            *(f"-I{PREFIX}/include", PREFIX / "lib/libdnnl.so.3"),
            f"-Wl,--disable-new-dtags,-rpath,{PREFIX}/lib",  # also for what libdnnl needs
        ]
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            fault = compiled.stderr.strip().partition("\n")[0]
            raise RuntimeError(f"onednn_lstm.cpp does not compile: {fault}")
        library = ctypes.CDLL(str(target))
    library.create.restype = ctypes.c_void_p
    library.create.argtypes = [*[ctypes.c_int64] * 4, ctypes.c_float, *[ARRAY] * 3, ctypes.c_char_p]
    for function, arguments in ((library.destroy, 1), (library.reset, 1), (library.run, 3)):
        function.restype, function.argtypes = None, [ctypes.c_void_p] * arguments
    return library


PEERS = {"oneDNN int8": _make}
