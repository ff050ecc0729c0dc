"""Structures: how the matrix of a weight format is laid out: dense, in blocks or as two factors.

Blocks are those of torch's BSR, with each gate cut into blocks by itself.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.nn import functional as F

from lstm_fastkernels.weights.checks import Kind
from lstm_fastkernels.weights.formats import Tensors, WeightFormat
from lstm_fastkernels.weights.shape import MAX_SIZE, gate_count

Layout = Literal["auto", "dense", "block_sparse"]
BlockSize = tuple[int, int]
MatrixSize = tuple[int, int]  # rows, columns
_T = TypeVar("_T")

# What the kernels skip; larger blocks are streamed as several of these.
KERNEL_BLOCK = (8, 4)


# U [N, r] and V [r, K] of matrices, by name.
Factors = Mapping[str, tuple[Tensor, Tensor]]

# "auto" takes factors up to this share of the matrix's weights.
MAX_FACTOR_SHARE = 0.8


class Structure(Protocol):
    """A layout of nn.LSTM's matrices; a matrix's name tells its gates."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What the names of the tensors that replace the matrix end in."""

    def kinds(self, weight_format: WeightFormat, size: MatrixSize) -> dict[str, Kind]:
        """What the tensors must be."""

    def expand(
        self, weight_format: WeightFormat, tensors: Tensors, name: str, size: MatrixSize
    ) -> Tensor:
        """The float32 matrix that the tensors stand for."""

    def describe(self, tensors: Tensors, name: str, size: MatrixSize) -> str:
        """What repr says of it."""


class WholeStructure(Structure, Protocol):
    """One that holds the weights of the dense matrix."""

    def lay_out(self, dense: Tensors, name: str, block_size: BlockSize) -> Tensors:
        """The tensors of this structure from those of a dense matrix."""

    def write_out(self, tensors: Tensors, name: str, size: MatrixSize) -> Tensors:
        """Back again: the matrix with its zeros written out."""


class Dense:
    """The matrix as its format has it."""

    parts = ("",)

    def kinds(self, weight_format: WeightFormat, size: MatrixSize) -> dict[str, Kind]:
        return weight_format.kinds(*size)

    def lay_out(self, dense: Tensors, name: str, block_size: BlockSize) -> Tensors:
        return dense

    def write_out(self, tensors: Tensors, name: str, size: MatrixSize) -> Tensors:
        return tensors

    def expand(
        self, weight_format: WeightFormat, tensors: Tensors, name: str, size: MatrixSize
    ) -> Tensor:
        return weight_format.expand(tensors, size[1])

    def describe(self, tensors: Tensors, name: str, size: MatrixSize) -> str:
        return "dense"


