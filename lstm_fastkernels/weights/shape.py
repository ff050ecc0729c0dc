"""The sizes of an LSTM and all that follows from them; the twin of the C++ LstmShape."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

_T = TypeVar("_T")

GATES = "ifgo"

# Of inputs, states and blocks: keeps integer sums exact and the number of blocks from overflowing.
MAX_SIZE = 65_535
MAX_LAYERS = 1024


@dataclass(frozen=True)
class LstmShape:
    """An LSTM's sizes: proj_size 0 without projection, num_directions 1 or 2."""

    input_size: int
    hidden_size: int
    proj_size: int = 0
    num_layers: int = 1
    num_directions: int = 1

    @property
    def output_size(self) -> int:
        """Of one direction of a layer; also that of h."""
        return self.proj_size or self.hidden_size

    @property
    def num_cells(self) -> int:
        """Layers times directions."""
        return self.num_layers * self.num_directions

    def layer_input_size(self, layer: int) -> int:
        return self.input_size if layer == 0 else self.num_directions * self.output_size

    def part(self, first: int, count: int = 1) -> "LstmShape":
        """That of some of the layers, as an LSTM of its own."""
        return replace(self, input_size=self.layer_input_size(first), num_layers=count)

    @cached_property
    def layers(self) -> dict[str, int]:
        """What the names of nn.LSTM's parameters end in, for each layer and direction: the layer's
        input size."""
        directions = ("", "_reverse")[: self.num_directions]
        return {
            f"_l{layer}{direction}": self.layer_input_size(layer)
            for layer in range(self.num_layers)
            for direction in directions
        }

    @cached_property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of nn.LSTM's matrices by name, in the order in which they are packed."""
        rows, output = len(GATES) * self.hidden_size, self.output_size
        found = {}
        for suffix, columns in self.layers.items():
            found[f"weight_ih{suffix}"] = (rows, columns)
            found[f"weight_hh{suffix}"] = (rows, output)
            if self.proj_size:
                found[f"weight_hr{suffix}"] = (self.proj_size, self.hidden_size)
        return found

    @cached_property
    def sizes(self) -> list[int]:
        """All five, as the ops take them."""
        return [
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.num_directions,
        ]


def gate_count(name: str) -> int:
    """Gates stacked in nn.LSTM's matrix of that name: 4, or 1 for the projection."""
    return 1 if name.startswith("weight_hr") else len(GATES)


def names_of_part(by_name: Mapping[str, _T], first: int, count: int = 1) -> dict[str, _T]:
    """What belongs to some of the layers, by the names that it has in an LSTM of its own."""
    found = {}
    for name, value in by_name.items():
        kind, layer, rest = re.split(r"(?<=_l)(\d+)", name)
        if first <= int(layer) < first + count:
            found[f"{kind}{int(layer) - first}{rest}"] = value
    return found
