"""tune_sparsity: as sparse, or as thin, as a metric on validation data allows."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from torch import nn
from tqdm.auto import tqdm

from lstm_fastkernels.compression.low_rank.config import LowRankConfig
from lstm_fastkernels.compression.low_rank.factorize import factorize_
from lstm_fastkernels.compression.lstms import FilterFn, find_lstms
from lstm_fastkernels.compression.metric import Evaluate, baseline_of, measured
from lstm_fastkernels.compression.pruning.config import PruneConfig, check_untrained
from lstm_fastkernels.compression.pruning.prune import prune_, remove_pruning_
from lstm_fastkernels.compression.pruning.pruner import Pruner
from lstm_fastkernels.compression.tuning.amounts import Config, config_at
from lstm_fastkernels.compression.tuning.report import Trial, TuningReport
from lstm_fastkernels.modules.float_lstm import shape_of

Mode = Literal["max", "min"]
Train = Callable[[nn.Module, Pruner | None], None]


def tune_sparsity(
    model: nn.Module,
    config: Config,
    evaluate: Evaluate,
    max_drop: float,
    *,
    mode: Mode = "max",
    train: Train | None = None,
    calibration: Iterable[Any] | None = None,
    tolerance: float = 0.01,
    filter_fn: FilterFn | None = None,
) -> TuningReport:
    """Finds by bisection how far towards `config` a model can go before its metric is worse by more
    than max_drop.

    config: the furthest to go: a PruneConfig with a sparsity, the shares of a mapping all growing
    together, or a threshold, from 0 up to its own; or a LowRankConfig with a rank, from that of the
    whole matrix down to its own, or an energy, from 1.
    evaluate(model): the metric on validation data, for a copy of the model in evaluation mode. Test
    data have no place here: the model found is chosen by these data. mode: "max" if more is better,
    as of accuracies, "min" for losses and error rates. max_drop: in the metric's own unit.
    train(model, pruner): trains a trial's copy on training data before it is measured, calling
    pruner.step() after each step; pruner is None for a LowRankConfig. A schedule, and an importance
    that needs gradients, need it.
    calibration: batches of real input for a LowRankConfig, as for factorize_.
    tolerance: how near, as a share of the way, the search comes to the point where the metric is
    lost. filter_fn(module, name) picks the LSTMs and cells.

    If the metric does not fall steadily some point where it is lost is found; the model returned
    has kept it. Its masks are permanent and its factors in place: quantize_ and convert take it
    from there. The model given stays as it is. Raises ValueError where prune_ and factorize_ do,
    and for options that do not fit.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {list(get_args(Mode))}, got {mode!r}")
    if not (max_drop >= 0 and math.isfinite(max_drop)):
        raise ValueError(f"max_drop must be at least 0 and finite, got {max_drop}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1), got {tolerance}")
    if isinstance(config, PruneConfig):
        if calibration is not None:
            raise ValueError("calibration goes with a LowRankConfig")
        if train is None:
            check_untrained(config, "the config")
    elif not isinstance(config, LowRankConfig):
        raise TypeError(
            f"tune_sparsity expects a PruneConfig or a LowRankConfig, got {type(config).__name__}"
        )
    at = config_at(config, [shape_of(lstm) for _, lstm in find_lstms(model, filter_fn)])
    batches = None if calibration is None else list(calibration)
    baseline = baseline_of(evaluate, model)
    trials: list[Trial] = []
    best: tuple[nn.Module, Trial] | None = None

    def kept(trial: Trial) -> bool:
        drop = baseline - trial.metric
        return (drop if mode == "max" else -drop) <= max_drop  # False for NaN

    def keeps_metric(share: float) -> bool:
        nonlocal best
        trial_config = at(share)
        for trial in trials:
            if trial.config == trial_config:  # ranks are integers: shares may have the same
                return kept(trial)
        trial_model = copy.deepcopy(model)
        _compress(trial_model, trial_config, filter_fn, train, batches)
        trials.append(Trial(share, trial_config, measured(evaluate, trial_model)))
        if kept(trials[-1]):
            best = trial_model, trials[-1]
        return kept(trials[-1])

    steps = math.ceil(math.log2(1 / tolerance))
    low, high = 0.0, 1.0
    with tqdm(total=1 + steps, desc="tuning", unit="trial", disable=None) as progress:
        done = keeps_metric(high)
        progress.update()
        while not done and high - low > tolerance:
            middle = (low + high) / 2
            low, high = (middle, high) if keeps_metric(middle) else (low, middle)
            progress.update()
    if best is None:
        return TuningReport(copy.deepcopy(model), None, baseline, baseline, trials)
    return TuningReport(best[0], best[1].config, baseline, best[1].metric, trials)


def _compress(
    model: nn.Module,
    config: Config,
    filter_fn: FilterFn | None,
    train: Train | None,
    batches: list[Any] | None,
) -> None:
    pruner = None
    if isinstance(config, PruneConfig):
        pruner = prune_(model, config, filter_fn=filter_fn)
    else:
        factorize_(model, config, filter_fn, calibration=batches)
    if train is not None:
        train(model, pruner)
    if pruner is not None:
        remove_pruning_(model)
