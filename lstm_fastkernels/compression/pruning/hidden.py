"""Removing whole hidden units of the LSTMs in a model, everywhere they appear."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import nn

from lstm_fastkernels.compression.following import Following, readers_of, stacked_layers
from lstm_fastkernels.compression.lstms import (
    FilterFn,
    check_unwrapped,
    find_lstms,
    parameter_owners,
    replace_modules,
)
from lstm_fastkernels.compression.pruning.units import (
    LSTMS,
    Axes,
    Importance,
    Units,
    axes_of,
    label_of,
    layers_of,
    score,
    shared_out,
)
from lstm_fastkernels.modules.float_lstm import tensor_fault
from lstm_fastkernels.modules.stacked import StackedLSTM
from lstm_fastkernels.weights.checks import Kind
from lstm_fastkernels.weights.shape import GATES

Scope = Literal["layer", "global"]


def prune_hidden_(
    model: nn.Module,
    ratio: float = 0.5,
    *,
    importance: Importance = "magnitude",
    scope: Scope = "layer",
    following: Following | None = None,
    multiple_of: int = 1,
    filter_fn: FilterFn | None = None,
) -> nn.Module:
    """Removes the share `ratio` of the hidden units of every nn.LSTM, nn.LSTMCell and StackedLSTM.

    A unit goes with its rows in the four gates, its column in the recurrent weight, or in the
    projection if there is one, and its columns in whatever reads it. Both directions of a layer
    keep equally many units, not always the same ones; units that stay keep their order.

    importance: "magnitude", the root of the sum of squares of a unit's weights, outgoing ones
    included; or "taylor", the square of the sum of weight * gradient over them, from the `.grad`
    that a backward pass left. Biases do not count.
    scope: with "layer" each layer keeps round(H * (1 - ratio)) units, at least one, rounded up to
    a multiple of `multiple_of`, at most H. With "global" the layers of an LSTM share as many out
    among themselves, by importance relative to their mean; each keeps more than its proj_size and
    a multiple of `multiple_of`, or all. An nn.LSTM whose layers come to differ in size is replaced
    by a StackedLSTM, whose states are tuples.
    following: for each LSTM, by its dotted name in the model, the names of the modules that read
    its output as it is, and lose columns: nn.Linear, nn.LSTM, nn.LSTMCell or StackedLSTM. An LSTM
    without projection must be named, since its output gets narrower; with an empty sequence, its
    readers are left to the caller. Only an LSTM that is the model itself needs no entry.
    filter_fn(module, name) picks the LSTMs to prune. Subclasses of the three are left alone.

    Works in place and returns the model; a model that is an nn.LSTM and becomes a StackedLSTM is
    left as it was. Parameters that are cut are new ones, without `.grad`: make optimizers
    afterwards. States that come from outside, such as a learned h0, are the caller's to cut.
    Raises ValueError or TypeError, with nothing changed, for arguments that do not fit each other
    or the model, missing gradients, values that are not finite or on the meta device, parameters
    that are parametrized, masked or shared, modules inside DistributedDataParallel or FSDP, and
    LSTMs that a StackedLSTM cannot stand for, as convert does.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be in [0, 1), got {ratio}")
    if importance not in get_args(Importance):
        raise ValueError(
            f"importance must be one of {list(get_args(Importance))}, got {importance!r}"
        )
    if scope not in get_args(Scope):
        raise ValueError(f"scope must be one of {list(get_args(Scope))}, got {scope!r}")
    if multiple_of < 1:
        raise ValueError(f"multiple_of must be at least 1, got {multiple_of}")

    names = {module: name for name, module in model.named_modules()}
    stacked = stacked_layers(model)
    readers = readers_of(model, following or {}, LSTMS)
    sources = {reader: source for source, found in readers.items() for reader in found}
    chosen = [
        module
        for name, module in find_lstms(model, classes=LSTMS)
        if module not in stacked and (filter_fn is None or filter_fn(module, name))
    ]
    layers = {module: layers_of(module) for module in [*chosen, *readers, *sources]}
    widths = {}
    for module in chosen:
        if module is not model and module not in readers and not layers[module][-1].proj_size:
            raise ValueError(
                f"the output of {names[module]!r} gets narrower: name the modules that read it in "
                "`following`, or give an empty sequence there to cut them yourself"
            )
        widths[module] = [
            layer.width(ratio, multiple_of, names[module]) for layer in layers[module]
        ]

    check_unwrapped(model, layers)
    axes: Axes = {}
    for module in layers:
        inputs = layers[sources[module]][-1].outputs if module in sources else None
        axes |= axes_of(module, layers[module], inputs)
    ranked = {units for module in chosen for layer in layers[module] for units in layer.units}
    axes = {
        key: runs
        for key, runs in axes.items()
        if any(units in ranked for axis in runs for units in axis)
    }
    parameters = _parameters(model, axes, names)
    score(axes, parameters, names, importance)
    for module in chosen:
        if scope == "global":
            widths[module] = shared_out(layers[module], sum(widths[module]), multiple_of)
        for layer, width in zip(layers[module], widths[module], strict=True):
            for units in layer.units:
                units.keep(width)

    cut = {key: _cut(parameters[key], runs) for key, runs in axes.items()}
    replacements: dict[nn.Module, nn.Module] = {
        module: _as_stacked(module, cut)
        for module in chosen
        if isinstance(module, nn.LSTM) and len(set(widths[module])) > 1
    }
    pruned = replace_modules(model, replacements)  # may raise: before anything has changed
    for (holder, name), parameter in cut.items():
        if holder not in replacements:
            setattr(holder, name, parameter)
    for holder in {holder for holder, _ in cut} - replacements.keys():
        _update_sizes(holder)
    return pruned


