"""The workloads of the comparison, and the floor that a machine's limits set for each of them.

A name says the shape of the work, then the input and the hidden size: S is streaming (one call a
time step, batch 1, state carried from call to call), Q one call for a sequence of batch 1, B8 and
B32 one call for a batch of sequences, L two bidirectional layers on one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

# Seconds for the gates, c, h and the quantization of h, for each hidden unit, row and step: a
# vectorized AVX2 prototype's time, not measured again on each machine.
GATES_SECONDS = 2.7e-9

# For each arithmetic and instruction set, the sequences of limits.cpp (the fastest one counts) for
# a weight that meets one activation, and for a weight that meets several: for int16 activations the
# weights are widened, in the second case once for all of them.
SEQUENCES = {
    "int8 avx2": (["int8_maddubs"], ["int8_maddubs"]),
    "int16 avx2": (["int16_widen_madd"], ["int16_madd"]),
    "int8 avx512vnni": (
        ["int8_dpbusd_256", "int8_dpbusd_512"],
        ["int8_dpbusd_256", "int8_dpbusd_512"],
    ),
    "int16 avx512vnni": (
        ["int16_widen_dpwssd_256", "int16_widen_dpwssd_512"],
        ["int16_dpwssd_256", "int16_dpwssd_512"],
    ),
}


@dataclass(frozen=True)
class Workload:
    """An LSTM and the way that it is called: `steps` time steps of `batch` rows."""

    name: str
    input_size: int
    hidden_size: int
    batch: int
    steps: int
    num_layers: int = 1
    bidirectional: bool = False
    streaming: bool = False

    def matrices(self) -> list[tuple[int, int]]:
        """The elements of the input and of the recurrent matrix of each layer and direction."""
        directions = 2 if self.bidirectional else 1
        above = [directions * self.hidden_size] * (self.num_layers - 1)
        gates = 4 * self.hidden_size
        return [
            (gates * inputs, gates * self.hidden_size)
            for inputs in [self.input_size, *above]
            for _ in range(directions)
        ]

    def weights(self) -> int:
        """The elements of all matrices: bytes in int8, and products of one row and time step."""
        return sum(inputs + recurrent for inputs, recurrent in self.matrices())

    def float_lstm(self) -> nn.LSTM:
        """The model, with normal-distributed parameters as trained ones are, the same each time."""
        lstm = nn.LSTM(
            self.input_size,
            self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
        )
        generator = torch.Generator().manual_seed(1)
        for parameter in lstm.parameters():
            nn.init.normal_(parameter, std=self.hidden_size**-0.5, generator=generator)
        return lstm.eval().requires_grad_(False)

    def inputs(self) -> torch.Tensor:
        """Normal-distributed inputs, [steps, batch, input_size], the same each time."""
        generator = torch.Generator().manual_seed(2)
        return torch.randn(self.steps, self.batch, self.input_size, generator=generator)


def _all_workloads() -> list[Workload]:
    sizes = [(40, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)]
    streams = [Workload(f"S_{i}_{h}", i, h, batch=1, steps=50, streaming=True) for i, h in sizes]
    sequences = [Workload(f"Q_{i}_{h}", i, h, batch=1, steps=100) for i, h in sizes]
    batches = [
        Workload(f"B{batch}_{i}_{h}", i, h, batch=batch, steps=50)
        for batch in (8, 32)
        for i, h in sizes[2:4]
    ]
    layers = Workload("L_128_256", 128, 256, batch=1, steps=100, num_layers=2, bidirectional=True)
    return [*streams, *sequences, *batches, layers]


WORKLOADS = {workload.name: workload for workload in _all_workloads()}


def floor_seconds(workload: Workload, limits: dict[str, Any]) -> dict[str, float]:
    """The least time for one step of the whole batch, given what limits.cpp printed.

    One figure for each key of SEQUENCES that this machine could measure. The recurrent products
    take as long as their arithmetic or as reading their weights, whichever is longer: a step waits
    for the step before it, so the weights are read again each time. The input products of all steps
    are one matrix product, bound by arithmetic; when streaming there is no such product, and both
    matrices are read at each step.
    """
    rates = limits["gmacs"]
    return {
        key: _floor(workload, limits, *(max(rates[name] for name in names) * 1e9 for names in pair))
        for key, pair in SEQUENCES.items()
        if all(name in rates for names in pair for name in names)
    }


def _floor(
    workload: Workload, limits: dict[str, Any], rate_met_once: float, rate_met_often: float
) -> float:
    rows = workload.batch
    seconds = 0.0
    for ahead, recurrent in workload.matrices():
        if workload.streaming:
            ahead, recurrent = 0, ahead + recurrent
        arithmetic = rows * recurrent / (rate_met_once if rows == 1 else rate_met_often)
        reading = recurrent / _bandwidth(limits, recurrent)
        seconds += max(arithmetic, reading) + rows * ahead / rate_met_often
        seconds += rows * workload.hidden_size * GATES_SECONDS
    return seconds


def _bandwidth(limits: dict[str, Any], working_set: int) -> float:
    """Bytes a second, between the measured working sets by the logarithm of their size."""
    sizes = [int(size) for size in limits["bandwidth_gbs"]]
    rates = list(limits["bandwidth_gbs"].values())
    return float(np.interp(np.log(working_set), np.log(sizes), rates)) * 1e9
