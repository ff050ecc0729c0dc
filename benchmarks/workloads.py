"""The workloads of the comparison, and the floor that a machine's limits set for each of them.

A name says the shape of the work, then the input and the hidden size: S is streaming (one call a
time step, batch 1, state carried from call to call), Q one call for a sequence of batch 1, B8 and
B32 one call for a batch of sequences, L two bidirectional layers on one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

# Seconds for the gates, c, h and the quantization of h, for each hidden unit, row and step: a
# vectorized AVX2 prototype's time, not measured again on each machine.
GATES_SECONDS = 2.7e-9

# The smallest block that can be skipped, and what says where it is.
BLOCK_WEIGHTS = 8 * 4
INDEX_BYTES = 2

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
    "int8 amx": (["int8_dpbusd_256", "int8_dpbusd_512"], ["int8_tdpbusd"]),
    # Of every instruction set: the kernels have no float32 products that are wider.
    "float32": (["float32_fma"], ["float32_fma"]),
}
SEQUENCES["int16 amx"] = SEQUENCES["int16 avx512vnni"]  # the same kernels


@dataclass(frozen=True)
class Pruning:
    """Of each gate, blocks chosen at random stay, a share `density`; the others become zero."""

    density: float
    block: tuple[int, int]  # rows and columns; divides the sizes
    hh_only: bool = False  # the recurrent matrix alone is pruned

    def blocks(self, weights_of_a_gate: int) -> tuple[int, int]:
        """All blocks of a gate, and those that stay."""
        blocks = weights_of_a_gate // (self.block[0] * self.block[1])
        return blocks, max(1, round(self.density * blocks))

    def prune_(self, weight: torch.Tensor, generator: torch.Generator) -> None:
        """Zeroes blocks of nn.LSTM's matrix [4 H, columns]."""
        gates = weight.unflatten(0, (4, -1))
        rows, columns = gates.shape[1] // self.block[0], gates.shape[2] // self.block[1]
        blocks, stay = self.blocks(gates[0].numel())
        ranks = torch.rand(4, blocks, generator=generator).argsort(1).argsort(1)
        kept = (ranks < stay).unflatten(1, (rows, columns))
        gates.mul_(kept.repeat_interleave(self.block[0], 1).repeat_interleave(self.block[1], 2))


class Matrix(NamedTuple):
    """The weights of a matrix that are not pruned, which is also its products for one row."""

    weights: int
    in_blocks: bool

    def bytes(self, weight_bytes: int) -> int:
        indices = self.weights // BLOCK_WEIGHTS * INDEX_BYTES if self.in_blocks else 0
        return self.weights * weight_bytes + indices


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
    pruning: Pruning | None = None

    def matrices(self) -> list[tuple[Matrix, Matrix]]:
        """The input and the recurrent matrix of each layer and direction."""
        directions = 2 if self.bidirectional else 1
        above = [directions * self.hidden_size] * (self.num_layers - 1)
        hh = self._matrix(self.hidden_size, self.pruning)
        pruning = None if self.pruning and self.pruning.hh_only else self.pruning
        return [
            (self._matrix(inputs, pruning), hh)
            for inputs in [self.input_size, *above]
            for _ in range(directions)
        ]

    def _matrix(self, columns: int, pruning: Pruning | None) -> Matrix:
        of_a_gate = self.hidden_size * columns
        if not pruning:
            return Matrix(4 * of_a_gate, in_blocks=False)
        blocks, stay = pruning.blocks(of_a_gate)
        return Matrix(4 * of_a_gate * stay // blocks, in_blocks=True)

    def weights(self) -> int:
        """The weights of all matrices: bytes in int8, and products of one row and time step."""
        return sum(ih.weights + hh.weights for ih, hh in self.matrices())

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
        lstm.eval().requires_grad_(False)
        if self.pruning:
            pruned = "weight_hh" if self.pruning.hh_only else "weight"
            for name, parameter in lstm.named_parameters():
                if name.startswith(pruned):
                    self.pruning.prune_(parameter, generator)
        return lstm

    def inputs(self) -> torch.Tensor:
        """Normal-distributed inputs, [steps, batch, input_size], the same each time."""
        generator = torch.Generator().manual_seed(2)
        return torch.randn(self.steps, self.batch, self.input_size, generator=generator)


SIZES = [(40, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)]


def streaming(input_size: int, hidden_size: int) -> Workload:
    name = f"S_{input_size}_{hidden_size}"
    return Workload(name, input_size, hidden_size, batch=1, steps=50, streaming=True)


def sequence(input_size: int, hidden_size: int) -> Workload:
    name = f"Q_{input_size}_{hidden_size}"
    return Workload(name, input_size, hidden_size, batch=1, steps=100)


def batched(batch: int, input_size: int, hidden_size: int) -> Workload:
    name = f"B{batch}_{input_size}_{hidden_size}"
    return Workload(name, input_size, hidden_size, batch=batch, steps=50)


def _all_workloads() -> list[Workload]:
    return [
        *(streaming(*sizes) for sizes in SIZES),
        *(sequence(*sizes) for sizes in SIZES),
        *(batched(batch, *sizes) for batch in (8, 32) for sizes in SIZES[2:4]),
        Workload("D_256_256", 256, 256, batch=1, steps=100, num_layers=2),
        Workload("L_128_256", 128, 256, batch=1, steps=100, num_layers=2, bidirectional=True),
    ]


WORKLOADS = {workload.name: workload for workload in _all_workloads()}


def floor_seconds(workload: Workload, limits: dict[str, Any]) -> dict[str, float]:
    """The least time for one step of the whole batch, given what limits.cpp printed.

    One figure for each key of SEQUENCES that this machine could measure. The recurrent products
    take as long as their arithmetic or as reading their weights, whichever is longer: a step waits
    for the step before it, so the weights are read again each time. The input products of all steps
    are one matrix product, bound by arithmetic; when streaming there is no such product, and both
    matrices are read at each step. Of pruned matrices it counts what is left.
    """
    rates = limits["gmacs"]
    return {
        key: _floor(
            workload,
            limits,
            4 if key == "float32" else 1,
            *(max(rates[name] for name in names) * 1e9 for names in pair),
        )
        for key, pair in SEQUENCES.items()
        if all(name in rates for names in pair for name in names)
    }


def _floor(
    workload: Workload,
    limits: dict[str, Any],
    weight_bytes: int,
    rate_met_once: float,
    rate_met_often: float,
) -> float:
    rows = workload.batch
    seconds = 0.0
    for ih, hh in workload.matrices():
        ahead, each_step = ([], [ih, hh]) if workload.streaming else ([ih], [hh])
        products = rows * sum(matrix.weights for matrix in each_step)
        read = sum(matrix.bytes(weight_bytes) for matrix in each_step)
        arithmetic = products / (rate_met_once if rows == 1 else rate_met_often)
        seconds += max(arithmetic, read / _bandwidth(limits, read))
        seconds += rows * sum(matrix.weights for matrix in ahead) / rate_met_often
        seconds += rows * workload.hidden_size * GATES_SECONDS
    return seconds


def _bandwidth(limits: dict[str, Any], working_set: int) -> float:
    """Bytes a second, between the measured working sets by the logarithm of their size."""
    sizes = [int(size) for size in limits["bandwidth_gbs"]]
    rates = list(limits["bandwidth_gbs"].values())
    return float(np.interp(np.log(working_set), np.log(sizes), rates)) * 1e9
