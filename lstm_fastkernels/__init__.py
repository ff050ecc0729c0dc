"""Compressed LSTMs behind nn.LSTM's interface, on hand-written kernels.

Names are imported on first use, so that importing the package alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_fastkernels.conversion import convert as convert
    from lstm_fastkernels.explanation import explain as explain
    from lstm_fastkernels.hidden_pruning import prune_hidden_ as prune_hidden_
    from lstm_fastkernels.io import load_file as load_file
    from lstm_fastkernels.io import save_file as save_file
    from lstm_fastkernels.modules import FastQuantLSTM as FastQuantLSTM
    from lstm_fastkernels.modules import FastQuantLSTMCell as FastQuantLSTMCell
    from lstm_fastkernels.modules import FastSparseLSTM as FastSparseLSTM
    from lstm_fastkernels.modules import FastSparseLSTMCell as FastSparseLSTMCell
    from lstm_fastkernels.ops import cuda_built as cuda_built
    from lstm_fastkernels.ops import get_isa as get_isa
    from lstm_fastkernels.ops import set_isa as set_isa
    from lstm_fastkernels.ops import supported_isas as supported_isas
    from lstm_fastkernels.paths import get_cmake_dir as get_cmake_dir
    from lstm_fastkernels.paths import get_include as get_include
    from lstm_fastkernels.paths import get_library_dir as get_library_dir
    from lstm_fastkernels.prune_config import CubicSchedule as CubicSchedule
    from lstm_fastkernels.prune_config import PruneConfig as PruneConfig
    from lstm_fastkernels.pruning import Pruner as Pruner
    from lstm_fastkernels.pruning import prune_ as prune_
    from lstm_fastkernels.pruning import remove_pruning_ as remove_pruning_
    from lstm_fastkernels.quantization import quantize_rows as quantize_rows
    from lstm_fastkernels.sparsity import SparsityReport as SparsityReport
    from lstm_fastkernels.sparsity import sparsity_report as sparsity_report
    from lstm_fastkernels.stacked import StackedLSTM as StackedLSTM

__version__ = "0.1.0"

# What the extra `torch` installs, by the names that are imported.
_NEEDED = {"torch": "PyTorch", "safetensors": "safetensors"}

_HOMES = {
    "convert": "conversion",
    "CubicSchedule": "prune_config",
    "cuda_built": "ops",
    "explain": "explanation",
    "FastQuantLSTM": "modules",
    "FastQuantLSTMCell": "modules",
    "FastSparseLSTM": "modules",
    "FastSparseLSTMCell": "modules",
    "get_cmake_dir": "paths",
    "get_include": "paths",
    "get_isa": "ops",
    "get_library_dir": "paths",
    "load_file": "io",
    "prune_": "pruning",
    "prune_hidden_": "hidden_pruning",
    "PruneConfig": "prune_config",
    "Pruner": "pruning",
    "quantize_rows": "quantization",
    "remove_pruning_": "pruning",
    "save_file": "io",
    "set_isa": "ops",
    "sparsity_report": "sparsity",
    "SparsityReport": "sparsity",
    "StackedLSTM": "stacked",
    "supported_isas": "ops",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs {_NEEDED[error.name]}: pip install lstm_fastkernels[torch]",
            name=error.name,
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
