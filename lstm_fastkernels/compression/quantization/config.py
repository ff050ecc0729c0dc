"""How LSTMs are to be quantized."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.weights.precision import PrecisionConfig
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.shape import LstmShape


@dataclass(frozen=True)
class Int8Config:
    """int8 weights with one scale a row; the options are those of FastQuantLSTM.

    activations: "int8"; "int16"; or "mixed", 16 bits for the first layer's x and 8 for all else.
    precision: matrices that differ from that, by name or pattern. pair_safe: see quantize_rows.
    Raises ValueError for what cannot be.
    """

    activations: Literal["int8", "int16", "mixed"] = "int8"
    precision: Mapping[str, str] | None = None
    pair_safe: PairSafe = "auto"

    def __post_init__(self) -> None:
        self._numbers()

    def precision_of(self, shape: LstmShape) -> dict[str, str]:
        """The precision of each matrix of an LSTM. Raises ValueError for names and patterns that
        match none."""
        choices = FastQuantLSTM.activation_choices, FastQuantLSTM.precision_choices
        return self._numbers().of(shape, *choices)

    def _numbers(self) -> PrecisionConfig:
        return PrecisionConfig(self.activations, self.precision, self.pair_safe)
