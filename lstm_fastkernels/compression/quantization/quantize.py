"""quantize_: quantized LSTMs in the place of a model's float ones, with data if there is some."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from lstm_fastkernels.compression.calibration.observe import observe
from lstm_fastkernels.compression.convert import replace_lstms
from lstm_fastkernels.compression.lstms import FilterFn, check_replaceable, find_lstms
from lstm_fastkernels.compression.qat.config import QATConfig
from lstm_fastkernels.compression.qat.convert import convert_prepared
from lstm_fastkernels.compression.qat.prepare import prepare
from lstm_fastkernels.compression.quantization.config import Int8Config, QuantizationConfig
from lstm_fastkernels.compression.quantization.plan import Planner
from lstm_fastkernels.compression.quantization.report import QuantizationReport, QuantizedLSTM
from lstm_fastkernels.compression.quantization.twins import CLASSES, twin_of


def quantize_(
    model: nn.Module,
    config: QuantizationConfig | QATConfig | None = None,
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

    A QATConfig stands for quantization-aware training. Its step "prepare" leaves nn.LSTM and
    nn.LSTMCell in their places, to be trained on: forward they compute, to the bit, as the module
    does that step "convert" puts in their place; backward rounding counts as the identity, with no
    gradient where a weight saturates. To begin with they are what quantize_ would make, with
    calibration if it is given: weights are moved to within a quarter of a step of their integers.
    Parameters stay the same objects, learned scales are new ones: make the optimizer, and wrap the
    model in DistributedDataParallel, after "prepare". state_dict has the float module's keys, with
    the scales beside them; float checkpoints are loaded without. Masks of prune_ and factors of
    factorize_, put on before, stay in force.

    filter_fn(module, name) picks the LSTMs. Returns a report; its `model` is the model, or, if the
    model is an LSTM itself, the replacement. Raises ValueError, with nothing changed, where
    `convert` does, for LSTMs without input, for input that is not finite, for a min_sqnr that
    cannot be reached or has no held-out batch, and for LSTMs prepared already; for "prepare" where
    factorize_ does, masks and factors aside, for "convert" if none is prepared, or for another
    precision.
    """
    config = Int8Config() if config is None else config
    if isinstance(config, QATConfig):
        if min_sqnr is not None:
            raise ValueError(
                "min_sqnr goes without a QATConfig: call quantize_ with it on a copy, and give the "
                "precision that it finds to the base_config"
            )
        if config.step == "prepare":
            return prepare(model, config, filter_fn, calibration)
        if calibration is not None:
            raise ValueError('calibration goes with step "prepare": "convert" rounds as trained')
        return convert_prepared(model, config, filter_fn)
    if not isinstance(config, QuantizationConfig):
        raise TypeError(
            "quantize_ expects an Int8Config, an Int4Config or a QATConfig, got "
            f"{type(config).__name__}"
        )
    if min_sqnr is not None and calibration is None:
        raise ValueError("min_sqnr needs calibration batches to measure on")
    lstms = {module: name for name, module in find_lstms(model, filter_fn, classes=CLASSES)}
    check_replaceable(model, lstms)
    planner = Planner(lstms, config)
    seen = observe(model, lstms, calibration)
    rows: list[QuantizedLSTM] = []

    def make(lstm: nn.Module) -> nn.Module:
        plan = planner.plan(lstm, seen.get(lstm), min_sqnr)
        rows.append(plan.report)
        return twin_of(lstm, plan.canonical, config)

    replaced = replace_lstms(model, make, classes=CLASSES, filter_fn=filter_fn, inplace=True)
    return QuantizationReport(replaced, rows)
