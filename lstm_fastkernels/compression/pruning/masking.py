"""Masks on the weights of nn.LSTM and nn.LSTMCell, put on and taken off in place.

A masked module keeps its float state_dict, its Parameter objects and its way of being called.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.modules.float_keys import forget_float_keys, keep_float_keys
from lstm_fastkernels.modules.float_lstm import matrix_names
from lstm_fastkernels.modules.parametrized import (
    changing_parametrizations,
    first_parametrization,
    parametrization_of,
)


class _StraightThrough(torch.autograd.Function):
    """Masked weights forward; the whole gradient, that of masked weights too, backward."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, weight, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Mask(nn.Module):
    """Zeros where `mask`, a bool buffer of the weight's shape that is never saved, is False."""

    mask: Tensor

    def __init__(self, weight: Tensor, *, straight_through: bool) -> None:
        super().__init__()
        self.straight_through = straight_through
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        if self.straight_through:
            return _StraightThrough.apply(weight, self.mask)
        return torch.where(self.mask, weight, 0)

    def stored(self, weight: Tensor) -> Tensor:
        """In a state_dict are zeros."""
        return self(weight)


def masked_names(module: nn.Module) -> list[str]:
    """Names of the matrices that have a Mask on."""
    return [
        name
        for name in matrix_names(module)
        if isinstance(first_parametrization(module, name), Mask)
    ]


def put_on(module: nn.Module, names: list[str], *, straight_through: bool) -> None:
    """Puts a Mask that masks nothing yet on each of the matrices, none of them parametrized."""
    with changing_parametrizations(module):
        for name in names:
            original = module.get_parameter(name)
            mask = Mask(original, straight_through=straight_through)
            # parametrize sets the parameter to itself, which takes DistributedDataParallel's hooks
            # off it: so it gets another one over the same memory.
            module._parameters[name] = nn.Parameter(original.detach(), original.requires_grad)
            parametrize.register_parametrization(module, name, mask)
            parametrization_of(module, name)._parameters["original"] = original
    keep_float_keys(module)


def take_off(module: nn.Module) -> None:
    """Makes the masks permanent: plain parameters, the same objects, with zeros in them."""
    with changing_parametrizations(module):
        for name in masked_names(module):
            with torch.no_grad():
                parametrization_of(module, name).original.copy_(getattr(module, name))
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    forget_float_keys(module)
