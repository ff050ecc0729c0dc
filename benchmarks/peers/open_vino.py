"""OpenVINO, in float32: int8 would need a model that was calibrated."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import openvino
from torch import nn

from onnx_lstm import lstm_model
from peers.peer import Run, in_steps
from workloads import Workload


def _make(workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    core = openvino.Core()
    model = core.read_model(io.BytesIO(lstm_model(lstm, workload.streaming, quantized=False)))
    inputs = workload.inputs().numpy()
    shapes = {"x": (1 if workload.streaming else workload.steps, *inputs.shape[1:])}
    if workload.streaming:
        shapes |= dict.fromkeys(("h0", "c0"), (1, 1, workload.hidden_size))
    model.reshape(shapes)
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the CPU has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    if not workload.streaming:

        def run() -> np.ndarray:
            return request.infer({"x": inputs})[0]

        return run

    def step(frame: np.ndarray, state: Any) -> Any:
        outputs = request.infer({"x": frame, "h0": state[0], "c0": state[1]}, share_inputs=True)
        h, c = outputs[0], outputs[1]
        return h, (h, c)

    zeros = np.zeros((1, 1, workload.hidden_size), np.float32)
    return in_steps(step, np.split(inputs, len(inputs)), (zeros, zeros))


PEERS = {"OpenVINO float32": _make}
