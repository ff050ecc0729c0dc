"""nn.LSTM and nn.LSTMCell."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from peers.peer import Run, in_steps, run_module
from workloads import Workload


def torch_lstm(workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, lstm)


def _cell(workload: Workload, lstm: nn.LSTM, threads: int) -> Run | None:
    if not workload.streaming:
        return None
    cell = nn.LSTMCell(workload.input_size, workload.hidden_size).requires_grad_(False)
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in lstm.state_dict().items()})

    def step(frame: Tensor, state: tuple[Tensor, Tensor] | None) -> Any:
        state = cell(frame, state)
        return state[0], state

    return in_steps(step, workload.inputs().unbind())


PEERS = {"nn.LSTM": torch_lstm, "nn.LSTMCell": _cell}
