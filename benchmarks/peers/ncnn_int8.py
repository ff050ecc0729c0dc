"""ncnn's LSTM layer with int8 weights, a scale for each row; it takes one sequence at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
from torch import nn

from peers.peer import Run, in_steps
from quantizers import int8_rows
from workloads import Workload

# In front of weights in a model file.
FLOAT32_TAG, INT8_TAG = 0, 0x000D4B38
FORWARD, BOTH_WAYS = 0, 2


def _make(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if workload.batch > 1:
        return None
    net = _load(lstm, workload.streaming, threads)
    inputs = workload.inputs().numpy()[:, 0]
    if not workload.streaming:
        x = _mat(inputs)

        def run() -> np.ndarray:
            extractor = net.create_extractor()
            extractor.input("x0", x)
            return np.array(extractor.extract(f"x{lstm.num_layers}")[1])[:, None]

        return run

    def step(frame: np.ndarray, state: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input("x0", _mat(frame))
        extractor.input("h0", state[0])
        extractor.input("c0", state[1])
        output = np.array(extractor.extract("x1")[1])
        return output, (extractor.extract("h")[1], extractor.extract("c")[1])

    zeros = _mat(np.zeros((1, workload.hidden_size), np.float32))
    return in_steps(step, np.split(inputs, len(inputs)), (zeros, zeros))


def _mat(array: np.ndarray) -> ncnn.Mat:
    return ncnn.Mat(array).clone()  # else it points into an array that may go away


def _load(lstm: nn.LSTM, streaming: bool, threads: int) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        structure, weights = Path(folder, "lstm.param"), Path(folder, "lstm.bin")
        structure.write_text(_structure(lstm, streaming))
        weights.write_bytes(b"".join(_weights(lstm, layer) for layer in range(lstm.num_layers)))
        if net.load_param(str(structure)) or net.load_model(str(weights)):
            raise RuntimeError("ncnn cannot load the model")
    return net


def _structure(lstm: nn.LSTM, streaming: bool) -> str:
    """The text of a .param file: a layer a line, with the names of what it reads and writes."""
    states, after = (["h0", "c0"], ["h", "c"]) if streaming else ([], [])
    lines = [f"Input {name} 0 1 {name}" for name in ["x0", *states]]
    directions = 1 + lstm.bidirectional
    for layer in range(lstm.num_layers):
        columns = lstm.input_size if layer == 0 else directions * lstm.hidden_size
        names = [f"x{layer}", *states, f"x{layer + 1}", *after]
        options = {
            0: lstm.hidden_size,
            1: directions * 4 * lstm.hidden_size * columns,
            2: BOTH_WAYS if lstm.bidirectional else FORWARD,
            8: 2,  # the weights are int8
        }
        said = " ".join(f"{key}={value}" for key, value in options.items())
        lines.append(
            f"LSTM lstm{layer} {1 + len(states)} {1 + len(after)} {' '.join(names)} {said}"
        )
    blobs = lstm.num_layers + 1 + len(states) + len(after)
    return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""])


def _weights(lstm: nn.LSTM, layer: int) -> bytes:
    """Of a layer in a .bin file, both directions of a matrix together."""
    suffixes = [f"_l{layer}", f"_l{layer}_reverse"][: 1 + lstm.bidirectional]

    def stacked(name: str) -> np.ndarray:
        return np.stack([_rows(getattr(lstm, name + suffix).numpy()) for suffix in suffixes])

    ih, ih_scales = int8_rows(stacked("weight_ih"), 127)
    hh, hh_scales = int8_rows(stacked("weight_hh"), 127)
    bias = stacked("bias_ih") + stacked("bias_hh")
    return b"".join(
        [
            *(_tagged(INT8_TAG, ih), _tagged(FLOAT32_TAG, bias), _tagged(INT8_TAG, hh)),
            *((1 / ih_scales).tobytes(), (1 / hh_scales).tobytes()),
        ]
    )


def _rows(rows: np.ndarray) -> np.ndarray:
    """Rows in torch's order of the gates (i, f, g, o) in ncnn's order (i, f, o, g)."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, f, o, g])


def _tagged(tag: int, array: np.ndarray) -> bytes:
    return np.uint32(tag).tobytes() + array.tobytes()


PEERS = {"ncnn int8": _make}
