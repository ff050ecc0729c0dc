"""quantize_rows in plain torch: what the op's rows must be as good as."""

import torch

COARSE, FINE = torch.linspace(0.6, 2.05, 30), torch.linspace(-0.04, 0.04, 9)


def round_rows(scaled, pair_safe):
    """To integers; pairs that add up to more than 128 give up their excess in halves."""
    rounded = scaled.round().clamp(-127, 127)
    if not pair_safe:
        return rounded
    even = scaled.shape[1] // 2 * 2
    pairs = rounded[:, :even].unflatten(1, (-1, 2))
    total = pairs.sum(2)
    excess, sign = (total.abs() - 128).clamp(min=0), total.sign()
    away = (pairs - scaled[:, :even].unflatten(1, (-1, 2))) * sign[..., None]
    first_gives_more = away[..., 0] >= away[..., 1]
    less, more = (excess / 2).floor(), (excess / 2).ceil()
    pairs[..., 0] -= sign * torch.where(first_gives_more, more, less)
    pairs[..., 1] -= sign * torch.where(first_gives_more, less, more)
    return rounded


def best_factor(rows, factors, pair_safe):
    errors = []
    for factor in factors.unbind(1):
        scale = (torch.full_like(factor, 1 / 127) * factor)[:, None]
        errors.append((round_rows(rows / scale, pair_safe) * scale - rows).square().sum(1))
    return factors.gather(1, torch.stack(errors, 1).argmin(1, keepdim=True))


def quantize_rows(weight, pair_safe):
    """float32 [N, K] -> int8 [N, K], float32 [N]."""
    largest = weight.abs().amax(1, keepdim=True)
    empty = largest < 1e-30
    rows = torch.where(empty, 0, weight) / torch.where(empty, 1, largest)
    coarse = torch.cat([COARSE, torch.tensor([1, 127 / 64])]) if pair_safe else COARSE[:10]
    factor = best_factor(rows, coarse.expand(len(rows), -1), pair_safe)
    factor = best_factor(rows, factor + FINE, pair_safe)
    integers = round_rows(rows / (torch.full_like(factor, 1 / 127) * factor), pair_safe)
    squares = integers.square().sum(1)
    scale = (integers * rows).sum(1) / torch.where(squares == 0, 1, squares)
    return integers.to(torch.int8), torch.where(empty[:, 0], 0, scale * largest[:, 0])
