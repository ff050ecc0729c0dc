"""Parametrizations on nn.LSTM and nn.LSTMCell, by torch.nn.utils.parametrize, put on and taken off.

nn.LSTM keeps its weights in a list, `_flat_weights`, that goes stale under parametrize
(pytorch#65688). Its forward first asks for a check of the list: there it is filled, each weight
computed once, whatever wrapper calls that forward.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from lstm_fastkernels.modules.float_lstm import parameter_kinds


def parametrization_of(module: nn.Module, name: str) -> parametrize.ParametrizationList:
    """What parametrize has of a parametrized parameter: its originals, and what is on them."""
    parametrizations: Any = module.parametrizations
    return parametrizations[name]


def first_parametrization(module: nn.Module, name: str) -> nn.Module | None:
    """What a parametrized parameter's originals go through first."""
    if not parametrize.is_parametrized(module, name):
        return None
    return parametrization_of(module, name)[0]


def originals_of(module: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The parameters behind a matrix, by their dotted names in the module."""
    if not parametrize.is_parametrized(module, name):
        return {name: module.get_parameter(name)}
    own = parametrization_of(module, name)._parameters
    return {f"parametrizations.{name}.{key}": p for key, p in own.items() if p is not None}


@contextmanager
def changing_parametrizations(module: nn.Module) -> Iterator[None]:
    """In which parametrizations are put on or taken off; the module follows those that are left."""
    if parametrize.is_parametrized(module):
        # Copies share the class that parametrize made for the first of them, and would change with
        # it: so the module gets one of its own.
        cls = type(module)
        module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
    yield
    for name in parameter_kinds(module):
        if name in module._parameters:
            module._parameters[name] = module._parameters.pop(name)
    if isinstance(module, nn.LSTM):
        if parametrize.is_parametrized(module):
            for name, method in _LSTM_METHODS.items():
                setattr(type(module), name, method)
        module._init_flat_weights()


class _FlatWeights(list[Any]):
    """What the last forward used. Tensors with a history cannot be copied: copies begin empty."""

    def __deepcopy__(self, memo: dict[int, Any]) -> list[None]:
        return [None] * len(self)


def _fill_flat_weights(lstm: nn.LSTM) -> None:
    weights = _FlatWeights(getattr(lstm, name) for name in lstm._flat_weights_names)
    lstm._flat_weights = weights
    # By these nn.LSTM sees that it has other weights once it is a plain one again.
    lstm._flat_weight_refs = [weakref.ref(weight) for weight in weights]
    lstm.flatten_parameters()


def _clear_flat_weights(lstm: nn.LSTM) -> None:
    lstm._flat_weights = [None] * len(lstm._flat_weights_names)


_LSTM_METHODS = {
    "_init_flat_weights": _clear_flat_weights,
    "_update_flat_weights": _fill_flat_weights,
}
