"""Matrices in blocks, as torch's BSR has them, each gate cut into blocks by itself."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lstm_fastkernels.compression.pruning import patterns

Layout = Literal["auto", "dense", "block_sparse"]
BlockSize = tuple[int, int]

# What the kernels skip; larger blocks are streamed as several of these.
KERNEL_BLOCK = (8, 4)


class Blocks(NamedTuple):
    """The blocks of a matrix that are not zero, row by row.

    values [blocks, rows, columns]; crow_indices int32 [block rows + 1], where each block row
    begins; col_indices int32 [blocks], in blocks. Each gate is padded to whole blocks with zeros: a
    matrix [G * R, K] has G * ceil(R / rows) block rows of ceil(K / columns) blocks.
    """

    values: Tensor
    crow_indices: Tensor
    col_indices: Tensor


def check_block_size(block_size: BlockSize) -> None:
    """Raises ValueError unless the kernels can stream such blocks."""
    rows, columns = block_size
    if rows < 1 or rows % KERNEL_BLOCK[0] or columns < 1 or columns % KERNEL_BLOCK[1]:
        raise ValueError(
            "block_size must be a multiple of 8 rows and a multiple of 4 columns, "
            f"got {tuple(block_size)}"
        )


def grid_shape(shape: Sequence[int], name: str, block_size: Sequence[int]) -> tuple[int, int]:
    """Block rows and blocks a row of nn.LSTM's matrix [rows, columns] of that name."""
    gates = patterns.gate_count(name)
    rows = math.ceil(shape[0] // gates / block_size[0])
    return gates * rows, math.ceil(shape[1] / block_size[1])


def to_blocks(matrix: Tensor, name: str, block_size: BlockSize) -> Blocks:
    """Cuts nn.LSTM's matrix of that name, which tells its gates, into blocks."""
    height, width = block_size
    gates = patterns.split_gates(matrix, name)
    padded = F.pad(gates, (0, -gates.shape[2] % width, 0, -gates.shape[1] % height))
    tall = padded.unflatten(1, (-1, height)).flatten(0, 1)
    grid = tall.unflatten(2, (-1, width)).transpose(1, 2)
    kept = grid.ne(0).flatten(2).any(2)
    ends = kept.sum(1).cumsum(0, dtype=torch.int32)
    return Blocks(grid[kept], F.pad(ends, (1, 0)), kept.nonzero()[:, 1].int())


def from_blocks(blocks: Blocks, shape: Sequence[int], name: str) -> Tensor:
    """The matrix [rows, columns] with its zeros written out."""
    values, crow_indices, col_indices = blocks
    block_rows, blocks_a_row = grid_shape(shape, name, values.shape[1:])
    grid = values.new_zeros(block_rows, blocks_a_row, *values.shape[1:])
    counts = crow_indices.diff().long()
    rows = torch.arange(block_rows, device=values.device).repeat_interleave(counts)
    grid[rows, col_indices.long()] = values
    tall = grid.transpose(1, 2).flatten(2)
    gates = patterns.split_gates(tall, name).flatten(1, 2)
    rows_a_gate = shape[0] // patterns.gate_count(name)
    return gates[:, :rows_a_gate, : shape[1]].flatten(0, 1)


def block_density(matrix: Tensor, name: str) -> float:
    """Share of the 8x4 blocks, cut per gate, that have an element other than zero."""
    counts = patterns.block_sums(patterns.split_gates(matrix != 0, name).int(), KERNEL_BLOCK)
    return int(counts.count_nonzero()) / counts.numel()
