"""4-bit integers in bytes, and groups of columns with a scale each."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lstm_fastkernels.reference import group_size_of, unpack_int4
from lstm_fastkernels.weights.quantize_rows import check_float_matrix

INT4_MIN, INT4_MAX = -8, 7
GROUP_SIZES = (32, 64, 128)

__all__ = ["group_size_of", "unpack_int4"]


def count_groups(columns: int, group_size: int) -> int:
    """Scales of a row; the last group may be short."""
    return math.ceil(columns / group_size)


def pack_int4(integers: Tensor) -> Tensor:
    """uint8 [N, ceil(K / 2)] of integers [N, K] in [-8, 7]: two columns a byte, the even one in the
    low half, two's complement as ONNX's INT4; the half of a missing last column is zero."""
    halves = F.pad(integers.to(torch.uint8) & 15, (0, integers.shape[1] % 2)).unflatten(1, (-1, 2))
    return halves[:, :, 0] | halves[:, :, 1] << 4


@torch.no_grad()
def quantize_groups(weight: Tensor, *, group_size: int = 64) -> tuple[Tensor, Tensor]:
    """Quantizes each group of columns of each row to 4 bits, minimizing its squared error.

    weight: [N, K], any float dtype, taken as float32. Returns uint8 [N, ceil(K / 2)], two integers
    in [-8, 7] a byte (the even column in the low half, two's complement), and float32 scales
    [N, ceil(K / group_size)]; weight ~ integer * its group's scale, the last group may be short.
    group_size: 32, 64 or 128. Groups that are such integers times a scale come back exactly; of
    others scales are searched as quantize_rows does. Results do not depend on the device. Raises
    ValueError as quantize_rows does, and for another group_size.
    """
    check_float_matrix(weight)
    from lstm_fastkernels import ops  # here: pruning reads formats and needs nothing compiled

    packed, scales = ops.quantize_groups(weight.detach().cpu().float(), group_size)
    return packed.to(weight.device), scales.to(weight.device)
