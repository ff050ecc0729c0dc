"""Symmetric int8 rows with searched scales, pair-safe where that costs little."""

from typing import Literal

import torch
from torch import Tensor

WEIGHT_MAX = 127
PAIR_MAX = 128

# Whether neighbouring int8 weights are kept from adding up to much, see quantize_rows.
PairSafe = Literal["auto"] | bool


@torch.no_grad()
def quantize_rows(weight: Tensor, *, pair_safe: PairSafe = "auto") -> tuple[Tensor, Tensor]:
    """Quantizes each row of a matrix to int8 with one scale, minimizing the row's squared error.

    weight: [N, K], any float dtype, taken as float32. Returns int8 [N, K] in [-127, 127] and
    float32 scales [N]; weight ~ int8 * scale. A row that is integers in [-128, 127] times a scale,
    in float32, comes back as just these, or as smaller integers where they have a factor in common.
    For other rows scales are searched on a grid and then set by least squares for the integers
    found.

    `pair_safe` True keeps neighbouring weights (2k, 2k + 1) of a row within -128..128 in sum, which
    lets AVX2 multiply them by int8 activations nearly twice as fast and makes no difference
    elsewhere. It costs 1 to 5 dB. "auto" does so unless it more than doubles the squared error of
    the matrix, which is 3 dB.

    All of it runs on the CPU, so that a weight gives the same on every device, which the results
    are on. Raises ValueError for a weight that is not a matrix, empty or not finite in float32, and
    for another `pair_safe`.
    """
    check_float_matrix(weight)
    if pair_safe != "auto" and not isinstance(pair_safe, bool):
        raise ValueError(f'pair_safe must be "auto", True or False, got {pair_safe!r}')
    from lstm_fastkernels import ops  # here: pruning reads formats and needs nothing compiled

    rule = None if pair_safe == "auto" else pair_safe
    quantized, scales = ops.quantize_rows(weight.detach().cpu().float(), rule)
    return quantized.to(weight.device), scales.to(weight.device)


def check_float_matrix(weight: Tensor) -> None:
    """Raises ValueError for what is not a matrix of floats, or empty."""
    if weight.dim() != 2 or weight.numel() == 0:
        raise ValueError(f"weight must be a matrix that is not empty, got {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise ValueError(f"weight must be floating point, got {weight.dtype}")
