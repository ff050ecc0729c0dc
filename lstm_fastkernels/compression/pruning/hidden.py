"""Removing whole hidden units of the LSTMs in a model, everywhere they appear.

A parameter is described by its axes, each a list of runs of units, one after another: the rows of
weight_ih are the units of its layer and direction once for each gate, its columns are the units
that the layer reads. Importance is summed, and parameters are cut, from that description alone.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.convert import replace_modules
from lstm_fastkernels.modules.stacked import StackedLSTM

Importance = Literal["magnitude", "taylor"]
Scope = Literal["layer", "global"]

_GATES = 4
_LSTMS = (nn.LSTM, nn.LSTMCell, StackedLSTM)


def prune_hidden_(
    model: nn.Module,
    ratio: float = 0.5,
    *,
    importance: Importance = "magnitude",
    scope: Scope = "layer",
    following: Mapping[str, str | Sequence[str]] | None = None,
    multiple_of: int = 1,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
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
    or the model, missing gradients, values that are not finite, and parameters that are
    parametrized, masked or shared.
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
    stacked = {layer for m in names if isinstance(m, StackedLSTM) for layer in m.layers}
    readers = _readers(model, following or {}, stacked)
    sources = {reader: source for source, found in readers.items() for reader in found}
    chosen = [
        module
        for module, name in names.items()
        if type_before_parametrizations(module) in _LSTMS
        and module not in stacked
        and (filter_fn is None or filter_fn(module, name))
    ]
    layers = {module: _layers(module) for module in [*chosen, *readers, *sources]}
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

    axes: _Axes = {}
    for module in layers:
        inputs = layers[sources[module]][-1].outputs if module in sources else None
        axes |= _axes(module, layers[module], inputs)
    ranked = {units for module in chosen for layer in layers[module] for units in layer.units}
    axes = {
        key: runs
        for key, runs in axes.items()
        if any(units in ranked for axis in runs for units in axis)
    }
    parameters = _parameters(model, axes, names)
    _score(axes, parameters, names, importance)
    for module in chosen:
        if scope == "global":
            widths[module] = _shared_out(layers[module], sum(widths[module]), multiple_of)
        for layer, width in zip(layers[module], widths[module], strict=True):
            for units in layer.units:
                units.keep(width)

    cut = {key: _cut(parameters[key], runs) for key, runs in axes.items()}
    replacements: dict[nn.Module, nn.Module] = {
        module: _as_stacked(module, cut)
        for module in chosen
        if isinstance(module, nn.LSTM) and len(set(widths[module])) > 1
    }
    for (holder, name), parameter in cut.items():
        if holder not in replacements:
            setattr(holder, name, parameter)
    for holder in {holder for holder, _ in cut} - replacements.keys():
        _update_sizes(holder)
    return replace_modules(model, replacements)


@dataclass(eq=False)
class _Units:
    """A run of units, kept or cut alike on every axis that has it."""

    size: int

    def __post_init__(self) -> None:
        self.score = torch.zeros(self.size, dtype=torch.float64)
        self.kept = torch.arange(self.size)

    def keep(self, count: int) -> None:
        """Keeps the `count` best, the first of equals, in their order."""
        best = self.score.argsort(descending=True, stable=True)[:count]
        self.kept = best.sort().values


class _Layer:
    """The units of one layer, a run for each direction, and what the next layer reads."""

    def __init__(self, holder: nn.LSTM | nn.LSTMCell, suffixes: Sequence[str]) -> None:
        self.holder = holder
        self.suffixes = suffixes
        self.size = holder.hidden_size
        self.proj_size = 0 if isinstance(holder, nn.LSTMCell) else holder.proj_size
        self.units = [_Units(self.size) for _ in suffixes]
        self.outputs = [_Units(self.proj_size) for _ in suffixes] if self.proj_size else self.units

    def rounded(self, count: int, multiple_of: int) -> int:
        return min(self.size, -(-count // multiple_of) * multiple_of)

    def width(self, ratio: float, multiple_of: int, name: str) -> int:
        """How many units stay with scope="layer"."""
        width = self.rounded(max(1, round(self.size * (1 - ratio))), multiple_of)
        if width <= self.proj_size:
            raise ValueError(
                f"{width} of {self.size} units of {name!r} would stay, but nn.LSTM needs more than "
                f"its proj_size={self.proj_size}"
            )
        return width


# The rows and the columns, if any, of a parameter, by the module that holds it and its name there.
_Axes = dict[tuple[nn.Module, str], tuple[list[_Units], ...]]


def _layers(module: nn.Module) -> list[_Layer]:
    if isinstance(module, nn.Linear):
        return []
    if isinstance(module, StackedLSTM):
        return [layer for child in module.layers for layer in _layers(child)]
    if isinstance(module, nn.LSTMCell):
        return [_Layer(module, [""])]
    # Or a FastQuantLSTM inside a StackedLSTM, which _parameters refuses.
    lstm = cast(nn.LSTM, module)
    directions = ("", "_reverse")[: 1 + lstm.bidirectional]
    return [
        _Layer(lstm, [f"_l{k}{direction}" for direction in directions])
        for k in range(lstm.num_layers)
    ]


def _axes(module: nn.Module, layers: list[_Layer], inputs: list[_Units] | None) -> _Axes:
    """The axes of a module's parameters; `inputs` None: of what no pruned LSTM gives."""
    inputs = inputs or [_Units(_input_width(module))]
    if isinstance(module, nn.Linear):
        return {(module, "weight"): ([_Units(module.out_features)], inputs)}
    axes: _Axes = {}
    for layer in layers:
        runs = zip(layer.suffixes, layer.units, layer.outputs, strict=True)
        for suffix, units, output in runs:
            gates = [units] * _GATES
            axes[layer.holder, f"weight_ih{suffix}"] = gates, inputs
            axes[layer.holder, f"weight_hh{suffix}"] = gates, [output]
            if layer.holder.bias:
                axes[layer.holder, f"bias_ih{suffix}"] = (gates,)
                axes[layer.holder, f"bias_hh{suffix}"] = (gates,)
            if layer.proj_size:
                axes[layer.holder, f"weight_hr{suffix}"] = [output], [units]
        inputs = layer.outputs
    return axes


