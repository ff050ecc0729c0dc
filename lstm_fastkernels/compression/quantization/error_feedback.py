"""Error feedback: rounding a matrix so that its products with calibration data change least.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323, with a scale a row, chosen by what is lost, and the rule of
pair-safe weights as a clamp.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lstm_fastkernels.weights.quantize_rows import PAIR_MAX, WEIGHT_MAX, PairSafe, quantize_rows

# Of the second moment's mean diagonal, added to its diagonal.
_DAMPING = 0.01
# Columns between two updates of all that follow.
_BLOCK = 128
# Scales tried, relative to (a row's largest magnitude) / 127, as in quantize_rows.
_FREE_FACTORS = torch.linspace(0.8, 1.05, 6).tolist()
_SAFE_FACTORS = torch.linspace(0.8, 2.05, 18).tolist()
# pair_safe="auto" lets the loss of a matrix grow so far, as in quantize_rows.
_PAIR_SAFE_GROWTH = 2


@torch.no_grad()
def quantize_with_feedback(
    weight: Tensor, second_moment: Tensor, *, pair_safe: PairSafe = "auto"
) -> tuple[Tensor, Tensor]:
    """Quantizes the rows of a matrix to int8 so that little of its products with inputs is lost.

    weight: [N, K], float; second_moment: [K, K], the mean of x x' over inputs x [K], float. Returns
    int8 [N, K] in [-127, 127] and float32 scales [N], on the CPU; weight ~ int8 * scale. For an
    error E [N, K] of the weights, the trace of E second_moment E' is made small: columns are
    rounded one by one, in decreasing order of the second moment's diagonal, and the error of each
    is spread over those that follow. Zero weights stay zero. `pair_safe` is that of quantize_rows,
    "auto" by this loss; so is what becomes of rows that are integers times a scale, if all are.
    """
    integers, scales = quantize_rows(weight.cpu(), pair_safe=pair_safe)
    if torch.equal(integers * scales[:, None], weight.cpu().float()):
        return integers, scales
    rules = [True, False] if pair_safe == "auto" else [pair_safe]
    wide = weight.detach().cpu().double(), second_moment.detach().cpu().double()
    found = [_Feedback(*wide, rule).best() for rule in rules]
    # The first is the pair-safe one, if there are two.
    if found[0].loss.sum() <= _PAIR_SAFE_GROWTH * found[-1].loss.sum():
        return found[0].tensors()
    return found[-1].tensors()


@dataclass(frozen=True)
class _Rounded:
    """integers: int8 [K, N], columns as they were; scales and loss: float64 [N]."""

    integers: Tensor
    scales: Tensor
    loss: Tensor

    def or_better(self, other: "_Rounded") -> "_Rounded":
        """Of each row the one with less loss."""
        better = other.loss < self.loss
        return _Rounded(
            torch.where(better, other.integers, self.integers),
            torch.where(better, other.scales, self.scales),
            torch.where(better, other.loss, self.loss),
        )

    def tensors(self) -> tuple[Tensor, Tensor]:
        zero = ~self.integers.any(0)
        return self.integers.T.contiguous(), self.scales.masked_fill(zero, 0).float()


class _Feedback:
    """A matrix and how its columns' errors spread, its columns in the order of rounding."""

    def __init__(self, weight: Tensor, second_moment: Tensor, pair_safe: bool) -> None:
        diagonal = second_moment.diagonal()
        damping = _DAMPING * diagonal.mean()
        unit = torch.eye(len(diagonal), dtype=diagonal.dtype)
        damped = second_moment + (damping if damping > 0 else 1) * unit
        order = _order_of(diagonal, pair_safe)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
        self._spread = torch.linalg.cholesky(inverse, upper=True)
        self._order = order
        self._columns = weight.T[order].contiguous()
        largest = weight.abs().amax(1)
        self._plain_scales = torch.where(largest > 0, largest, 1) / WEIGHT_MAX
        self._pair_safe = pair_safe

    def best(self) -> _Rounded:
        """With the best of all scales for each row."""
        factors = _SAFE_FACTORS if self._pair_safe else _FREE_FACTORS
        best = self._round(factors[0])
        for factor in factors[1:]:
            best = best.or_better(self._round(factor))
        integers = torch.empty_like(best.integers)
        integers[self._order] = best.integers
        return _Rounded(integers, best.scales, best.loss)

    def _round(self, factor: float) -> _Rounded:
        """With these scales; columns in the order of rounding."""
        scales = (self._plain_scales * factor).float().double()
        zero = self._columns == 0
        left = self._columns / scales  # minus what was spread from the columns before
        integers = torch.empty_like(left)
        loss = torch.zeros_like(scales)
        for begin in range(0, len(left), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            errors = torch.empty_like(left[block])
            for k in range(begin, begin + len(errors)):
                rounded = left[k].round().clamp(-WEIGHT_MAX, WEIGHT_MAX).masked_fill(zero[k], 0)
                if self._pair_safe and self._order[k] % 2:  # its neighbour came just before
                    before = integers[k - 1]
                    rounded = rounded.clamp(-PAIR_MAX - before, PAIR_MAX - before)
                error = (left[k] - rounded) / self._spread[k, k]
                rest = slice(k, begin + _BLOCK)
                left[rest].addr_(self._spread[k, rest], error, alpha=-1)
                loss += error * error
                errors[k - begin], integers[k] = error, rounded
            after = slice(begin + _BLOCK, None)
            left[after] -= self._spread[block, after].T @ errors
        return _Rounded(integers.to(torch.int8), scales, loss * scales * scales)


def _order_of(diagonal: Tensor, pair_safe: bool) -> Tensor:
    """Columns by decreasing diagonal; neighbours (2k, 2k + 1) together for the pair rule."""
    if not pair_safe:
        return diagonal.argsort(descending=True, stable=True)
    columns = len(diagonal)
    pairs = F.pad(diagonal, (0, columns % 2)).unflatten(0, (-1, 2)).sum(1)
    first = 2 * pairs.argsort(descending=True, stable=True)
    order = torch.stack([first, first + 1], 1).flatten()
    return order[order < columns]
