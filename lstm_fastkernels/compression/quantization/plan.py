"""What an LSTM's matrices are to be: their precision and their canonical tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from lstm_fastkernels.compression.calibration.observe import Observations
from lstm_fastkernels.compression.calibration.sqnr import signal_of, to_db
from lstm_fastkernels.compression.lstms import check_unprepared, label_of
from lstm_fastkernels.compression.quantization.candidates import Candidates, lstm_noise
from lstm_fastkernels.compression.quantization.config import QuantizationConfig
from lstm_fastkernels.compression.quantization.min_sqnr import raise_precision
from lstm_fastkernels.compression.quantization.report import QuantizedLSTM
from lstm_fastkernels.modules.float_lstm import shape_of, weights_as_lstm
from lstm_fastkernels.modules.low_rank import low_rank_factors
from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.formats import PRECISIONS, TABLES
from lstm_fastkernels.weights.precision import PrecisionConfig


@dataclass(frozen=True, eq=False)
class Plan:
    """For one LSTM: what is to be reported, and its tensors."""

    report: QuantizedLSTM
    canonical: CanonicalLSTM


class Planner:
    """Plans for LSTMs of a model.

    lstms: their names in the model. Raises ValueError, naming the LSTM, for what the config cannot
    be for it, and for one prepared for training.
    """

    def __init__(self, lstms: Mapping[nn.Module, str], config: QuantizationConfig) -> None:
        for lstm, name in lstms.items():
            check_unprepared(lstm, name)
        self._asked = {lstm: asked_precision(lstm, name, config) for lstm, name in lstms.items()}
        self._names = lstms
        self._config = config

    def plan(
        self, lstm: nn.Module, seen: Observations | None, min_sqnr: float | None = None
    ) -> Plan:
        """seen: what calibration saw, if there was any. Raises ValueError for weights that cannot
        be read and a min_sqnr out of reach."""
        config, asked = self._config, self._asked[lstm]
        factors, layout = low_rank_factors(lstm), config.laying_out()
        precision, sqnr = asked, None
        if seen is None:
            spec = WeightSpec(shape_of(lstm), bool(lstm.bias), asked, config.rounding())
            canonical = spec.compress(weights_as_lstm(lstm), layout, factors)
        else:
            kept = layout.kept_factors(factors, seen.shape.matrices)
            candidates, held_out = Candidates(seen, config.rounding(), kept), seen.held_out
            if min_sqnr is not None:
                if not held_out:
                    raise ValueError("min_sqnr needs a second calibration batch, to measure on")
                precision, sqnr = raise_precision(candidates, asked, held_out, min_sqnr)
            elif held_out:
                sqnr = to_db(signal_of(held_out), lstm_noise(candidates.lstm(asked), held_out))
            canonical = candidates.canonical(precision).laid_out(layout)
        return Plan(QuantizedLSTM(self._names[lstm], asked, precision, sqnr), canonical)


def asked_precision(lstm: nn.Module, name: str, config: QuantizationConfig) -> dict[str, str]:
    """The precision of each matrix that the config has for an LSTM, which errors call by name."""
    precisions = [name for name in FastQuantLSTM.precision_choices if name not in TABLES]
    choices = FastQuantLSTM.activation_choices, precisions
    layout, rounding = config.laying_out(), config.rounding()
    try:
        asked = PrecisionConfig(config.activations, config.precision).of(shape_of(lstm), *choices)
        for matrix, precision in asked.items():
            layout.check_format(matrix, PRECISIONS[precision](rounding))
        return asked
    except ValueError as error:
        raise ValueError(f"{label_of(name)}: {error}") from error