def _input_width(module: nn.Module) -> int:
    if isinstance(module, nn.Linear):
        return module.in_features
    assert isinstance(module, _LSTMS)
    return module.input_size


# ---- checks ----


def _readers(
    model: nn.Module, following: Mapping[str, str | Sequence[str]], stacked: Collection[nn.Module]
) -> dict[nn.Module, list[nn.Module]]:
    """`following`, with modules for their names."""
    modules = dict(model.named_modules(remove_duplicate=False))

    def named(name: str, *kinds: type[nn.Module]) -> nn.Module:
        if name not in modules:
            raise ValueError(f"following: the model has no module {name!r}")
        module = modules[name]
        if module in stacked:
            raise ValueError(f"following: {name!r} is a layer of a StackedLSTM, name that instead")
        kind = type_before_parametrizations(module)
        if kind not in kinds:
            raise TypeError(
                f"following: {name!r} must be one of {[k.__name__ for k in kinds]}, "
                f"got {kind.__name__}"
            )
        return module

    readers: dict[nn.Module, list[nn.Module]] = {}
    sources: dict[nn.Module, nn.Module] = {}
    for source_name, given in following.items():
        source = named(source_name, *_LSTMS)
        width = sum(units.size for units in _layers(source)[-1].outputs)
        found = readers.setdefault(source, [])
        for name in [given] if isinstance(given, str) else given:
            reader = named(name, nn.Linear, *_LSTMS)
            if _input_width(reader) != width:
                raise ValueError(
                    f"following: {name!r} reads {_input_width(reader)} features, but "
                    f"{source_name!r} gives {width}"
                )
            if sources.setdefault(reader, source) is not source:
                raise ValueError(f"following: {name!r} cannot read two LSTMs")
            found.append(reader)
    return readers


def _parameters(
    model: nn.Module, axes: _Axes, names: Mapping[nn.Module, str]
) -> dict[tuple[nn.Module, str], nn.Parameter]:
    """The parameters that have these axes."""
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    parameters = {}
    for holder, name in axes:
        parameter = holder._parameters.get(name)
        label = _label(names, holder, name)
        if parameter is None:
            raise ValueError(
                f"{label} is no parameter: remove parametrizations and masks first, and prune "
                "before quantizing"
            )
        if owners[id(parameter)] > 1:
            raise ValueError(f"{label} is shared with another module")
        parameters[holder, name] = parameter
    return parameters


def _label(names: Mapping[nn.Module, str], holder: nn.Module, name: str) -> str:
    return f"{names[holder]}.{name}".removeprefix(".")


# ---- importance ----


def _score(
    axes: _Axes,
    parameters: Mapping[tuple[nn.Module, str], nn.Parameter],
    names: Mapping[nn.Module, str],
    importance: Importance,
) -> None:
    """Sums the importance of all units over the weights, each of a unit's weights once."""
    matrices = {key: runs for key, runs in axes.items() if len(runs) == 2}
    for key, (rows, columns) in matrices.items():
        value = _contributions(parameters[key], importance, _label(names, *key))
        for row_units, row_block in zip(rows, value.split([u.size for u in rows]), strict=True):
            row_units.score += row_block.sum(1)
            blocks = row_block.split([u.size for u in columns], dim=1)
            for units, block in zip(columns, blocks, strict=True):
                units.score += block.sum(0)
                if units is row_units:
                    units.score -= block.diagonal()
    for units in {u for runs in matrices.values() for axis in runs for u in axis}:
        units.score = units.score.sqrt() if importance == "magnitude" else units.score.square()


def _contributions(parameter: nn.Parameter, importance: Importance, label: str) -> Tensor:
    """What each weight adds to the score of its units, float64 on the CPU."""
    value = parameter.detach().to("cpu", torch.float64)
    if importance == "magnitude":
        value = value.square()
    elif parameter.grad is None:
        raise ValueError(f"{label} has no gradient, as importance='taylor' needs: run backward()")
    else:
        value = value * parameter.grad.to("cpu", torch.float64)
    if not value.isfinite().all():
        raise ValueError(f"{label} has weights or gradients that are not finite")
    return value


def _shared_out(layers: list[_Layer], total: int, multiple_of: int) -> list[int]:
    """Widths that add up to `total`, or the next multiple, given to the layers that gain most.

    The directions of a layer are ranked each on its own, and what comes k-th in each counts as one.
    """
    gains = []
    for layer in layers:
        scores = torch.stack([units.score for units in layer.units])
        best_first = scores.sort(dim=1, descending=True).values.mean(0)
        gains.append(best_first / scores.mean().clamp_min(torch.finfo(scores.dtype).tiny))
    widths = [layer.rounded(layer.proj_size + 1, multiple_of) for layer in layers]

    def gain(k: int) -> float:
        return float(gains[k][widths[k] : widths[k] + multiple_of].mean())

    while sum(widths) < total:
        k = max((k for k, layer in enumerate(layers) if widths[k] < layer.size), key=gain)
        widths[k] = layers[k].rounded(widths[k] + 1, multiple_of)
    return widths


# ---- cutting ----


def _cut(parameter: nn.Parameter, axes: tuple[list[_Units], ...]) -> nn.Parameter:
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
    module.hidden_size = rows // _GATES
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
            rows // _GATES,
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
