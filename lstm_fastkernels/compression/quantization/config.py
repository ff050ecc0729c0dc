"""How quantize_ quantizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from lstm_fastkernels.weights.precision import Activations
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.structures import KERNEL_BLOCK, BlockSize, Layout


@dataclass(frozen=True)
class Int8Config:
    """int8 weights; the options are those of FastQuantLSTM, which checks them."""

    activations: Activations = "int8"
    precision: Mapping[str, str] | None = None
    pair_safe: PairSafe = "auto"
    layout: Layout = "auto"
    block_size: BlockSize = KERNEL_BLOCK
