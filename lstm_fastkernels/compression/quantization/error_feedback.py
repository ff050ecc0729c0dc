"""Rounding weights so that the output of their matrix, not each of them, stays near.

GPTQ: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", arXiv 2210.17323, after Optimal Brain Quantization, arXiv
2208.11580.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lstm_fastkernels.compression.calibration.moments import damped
from lstm_fastkernels.weights.quantize_rows import PAIR_MAX, PairSafe, quantize_rows

INT8 = torch.iinfo(torch.int8)

# "auto" takes pair-safe weights where they at most double the squared error, as quantize_rows does.
PAIR_SAFE_COST = 2.0
# Columns rounded before the errors of all of them reach those behind.
_BLOCK = 128


@torch.no_grad()
def round_with_feedback(
    weight: Tensor, second_moment: Tensor, *, pair_safe: PairSafe = "auto"
) -> tuple[Tensor, Tensor]:
    """int8 [N, K] and float32 scales [N] of a matrix, for inputs of a second moment [K, K].

    Columns are rounded one by one, those of the largest inputs first; the error of each is spread
    over those that are still to come, so that the expected squared error of weight @ x grows least.
    Of some scales for a row, that of quantize_rows among them, the one with the least error is
    taken. Pair-safe columns (2k, 2k + 1) stay neighbours, and the second of two is held to what the
    first leaves it. Zeros stay zeros. pair_safe: as for quantize_rows, "auto" by that error. On the
    CPU, in float64.
    """
    weight, moment = weight.detach().cpu(), damped(second_moment)
    if pair_safe != "auto":
        return _round(weight, moment, pair_safe)[:2]
    free, paired = (_round(weight, moment, pairs) for pairs in (False, True))
    return (paired if paired[2] <= PAIR_SAFE_COST * free[2] else free)[:2]


def _round(weight: Tensor, moment: Tensor, pairs: bool) -> tuple[Tensor, Tensor, float]:
    """Integers, scales and the expected squared error."""
    columns = ColumnOrder(moment, pairs)
    best = BestRows(weight)
    for scale in _scales(weight, pairs):
        integers, squares = columns.round(weight, scale[:, None], INT8.min, INT8.max)
        best.take(integers, scale[:, None], squares)
    return best.integers.to(torch.int8), best.scales[:, 0], float(best.squares.sum())


def _scales(weight: Tensor, pairs: bool) -> list[Tensor]:
    """Those to try, each for all rows."""
    largest = weight.float().abs().amax(1) / INT8.max
    factors = (0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0) if pairs else (0.8, 0.85, 0.9, 0.95, 1.0)
    return [quantize_rows(weight, pair_safe=pairs)[1], *(largest * factor for factor in factors)]


class BestRows:
    """Of several roundings of a matrix, the best for each row."""

    def __init__(self, weight: Tensor) -> None:
        self.integers = torch.zeros(weight.shape, dtype=torch.float64)
        self.scales = torch.zeros(len(weight), 1)
        self.squares = torch.full((len(weight),), torch.inf, dtype=torch.float64)

    def take(self, integers: Tensor, scales: Tensor, squares: Tensor) -> None:
        """integers [N, K]; scales [N, any]; squares [N]: each row's squared error."""
        better = squares < self.squares
        self.squares = torch.where(better, squares, self.squares)
        self.scales = torch.where(better[:, None], scales, self.scales)
        self.integers = torch.where(better[:, None], integers, self.integers)


class ColumnOrder:
    """The order in which columns are rounded for inputs of a second moment [K, K], float64, and how
    the error of each is spread; `pairs` keeps integers of neighbours pair-safe."""

    def __init__(self, moment: Tensor, pairs: bool = False) -> None:
        self._order = _order(moment.diagonal(), pairs)
        self._factor = _factor(moment[self._order][:, self._order])
        self._pairs = pairs

    def round(self, weight: Tensor, scales: Tensor, least: int, most: int) -> tuple[Tensor, Tensor]:
        """Integers in [least, most], float64 [N, K], and each row's expected squared error.

        weight [N, K]; scales: of all its columns, [N, 1] or [N, K].
        """
        order = self._order
        steps = torch.where(scales > 0, scales, 1.0).double().expand(weight.shape)[:, order]
        values, integers = weight[:, order].double(), torch.zeros(weight.shape, dtype=torch.float64)
        zero, squares = values == 0, integers.new_zeros(len(weight))
        for begin in range(0, len(order), _BLOCK):
            end = min(len(order), begin + _BLOCK)
            errors = values.new_empty(len(weight), end - begin)
            for k in range(begin, end):
                rounded = (values[:, k] / steps[:, k]).round().clamp(least, most)
                if self._pairs and order[k] % 2:
                    first = integers[:, k - 1]
                    rounded = rounded.maximum(-PAIR_MAX - first).minimum(PAIR_MAX - first)
                integers[:, k] = rounded.masked_fill(zero[:, k], 0)
                error = (values[:, k] - integers[:, k] * steps[:, k]) / self._factor[k, k]
                values[:, k:end] -= error[:, None] * self._factor[k, k:end]
                errors[:, k - begin] = error
                squares += error.square()
            values[:, end:] -= errors @ self._factor[begin:end, end:]
        ordered = torch.empty_like(integers)
        ordered[:, order] = integers
        return ordered, squares


def _order(sizes: Tensor, pairs: bool) -> Tensor:
    """The columns by decreasing size; neighbours stay neighbours, by the size of both."""
    if not pairs:
        return sizes.argsort(descending=True)
    both = F.pad(sizes, (0, len(sizes) % 2)).view(-1, 2).sum(1).argsort(descending=True)
    order = torch.stack((2 * both, 2 * both + 1), 1).flatten()
    return order[order < len(sizes)]


def _factor(moment: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    return torch.linalg.cholesky(inverse, upper=True)
