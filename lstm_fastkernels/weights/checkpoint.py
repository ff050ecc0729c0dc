"""Checkpoints, of float LSTMs and of compressed ones: telling them apart, checking, reading."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.checks import Kind, compare
from lstm_fastkernels.weights.formats import ends_of_names, stored_as
from lstm_fastkernels.weights.packing import pack
from lstm_fastkernels.weights.structures import LayoutConfig, structure_of


class Checkpoint:
    """The part of a state_dict that is for one LSTM.

    float_names: the names in a float checkpoint, by those that nn.LSTM has.
    """

    def __init__(
        self, given: Mapping[str, Any], spec: WeightSpec, float_names: Mapping[str, str]
    ) -> None:
        self._given = given
        self._spec = spec
        self._float_names = float_names
        floats = {float_names[name]: kind for name, kind in spec.float_kinds().items()}
        own = spec.kinds(given.keys())
        # Told by a name that only compressed checkpoints have, or by integer weights.
        self._compressed = any(name in own and name not in floats for name in given) or any(
            map(_is_integer_weight, given.values())
        )
        self._expected: Mapping[str, Kind] = own if self._compressed else floats
        self.missing, self.unexpected, self.faults = compare(given, self._expected)
        if self._compressed:
            for name in spec.precision:
                self._compare_precision(name)

    def _compare_precision(self, name: str) -> None:
        """One fault for all that is wrong with a matrix of another precision."""
        structure_parts = structure_of(name, self._given.keys()).parts
        table = f"{name}_table"
        weight, end = (table, "_table") if table in self._given else (name + structure_parts[0], "")
        dtype, own = getattr(self._given.get(weight), "dtype", None), self._spec.precision[name]
        found = stored_as(dtype, end)
        if not found or own in found:
            return
        parts = {name + part + end for part in ("", *structure_parts) for end in ends_of_names()}
        self.missing = [part for part in self.missing if part not in parts]
        self.unexpected = [part for part in self.unexpected if part not in parts]
        self.faults[weight] = (
            f"this LSTM's precision of {name} is {own!r}, got {dtype} weights: a FastQuantLSTM or "
            f"FastQuantLSTMCell made with precision={{{name!r}: {found[0]!r}}} takes them"
        )

    def errors(self, prefix: str) -> list[str]:
        """What is wrong with it, in words; prefix: what the names in the state_dict begin with."""
        kind = "compressed" if self._compressed else "float"
        errors = []
        if 0 < len(self.missing) < len(self._expected):
            names = ", ".join(prefix + name for name in self.missing)
            errors.append(f"{kind} LSTM checkpoint is incomplete: it lacks {names}")
        errors += [
            f"{prefix}{name} of the {kind} LSTM checkpoint: {fault}"
            for name, fault in self.faults.items()
        ]
        return errors

    def read(self, device: torch.device, layout: LayoutConfig) -> CanonicalLSTM:
        """The canonical tensors on that device; "meta" leaves them on their own.

        Compresses a float checkpoint. Layout "auto" keeps the layout of compressed matrices. Needs
        a checkpoint without missing tensors and faults. Raises RuntimeError, naming the tensor, for
        invalid block indices.
        """
        tensors: dict[str, Tensor] = {name: self._given[name].detach() for name in self._expected}
        if device.type == "meta":
            device = next(iter(tensors.values())).device
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        if not self._compressed:
            floats = {name: tensors[given] for name, given in self._float_names.items()}
            return self._spec.compress(floats, layout)
        canonical = self._spec.take({name: tensor.clone() for name, tensor in tensors.items()})
        if layout.layout == "auto":
            return canonical
        pack(canonical)  # checks the indices before they are used
        return canonical.laid_out(layout)


def _is_integer_weight(value: object) -> bool:
    return (
        isinstance(value, Tensor) and not value.is_floating_point() and bool(stored_as(value.dtype))
    )
