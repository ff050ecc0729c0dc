"""Weight formats: which tensors stand for a matrix of weights.

A format is one class. PRECISIONS names it together with the activations that it is run with; the
kernels know a matrix by that name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lstm_fastkernels.weights.checks import Kind
from lstm_fastkernels.weights.int4 import (
    GROUP_SIZES,
    INT4_MAX,
    count_groups,
    group_size_of,
    pack_int4,
    quantize_groups,
    unpack_int4,
)
from lstm_fastkernels.weights.quantize_rows import PAIR_MAX, WEIGHT_MAX, PairSafe, quantize_rows
from lstm_fastkernels.weights.rounding import RoundingConfig

# What inputs may be; states are float32 or of the input's dtype.
INPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ID_DTYPES = (torch.int64, torch.int32)

# The tensors of one matrix by what their names end in: "" is the matrix itself, but of a table.
Tensors = dict[str, Tensor]


class WeightFormat(Protocol):
    """How the weights of a matrix are stored, whatever the matrix's layout."""

    @property
    def max_block_density(self) -> float | None:
        """The largest share of nonzero 8x4 blocks for which block-sparse is faster than dense; None
        where there is only dense."""

    def kinds(self, rows: int | None, columns: int | None) -> dict[str, Kind]:
        """What the tensors of a dense matrix must be, None is any size; the matrix itself, or the
        table, comes first."""

    def random(self, rows: int, columns: int, bound: float, device: torch.device) -> Tensors:
        """The tensors of a dense matrix whose weights are uniform within +-bound."""

    def compress(self, weight: Tensor) -> Tensors:
        """The tensors of a float matrix [rows, columns]; none shares its memory."""

    def expand(self, tensors: Mapping[str, Tensor], columns: int) -> Tensor:
        """The float32 matrix [rows, columns] that the tensors stand for."""


@dataclass(frozen=True)
class Int8:
    """int8 weights with one float32 scale a row; see quantize_rows for pair_safe."""

    pair_safe: PairSafe
    max_block_density: ClassVar[float] = 0.55

    def kinds(self, rows: int | None, columns: int | None) -> dict[str, Kind]:
        return {
            "": Kind(torch.int8, (rows, columns)),
            "_scale": Kind(torch.float32, (rows,)),
        }

    def random(self, rows: int, columns: int, bound: float, device: torch.device) -> Tensors:
        most = PAIR_MAX // 2 if self.pair_safe else WEIGHT_MAX
        matrix = torch.empty(rows, columns, dtype=torch.int8, device=device)
        scale = torch.full((rows,), bound / most, dtype=torch.float32, device=device)
        return {"": matrix.random_(-most, most + 1), "_scale": scale}

    def compress(self, weight: Tensor) -> Tensors:
        matrix, scale = quantize_rows(weight, pair_safe=self.pair_safe)
        return {"": matrix, "_scale": scale}

    def expand(self, tensors: Mapping[str, Tensor], columns: int) -> Tensor:
        return tensors[""] * tensors["_scale"].unsqueeze(1)


@dataclass(frozen=True)
class Float32:
    """float32 weights."""

    max_block_density: ClassVar[float] = 0.7

    def kinds(self, rows: int | None, columns: int | None) -> dict[str, Kind]:
        return {"": Kind(torch.float32, (rows, columns))}

    def random(self, rows: int, columns: int, bound: float, device: torch.device) -> Tensors:
        matrix = torch.empty(rows, columns, dtype=torch.float32, device=device)
        return {"": matrix.uniform_(-bound, bound)}

    def compress(self, weight: Tensor) -> Tensors:
        # A copy, and 0.0 for -0.0, which the kernels would not skip.
        return {"": weight.detach().float() + 0.0}

    def expand(self, tensors: Mapping[str, Tensor], columns: int) -> Tensor:
        return tensors[""].clone()


