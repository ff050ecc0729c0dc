"""The float LSTMs of a model: finding them, what their parameters are called, replacing them.

Needs no compiled op.
"""

from collections.abc import Callable, Collection, Iterator

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

FilterFn = Callable[[nn.Module, str], bool]


def find_lstms(
    model: nn.Module,
    filter_fn: FilterFn | None = None,
    *,
    classes: Collection[type[nn.Module]] = (nn.LSTM, nn.LSTMCell),
) -> Iterator[tuple[str, nn.Module]]:
    """Every module of these classes that filter_fn(module, name) picks, and its dotted name.

    Subclasses are left out, since they may compute something else; parametrized ones are not.
    """
    for name, module in model.named_modules():
        if type_before_parametrizations(module) in classes and (
            filter_fn is None or filter_fn(module, name)
        ):
            yield name, module


def replace_modules(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> nn.Module:
    """Puts each replacement wherever its module is in the model; returns the model's, if any."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(model, model)


def parameter_names(module: nn.Module) -> list[str]:
    """Names of the parameters, in the order in which nn.LSTM and nn.LSTMCell register them."""
    if isinstance(module, nn.LSTM):
        return module._flat_weights_names
    return ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if module.bias else [])


def matrix_names(module: nn.Module) -> list[str]:
    return [name for name in parameter_names(module) if name.startswith("weight")]
