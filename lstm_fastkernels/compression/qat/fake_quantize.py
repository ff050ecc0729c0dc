"""Weights rounded as a compressed LSTM has them, with gradients straight through the rounding.

Straight-through: Bengio, Léonard, Courville 2013, arXiv 1308.3432. Each is a parametrization of
torch.nn.utils.parametrize on one matrix, or belongs to one of the two factors of a low-rank one.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lstm_fastkernels.compression.qat.config import Scales
from lstm_fastkernels.weights.formats import PRECISIONS, Float32, Int4, Tensors
from lstm_fastkernels.weights.int4 import INT4_MAX, INT4_MIN, pack_int4, unpack_int4
from lstm_fastkernels.weights.quantize_rows import PAIR_MAX
from lstm_fastkernels.weights.rounding import RoundingConfig

INT8 = torch.iinfo(torch.int8)
# How far from its integer a weight may begin, in steps. At 0.5 the first small steps of training
# would undo what calibration has done, whose integers are often not the nearest ones.
_CELL = 0.25


class FakeWeight(Protocol):
    """A matrix as its precision has it."""

    precision: str

    def fake(self, weight: Tensor) -> tuple[Tensor, Tensors]:
        """The float32 matrix that is multiplied, with gradients to weight and scales, and the
        canonical tensors of the same, by what their names end in. weight: [N, K], any float."""

    def placed(self, weight: Tensor, tensors: Tensors) -> Tensor:
        """The weight to begin with: moved no more than makes it these canonical tensors, whose
        scales it has."""


class FloatWeight(nn.Module):
    """A matrix that stays float32."""

    precision = "float32"

    def extra_repr(self) -> str:
        return self.precision

    def fake(self, weight: Tensor) -> tuple[Tensor, Tensors]:
        return weight.float(), Float32().compress(weight)

    def placed(self, weight: Tensor, tensors: Tensors) -> Tensor:
        return weight

    def forward(self, weight: Tensor) -> Tensor:
        return weight

    def stored(self, weight: Tensor) -> Tensor:
        return weight

    def fitted(self, weight: Tensor) -> dict[str, Tensor]:
        return {}


class FakeQuantize(nn.Module):
    """A matrix of integers times scales, one for each row or group of columns of a row.

    Scales [N, G] are `base` times a gain: 2 to the power of the parameter `log2_gain` or, where
    they are followed, how the largest magnitude that each is for has grown from `first_largest`.
    Neighbouring columns (2k, 2k + 1) add up to at most `pair_limit`, to which the second is held.
    """

    base: Tensor
    first_largest: Tensor
    pair_limit: Tensor

    def __init__(
        self,
        weight: Tensor,
        precision: str,
        rounding: RoundingConfig,
        scales: Scales,
        tensors: Tensors,
    ) -> None:
        """tensors: canonical ones of the weight, dense, to begin with."""
        super().__init__()
        self.precision = precision
        self._format = PRECISIONS[precision](rounding)
        self._is_int4 = isinstance(self._format, Int4)
        self._columns = weight.shape[1]
        self.group_size = rounding.group_size if self._is_int4 else self._columns
        self._learned = scales == "learned"
        for name, tensor in self._entries(weight, tensors).items():
            if name == "log2_gain":
                self.log2_gain = nn.Parameter(tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, weight: Tensor) -> Tensor:
        return self.fake(weight)[0].to(weight.dtype)

    def stored(self, weight: Tensor) -> Tensor:
        """In a state_dict stands what is trained."""
        return weight

    def fitted(self, weight: Tensor) -> dict[str, Tensor]:
        """The state_dict to begin with for another weight."""
        return self._entries(weight, self._format.compress(weight))

    def fake(self, weight: Tensor) -> tuple[Tensor, Tensors]:
        weight = weight.float()
        scales = self._scales(weight)
        steps = self._by_column(scales)
        rounded, integers = _Round.apply(weight, steps, *self._range, self.pair_limit)
        scales = scales.detach()
        if self._is_int4:
            return rounded, {"": pack_int4(integers.to(torch.int8)), "_scale": scales}
        return rounded, {"": integers.to(torch.int8), "_scale": scales[:, 0]}

    def placed(self, weight: Tensor, tensors: Tensors) -> Tensor:
        integers = self._integers(tensors).to(weight.device)
        steps = self._by_column(self._scales(weight.float()))
        least, most = self._range
        lowest = (integers - _CELL).masked_fill(integers == least, -math.inf)
        highest = (integers + _CELL).masked_fill(integers == most, math.inf)
        # The second of a pair at its limit is held to it, however large its weight.
        sums = _seconds(integers) + _firsts(integers)
        _seconds(lowest).masked_fill_(sums == -self.pair_limit, -math.inf)
        _seconds(highest).masked_fill_(sums == self.pair_limit, math.inf)
        moved = weight.clamp((lowest * steps).to(weight.dtype), (highest * steps).to(weight.dtype))
        if not self._learned:
            self.first_largest.copy_(self._largest(moved.float()))
        return moved

    def extra_repr(self) -> str:
        groups = f", groups of {self.group_size}" if self._is_int4 else ""
        return f"{self.precision}{groups}, scales {'learned' if self._learned else 'followed'}"

    def _entries(self, weight: Tensor, tensors: Tensors) -> dict[str, Tensor]:
        scales = tensors["_scale"].to(weight.device).reshape(len(weight), -1)
        # A row of zeros has none. It may grow, and begins with one that other rows have.
        scales = torch.where(scales > 0, scales, scales.max() if scales.any() else 1.0)
        integers = self._integers(tensors).to(weight.device)
        sums = (_seconds(integers) + _firsts(integers)).abs()
        is_pair_safe = (
            self.precision == "int8"
            and self._format.pair_safe is not False  # type: ignore[attr-defined]
            and bool((sums <= PAIR_MAX).all())
        )
        limit = PAIR_MAX if is_pair_safe else -2 * INT8.min
        found = {"base": scales, "pair_limit": torch.tensor(float(limit), device=weight.device)}
        if self._learned:
            return found | {"log2_gain": torch.zeros_like(scales)}
        return found | {"first_largest": self._largest(weight.float())}

    @property
    def _range(self) -> tuple[int, int]:
        return (INT4_MIN, INT4_MAX) if self._is_int4 else (INT8.min, INT8.max)

    def _integers(self, tensors: Tensors) -> Tensor:
        """float32 [N, K]."""
        integers = tensors[""]
        return (unpack_int4(integers, self._columns) if self._is_int4 else integers).float()

    def _scales(self, weight: Tensor) -> Tensor:
        """float32 [N, G], positive but for rows of zeros; the module may have been cast."""
        if self._learned:
            return self.base.float() * self.log2_gain.float().exp2()
        largest, first = self._largest(weight), self.first_largest.float()
        return self.base.float() * torch.where(first > 0, largest / first, 1.0)

    def _largest(self, weight: Tensor) -> Tensor:
        """Magnitudes [N, G]."""
        padded = F.pad(weight.detach().abs(), (0, -self._columns % self.group_size))
        return padded.unflatten(1, (-1, self.group_size)).amax(2)

    def _by_column(self, scales: Tensor) -> Tensor:
        """Steps [N, K], all positive."""
        steps = torch.where(scales > 0, scales, 1.0)
        return steps.repeat_interleave(self.group_size, 1)[:, : self._columns]


def _firsts(columns: Tensor) -> Tensor:
    """Of each pair (2k, 2k + 1) that is whole."""
    return columns[:, : columns.shape[1] // 2 * 2 : 2]


def _seconds(columns: Tensor) -> Tensor:
    return columns[:, 1::2]


class _Round(torch.autograd.Function):
    """(integers * steps, integers) of weights; gradients: LSQ, equations 1 to 3."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, steps: Tensor, least: int, most: int, pair_limit: Tensor
    ) -> tuple[Tensor, Tensor]:
        exact = weight / steps
        nearest = exact.round()
        integers, pair_limit = nearest.clamp(least, most), pair_limit.float()
        firsts, seconds = _firsts(integers), _seconds(integers)
        seconds.copy_(seconds.maximum(-pair_limit - firsts).minimum(pair_limit - firsts))
        unsaturated = integers == nearest
        ctx.save_for_backward(unsaturated, integers - torch.where(unsaturated, exact, 0))
        ctx.mark_non_differentiable(integers)
        return integers * steps, integers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        unsaturated, by_step = ctx.saved_tensors
        return gradients[0] * unsaturated, gradients[0] * by_step, None, None, None