@dataclass(frozen=True)
class Int4:
    """4-bit weights, two columns a byte, with one float32 scale for each group of columns of a row.

    group_size: of floats that are compressed; tensors tell their own by the number of scales.
    """

    group_size: int
    max_block_density: ClassVar[None] = None

    def kinds(self, rows: int | None, columns: int | None) -> dict[str, Kind]:
        if columns is None:  # packing checks the rest
            return {
                "": Kind(torch.uint8, (rows, None)),
                "_scale": Kind(torch.float32, (rows, None)),
            }
        counts = [count_groups(columns, size) for size in GROUP_SIZES]

        def check_padding(matrix: Tensor) -> str | None:
            padded = columns % 2 and (matrix[:, -1] > INT4_MAX * 2 + 1).any()
            return "the half byte behind the last column must be zero" if padded else None

        def check_count(scale: Tensor) -> str | None:
            if scale.shape[1] in counts:
                return None
            return (
                f"a row must have a scale for each group of 32, 64 or 128 columns, {counts}, "
                f"got {scale.shape[1]}"
            )

        return {
            "": Kind(torch.uint8, (rows, math.ceil(columns / 2)), check_padding),
            "_scale": Kind(torch.float32, (rows, None), check_count),
        }

    def random(self, rows: int, columns: int, bound: float, device: torch.device) -> Tensors:
        integers = torch.empty(rows, columns, dtype=torch.int8, device=device)
        groups = count_groups(columns, self.group_size)
        scale = torch.full((rows, groups), bound / INT4_MAX, dtype=torch.float32, device=device)
        return {"": pack_int4(integers.random_(-INT4_MAX, INT4_MAX + 1)), "_scale": scale}

    def compress(self, weight: Tensor) -> Tensors:
        matrix, scale = quantize_groups(weight, group_size=self.group_size)
        return {"": matrix, "_scale": scale}

    def expand(self, tensors: Mapping[str, Tensor], columns: int) -> Tensor:
        scale = tensors["_scale"]
        size = group_size_of(columns, scale.shape[1])
        return unpack_int4(tensors[""], columns) * scale.repeat_interleave(size, 1)[:, :columns]


@dataclass(frozen=True)
class Table:
    """A row for each token id, float32 or float16 [columns, rows]: the matrix, transposed."""

    dtype: torch.dtype
    max_block_density: ClassVar[None] = None

    def kinds(self, rows: int | None, columns: int | None) -> dict[str, Kind]:
        return {"_table": Kind(self.dtype, (columns, rows))}

    def random(self, rows: int, columns: int, bound: float, device: torch.device) -> Tensors:
        table = torch.empty(columns, rows, dtype=self.dtype, device=device)
        return {"_table": table.uniform_(-bound, bound)}

    def compress(self, weight: Tensor) -> Tensors:
        table = weight.detach().T.to(self.dtype)
        return {"_table": table.contiguous() + 0.0}  # a copy, of the sign of zero that sums have

    def expand(self, tensors: Mapping[str, Tensor], columns: int) -> Tensor:
        return tensors["_table"].float().T.contiguous()


# Each makes the format of its matrices from how the LSTM rounds; 16-bit activations do without
# pair-safe weights.
PRECISIONS: dict[str, Callable[[RoundingConfig], WeightFormat]] = {
    "int8": lambda rounding: Int8(rounding.pair_safe),
    "int16": lambda _: Int8(pair_safe=False),
    "int4": lambda rounding: Int4(rounding.group_size),
    "float32": lambda _: Float32(),
    "table": lambda _: Table(torch.float32),
    "table_float16": lambda _: Table(torch.float16),
}
# Those of the first layer's weight_ih where it reads token ids.
TABLES = ("table", "table_float16")


def stored_as(dtype: object, end: str = "") -> list[str]:
    """The precisions whose weights have that dtype, in a tensor whose name ends so."""
    return [
        name
        for name, kinds in _all_kinds().items()
        if next(iter(kinds)) == end and kinds[end].dtype == dtype
    ]


def ends_of_names() -> set[str]:
    """What the names of a dense matrix's tensors end in, whatever its precision."""
    return {end for kinds in _all_kinds().values() for end in kinds}


def _all_kinds() -> dict[str, dict[str, Kind]]:
    return {name: make(RoundingConfig()).kinds(1, 1) for name, make in PRECISIONS.items()}
