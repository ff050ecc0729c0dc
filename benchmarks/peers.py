"""What is compared: every peer makes the same call for a workload, and returns what nn.LSTM would.

`make(workload, lstm, threads)` gives the call to time: a function without arguments that runs the
whole workload once, from a zero state, and returns its outputs (when streaming, a list with one
output for each call). It gives None for a workload that the peer has no call for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import lstm_fastkernels as lfk
from quantizers import importable, torch_int8
from workloads import Workload

Run = Callable[[], Any]


@dataclass(frozen=True)
class Peer:
    """A contestant. Ours name the instruction set to switch to, and which floor is theirs."""

    name: str
    make: Callable[[Workload, nn.LSTM, int], Run | None]
    isa: str | None = None
    floor: str | None = None


def available_peers(isas: list[str]) -> tuple[list[Peer], list[str]]:
    """Ours for each instruction set, the best one first, then what is installed; and notes."""
    peers = [_ours("int8", isa) for isa in isas]
    peers.append(_ours("int16", isas[0]))
    peers.append(Peer("nn.LSTM", torch_lstm))
    peers.append(Peer("nn.LSTMCell", _torch_cell))
    notes = []
    if importable("torch.ao.quantization"):
        peers.append(Peer("torch int8", _torch_dynamic))
    else:
        notes.append("torch int8 is left out: this torch has no torch.ao.quantization.")
    if importable("onnx", "onnxruntime"):
        peers.append(Peer("ORT float32", partial(_onnxruntime, False)))
        peers.append(Peer("ORT int8", partial(_onnxruntime, True)))
    else:
        notes.append("ONNX Runtime is left out: onnx and onnxruntime are not both installed.")
    return peers, notes


def as_array(outputs: Any) -> np.ndarray:
    """What a run returned, as one array [steps, batch, directions * hidden_size] in float64."""
    parts = outputs if isinstance(outputs, list) else [outputs]
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])


def run_module(workload: Workload, module: nn.Module) -> Run:
    """The workload's call of a module that is called as nn.LSTM is."""
    inputs = workload.inputs()
    if not workload.streaming:
        return lambda: module(inputs)[0]
    frames = inputs.unsqueeze(1).unbind()

    def run() -> list[torch.Tensor]:
        state, outputs = None, []
        for frame in frames:
            output, state = module(frame, state)
            outputs.append(output)
        return outputs

    return run


def _ours(activations: str, isa: str) -> Peer:
    key = f"{activations} {isa}"
    return Peer(f"ours {key}", partial(_fast_quant, activations), isa, key)


def _fast_quant(activations: str, workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, lfk.FastQuantLSTM.from_float(lstm, activations=activations))


def torch_lstm(workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, lstm)


def _torch_cell(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if not workload.streaming:
        return None
    cell = nn.LSTMCell(workload.input_size, workload.hidden_size).requires_grad_(False)
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in lstm.state_dict().items()})
    frames = workload.inputs().unbind()

    def run() -> list[torch.Tensor]:
        state, outputs = None, []
        for frame in frames:
            state = cell(frame, state)
            outputs.append(state[0][None])
        return outputs

    return run


def _torch_dynamic(workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, torch_int8(lstm))


def _onnxruntime(quantized: bool, workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    import onnxruntime

    from onnx_lstm import lstm_model

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
    frames = np.split(inputs, len(inputs))
    zeros = np.zeros((1, 1, workload.hidden_size), np.float32)

    def run() -> list[np.ndarray]:
        h, c, outputs = zeros, zeros, []
        for frame in frames:
            h, c = session.run(["h", "c"], {"x": frame, "h0": h, "c0": c})
            outputs.append(h)
        return outputs

    return run
