"""Converting: every LSTM of a model replaced by its fast twin."""

import copy
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, get_args

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.leftovers import leftovers
from lstm_fastkernels.compression.lstms import (
    FilterFn,
    check_replaceable,
    find_lstms,
    label_of,
    replace_modules,
)
from lstm_fastkernels.modules.cell import FastQuantLSTMCell, FastSparseLSTMCell
from lstm_fastkernels.modules.lstm import FastQuantLSTM, FastSparseLSTM
from lstm_fastkernels.modules.quantized_lstm import quantized_classes

Weights = Literal["int8", "float32"]

# What makes the fast twin of a module, by its class.
Makers = Mapping[type[nn.Module], Callable[..., nn.Module]]


def convert(
    model: nn.Module,
    *,
    weights: Weights = "int8",
    filter_fn: FilterFn | None = None,
    inplace: bool = False,
    **options: Any,
) -> nn.Module:
    """Replaces every nn.LSTM and nn.LSTMCell by its fast twin.

    `weights` "int8" gives FastQuantLSTM and FastQuantLSTMCell, "float32" FastSparseLSTM and
    FastSparseLSTMCell, for models pruned in blocks; options are theirs: `activations`, `precision`,
    `pair_safe`, `layout`, `block_size`, `keep`. Zeros that pay are skipped by default: each matrix
    is laid out by itself, and the modules' repr says how. "int8" also takes over the LSTMs that
    torch.ao's quantize_dynamic has made, their integers as they are.

    filter_fn(module, name) picks the ones to replace; name is the dotted name in the model. A
    module used in several places stays shared. Forward and backward hooks, and attributes that
    were put on a module, go over to its twin. Parametrized weights are taken as they would be used
    in evaluation. Returns a converted copy, or the model itself with `inplace`; a model that is an
    LSTM itself is never changed, its replacement is returned.

    Raises ValueError, naming the module and with nothing changed, for one that may compute
    something else than its class does (a forward of its own, old weight_norm, parameters missing
    or added, hooks on its state_dict), for weights that are on the meta device or not finite, and
    for modules inside DistributedDataParallel or FSDP. A UserWarning names what is left as it is
    though it looks like an LSTM (subclasses, scripted modules, other quantized ones), unless
    filter_fn leaves it out.
    """
    makers = _makers(weights)

    def make(module: nn.Module) -> nn.Module:
        return makers[type_before_parametrizations(module)](module, **options)

    return replace_lstms(model, make, classes=makers, filter_fn=filter_fn, inplace=inplace)


def replace_lstms(
    model: nn.Module,
    make: Callable[[nn.Module], nn.Module],
    *,
    classes: Collection[type[nn.Module]],
    filter_fn: FilterFn | None,
    inplace: bool,
) -> nn.Module:
    """`convert` for modules of these classes, each of which make(module) gives the twin of."""
    lstms = {module: name for name, module in find_lstms(model, filter_fn, classes=classes)}
    check_replaceable(model, lstms)
    twins = {name: _twin_of(module, name, make) for module, name in lstms.items()}
    if text := leftovers(model, lstms, filter_fn):
        warnings.warn(text, stacklevel=3)
    if not inplace:
        model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    return replace_modules(model, {modules[name]: twin for name, twin in twins.items()})


def _makers(weights: Weights) -> Makers:
    if weights == "float32":
        return {nn.LSTM: FastSparseLSTM.from_float, nn.LSTMCell: FastSparseLSTMCell.from_float}
    if weights != "int8":
        raise ValueError(f"weights must be one of {list(get_args(Weights))}, got {weights!r}")
    classes: list[type[nn.Module]] = [nn.LSTM, nn.LSTMCell, *quantized_classes()]
    makers: list[Callable[..., nn.Module]] = [
        FastQuantLSTM.from_float,
        FastQuantLSTMCell.from_float,
        FastQuantLSTM.from_quantized,
        FastQuantLSTMCell.from_quantized,
    ]
    return dict(zip(classes, makers, strict=False))  # torch may be without torch.ao


def _twin_of(module: nn.Module, name: str, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    try:
        return make(module)
    except ValueError as error:
        raise ValueError(f"{label_of(name)}: {error}") from error
