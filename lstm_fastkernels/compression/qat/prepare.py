"""Making LSTMs of a model compute as their quantized twins will, so that they can be trained."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.compression.calibration.observe import observe
from lstm_fastkernels.compression.lstms import (
    FilterFn,
    check_matrices,
    check_unwrapped,
    find_lstms,
    label_of,
    parameter_owners,
)
from lstm_fastkernels.compression.pruning.masking import Mask
from lstm_fastkernels.compression.qat.config import QATConfig
from lstm_fastkernels.compression.qat.fake_quantize import FakeQuantize, FloatWeight
from lstm_fastkernels.compression.qat.forward import cell_forward, lstm_forward
from lstm_fastkernels.compression.quantization.plan import Planner
from lstm_fastkernels.compression.quantization.report import QuantizationReport
from lstm_fastkernels.modules.float_keys import keep_float_keys
from lstm_fastkernels.modules.float_lstm import fault_of, matrix_names, own_names
from lstm_fastkernels.modules.low_rank import LowRank
from lstm_fastkernels.modules.parametrized import (
    changing_parametrizations,
    originals_of,
    parametrization_of,
)
from lstm_fastkernels.weights.canonical import CanonicalLSTM
from lstm_fastkernels.weights.structures import LOW_RANK


def prepare(
    model: nn.Module,
    config: QATConfig,
    filter_fn: FilterFn | None,
    calibration: Iterable[Any] | None,
) -> QuantizationReport:
    """Step "prepare" of quantize_."""
    lstms = {module: name for name, module in find_lstms(model, filter_fn)}
    if not lstms:
        raise ValueError("found no nn.LSTM or nn.LSTMCell to prepare")
    check_unwrapped(model, lstms)
    owners = parameter_owners(model)
    for lstm, name in lstms.items():
        check_matrices(lstm, name, matrix_names(lstm), owners, beneath=(Mask, LowRank))
        if fault := fault_of(lstm):
            raise ValueError(f"{label_of(name)}: {fault}")
    planner = Planner(lstms, config.base_config)
    seen = observe(model, lstms, calibration)
    plans = {lstm: planner.plan(lstm, seen.get(lstm)) for lstm in lstms}
    for lstm, plan in plans.items():
        _put_on(lstm, config, plan.canonical)
    return QuantizationReport(model, [plan.report for plan in plans.values()])


@torch.no_grad()
def _put_on(lstm: nn.Module, config: QATConfig, canonical: CanonicalLSTM) -> None:
    with changing_parametrizations(lstm):
        for full, name in own_names(lstm, matrix_names(lstm)).items():
            _put_on_matrix(lstm, name, config, canonical, full)
    forward = lstm_forward if isinstance(lstm, nn.LSTM) else cell_forward
    setattr(type(lstm), "forward", forward)  # noqa: B010
    keep_float_keys(lstm)


def _put_on_matrix(
    lstm: nn.Module, name: str, config: QATConfig, canonical: CanonicalLSTM, full: str
) -> None:
    """full: what an nn.LSTM calls the matrix."""
    originals = list(originals_of(lstm, name).values())
    is_low_rank = canonical.is_low_rank(full)
    weights: list[Tensor] = list(originals) if is_low_rank else [getattr(lstm, name).detach()]
    tensors = LOW_RANK.factors(canonical.parts(full)) if is_low_rank else [canonical.dense(full)]
    precision, rounding = canonical.spec.precision[full], config.base_config.rounding()
    fakes = [
        FloatWeight()
        if precision == "float32"
        else FakeQuantize(weight, precision, rounding, config.scales, own)
        for weight, own in zip(weights, tensors, strict=True)
    ]
    if is_low_rank:
        low_rank: Any = parametrization_of(lstm, name)[0]
        low_rank.fakes.extend(fakes)
    else:
        parametrize.register_parametrization(lstm, name, fakes[0])
    if len(weights) == len(originals):  # a product of two that is to be dense stays where it is
        for fake, original, weight, own in zip(fakes, originals, weights, tensors, strict=True):
            placed = fake.placed(weight, own)
            # Where a mask is, the weight is zero, and the original keeps what is behind it.
            original.copy_(torch.where(placed == weight, original, placed))
