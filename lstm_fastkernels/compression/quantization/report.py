"""What quantize_ did."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from lstm_fastkernels.compression.lstms import label_of
from lstm_fastkernels.weights.precision import describe


@dataclass(frozen=True)
class QuantizedLSTM:
    """An LSTM: the precision asked for and that which its matrices have got; sqnr [dB] of its
    outputs on held-out batches, None without any."""

    name: str
    asked: Mapping[str, str]
    precision: Mapping[str, str]
    sqnr: float | None

    @property
    def raised(self) -> dict[str, str]:
        """The matrices that min_sqnr has given another precision than was asked for."""
        return {name: own for name, own in self.precision.items() if own != self.asked[name]}

    def __str__(self) -> str:
        line = f"{label_of(self.name)}: {describe(self.precision)}"
        if self.sqnr is not None:
            line += f", {self.sqnr:.1f} dB on held-out batches"
        if self.raised:
            raised = ", ".join(f"{name} to {own}" for name, own in self.raised.items())
            line += f"; raised for min_sqnr: {raised}"
        return line


@dataclass(frozen=True)
class QuantizationReport:
    """The model and its LSTMs; `str()` has a line for each LSTM."""

    model: nn.Module
    lstms: list[QuantizedLSTM]

    def __str__(self) -> str:
        return "\n".join(map(str, self.lstms)) or "no LSTM was quantized"
