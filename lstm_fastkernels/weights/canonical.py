"""Canonical tensors: what a state_dict and a file hold of a compressed LSTM.

Per layer and direction, with nn.LSTM's suffixes: the matrices `weight_ih`, `weight_hh` and
`weight_hr`, each as the tensors of its format and its structure; `bias` float32, b_ih + b_hh. An
LSTM that reads token ids counts as one that reads one-hot rows: its input size is their number.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

import torch
from torch import Tensor

from lstm_fastkernels.weights.checks import Kind, compare
from lstm_fastkernels.weights.formats import PRECISIONS, Tensors, WeightFormat
from lstm_fastkernels.weights.precision import takes_ids
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import (
    LOW_RANK,
    Factors,
    LayoutConfig,
    LowRank,
    Structure,
    WholeStructure,
    structure_of,
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class WeightSpec:
    """What an LSTM's canonical tensors must be; the structure of each matrix is left open.

    precision: for each matrix of the shape, a name in PRECISIONS. rounding: of floats that are
    quantized.
    """

    shape: LstmShape
    bias: bool
    precision: Mapping[str, str]
    rounding: RoundingConfig = field(default_factory=RoundingConfig)

    @cached_property
    def takes_ids(self) -> bool:
        """Whether the first layer reads token ids."""
        return takes_ids(self.precision)

    def format_of(self, name: str) -> WeightFormat:
        return PRECISIONS[self.precision[name]](self.rounding)

    def float_kinds(self) -> dict[str, Kind]:
        """The parameters of the float LSTM, named and ordered as in nn.LSTM."""
        matrices = self.shape.matrices
        kinds: dict[str, Kind] = {}
        for suffix in self.shape.layers:
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"):
                name = kind + suffix
                if name in matrices:
                    kinds[name] = Kind(None, matrices[name])
                elif kind.startswith("bias") and self.bias:
                    kinds[name] = Kind(None, matrices[f"weight_ih{suffix}"][:1])
        return kinds

    def kinds(self, names: Collection[str] = ()) -> dict[str, Kind]:
        """The canonical tensors, in order; the names present tell the structure of each matrix."""
        sizes = self.shape.matrices
        kinds: dict[str, Kind] = {}
        for name, float_kind in self.float_kinds().items():
            if name in sizes:
                structure = structure_of(name, names)
                kinds |= _named(name, structure.kinds(self.format_of(name), sizes[name]))
            elif name.startswith("bias_ih"):
                kinds[_bias_of(name)] = Kind(torch.float32, float_kind.shape)
        return kinds

    @cached_property
    def biases(self) -> set[str]:
        """The canonical tensors that belong to no matrix."""
        return {name for name in self.kinds() if name.startswith("bias")}

    def parameters(self, names: Collection[str]) -> set[str]:
        """Which of these canonical tensors a module holds as its parameters: the biases or, without
        biases, all that are float32."""
        kinds = self.kinds(names).items()
        return self.biases or {name for name, kind in kinds if kind.dtype == torch.float32}

    def claims(self, name: str) -> bool:
        """Whether a name is that of a tensor of an LSTM, float or compressed, in some layout."""
        return name.startswith((*self.float_kinds(), *self.kinds()))

    def random(self, bound: float, layout: LayoutConfig, device: torch.device) -> "CanonicalLSTM":
        """Weights and biases uniform within +-bound; on the meta device all dense."""
        tensors: dict[str, Tensor] = {}
        for name, size in self.shape.matrices.items():
            weight_format = self.format_of(name)
            parts = weight_format.random(*size, bound, device)
            if device.type != "meta":
                parts = layout.lay_out(parts, name, weight_format)
            tensors |= _named(name, parts)
        for name, kind in self.kinds(tensors.keys()).items():
            if name not in tensors:
                tensors[name] = kind.empty(device).uniform_(-bound, bound)
        return self.take(tensors)

    def take(self, tensors: Mapping[str, Tensor]) -> "CanonicalLSTM":
        """Picks the canonical tensors among these, without checking them."""
        return CanonicalLSTM(self, {name: tensors[name] for name in self.kinds(tensors.keys())})

    def check(self, tensors: Mapping[str, Tensor]) -> "CanonicalLSTM":
        """Takes these tensors; ValueError says what is missing, unexpected or wrong.

        Packing checks the rest: block indices and the signs of scales.
        """
        misfits = compare(tensors, self.kinds(tensors.keys()))
        if misfits.missing:
            raise ValueError(f"lacks {', '.join(misfits.missing)}")
        if misfits.unexpected:
            raise ValueError(f"has no place for {', '.join(misfits.unexpected)}")
        for name, fault in misfits.faults.items():
            raise ValueError(f"{name}: {fault}")
        return self.take(tensors)

    def compress(
        self, floats: Mapping[str, Tensor], layout: LayoutConfig, factors: Factors | None = None
    ) -> "CanonicalLSTM":
        """From the float LSTM's parameters, named as in nn.LSTM, of any float dtype.

        factors: U [N, r] and V [r, K] of matrices that are their product; layout "auto" keeps them
        where that pays.
        """
        kept = layout.kept_factors(factors or {}, self.shape.matrices)
        tensors: dict[str, Tensor] = {}
        for name, tensor in floats.items():
            if name not in self.precision:
                continue
            weight_format = self.format_of(name)
            if name in kept:
                parts = LOW_RANK.join(*(weight_format.compress(factor) for factor in kept[name]))
            else:
                parts = layout.lay_out(weight_format.compress(tensor), name, weight_format)
            tensors |= _named(name, parts)
        return self.take(tensors | sum_biases(floats))


@dataclass(frozen=True, eq=False)
class CanonicalLSTM:
    """The weights of a compressed LSTM: plain tensors, all on one device."""

    spec: WeightSpec
    tensors: Mapping[str, Tensor]

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    def is_low_rank(self, name: str) -> bool:
        return isinstance(structure_of(name, self.tensors.keys()), LowRank)

    def dense(self, name: str) -> Tensors:
        """The tensors of a matrix that is not low-rank with its zeros written out, by what their
        names end in."""
        structure, size, tensors = self._parts(name)
        whole: WholeStructure = cast(WholeStructure, structure)
        return whole.write_out(tensors, name, size)

    def parts(self, name: str) -> Tensors:
        """The tensors of a matrix, by what their names end in."""
        return self._parts(name)[2]

    def to_float(self) -> dict[str, Tensor]:
        """The float32 parameters, named as in nn.LSTM; bias_hh is zero, b_ih + b_hh in bias_ih."""
        floats: dict[str, Tensor] = {}
        for name in self.spec.float_kinds():
            if name in self.spec.precision:
                structure, size, tensors = self._parts(name)
                weight_format = self.spec.format_of(name)
                floats[name] = structure.expand(weight_format, tensors, name, size)
            elif name.startswith("bias_ih"):
                floats[name] = self.tensors[_bias_of(name)].clone()
            else:
                floats[name] = torch.zeros_like(floats[name.replace("_hh", "_ih")])
        return floats

    def laid_out(self, layout: LayoutConfig) -> "CanonicalLSTM":
        """The same with its matrices laid out anew; ValueError for low-rank ones unless the layout
        is "auto", which keeps them."""
        tensors = {name: t for name, t in self.tensors.items() if name.startswith("bias")}
        for name in self.spec.precision:
            if self.is_low_rank(name):
                layout.check_low_rank(name)
                parts = self.parts(name)
            else:
                parts = layout.lay_out(self.dense(name), name, self.spec.format_of(name))
            tensors |= _named(name, parts)
        return self.spec.take(tensors)

    def layouts(self) -> dict[str, str]:
        """How each matrix is stored: "dense", the size of its blocks and their share of all, or its
        rank."""
        found = {}
        for name in self.spec.shape.matrices:
            structure, size, tensors = self._parts(name)
            found[name] = structure.describe(tensors, name, size)
        return found

    def _parts(self, name: str) -> tuple[Structure, tuple[int, int], Tensors]:
        """A matrix: its structure, its size and its tensors by what their names end in."""
        size = self.spec.shape.matrices[name]
        structure = structure_of(name, self.tensors.keys())
        ends = structure.kinds(self.spec.format_of(name), size)
        return structure, size, {end: self.tensors[name + end] for end in ends}


def sum_biases(floats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The canonical biases, b_ih + b_hh, of parameters named as in nn.LSTM."""
    return {
        _bias_of(name): (
            bias.detach().double() + floats[name.replace("_ih", "_hh")].detach()
        ).float()
        for name, bias in floats.items()
        if name.startswith("bias_ih")
    }


def _named(name: str, parts: Mapping[str, _T]) -> dict[str, _T]:
    """By whole names, from what the names in a matrix end in."""
    return {name + end: part for end, part in parts.items()}


def _bias_of(name: str) -> str:
    """The canonical tensor that has nn.LSTM's bias of that name in it."""
    return f"bias{name[len('bias_ih') :]}"