# ---- checks ----


def _parameters(
    model: nn.Module, axes: Axes, names: Mapping[nn.Module, str]
) -> dict[tuple[nn.Module, str], nn.Parameter]:
    """The parameters that have these axes."""
    owners = parameter_owners(model)
    parameters = {}
    for (holder, name), runs in axes.items():
        parameter = holder._parameters.get(name)
        label = label_of(names, holder, name)
        if parameter is None:
            raise ValueError(
                f"{label} is no parameter: remove parametrizations and masks first, and prune "
                "before quantizing"
            )
        shape = tuple(sum(units.size for units in axis) for axis in runs)
        if fault := tensor_fault(parameter, Kind(None, shape)):
            raise ValueError(f"{label}: {fault}")
        if others := [owner for owner in owners[id(parameter)] if owner != label]:
            raise ValueError(f"{label} is shared with {', '.join(others)}: untie them first")
        parameters[holder, name] = parameter
    return parameters


# ---- cutting ----


def _cut(parameter: nn.Parameter, axes: tuple[list[Units], ...]) -> nn.Parameter:
    """The parameter without what its axes do not keep; itself if they keep all."""
    tensor = parameter.detach()
    for dim, runs in enumerate(axes):
        parts, start = [], 0
        for units in runs:
            parts.append(start + units.kept)
            start += units.size
        tensor = tensor.index_select(dim, torch.cat(parts).to(tensor.device))
    if tensor.shape == parameter.shape:
        return parameter
    return nn.Parameter(tensor, requires_grad=parameter.requires_grad)


def _update_sizes(module: nn.Module) -> None:
    """Sets the sizes that a module knows to those of its parameters."""
    if isinstance(module, nn.Linear):
        module.in_features = module.weight.shape[1]
        return
    assert isinstance(module, nn.LSTM | nn.LSTMCell)
    name = "weight_ih_l0" if isinstance(module, nn.LSTM) else "weight_ih"
    rows, module.input_size = module.get_parameter(name).shape
    module.hidden_size = rows // len(GATES)
    if isinstance(module, nn.LSTM):
        module.flatten_parameters()


def _as_stacked(
    lstm: nn.LSTM, parameters: Mapping[tuple[nn.Module, str], nn.Parameter]
) -> StackedLSTM:
    """An nn.LSTM's layers, with parameters of different sizes, as modules of their own."""
    layers = []
    for k in range(lstm.num_layers):
        rows, columns = parameters[lstm, f"weight_ih_l{k}"].shape
        layer = nn.LSTM(
            columns,
            rows // len(GATES),
            bias=lstm.bias,
            batch_first=lstm.batch_first,
            bidirectional=lstm.bidirectional,
            proj_size=lstm.proj_size,
            device="meta",
        )
        for name in list(layer._parameters):
            setattr(layer, name, parameters[lstm, name.replace("_l0", f"_l{k}")])
        layers.append(layer)
    stacked = StackedLSTM(layers, lstm.dropout).train(lstm.training)
    stacked.flatten_parameters()
    return stacked
