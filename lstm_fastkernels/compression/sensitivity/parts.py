"""The parts of an LSTM that can be compressed alone."""

from dataclasses import dataclass
from typing import Literal

from lstm_fastkernels.weights.shape import GATES, LstmShape, gate_count, names_of_part

By = Literal["lstm", "layer", "matrix", "gate"]


@dataclass(frozen=True)
class Part:
    """Some matrices of an LSTM or, with `gate`, its rows in the one matrix."""

    name: str
    matrices: tuple[str, ...]
    gate: int | None = None


def parts_of(shape: LstmShape, by: By) -> list[Part]:
    """The whole LSTM, its layers with both directions, its matrices, or their gates."""
    own = {name: name for name in shape.matrices}
    names = tuple(own)
    if by == "lstm":
        return [Part("", names)]
    if by == "layer":
        return [
            Part(f"layer {depth}", tuple(names_of_part(own, depth).values()))
            for depth in range(shape.num_layers)
        ]
    if by == "matrix":
        return [Part(name, (name,)) for name in names]
    return [
        Part(f"{name}.{GATES[gate]}", (name,), gate)
        if gate_count(name) > 1
        else Part(name, (name,))
        for name in names
        for gate in range(gate_count(name))
    ]
