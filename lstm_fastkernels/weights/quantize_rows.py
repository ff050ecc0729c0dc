"""Symmetric int8 rows with searched scales, pair-safe on request."""

import torch
from torch import Tensor

WEIGHT_MAX = 127
PAIR_MAX = 128

# Scales tried, relative to (row's largest magnitude) / 127: below 1 the largest weights are clipped
# for a finer grid, towards 2 a row of large neighbours becomes pair-safe without any rounding.
_COARSE = torch.linspace(0.6, 2.05, 30, device="cpu")
_FINE = torch.linspace(-0.04, 0.04, 9, device="cpu")

# Rows are taken in blocks of about so many weights, which stay in cache.
_BLOCK = 1 << 16


def _round_pair_safe(scaled: Tensor) -> Tensor:
    """Rounds rows to integers whose neighbours (2k, 2k + 1) add up to -128..128.

    Where a rounded pair adds up to more, both shrink towards zero by half of what is too much: the
    nearest allowed pair in squared error. Of an odd excess the weight that was rounded away from
    zero most gives the extra unit.
    """
    columns = scaled.shape[1]
    rounded = scaled.round().clamp_(-WEIGHT_MAX, WEIGHT_MAX)
    even = columns - columns % 2
    pairs = rounded[:, :even].unflatten(1, (-1, 2))
    total = pairs.sum(-1)
    excess = total.abs().sub_(PAIR_MAX).clamp_(min=0)
    if not excess.any():
        return rounded
    sign = total.sign()
    overshoot = (pairs - scaled[:, :even].unflatten(1, (-1, 2))) * sign.unsqueeze(-1)
    first_gives_more = overshoot[..., 0] >= overshoot[..., 1]
    less, more = (excess / 2).floor(), (excess / 2).ceil()
    pairs[..., 0] -= sign * torch.where(first_gives_more, more, less)
    pairs[..., 1] -= sign * torch.where(first_gives_more, less, more)
    return rounded


def _round(scaled: Tensor, pair_safe: bool) -> Tensor:
    if pair_safe:
        return _round_pair_safe(scaled)
    return scaled.round().clamp_(-WEIGHT_MAX, WEIGHT_MAX)


def _search(rows: Tensor, unit: Tensor, factors: Tensor, pair_safe: bool) -> Tensor:
    """The best of each row's factors [N, candidates]: least squared error of the rounded row."""
    best_error = torch.full_like(unit, float("inf"))
    best = torch.ones_like(unit)
    for factor in factors.unbind(1):
        scale = (unit * factor).unsqueeze(1)
        error = (_round(rows / scale, pair_safe) * scale - rows).square_().sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, factor, best)
    return best


def _quantize_block(rows: Tensor, pair_safe: bool) -> tuple[Tensor, Tensor]:
    largest = rows.abs().amax(1)
    # Work on rows of largest magnitude 1, so that squares neither overflow nor vanish.
    empty = largest < 1e-30
    rows = torch.where(empty.unsqueeze(1), 0, rows) / torch.where(empty, 1, largest).unsqueeze(1)
    unit = torch.full_like(largest, 1 / WEIGHT_MAX)
    # Beside the grid, scales that need no clipping or no pair rounded: never worse than those.
    sure = [1.0, WEIGHT_MAX / (PAIR_MAX // 2)] if pair_safe else [1.0]
    coarse = _COARSE if pair_safe else _COARSE[_COARSE <= 1.05]
    factors = torch.cat([coarse, torch.tensor(sure, device="cpu")]).to(rows).expand(len(rows), -1)
    factor = _search(rows, unit, factors, pair_safe)
    factor = _search(rows, unit, factor.unsqueeze(1) + _FINE.to(rows), pair_safe)
    quantized = _round(rows / (unit * factor).unsqueeze(1), pair_safe)
    # With the integers fixed, least squares gives the scale in closed form.
    norm = quantized.square().sum(1)
    scale = (quantized * rows).sum(1) / torch.where(norm == 0, 1, norm)
    return quantized.to(torch.int8), torch.where(empty, 0, scale * largest).float()


@torch.no_grad()
def quantize_rows(weight: Tensor, *, pair_safe: bool = True) -> tuple[Tensor, Tensor]:
    """Quantizes each row of a matrix to int8 with one scale, minimizing the row's squared error.

    weight: [N, K], any float dtype. Returns int8 [N, K] in [-127, 127] and float32 scales [N];
    weight ~ int8 * scale. With `pair_safe`, neighbouring weights (2k, 2k + 1) of a row add up to
    -128..128, which makes `vpmaddubsw` exact on them; it costs about 1 dB. Scales are searched on
    a grid and then set by least squares for the integers found. All of it runs on the CPU, so that
    a weight gives the same on every device, which the results are on. Raises ValueError for a
    weight that is not a matrix, empty or not finite.
    """
    if weight.dim() != 2 or weight.numel() == 0:
        raise ValueError(f"weight must be a matrix that is not empty, got {tuple(weight.shape)}")
    if not weight.is_floating_point():
        raise ValueError(f"weight must be floating point, got {weight.dtype}")
    if not weight.isfinite().all():
        raise ValueError("weight must be finite")
    rows_a_block = max(1, _BLOCK // weight.shape[1])
    blocks = [
        _quantize_block(block.float(), pair_safe)
        for block in weight.detach().cpu().split(rows_a_block)
    ]
    quantized, scales = (torch.cat(parts).to(weight.device) for parts in zip(*blocks, strict=True))
    return quantized, scales
