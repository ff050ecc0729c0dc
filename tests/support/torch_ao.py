"""Models quantized by torch.ao, whose deprecation warnings are not the tests' concern."""

import warnings

import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn.quantized import dynamic

QCONFIGS = {
    "per tensor": quantization.default_dynamic_qconfig,
    "per channel": quantization.per_channel_dynamic_qconfig,
    "float16": quantization.float16_dynamic_qconfig,
}


def quantize(model, qconfig="per tensor"):
    """A copy of the model with its LSTMs quantized dynamically."""
    kinds = dict.fromkeys((nn.LSTM, nn.LSTMCell), QCONFIGS[qconfig])
    with warnings.catch_warnings(action="ignore"):
        return quantization.quantize_dynamic(nn.ModuleList([model]), kinds)[0]


def with_zero_point(zero_points):
    """An LSTM(3, 5) with these in its W_hh, one for all or one a row."""
    with warnings.catch_warnings(action="ignore"):
        lstm = dynamic.LSTM(3, 5)
        weights, w = lstm.get_weight(), torch.randn(20, 5)
        if zero_points.numel() == 1:
            w = torch.quantize_per_tensor(w, 0.1, int(zero_points), torch.qint8)
        else:
            w = torch.quantize_per_channel(w, torch.ones(20), zero_points, 0, torch.qint8)
        lstm.set_weight_bias({**weights, **lstm.get_bias(), "weight_hh_l0": w})
    return lstm
