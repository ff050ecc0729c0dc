"""sensitivity: what each part of a model's LSTMs costs when it alone is compressed."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, get_args

from torch import Tensor, nn
from tqdm.auto import tqdm

from lstm_fastkernels.compression.calibration.calls import Call
from lstm_fastkernels.compression.calibration.moments import FloatLayers
from lstm_fastkernels.compression.calibration.observe import Observations, observe
from lstm_fastkernels.compression.calibration.sqnr import noise_of, signal_of, to_db
from lstm_fastkernels.compression.low_rank.config import LowRankConfig
from lstm_fastkernels.compression.low_rank.factorize import factorize_
from lstm_fastkernels.compression.lstms import (
    FilterFn,
    check_replaceable,
    check_unprepared,
    find_lstms,
    replace_modules,
)
from lstm_fastkernels.compression.metric import Evaluate, baseline_of, measured
from lstm_fastkernels.compression.pruning.config import PruneConfig, check_untrained
from lstm_fastkernels.compression.pruning.prune import prune_
from lstm_fastkernels.compression.quantization.candidates import lstm_noise, lstm_on_cpu
from lstm_fastkernels.compression.quantization.config import (
    Int4Config,
    Int8Config,
    QuantizationConfig,
)
from lstm_fastkernels.compression.quantization.plan import Planner
from lstm_fastkernels.compression.quantization.twins import twin_of
from lstm_fastkernels.compression.sensitivity.parts import By, Part, parts_of
from lstm_fastkernels.compression.sensitivity.report import SensitivityReport, SensitivityRow
from lstm_fastkernels.modules.float_lstm import (
    new_like,
    own_names,
    parameter_kinds,
    shape_of,
    weights_as_lstm,
)
from lstm_fastkernels.weights.canonical import CanonicalLSTM
from lstm_fastkernels.weights.structures import split_gates

Method = QuantizationConfig | PruneConfig | LowRankConfig

METHODS: dict[str, Method] = {
    "int8": Int8Config(),
    "int4": Int4Config(),
    "80% zeros": PruneConfig(0.8),
    "90% energy": LowRankConfig(energy=0.9),
}


def sensitivity(
    model: nn.Module,
    evaluate: Evaluate | None = None,
    *,
    calibration: Iterable[Any] | None = None,
    methods: Mapping[str, Method] | None = None,
    by: By = "matrix",
    filter_fn: FilterFn | None = None,
) -> SensitivityReport:
    """Compresses one part of a model's LSTMs at a time, all else staying as it is, and measures.

    evaluate(model): a metric on validation data, a number, for a copy of the model in evaluation
    mode; it is called once for each part and method and for the model itself.
    calibration: batches of real input, as for quantize_; quantization and factorization use them,
    and every fourth is held out: there the LSTM's outputs, given its float inputs, are compared
    with those of the float LSTM (SQNR, dB). At least one of the two must be given.
    methods: names and what they stand for: an Int8Config, an Int4Config, a PruneConfig or a
    LowRankConfig; by default int8, int4, 80% zeros in blocks and 90% of the energy.
    by: "lstm", "layer", "matrix" or "gate". Quantized matrices run on the kernels, with quantized
    activations; of gates, which have their rows in one matrix, weights alone are quantized.
    filter_fn(module, name) picks the LSTMs and cells.

    Returns a report: `str()` is a table, `heat_map` draws it. The model stays as it is. Raises
    ValueError where quantize_, prune_ and factorize_ do, for LSTMs prepared for quantization-aware
    training, a method that needs training and a metric of the model that is not finite.
    """
    methods = METHODS if methods is None else methods
    if evaluate is None and calibration is None:
        raise ValueError("give evaluate, calibration or both: there is nothing to measure with")
    if by not in get_args(By):
        raise ValueError(f"by must be one of {list(get_args(By))}, got {by!r}")
    for name, method in methods.items():
        _check_method(name, method)
    lstms = {module: name for name, module in find_lstms(model, filter_fn)}
    if not lstms:
        raise ValueError("found no nn.LSTM or nn.LSTMCell in the model")
    check_replaceable(model, lstms)
    for lstm, name in lstms.items():
        check_unprepared(lstm, name)
    batches = None if calibration is None else list(calibration)
    seen = observe(model, lstms, batches)
    if evaluate is None and not all(found.held_out for found in seen.values()):
        raise ValueError("without evaluate, give a second calibration batch to measure on")
    baseline = None if evaluate is None else baseline_of(evaluate, model)
    rows = []
    for name, method in methods.items():
        compressed = _compressed(model, lstms, method, seen, batches, by)
        for lstm, place in lstms.items():
            for part in tqdm(parts_of(shape_of(lstm), by), f"{name} {place}", disable=None):
                trial = compressed(lstm, part)
                metric = sqnr = None
                if lstm in seen and (calls := seen[lstm].held_out):
                    sqnr = to_db(signal_of(calls), trial.noise(calls))
                if evaluate is not None:
                    metric = measured(evaluate, _with(model, {place: trial.module()}))
                rows.append(SensitivityRow(place, part.name, name, sqnr, metric))
    return SensitivityReport(rows, baseline)


class _Trial(NamedTuple):
    """What makes an LSTM with one part compressed, and the squared error of its outputs for calls;
    each is asked for where something is measured with it."""

    module: Callable[[], nn.Module]
    noise: Callable[[list[Call]], float]


def _check_method(name: str, method: object) -> None:
    if not isinstance(method, QuantizationConfig | PruneConfig | LowRankConfig):
        raise TypeError(
            f"method {name!r} must be an Int8Config, an Int4Config, a PruneConfig or a "
            f"LowRankConfig, got {type(method).__name__}"
        )
    if isinstance(method, PruneConfig):
        check_untrained(method, f"method {name!r}")


def _with(model: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the model with these in the places named, and wherever else those are used."""
    trial = copy.deepcopy(model)
    return replace_modules(trial, {trial.get_submodule(place): m for place, m in modules.items()})


