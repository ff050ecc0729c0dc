"""Symmetric int8 rows with searched scales, pair-safe on request."""

import torch
from torch import Tensor

WEIGHT_MAX = 127
PAIR_MAX = 128


@torch.no_grad()
def quantize_rows(weight: Tensor, *, pair_safe: bool = True) -> tuple[Tensor, Tensor]:
    """Quantizes each row of a matrix to int8 with one scale, minimizing the row's squared error.

    weight: [N, K], any float dtype, taken as float32. Returns int8 [N, K] in [-127, 127] and
    float32 scales [N]; weight ~ int8 * scale. With `pair_safe`, neighbouring weights (2k, 2k + 1)
    of a row add up to -128..128, which makes `vpmaddubsw` exact on them; it costs about 1 dB.
    Scales are searched on a grid and then set by least squares for the integers found. All of it
    runs on the CPU, so that a weight gives the same on every device, which the results are on.
    Raises ValueError for a weight that is not a matrix, empty or not finite in float32.
    """
    if weight.dim() != 2 or weight.numel() == 0:
        raise ValueError(f"weight must be a matrix that is not empty, got {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise ValueError(f"weight must be floating point, got {weight.dtype}")
    from lstm_fastkernels import ops  # here: pruning reads formats and needs nothing compiled

    quantized, scales = ops.quantize_rows(weight.detach().cpu().float(), pair_safe)
    return quantized.to(weight.device), scales.to(weight.device)
