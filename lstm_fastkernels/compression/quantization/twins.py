"""The quantized twins of float LSTMs."""

from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.quantization.config import QuantizationConfig
from lstm_fastkernels.modules.cell import FastQuantLSTMCell
from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.weights.canonical import CanonicalLSTM

CLASSES: dict[type[nn.Module], Any] = {
    nn.LSTM: FastQuantLSTM,
    nn.LSTMCell: FastQuantLSTMCell,
}


def twin_of(lstm: nn.Module, canonical: CanonicalLSTM, config: QuantizationConfig) -> nn.Module:
    """The twin with these weights, whatever precision the config has."""
    options = config.options() | {"activations": None, "precision": canonical.spec.precision}
    twin: nn.Module = CLASSES[type_before_parametrizations(lstm)].from_canonical(
        lstm, canonical, **options
    )
    return twin
