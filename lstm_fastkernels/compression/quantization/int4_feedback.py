"""Rounding to 4 bits in groups, with error feedback and scales fitted to what was rounded."""

import torch
from torch import Tensor

from lstm_fastkernels.compression.calibration.moments import damped
from lstm_fastkernels.compression.quantization.error_feedback import BestRows, ColumnOrder
from lstm_fastkernels.weights.int4 import INT4_MAX, INT4_MIN, quantize_groups

# Of the scales of quantize_groups, which clip the largest weights; and how often scales are fitted.
_FACTORS = (1.0, 0.9, 1.1)
_FITS = 2


@torch.no_grad()
def round_groups_with_feedback(
    weight: Tensor, second_moment: Tensor, *, group_size: int
) -> tuple[Tensor, Tensor]:
    """int8 [N, K] in [-8, 7] and float32 scales [N, ceil(K / group_size)] of a matrix, for inputs
    of a second moment [K, K].

    Columns are rounded as in round_with_feedback. With the integers found, the scales of all groups
    of a row are set by least squares of the output's expected error, and the row is rounded anew
    with them; of all rounds the one with the least error is taken. On the CPU, in float64.
    """
    weight, moment = weight.detach().cpu(), damped(second_moment)
    columns, best = ColumnOrder(moment), BestRows(weight)
    group = torch.arange(weight.shape[1]) // group_size

    def take(scales: Tensor) -> None:
        integers, squares = columns.round(weight, scales[:, group], INT4_MIN, INT4_MAX)
        best.take(integers, scales, squares)

    plain = quantize_groups(weight, group_size=group_size)[1]
    for factor in _FACTORS:
        take(plain * factor)
    for _ in range(_FITS):
        take(_fit(weight, best.integers, best.scales, moment, group_size))
    return best.integers.to(torch.int8), best.scales


def _fit(
    weight: Tensor, integers: Tensor, scales: Tensor, moment: Tensor, group_size: int
) -> Tensor:
    """The scales with which these integers make the least expected error; those of groups of zeros,
    and where the best would not be positive, stay."""
    parts = integers.split(group_size, 1)
    moments = moment.split(group_size, 0)
    through = [part @ rows for part, rows in zip(parts, moments, strict=True)]

    def products(full: Tensor) -> Tensor:
        """Of each row's output of one group with those of all, [N, G]."""
        own = zip(full.split(group_size, 1), parts, strict=True)
        return torch.stack([(theirs * part).sum(1) for theirs, part in own], 1)

    gram = torch.stack([products(full) for full in through], 1)
    target = torch.stack([(full * weight.double()).sum(1) for full in through], 1)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    unused = torch.diag_embed(torch.where(diagonal > 0, 1e-9 * diagonal, 1.0))
    fitted = torch.linalg.solve(gram + unused, target).float()
    return torch.where((diagonal > 0) & (fitted > 0), fitted, scales)
