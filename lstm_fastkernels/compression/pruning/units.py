"""Hidden units: where they are in the parameters of LSTMs and their readers, and how they rank.

A parameter is described by its axes, each a list of runs of units, one after another: the rows of
weight_ih are the units of its layer and direction once for each gate, its columns are the units
that the layer reads. Importance is summed, and parameters are cut, from that description alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lstm_fastkernels.compression.lstms import join
from lstm_fastkernels.modules.stacked import StackedLSTM
from lstm_fastkernels.weights.shape import GATES

Importance = Literal["magnitude", "taylor"]
LSTMS = (nn.LSTM, nn.LSTMCell, StackedLSTM)


@dataclass(eq=False)
class Units:
    """A run of units, kept or cut alike on every axis that has it."""

    size: int

    def __post_init__(self) -> None:
        self.score = torch.zeros(self.size, dtype=torch.float64)
        self.kept = torch.arange(self.size)

    def keep(self, count: int) -> None:
        """Keeps the `count` best, the first of equals, in their order."""
        best = self.score.argsort(descending=True, stable=True)[:count]
        self.kept = best.sort().values


class Layer:
    """The units of one layer, a run for each direction, and what the next layer reads."""

    def __init__(self, holder: nn.LSTM | nn.LSTMCell, suffixes: Sequence[str]) -> None:
        self.holder = holder
        self.suffixes = suffixes
        self.size = holder.hidden_size
        self.proj_size = 0 if isinstance(holder, nn.LSTMCell) else holder.proj_size
        self.units = [Units(self.size) for _ in suffixes]
        self.outputs = [Units(self.proj_size) for _ in suffixes] if self.proj_size else self.units

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
Axes = dict[tuple[nn.Module, str], tuple[list[Units], ...]]


def layers_of(module: nn.Module) -> list[Layer]:
    if isinstance(module, nn.Linear):
        return []
    if isinstance(module, StackedLSTM):
        return [layer for child in module.layers for layer in layers_of(child)]
    if isinstance(module, nn.LSTMCell):
        return [Layer(module, [""])]
    # Or a FastQuantLSTM inside a StackedLSTM, which _parameters refuses.
    lstm = cast(nn.LSTM, module)
    directions = ("", "_reverse")[: 1 + lstm.bidirectional]
    return [
        Layer(lstm, [f"_l{k}{direction}" for direction in directions])
        for k in range(lstm.num_layers)
    ]


def axes_of(module: nn.Module, layers: list[Layer], inputs: list[Units] | None) -> Axes:
    """The axes of a module's parameters; `inputs` None: of what no pruned LSTM gives."""
    inputs = inputs or [Units(input_width(module))]
    if isinstance(module, nn.Linear):
        return {(module, "weight"): ([Units(module.out_features)], inputs)}
    axes: Axes = {}
    for layer in layers:
        runs = zip(layer.suffixes, layer.units, layer.outputs, strict=True)
        for suffix, units, output in runs:
            gates = [units] * len(GATES)
            axes[layer.holder, f"weight_ih{suffix}"] = gates, inputs
            axes[layer.holder, f"weight_hh{suffix}"] = gates, [output]
            if layer.holder.bias:
                axes[layer.holder, f"bias_ih{suffix}"] = (gates,)
                axes[layer.holder, f"bias_hh{suffix}"] = (gates,)
            if layer.proj_size:
                axes[layer.holder, f"weight_hr{suffix}"] = [output], [units]
        inputs = layer.outputs
    return axes


def input_width(module: nn.Module) -> int:
    if isinstance(module, nn.Linear):
        return module.in_features
    assert isinstance(module, LSTMS)
    return module.input_size


def label_of(names: Mapping[nn.Module, str], holder: nn.Module, name: str) -> str:
    """A parameter's dotted name in the model."""
    return join(names[holder], name)


def score(
    axes: Axes,
    parameters: Mapping[tuple[nn.Module, str], nn.Parameter],
    names: Mapping[nn.Module, str],
    importance: Importance,
) -> None:
    """Sums the importance of all units over the weights, each of a unit's weights once."""
    matrices = {key: runs for key, runs in axes.items() if len(runs) == 2}
    for key, (rows, columns) in matrices.items():
        value = _contributions(parameters[key], importance, label_of(names, *key))
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
        raise ValueError(f"{label} has gradients that are not finite")
    return value


def shared_out(layers: list[Layer], total: int, multiple_of: int) -> list[int]:
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
