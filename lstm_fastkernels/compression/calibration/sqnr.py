"""Signal to quantization noise ratios, in dB."""

import math
from collections.abc import Iterable

import torch

from lstm_fastkernels.compression.calibration.calls import Call
from lstm_fastkernels.modules.lstm import FastQuantLSTM


def to_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two sums of squares."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def signal_of(calls: Iterable[Call]) -> float:
    """The sum of the squared outputs of calls."""
    return sum(float(call.y.double().square().sum()) for call in calls)


@torch.inference_mode()
def noise_of(lstm: FastQuantLSTM, calls: Iterable[Call]) -> float:
    """The sum of the squared errors of an LSTM on the CPU, time-major, for these calls."""
    total = 0.0
    for call in calls:
        h, c = (state.cpu() for state in call.hx)
        y, _ = lstm(call.x.cpu(), (h, c), call.lengths)
        total += float((y.double() - call.y.cpu().double()).square().sum())
    return total
