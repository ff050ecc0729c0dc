"""Ending quantization-aware training: quantized LSTMs in the place of those that were trained."""

from collections.abc import Mapping

from torch import nn

from lstm_fastkernels.compression.convert import replace_lstms
from lstm_fastkernels.compression.lstms import FilterFn, find_lstms
from lstm_fastkernels.compression.qat.config import QATConfig
from lstm_fastkernels.compression.qat.prepared import read
from lstm_fastkernels.compression.quantization.plan import asked_precision
from lstm_fastkernels.compression.quantization.report import QuantizationReport, QuantizedLSTM
from lstm_fastkernels.compression.quantization.twins import CLASSES, twin_of
from lstm_fastkernels.modules.float_lstm import prepared_fault
from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.rounding import RoundingConfig


def convert_prepared(
    model: nn.Module, config: QATConfig, filter_fn: FilterFn | None
) -> QuantizationReport:
    """Step "convert" of quantize_."""
    base = config.base_config
    lstms = {
        module: name for name, module in find_lstms(model, filter_fn) if prepared_fault(module)
    }
    if not lstms:
        raise ValueError(
            'no nn.LSTM or nn.LSTMCell is prepared: quantize_ with a QATConfig of step "prepare" '
            "comes before training"
        )
    asked = {lstm: asked_precision(lstm, name, base) for lstm, name in lstms.items()}
    rows: list[QuantizedLSTM] = []

    def make(lstm: nn.Module) -> nn.Module:
        canonical = _canonical(lstm, asked[lstm], base.rounding())
        precision = dict(canonical.spec.precision)
        rows.append(QuantizedLSTM(lstms[lstm], precision, precision, None))
        return twin_of(lstm, canonical.laid_out(base.laying_out()), base)

    replaced = replace_lstms(
        model, make, classes=CLASSES, filter_fn=lambda module, _: module in lstms, inplace=True
    )
    return QuantizationReport(replaced, rows)


def _canonical(
    lstm: nn.Module, asked: Mapping[str, str], rounding: RoundingConfig
) -> CanonicalLSTM:
    """What the module was trained to be; ValueError unless that is what was asked for."""
    found = read(lstm)
    for matrix, precision in found.precision.items():
        if precision != asked[matrix]:
            raise ValueError(
                f"{matrix} was prepared for {precision!r}, base_config has {asked[matrix]!r} for "
                "it: give the config that it was prepared with"
            )
        size = found.group_sizes.get(matrix, rounding.group_size)
        if size != rounding.group_size:
            raise ValueError(
                f"{matrix} was prepared for group_size {size}, base_config has "
                f"{rounding.group_size}: give the config that it was prepared with"
            )
    tensors = {name: tensor.detach() for name, tensor in found.tensors.items()}
    return WeightSpec(found.shape, bool(lstm.bias), found.precision, rounding).take(tensors)