def _compressed(
    model: nn.Module,
    lstms: Mapping[nn.Module, str],
    method: Method,
    seen: Mapping[nn.Module, Observations],
    batches: list[Any] | None,
    by: By,
) -> Callable[[nn.Module, Part], _Trial]:
    """What makes trials of a method, which works on each LSTM as a whole first."""
    if isinstance(method, QuantizationConfig):
        planner = Planner(lstms, method)
        whole = {lstm: planner.plan(lstm, seen.get(lstm)).canonical for lstm in lstms}
        if by != "gate":
            return partial(_quantized_part, whole, method)
        return partial(_float_part, {lstm: own.to_float() for lstm, own in whole.items()})
    # Without the parametrizations that may be on them.
    copies = {lstm: _plain(lstm, weights_as_lstm(lstm)) for lstm in lstms}
    other = _with(model, {name: copies[lstm] for lstm, name in lstms.items()})
    picked = set(copies.values())
    if isinstance(method, PruneConfig):
        prune_(other, method, filter_fn=lambda module, _: module in picked)
    else:
        factorize_(other, method, lambda module, _: module in picked, calibration=batches)
    return partial(_float_part, {lstm: weights_as_lstm(own) for lstm, own in copies.items()})


def _quantized_part(
    whole: Mapping[nn.Module, CanonicalLSTM],
    config: QuantizationConfig,
    lstm: nn.Module,
    part: Part,
) -> _Trial:
    """Some matrices as they are quantized, the others in float32."""
    quantized, floats = whole[lstm], weights_as_lstm(lstm)
    spec = replace(
        quantized.spec,
        precision={
            name: own if name in part.matrices else "float32"
            for name, own in quantized.spec.precision.items()
        },
    )
    tensors = {name: t for name, t in quantized.tensors.items() if name.startswith("bias")}
    for name in spec.precision:
        parts = quantized.parts(name) if name in part.matrices else {"": floats[name].float()}
        tensors |= {name + end: tensor for end, tensor in parts.items()}
    canonical = spec.take(tensors)
    return _Trial(
        partial(twin_of, lstm, canonical, config),
        lambda calls: lstm_noise(lstm_on_cpu(canonical), calls),
    )


def _float_part(
    compressed: Mapping[nn.Module, Mapping[str, Tensor]], lstm: nn.Module, part: Part
) -> _Trial:
    """Some weights as a method has changed them, in a float LSTM."""
    floats = {name: weight.detach().clone() for name, weight in weights_as_lstm(lstm).items()}
    for name in part.matrices:
        new = compressed[lstm][name].to(floats[name])
        if part.gate is None:
            floats[name] = new
        else:
            split_gates(floats[name], name)[part.gate] = split_gates(new, name)[part.gate]
    layers = FloatLayers(shape_of(lstm), floats)
    return _Trial(partial(_plain, lstm, floats), partial(noise_of, layers.output))


def _plain(lstm: nn.Module, floats: Mapping[str, Tensor]) -> nn.Module:
    """A float LSTM like this one with these weights."""
    module = new_like(lstm)
    own = own_names(lstm, parameter_kinds(lstm))
    module.load_state_dict({own[name]: weight for name, weight in floats.items()})
    return module
