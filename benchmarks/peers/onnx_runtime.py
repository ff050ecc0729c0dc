"""ONNX Runtime, in float32 and with its own int8 operator."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from torch import nn

from onnx_lstm import lstm_model
from peers.peer import Run, in_steps
from workloads import Workload


def _make(quantized: bool, workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        lstm_model(lstm, workload.streaming, quantized),
        options,
        providers=["CPUExecutionProvider"],
    )
    inputs = workload.inputs().numpy()
    if not workload.streaming:
        return lambda: session.run(None, {"x": inputs})[0]

    def step(frame: np.ndarray, state: Any) -> Any:
        h, c = session.run(["h", "c"], {"x": frame, "h0": state[0], "c0": state[1]})
        return h, (h, c)

    zeros = np.zeros((1, 1, workload.hidden_size), np.float32)
    return in_steps(step, np.split(inputs, len(inputs)), (zeros, zeros))


PEERS = {"ORT float32": partial(_make, False), "ORT int8": partial(_make, True)}
