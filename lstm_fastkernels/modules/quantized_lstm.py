"""LSTMs that torch.ao has quantized dynamically, as its quantize_dynamic makes them."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn, random

from lstm_fastkernels.weights.canonical import WeightSpec, sum_biases


def quantized_classes() -> tuple[type[nn.Module], ...]:
    """torch.ao.nn.quantized.dynamic's LSTM and LSTMCell, where torch has them."""
    home = sys.modules.get("torch.ao.nn.quantized.dynamic")
    return (home.LSTM, home.LSTMCell) if home else ()


def quantized_attributes(cls: type[nn.Module]) -> frozenset[str]:
    """What one of these classes puts on its modules."""
    # It draws random weights and warns that torch.ao is deprecated.
    with random.fork_rng(devices=[]), torch.device("cpu"), warnings.catch_warnings(action="ignore"):
        return frozenset(vars(cls(1, 1)))


def quantized_tensors(module: Any, spec: WeightSpec, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The canonical tensors of one of these, its integers and scales as they are.

    names: what the module calls its parameters, by nn.LSTM's names. Raises ValueError, naming the
    matrix, for weights that are not int8 and for zero points.
    """
    weights, biases = module.get_weight(), module.get_bias()
    tensors: dict[str, Tensor] = {}
    for name in spec.shape.matrices:
        try:
            tensors[name], tensors[f"{name}_scale"] = _rows_of(weights[names[name]])
        except ValueError as error:
            raise ValueError(f"{names[name]}: {error}") from error
    own = {name: biases[given] for name, given in names.items() if given in biases}
    return tensors | sum_biases(own)


def _rows_of(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [N, K] and float32 scales [N] of a matrix that is quantized as a whole or by row."""
    if weight.dtype != torch.qint8:
        raise ValueError("its weights are not int8: take the float LSTM, with from_float")
    if weight.qscheme() == torch.per_tensor_affine:
        whole = weight.q_scale(), weight.q_zero_point()
        scales, zero_points = (torch.tensor([n], dtype=torch.float64) for n in whole)
    else:
        scales, zero_points = weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
    if zero_points.any():
        raise ValueError(
            "its zero points are not 0: take the float LSTM, with from_float, or quantize it anew "
            "with a symmetric qconfig"
        )
    return weight.int_repr(), scales.float().expand(len(weight)).contiguous()
