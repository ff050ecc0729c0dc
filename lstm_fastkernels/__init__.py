"""Compressed LSTMs behind nn.LSTM's interface, on hand-written int8 kernels.

Names are imported on first use, so that importing the package alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_fastkernels.conversion import convert as convert
    from lstm_fastkernels.hidden_pruning import prune_hidden_ as prune_hidden_
    from lstm_fastkernels.modules import FastQuantLSTM as FastQuantLSTM
    from lstm_fastkernels.modules import FastQuantLSTMCell as FastQuantLSTMCell
    from lstm_fastkernels.ops import get_isa as get_isa
    from lstm_fastkernels.ops import set_isa as set_isa
    from lstm_fastkernels.ops import supported_isas as supported_isas
    from lstm_fastkernels.quantization import quantize_rows as quantize_rows
    from lstm_fastkernels.stacked import StackedLSTM as StackedLSTM

__version__ = "0.1.0"

_HOMES = {
    "FastQuantLSTM": "modules",
    "FastQuantLSTMCell": "modules",
    "StackedLSTM": "stacked",
    "convert": "conversion",
    "get_isa": "ops",
    "prune_hidden_": "hidden_pruning",
    "set_isa": "ops",
    "supported_isas": "ops",
    "quantize_rows": "quantization",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs PyTorch: pip install lstm_fastkernels[torch]", name="torch"
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
