"""How quantize_ quantizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lstm_fastkernels.weights.packing import Keep, checked_keep
from lstm_fastkernels.weights.precision import Activations
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.structures import KERNEL_BLOCK, BlockSize, Layout, LayoutConfig


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """What configurations have in common: options of FastQuantLSTM, which checks precisions."""

    activations: Activations
    precision: Mapping[str, str] | None = None
    pair_safe: PairSafe = "auto"
    group_size: int = 64
    layout: Layout = "auto"
    block_size: BlockSize = KERNEL_BLOCK
    keep: Keep = "canonical"

    def __post_init__(self) -> None:
        self.rounding()  # raises ValueError for what it does not know
        self.laying_out()  # the same
        checked_keep(self.keep)

    def rounding(self) -> RoundingConfig:
        return RoundingConfig(self.pair_safe, self.group_size)

    def laying_out(self) -> LayoutConfig:
        return LayoutConfig(self.layout, self.block_size)

    def options(self) -> dict[str, Any]:
        """FastQuantLSTM's and FastQuantLSTMCell's."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Int8Config(QuantizationConfig):
    """int8 weights with one scale a row; activations are "int8", "int16" or "mixed"."""

    activations: Activations = "int8"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activations not in (choices := ["int8", "int16", "mixed"]):
            raise ValueError(
                f"activations must be one of {choices} in an Int8Config, got {self.activations!r}"
            )


@dataclass(frozen=True)
class Int4Config(QuantizationConfig):
    """4-bit weights with one scale for each group of columns of a row, 8-bit activations.

    group_size: 32, 64 or 128 columns. precision: what matrices are to be that are not "int4". The
    layout is "auto" or "dense": there are no blocks of 4-bit weights.
    """

    group_size: int = 64
    activations: Activations = field(default="int4", init=False)