class BlockSparse:
    """The blocks of the matrix that are not zero, row by row.

    values [blocks, rows, columns]; crow_indices int32 [block rows + 1], where each block row
    begins; col_indices int32 [blocks], in blocks. Each gate is padded to whole blocks with zeros: a
    matrix [G * R, K] has G * ceil(R / rows) block rows of ceil(K / columns) blocks.
    """

    parts = ("_values", "_crow_indices", "_col_indices")

    def kinds(self, weight_format: WeightFormat, size: MatrixSize) -> dict[str, Kind]:
        matrix, beside = _split(weight_format.kinds(*size))

        def check(values: Tensor) -> str | None:
            if max(values.shape[1:]) > MAX_SIZE:
                return f"blocks must be at most {MAX_SIZE} long, got {tuple(values.shape)}"
            return matrix.check(values) if matrix.check else None

        kinds = (
            Kind(matrix.dtype, (None, None, None), check),
            Kind(torch.int32, (None,)),
            Kind(torch.int32, (None,)),
        )
        return dict(zip(self.parts, kinds, strict=True)) | beside

    def lay_out(self, dense: Tensors, name: str, block_size: BlockSize) -> Tensors:
        matrix, beside = _split(dense)
        tall = _in_blocks(split_gates(matrix, name), block_size).flatten(0, 1)
        grid = tall.transpose(1, 2)
        kept = grid.ne(0).flatten(2).any(2)
        crow_indices = F.pad(kept.sum(1).cumsum(0, dtype=torch.int32), (1, 0))
        blocks = grid[kept], crow_indices, kept.nonzero()[:, 1].int()
        return dict(zip(self.parts, blocks, strict=True)) | beside

    def write_out(self, tensors: Tensors, name: str, size: MatrixSize) -> Tensors:
        values, crow_indices, col_indices = (tensors[part] for part in self.parts)
        beside = {end: tensor for end, tensor in tensors.items() if end not in self.parts}
        block_rows, blocks_a_row = _grid_shape(size, name, values.shape[1:])
        grid = values.new_zeros(block_rows, blocks_a_row, *values.shape[1:])
        counts = crow_indices.diff().long()
        rows = torch.arange(block_rows, device=values.device).repeat_interleave(counts)
        grid[rows, col_indices.long()] = values
        tall = grid.transpose(1, 2).flatten(2)
        gates = split_gates(tall, name).flatten(1, 2)
        rows_a_gate = size[0] // gate_count(name)
        return {"": gates[:, :rows_a_gate, : size[1]].flatten(0, 1)} | beside

    def expand(
        self, weight_format: WeightFormat, tensors: Tensors, name: str, size: MatrixSize
    ) -> Tensor:
        return weight_format.expand(self.write_out(tensors, name, size), size[1])

    def describe(self, tensors: Tensors, name: str, size: MatrixSize) -> str:
        """The size of the blocks and their share of all."""
        values = tensors[self.parts[0]]
        block_rows, blocks_a_row = _grid_shape(size, name, values.shape[1:])
        block = "x".join(map(str, values.shape[1:]))
        return f"{block} blocks, {values.shape[0] / (block_rows * blocks_a_row):.1%}"


class LowRank:
    """The matrix [N, K] as the product of U [N, r] and V [r, K], each as its format has it."""

    parts = ("_u", "_v")

    def kinds(self, weight_format: WeightFormat, size: MatrixSize) -> dict[str, Kind]:
        rows, columns = size
        factors = weight_format.kinds(rows, None), weight_format.kinds(None, columns)
        return _of_factors(self.parts, factors)

    def join(self, u: Tensors, v: Tensors) -> Tensors:
        """The tensors of the structure from those of the factors."""
        return _of_factors(self.parts, (u, v))

    def expand(
        self, weight_format: WeightFormat, tensors: Tensors, name: str, size: MatrixSize
    ) -> Tensor:
        u, v = self.factors(tensors)
        rank = len(v[""])
        return weight_format.expand(u, rank) @ weight_format.expand(v, size[1])

    def factors(self, tensors: Tensors) -> list[Tensors]:
        """The tensors of U and of V, by what their names end in."""
        return [
            {end.removeprefix(part): t for end, t in tensors.items() if end.startswith(part)}
            for part in self.parts
        ]

    def describe(self, tensors: Tensors, name: str, size: MatrixSize) -> str:
        return f"rank {len(tensors['_v'])}"


DENSE, BLOCK_SPARSE, LOW_RANK = Dense(), BlockSparse(), LowRank()
WHOLE_STRUCTURES: dict[str, WholeStructure] = {"block_sparse": BLOCK_SPARSE, "dense": DENSE}


def structure_of(name: str, names: Collection[str]) -> Structure:
    """The structure of a matrix, told by the names of the tensors; what fits no other is dense."""
    structures: tuple[Structure, ...] = BLOCK_SPARSE, LOW_RANK
    found = (s for s in structures if any(name + part in names for part in s.parts))
    return next(found, DENSE)


