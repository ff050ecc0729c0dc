"""Converting: every LSTM of a model replaced by its fast twin."""

import copy
import warnings
from typing import Any, Literal

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

Weights = Literal["int8", "float32"]

_TWINS: dict[Weights, dict[type[nn.Module], Any]] = {
    "int8": {nn.LSTM: FastQuantLSTM, nn.LSTMCell: FastQuantLSTMCell},
    "float32": {nn.LSTM: FastSparseLSTM, nn.LSTMCell: FastSparseLSTMCell},
}


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
    FastSparseLSTMCell, for models pruned in blocks; options are theirs: `activations`, `layout`,
    `block_size`. Zeros that pay are skipped by default: each matrix is laid out by itself, and the
    modules' repr says how.

    filter_fn(module, name) picks the ones to replace; name is the dotted name in the model. A
    module used in several places stays shared. Forward and backward hooks, and attributes that
    were put on a module, go over to its twin. Parametrized weights are taken as they would be used
    in evaluation. Returns a converted copy, or the model itself with `inplace`; a model that is an
    LSTM itself is never changed, its replacement is returned.

    Raises ValueError, naming the module and with nothing changed, for one that may compute
    something else than its class does (a forward of its own, old weight_norm, parameters missing
    or added, hooks on its state_dict), for weights that are on the meta device or not finite, and
    for modules inside DistributedDataParallel or FSDP. A UserWarning names what is left as it is
    though it looks like an LSTM (subclasses, scripted and quantized modules), unless filter_fn
    leaves it out.
    """
    if weights not in _TWINS:
        raise ValueError(f"weights must be one of {list(_TWINS)}, got {weights!r}")
    lstms = {module: name for name, module in find_lstms(model, filter_fn)}
    check_replaceable(model, lstms)
    twins = {
        name: _twin_of(module, name, _TWINS[weights], options) for module, name in lstms.items()
    }
    if text := leftovers(model, lstms, filter_fn):
        warnings.warn(text, stacklevel=2)
    if not inplace:
        model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    return replace_modules(model, {modules[name]: twin for name, twin in twins.items()})


def _twin_of(
    module: nn.Module, name: str, twins: dict[type[nn.Module], Any], options: dict[str, Any]
) -> nn.Module:
    try:
        return twins[type_before_parametrizations(module)].from_float(module, **options)
    except ValueError as error:
        raise ValueError(f"{label_of(name)}: {error}") from error
