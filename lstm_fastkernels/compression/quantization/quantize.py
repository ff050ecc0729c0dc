"""Quantizing the LSTMs of a model, with calibration data or without."""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lstm_fastkernels.compression.leftovers import leftovers
from lstm_fastkernels.compression.lstms import (
    FilterFn,
    check_replaceable,
    find_lstms,
    label_of,
    replace_modules,
)
from lstm_fastkernels.compression.quantization.config import Int8Config
from lstm_fastkernels.compression.quantization.outputs import run_batches
from lstm_fastkernels.compression.quantization.precision_search import raise_precision
from lstm_fastkernels.compression.quantization.twins import Quantizer
from lstm_fastkernels.compression.quantization.variants import Comparison
from lstm_fastkernels.weights.precision import describe

# Of the calibration batches with min_sqnr, every so many is held out.
_HELD_OUT_ONE_IN = 5


@dataclass(frozen=True)
class QuantizedLSTM:
    """What became of an LSTM. raised: the matrices of more precision than asked for; sqnr: of its
    outputs, in dB, if that was measured; packed_bytes: see FastQuantLSTM.packed_bytes."""

    name: str
    precision: Mapping[str, str]
    raised: Mapping[str, str]
    sqnr: float | None
    packed_bytes: int

    def __str__(self) -> str:
        parts = [f"{label_of(self.name)}: {describe(self.precision)}"]
        if self.sqnr is not None:
            parts.append(f"{self.sqnr:.1f} dB")
        parts.append(f"{self.packed_bytes:,} bytes")
        if self.raised:
            raised = ", ".join(f"{name} to {how}" for name, how in self.raised.items())
            parts.append(f"raised {raised}")
        return ", ".join(parts)


@dataclass(frozen=True)
class QuantizationReport:
    """What quantize_ did; `str()` has a line for each LSTM."""

    lstms: list[QuantizedLSTM]

    def __str__(self) -> str:
        return "\n".join(map(str, self.lstms))


def quantize_(
    model: nn.Module,
    config: Int8Config | None = None,
    filter_fn: FilterFn | None = None,
    *,
    calibration: Iterable[Any] | None = None,
    min_sqnr: float | None = None,
) -> QuantizationReport:
    """Replaces every nn.LSTM and nn.LSTMCell of a model, in place, by a quantized twin.

    config: in what numbers, Int8Config() by default. filter_fn(module, name) picks the ones to
    replace. calibration: batches of the model's input, each one argument, a tuple or list of
    arguments, or a mapping of keyword arguments: some minutes of what the model is for, no labels.
    A copy of the model runs on them in evaluation mode; each matrix is then rounded so that its
    products with what it met change least (see quantize_with_feedback). Without, weights are
    rounded by themselves, as convert does.

    min_sqnr: the signal to quantization noise ratio in dB that the outputs of each LSTM shall have
    on calibration batches that are held out, every fifth one, or the last of fewer (a single one
    serves both ends). Where the config gives less, matrices are raised to "int16" and "float32",
    those first that gain most for what they cost. The report says which.

    Raises ValueError, with nothing changed, where convert does; for a model that is an LSTM itself;
    for an LSTM that the calibration does not call, or with values that are not finite; and for a
    min_sqnr that float32 does not reach.
    """
    config = config or Int8Config()
    if min_sqnr is not None and calibration is None:
        raise ValueError("min_sqnr is measured on calibration batches: give `calibration`, too")
    lstms = {module: name for name, module in find_lstms(model, filter_fn)}
    if model in lstms:
        raise ValueError(
            "the model is an LSTM itself, which cannot be replaced in place: give "
            "nn.Sequential(lstm), or use FastQuantLSTM.from_float without calibration"
        )
    check_replaceable(model, lstms)
    quantizers = {name: Quantizer(name, module, config) for module, name in lstms.items()}
    precisions = {name: quantizer.precision for name, quantizer in quantizers.items()}
    ratios: dict[str, float] = {}
    if calibration is not None:
        held_out: list[Any] = []
        if min_sqnr is not None:
            calibration, held_out = _split(list(calibration))
        _calibrate(model, quantizers, calibration)
        if min_sqnr is not None and quantizers:
            comparison = Comparison(model, quantizers, held_out)
            precisions, ratios = raise_precision(quantizers, precisions, comparison, min_sqnr)
    twins = {name: quantizers[name].make_twin(how) for name, how in precisions.items()}
    if text := leftovers("quantize_", model, lstms, filter_fn):
        warnings.warn(text, stacklevel=2)
    report = QuantizationReport(
        [
            QuantizedLSTM(
                name,
                twin.precision,
                _raised(quantizers[name].precision, twin.precision),
                ratios.get(name),
                twin.packed_bytes(),
            )
            for name, twin in twins.items()
        ]
    )
    replace_modules(model, {module: twins[name] for module, name in lstms.items()})
    return report


def _split(batches: list[Any]) -> tuple[list[Any], list[Any]]:
    """Those to calibrate with, and those held out."""
    if len(batches) < _HELD_OUT_ONE_IN:
        return batches[:-1] or batches, batches[-1:]
    held_out = batches[_HELD_OUT_ONE_IN - 1 :: _HELD_OUT_ONE_IN]
    del batches[_HELD_OUT_ONE_IN - 1 :: _HELD_OUT_ONE_IN]
    return batches, held_out


def _calibrate(
    model: nn.Module, quantizers: Mapping[str, Quantizer], batches: Iterable[Any]
) -> None:
    """Lets each quantizer see the calls of its LSTM in a copy of the model."""
    model = copy.deepcopy(model)
    modules = dict(model.named_modules())

    def see(quantizer: Quantizer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, keywords: Any) -> None:
            try:
                quantizer.moments.add_call(*inputs, **keywords)
            except ValueError as error:
                raise ValueError(f"{label_of(quantizer.name)}: {error}") from error

        return hook

    for name, quantizer in quantizers.items():
        modules[name].register_forward_pre_hook(see(quantizer), with_kwargs=True)
    run_batches(model, batches, "calibration")
    for name, quantizer in quantizers.items():
        if not quantizer.moments.seen:
            raise ValueError(
                f"{label_of(name)} is not called by the calibration batches: leave it out with "
                "filter_fn, or add batches that call it"
            )


def _raised(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    return {name: how for name, how in after.items() if how != before[name]}
