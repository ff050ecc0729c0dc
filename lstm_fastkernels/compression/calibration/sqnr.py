"""Signal to quantization noise ratios, in dB."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lstm_fastkernels.compression.calibration.calls import Call


def to_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two sums of squares."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def signal_of(calls: Iterable[Call]) -> float:
    """The sum of the squared outputs of calls."""
    return sum(float(call.y.double().square().sum()) for call in calls)


@torch.inference_mode()
def noise_of(output: Callable[[Call], Tensor], calls: Iterable[Call]) -> float:
    """The sum of the squared errors of what `output` gives in the place of each call's y."""
    total = 0.0
    for call in calls:
        error = output(call).cpu().double() - call.y.cpu().double()
        total += float(error.square().sum())
    return total
