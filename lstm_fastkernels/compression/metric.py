"""What users measure their models by."""

import math
from collections.abc import Callable

import torch
from torch import nn

from lstm_fastkernels.compression.calibration.observe import evaluation

# A metric of a model on validation data.
Evaluate = Callable[[nn.Module], float]


def measured(evaluate: Evaluate, model: nn.Module) -> float:
    """What evaluate gives for a model in evaluation mode, without gradients; NaN as it is.

    Raises TypeError for what is no number.
    """
    with evaluation(model), torch.no_grad():
        value = evaluate(model)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"evaluate must give a number, got {type(value).__name__}") from error


def baseline_of(evaluate: Evaluate, model: nn.Module) -> float:
    """The metric of a model as it is. Raises ValueError where it is not finite."""
    if not math.isfinite(value := measured(evaluate, model)):
        raise ValueError(f"evaluate gave {value} for the model as it is")
    return value
