"""What tune_sparsity found."""

from dataclasses import dataclass

from torch import nn

from lstm_fastkernels.compression.table import table
from lstm_fastkernels.compression.tuning.amounts import Config


@dataclass(frozen=True)
class Trial:
    """A configuration, its share of the way, and the metric of the model that it made."""

    share: float
    config: Config
    metric: float


@dataclass(frozen=True)
class TuningReport:
    """The model found, its trial and all trials, one for each configuration, in their order.

    `str()` is a table.

    model: a copy of the model, compressed; config: what made it, None where no trial kept the
    metric, and the model is a copy as it was. baseline: the metric before; metric: that of `model`.
    """

    model: nn.Module
    config: Config | None
    baseline: float
    metric: float
    trials: list[Trial]

    def __str__(self) -> str:
        cells = [["share", "metric", "change", ""]]
        cells.append(["0.000", f"{self.baseline:.4f}", f"{0:+.4f}", "as it is"])
        for trial in sorted(self.trials, key=lambda trial: trial.share):
            taken = "taken" if trial.config is self.config else ""
            change = f"{trial.metric - self.baseline:+.4f}"
            cells.append([f"{trial.share:.3f}", f"{trial.metric:.4f}", change, taken])
        return f"{table(cells, names=0)}\nfound: {self.config or 'nothing, the model is as it was'}"
