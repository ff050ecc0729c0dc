"""Replacing the LSTMs inside a model."""

import copy
from collections.abc import Callable

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.canonical import Activations
from lstm_fastkernels.modules import FastQuantLSTM, FastQuantLSTMCell


def convert(
    model: nn.Module,
    *,
    activations: Activations = "int8",
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Replaces every nn.LSTM by a FastQuantLSTM and every nn.LSTMCell by a FastQuantLSTMCell.

    filter_fn(module, name) picks the ones to replace; name is the dotted name in the model. A
    module used in several places stays shared. Subclasses of the two are left alone, since they may
    compute something else. Returns a converted copy, or the model itself with `inplace`; a model
    that is an LSTM itself is never changed, its replacement is returned.
    """
    if not inplace:
        model = copy.deepcopy(model)
    replacements: dict[nn.Module, nn.Module] = {}
    for name, module in model.named_modules():
        if filter_fn is not None and not filter_fn(module, name):
            continue
        kind = type_before_parametrizations(module)
        if kind is nn.LSTM:
            replacements[module] = FastQuantLSTM.from_float(module, activations=activations)
        elif kind is nn.LSTMCell:
            replacements[module] = FastQuantLSTMCell.from_float(module, activations=activations)
    return replace_modules(model, replacements)


def replace_modules(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> nn.Module:
    """Puts each replacement wherever its module is in the model; returns the model's, if any."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(model, model)