@dataclass(frozen=True)
class LayoutConfig:
    """How matrices are to be laid out: "auto" takes the faster structure for each.

    block_size: rows, a multiple of 8, and columns, a multiple of 4. Raises ValueError for another
    layout or block size.
    """

    layout: Layout = "auto"
    block_size: BlockSize = KERNEL_BLOCK

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout must be one of {list(get_args(Layout))}, got {self.layout!r}")
        rows, columns = self.block_size
        if rows < 1 or rows % KERNEL_BLOCK[0] or columns < 1 or columns % KERNEL_BLOCK[1]:
            raise ValueError(
                "block_size must be a multiple of 8 rows and a multiple of 4 columns, "
                f"got {tuple(self.block_size)}"
            )
        object.__setattr__(self, "block_size", (rows, columns))  # it may have been a list

    def lay_out(self, dense: Tensors, name: str, weight_format: WeightFormat) -> Tensors:
        """The tensors of nn.LSTM's matrix of that name, from those of the dense matrix."""
        self.check_format(name, weight_format)
        layout, most = self.layout, weight_format.max_block_density
        if layout == "auto":
            # Fake tensors have no zeros to count.
            sparse = (
                most is not None
                and not is_fake(dense[""])
                and block_density(dense[""], name) <= most
            )
            layout = "block_sparse" if sparse else "dense"
        return WHOLE_STRUCTURES[layout].lay_out(dense, name, self.block_size)

    def check_format(self, name: str, weight_format: WeightFormat) -> None:
        """ValueError where the matrix cannot be laid out so in this format."""
        if self.layout == "block_sparse" and weight_format.max_block_density is None:
            raise ValueError(
                f"{name}: 4-bit weights and tables have no blocks: use layout 'dense' or 'auto'"
            )

    def kept_factors(self, factors: Factors, sizes: Mapping[str, MatrixSize]) -> Factors:
        """Of matrices that are products, those that are to stay ones: "auto" takes them where that
        is smaller and faster."""
        if self.layout != "auto":
            return {}
        return {
            name: (u, v)
            for name, (u, v) in factors.items()
            if u.numel() + v.numel() <= MAX_FACTOR_SHARE * math.prod(sizes[name])
        }

    def check_low_rank(self, name: str) -> None:
        """ValueError where another layout is asked for."""
        if self.layout != "auto":
            raise ValueError(f"{name} is low-rank: layout must be 'auto', got {self.layout!r}")


def split_gates(matrix: Tensor, name: str) -> Tensor:
    """[G * rows, ...] as [G, rows, ...]."""
    return matrix.unflatten(0, (gate_count(name), -1))


def block_sums(gates: Tensor, block: BlockSize) -> Tensor:
    """Sums over blocks of [G, rows, columns], each gate cut from its own first row and column.

    Returns [G, ceil(rows / block rows), ceil(columns / block columns)]; blocks at the far edges sum
    what exists of them.
    """
    smaller = min(block[0], gates.shape[1]), min(block[1], gates.shape[2])
    return _in_blocks(gates, smaller).sum((2, 4))


def block_density(matrix: Tensor, name: str) -> float:
    """Share of the 8x4 blocks, cut per gate, that have an element other than zero."""
    counts = block_sums(split_gates(matrix != 0, name).int(), KERNEL_BLOCK)
    return int(counts.count_nonzero()) / counts.numel()


def _in_blocks(gates: Tensor, block: BlockSize) -> Tensor:
    """[G, rows, columns], padded with zeros, as [G, block rows, height, block columns, width]."""
    height, width = block
    padded = F.pad(gates, (0, -gates.shape[2] % width, 0, -gates.shape[1] % height))
    return padded.unflatten(2, (-1, width)).unflatten(1, (-1, height))


def _grid_shape(size: MatrixSize, name: str, block_size: Sequence[int]) -> tuple[int, int]:
    """Block rows, and blocks in each."""
    gates = gate_count(name)
    rows = math.ceil(size[0] // gates / block_size[0])
    return gates * rows, math.ceil(size[1] / block_size[1])


def _of_factors(
    parts: tuple[str, str], factors: tuple[Mapping[str, _T], Mapping[str, _T]]
) -> dict[str, _T]:
    """By what names end in, from the names in each factor."""
    return {
        part + end: value
        for part, factor in zip(parts, factors, strict=True)
        for end, value in factor.items()
    }


def _split(named: Mapping[str, _T]) -> tuple[_T, dict[str, _T]]:
    """The matrix, and what stands beside it."""
    return named[""], {end: value for end, value in named.items() if end}
