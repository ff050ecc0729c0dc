"""Variants of a model: copies with some LSTMs replaced, compared by what their LSTMs return."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from lstm_fastkernels.compression.lstms import replace_modules
from lstm_fastkernels.compression.quantization.outputs import lstm_outputs, sqnr


class Comparison:
    """Measures variants of a model on some batches.

    A variant has quantized twins in the place of some of the model's LSTMs. Every run has a copy of
    the model to itself, since models may keep states from call to call.
    """

    def __init__(self, model: nn.Module, names: Collection[str], batches: Sequence[Any]) -> None:
        """names: the dotted names of the LSTMs whose outputs are compared."""
        self._model, self._names, self._batches = model, names, batches
        self._exact = lstm_outputs(copy.deepcopy(model), names, batches, "float outputs")

    def sqnr_of(self, model: nn.Module, doing: str) -> dict[str, float]:
        """The ratio in dB for each LSTM, in another model."""
        return self._measure(copy.deepcopy(model), doing)

    def sqnr(self, twins: Mapping[str, nn.Module], doing: str) -> dict[str, float]:
        """The same with these twins, by name, in the model."""
        variant = copy.deepcopy(self._model)
        modules = dict(variant.named_modules())
        replacements = {modules[name]: twin for name, twin in twins.items()}
        return self._measure(replace_modules(variant, replacements), doing)

    def _measure(self, variant: nn.Module, doing: str) -> dict[str, float]:
        return sqnr(lstm_outputs(variant, self._names, self._batches, doing), self._exact)
