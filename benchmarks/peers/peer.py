"""A contestant, and the calls that all of them make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from workloads import Workload

Run = Callable[[], Any]
Make = Callable[[Workload, nn.LSTM, int], Run | None]


@dataclass(frozen=True)
class Peer:
    """A contestant. Ours name the instruction set to switch to, and which floor is theirs.

    `make(workload, lstm, threads)` gives the call to time: a function without arguments that runs
    the whole workload once, from a zero state, and returns its outputs (when streaming, a list with
    one output for each call). It gives None for a workload that the peer has no call for.
    """

    name: str
    make: Make
    isa: str | None = None
    floor: str | None = None


def in_steps(
    step: Callable[[Any, Any], tuple[Any, Any]], frames: Iterable[Any], zeros: Any = None
) -> Run:
    """A streaming workload: `step(frame, state)` gives an output and the next state."""
    frames = list(frames)

    def run() -> list[Any]:
        state, outputs = zeros, []
        for frame in frames:
            output, state = step(frame, state)
            outputs.append(output)
        return outputs

    return run


def in_place(
    step: Callable[[Any, Any], Any], frames: Iterable[Any], zeros: Callable[[], Any]
) -> Run:
    """A streaming workload: `step(frame, state)` gives an output and changes the state."""
    frames = list(frames)

    def run() -> list[Any]:
        state = zeros()
        return [step(frame, state) for frame in frames]

    return run


def run_module(workload: Workload, module: nn.Module) -> Run:
    """The workload's call of a module that is called as nn.LSTM is."""
    inputs = workload.inputs()
    if not workload.streaming:
        return lambda: module(inputs)[0]
    return in_steps(module, inputs.unsqueeze(1).unbind())


def as_array(outputs: Any) -> np.ndarray:
    """What a run returned, as one array [steps, batch, directions * hidden_size] in float64."""
    parts = outputs if isinstance(outputs, list) else [outputs]
    arrays = [np.asarray(part, dtype=np.float64) for part in parts]
    return np.concatenate([array[None] if array.ndim == 2 else array for array in arrays])
