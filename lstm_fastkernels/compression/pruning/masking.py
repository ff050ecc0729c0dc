"""Masks on the weights of nn.LSTM and nn.LSTMCell, put on and taken off in place.

A masked module keeps its float state_dict, its Parameter objects and its way of being called.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.modules.float_lstm import matrix_names, parameter_kinds
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
    module.register_state_dict_post_hook(_save_masked)
    module.register_load_state_dict_pre_hook(_load_originals)


def take_off(module: nn.Module) -> None:
    """Makes the masks permanent: plain parameters, the same objects, with zeros in them."""
    with changing_parametrizations(module):
        for name in masked_names(module):
            with torch.no_grad():
                parametrization_of(module, name).original.copy_(getattr(module, name))
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    for hooks, ours in (
        (module._state_dict_hooks, _save_masked),
        (module._load_state_dict_pre_hooks, _load_originals),
    ):
        for key in [k for k, hook in hooks.items() if getattr(hook, "hook", hook) is ours]:
            del hooks[key]


# ---- state_dict: the float module's keys, in its order ----


def _original_key(prefix: str, name: str) -> str:
    return f"{prefix}parametrizations.{name}.original"


def _save_masked(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    names = masked_names(module)
    for name in parameter_kinds(module):
        if name in names:
            original = state_dict.pop(_original_key(prefix, name))
            weight = getattr(module, name)
            # keep_vars asks for tensors with their history.
            state_dict[prefix + name] = weight if original.requires_grad else weight.detach()
        elif prefix + name in state_dict:
            state_dict[prefix + name] = state_dict.pop(prefix + name)


def _load_originals(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    for name in masked_names(module):
        key, original_key = prefix + name, _original_key(prefix, name)
        if key in state_dict:
            state_dict[original_key] = state_dict.pop(key)
        else:
            # Reported under the name that people know; the weight is loaded with itself.
            if strict:
                missing_keys.append(key)
            state_dict[original_key] = parametrization_of(module, name).original
