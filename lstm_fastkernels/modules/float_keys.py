"""The float module's keys in the state_dict of a parametrized nn.LSTM or nn.LSTMCell.

Without this parametrize would call a weight parametrizations.weight_hh_l0.original.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lstm_fastkernels.modules.float_lstm import matrix_names, parameter_kinds
from lstm_fastkernels.modules.parametrized import (
    first_parametrization,
    originals_of,
    parametrization_of,
)


@runtime_checkable
class KeepsKey(Protocol):
    """A parametrization under which a matrix keeps its key."""

    def stored(self, weight: Tensor) -> Tensor:
        """What the state_dict has for this weight."""


@runtime_checkable
class Fits(Protocol):
    """A parametrization with entries of its own, which float checkpoints do not have."""

    def fitted(self, *weights: Tensor) -> dict[str, Tensor]:
        """These entries, made for what it gets."""


def keep_float_keys(module: nn.Module) -> None:
    """For what has been put on the module's matrices; calling it again changes nothing."""
    if not any(map(_is_ours, module._state_dict_hooks.values())):
        module.register_state_dict_post_hook(_save)
        module.register_load_state_dict_pre_hook(_load)


def forget_float_keys(module: nn.Module) -> None:
    """The opposite, for a module with no such parametrization left."""
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
            del hooks[key]


def _is_ours(hook: Any) -> bool:
    return getattr(hook, "hook", hook) in (_save, _load)


def _kept_names(module: nn.Module) -> list[str]:
    names = matrix_names(module)
    return [name for name in names if isinstance(first_parametrization(module, name), KeepsKey)]


def _steps(
    module: nn.Module, name: str, weights: list[Tensor]
) -> Iterator[tuple[Any, list[Tensor]]]:
    """The parametrizations of a matrix, each with what it gets from these originals, and at last
    None with what is stored."""
    for part in parametrization_of(module, name):
        yield part, weights
        weights = [part.stored(*weights) if isinstance(part, KeepsKey) else part(*weights)]
    yield None, weights


def _save(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    names = _kept_names(module)
    for name in parameter_kinds(module):
        if name in names:
            ((key, original),) = originals_of(module, name).items()
            *_, (_, (weight,)) = _steps(module, name, [original])
            # keep_vars asks for tensors with their history.
            with_history = state_dict.pop(prefix + key).requires_grad
            state_dict[prefix + name] = weight if with_history else weight.detach()
        elif prefix + name in state_dict:
            state_dict[prefix + name] = state_dict.pop(prefix + name)


def _load(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    for name in _kept_names(module):
        ((original_key, original),) = originals_of(module, name).items()
        key = prefix + name
        if key in state_dict:
            state_dict[prefix + original_key] = state_dict.pop(key)
        else:
            # Reported under the name that people know; the weight is loaded with itself.
            if strict:
                missing_keys.append(key)
            state_dict[prefix + original_key] = original
    for name in getattr(module, "parametrizations", {}):
        _fit(module, name, state_dict, prefix)


@torch.no_grad()
def _fit(module: nn.Module, name: str, state_dict: dict[str, Any], prefix: str) -> None:
    """Adds the entries that a float checkpoint does not have."""
    originals = originals_of(module, name)
    given: list[Any] = [state_dict.get(prefix + key) for key in originals]
    if any(
        not isinstance(value, Tensor) or value.shape != own.shape
        for value, own in zip(given, originals.values(), strict=True)
    ):
        return  # which is reported without our help
    weights = [value.to(own) for value, own in zip(given, originals.values(), strict=True)]
    for number, (part, got) in enumerate(_steps(module, name, weights)):
        if isinstance(part, Fits):
            own = f"{prefix}parametrizations.{name}.{number}."
            if not any(key.startswith(own) for key in state_dict):
                state_dict.update({own + key: value for key, value in part.fitted(*got).items()})
