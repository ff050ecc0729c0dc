"""quantize_: quantized LSTMs in the place of a model's float ones, with data if there is some."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.calibration.observe import Observations, observe
from lstm_fastkernels.compression.calibration.sqnr import signal_of, to_db
from lstm_fastkernels.compression.convert import replace_lstms
from lstm_fastkernels.compression.lstms import FilterFn, check_replaceable, find_lstms, label_of
from lstm_fastkernels.compression.quantization.candidates import Candidates, lstm_noise
from lstm_fastkernels.compression.quantization.config import Int8Config, QuantizationConfig
from lstm_fastkernels.compression.quantization.min_sqnr import raise_precision
from lstm_fastkernels.compression.quantization.report import QuantizationReport, QuantizedLSTM
from lstm_fastkernels.modules.cell import FastQuantLSTMCell
from lstm_fastkernels.modules.float_lstm import shape_of
from lstm_fastkernels.modules.low_rank import low_rank_factors
from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.weights.formats import PRECISIONS
from lstm_fastkernels.weights.precision import PrecisionConfig

CLASSES: dict[type[nn.Module], Any] = {
    nn.LSTM: FastQuantLSTM,
    nn.LSTMCell: FastQuantLSTMCell,
}


def quantize_(
    model: nn.Module,
    config: QuantizationConfig | None = None,
    filter_fn: FilterFn | None = None,
    *,
    calibration: Iterable[Any] | None = None,
    min_sqnr: float | None = None,
) -> QuantizationReport:
    """Replaces every nn.LSTM and nn.LSTMCell of a model, in place, by FastQuantLSTM and its cell.

    calibration: batches of real input, without labels, that the model is run on: a tuple or list is
    its arguments, a dict its keyword arguments, anything else its one argument. They go through
    once, in evaluation mode; some hundred sequences are plenty. Weights are then rounded for what
    they are multiplied with (GPTQ, arXiv 2210.17323). Every fourth batch is held out to measure on.
    Without calibration the result is that of `convert`.

    min_sqnr: what the outputs of each LSTM must reach on held-out batches, in dB, given its float
    inputs: the precision of its matrices is raised, from int4 to int8, to 16-bit activations or to
    float32, where that buys most for its price, until they do.

    filter_fn(module, name) picks the LSTMs. Returns a report; its `model` is the model, or, if the
    model is an LSTM itself, the replacement. Raises ValueError, with nothing changed, where
    `convert` does, for LSTMs without input, for input that is not finite, and for a min_sqnr that
    cannot be reached or has no held-out batch.
    """
    config = Int8Config() if config is None else config
    if not isinstance(config, QuantizationConfig):
        raise TypeError(
            f"quantize_ expects an Int8Config or an Int4Config, got {type(config).__name__}"
        )
    if min_sqnr is not None and calibration is None:
        raise ValueError("min_sqnr needs calibration batches to measure on")
    lstms = {module: name for name, module in find_lstms(model, filter_fn, classes=CLASSES)}
    check_replaceable(model, lstms)
    asked = {lstm: _asked(lstm, name, config) for lstm, name in lstms.items()}
    seen = {} if calibration is None else observe(model, lstms, calibration)
    rows: list[QuantizedLSTM] = []

    def make(lstm: nn.Module) -> nn.Module:
        twin, precision, sqnr = _twin(lstm, asked[lstm], config, seen.get(lstm), min_sqnr)
        rows.append(QuantizedLSTM(lstms[lstm], asked[lstm], precision, sqnr))
        return twin

    replaced = replace_lstms(model, make, classes=CLASSES, filter_fn=filter_fn, inplace=True)
    return QuantizationReport(replaced, rows)


def _asked(lstm: nn.Module, name: str, config: QuantizationConfig) -> dict[str, str]:
    """The precision of each matrix that the config has for an LSTM, which errors call by name."""
    choices = FastQuantLSTM.activation_choices, FastQuantLSTM.precision_choices
    layout, rounding = config.laying_out(), config.rounding()
    try:
        asked = PrecisionConfig(config.activations, config.precision).of(shape_of(lstm), *choices)
        for matrix, precision in asked.items():
            layout.check_format(matrix, PRECISIONS[precision](rounding))
        return asked
    except ValueError as error:
        raise ValueError(f"{label_of(name)}: {error}") from error


def _twin(
    lstm: nn.Module,
    asked: dict[str, str],
    config: QuantizationConfig,
    seen: Observations | None,
    min_sqnr: float | None,
) -> tuple[nn.Module, dict[str, str], float | None]:
    """The LSTM quantized, the precision of each matrix and what was reached on held-out calls."""
    precision, sqnr, tensors = asked, None, None
    if seen is not None:
        factors = config.laying_out().kept_factors(low_rank_factors(lstm), seen.shape.matrices)
        candidates, held_out = Candidates(seen, config.rounding(), factors), seen.held_out
        if min_sqnr is not None:
            if not held_out:
                raise ValueError("min_sqnr needs a second calibration batch, to measure on")
            precision, sqnr = raise_precision(candidates, asked, held_out, min_sqnr)
        elif held_out:
            sqnr = to_db(signal_of(held_out), lstm_noise(candidates.lstm(precision), held_out))
        tensors = candidates.tensors(precision)
    twin: Any = CLASSES[type_before_parametrizations(lstm)].from_float(
        lstm, **config.options() | {"activations": None, "precision": precision}
    )
    if tensors is not None:
        twin.take_dense({name: tensor.to(twin.packed.device) for name, tensor in tensors.items()})
    return twin, precision, sqnr
