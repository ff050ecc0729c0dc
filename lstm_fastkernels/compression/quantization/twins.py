"""Quantized twins of a float LSTM that are given their rounded weights."""

from collections.abc import Mapping

from torch import Tensor, nn

from lstm_fastkernels.compression.convert import makers_of, twin_of
from lstm_fastkernels.compression.lstms import label_of
from lstm_fastkernels.compression.quantization.config import Int8Config
from lstm_fastkernels.compression.quantization.error_feedback import quantize_with_feedback
from lstm_fastkernels.compression.quantization.moments import LstmMoments
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.float_lstm import parameter_name, shape_of, weights_of
from lstm_fastkernels.weights.quantize_rows import PairSafe, quantize_rows


def make_twin(
    module: nn.LSTM | nn.LSTMCell,
    name: str,
    precision: Mapping[str, str],
    rounded: Mapping[str, Tensor],
    pair_safe: PairSafe,
) -> FastModule:
    """The fast twin of an nn.LSTM or nn.LSTMCell that is called `name` in its model.

    precision: for every matrix. rounded: float32 matrices, by nn.LSTM's names, in the place of the
    module's own; what is int8 times a scale already is not rounded again.
    """
    options = {"precision": precision, "pair_safe": pair_safe}
    twin = twin_of(module, name, makers_of("int8"), options)
    given = {parameter_name(module, matrix): weight for matrix, weight in rounded.items()}
    twin.load_state_dict(weights_of(module) | given)
    assert isinstance(twin, FastModule)
    return twin


class Quantizer:
    """An LSTM of a model that is being quantized: makes its twin at any precision."""

    def __init__(self, name: str, module: nn.Module, config: Int8Config) -> None:
        assert isinstance(module, nn.LSTM | nn.LSTMCell)
        self.name, self._module, self._pair_safe = name, module, config.pair_safe
        self.shape = shape_of(module)
        try:
            self.precision = config.precision_of(self.shape)
        except ValueError as error:
            raise ValueError(f"{label_of(name)}: {error}") from error
        self.moments = LstmMoments(module)
        self._rounded: dict[tuple[str, str], Tensor] = {}

    def make_twin(self, precision: Mapping[str, str]) -> FastModule:
        """precision: for every matrix."""
        rounded = {
            matrix: self._round(matrix, how)
            for matrix, how in precision.items()
            if how != "float32"
        }
        return make_twin(self._module, self.name, precision, rounded, self._pair_safe)

    def _round(self, matrix: str, precision: str) -> Tensor:
        """float32: int8 times its scales."""
        key = matrix, precision
        if key not in self._rounded:
            weight = weights_of(self._module)[parameter_name(self._module, matrix)]
            pair_safe = self._pair_safe if precision == "int8" else False
            moment = self.moments.of[matrix]
            if moment.count:
                q, scale = quantize_with_feedback(weight, moment.mean(), pair_safe=pair_safe)
            else:
                q, scale = quantize_rows(weight, pair_safe=pair_safe)
            self._rounded[key] = q * scale[:, None]
        return self._rounded[key]
