"""FastQuantLSTM and the NumPy runtime."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from torch import nn

import lstm_fastkernels as lfk
from lstm_fastkernels import runtime
from peers.peer import Peer, Run, in_place, run_module
from workloads import Workload


def ours(isas: list[str]) -> list[Peer]:
    """int8 on each instruction set, best first; on the best one int16, and what only streams."""
    best = isas[0]
    peers = [_fast_quant("int8", isa) for isa in isas] + [_fast_quant("int16", best)]
    for name, make in (("step", _step_in_place), ("NumPy", _numpy)):
        peers.append(Peer(f"ours {name} {best}", make, best, f"int8 {best}"))
    return peers


def step_in_place(workload: Workload, module: lfk.FastQuantLSTM) -> Run:
    return in_place(module.step, workload.inputs().unbind(), lambda: module.new_state(1))


def numpy_steps(workload: Workload, path: Path) -> Run:
    """Of the LSTM in a file."""
    lstm = runtime.LSTM.load(path)
    return in_place(lstm.step, workload.inputs().numpy(), lstm.state)


def _fast_quant(activations: str, isa: str) -> Peer:
    key = f"{activations} {isa}"
    return Peer(f"ours {key}", partial(_forward, activations), isa, key)


def _forward(activations: str, workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, lfk.FastQuantLSTM.from_float(lstm, activations=activations))


def _step_in_place(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if not workload.streaming:
        return None
    return step_in_place(workload, lfk.FastQuantLSTM.from_float(lstm))


def _numpy(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if not workload.streaming:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.safetensors")
        lfk.save_file(lfk.FastQuantLSTM.from_float(lstm), path)
        return numpy_steps(workload, path)
