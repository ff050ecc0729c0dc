"""Compressed LSTMs behind nn.LSTM's interface, on hand-written kernels.

Names are imported on first use, so that importing the package alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lstm_fastkernels.missing import explain_imports
from lstm_fastkernels.torch_hook import load_ops_with_torch

if TYPE_CHECKING:
    from lstm_fastkernels.compression.convert import convert as convert
    from lstm_fastkernels.compression.dequantize import dequantize as dequantize
    from lstm_fastkernels.compression.distillation.losses import (
        distillation_loss as distillation_loss,
    )
    from lstm_fastkernels.compression.distillation.losses import (
        hidden_state_loss as hidden_state_loss,
    )
    from lstm_fastkernels.compression.distillation.student import student_like as student_like
    from lstm_fastkernels.compression.fold_embedding import fold_embedding as fold_embedding
    from lstm_fastkernels.compression.low_rank.config import LowRankConfig as LowRankConfig
    from lstm_fastkernels.compression.low_rank.factorize import factorize_ as factorize_
    from lstm_fastkernels.compression.low_rank.factorize import remove_low_rank_ as remove_low_rank_
    from lstm_fastkernels.compression.low_rank.report import (
        FactorizationReport as FactorizationReport,
    )
    from lstm_fastkernels.compression.pruning.config import CubicSchedule as CubicSchedule
    from lstm_fastkernels.compression.pruning.config import PruneConfig as PruneConfig
    from lstm_fastkernels.compression.pruning.hidden import prune_hidden_ as prune_hidden_
    from lstm_fastkernels.compression.pruning.prune import prune_ as prune_
    from lstm_fastkernels.compression.pruning.prune import remove_pruning_ as remove_pruning_
    from lstm_fastkernels.compression.pruning.pruner import Pruner as Pruner
    from lstm_fastkernels.compression.pruning.report import SparsityReport as SparsityReport
    from lstm_fastkernels.compression.pruning.report import sparsity_report as sparsity_report
    from lstm_fastkernels.compression.qat.config import QATConfig as QATConfig
    from lstm_fastkernels.compression.quantization.check import SqnrReport as SqnrReport
    from lstm_fastkernels.compression.quantization.check import check as check
    from lstm_fastkernels.compression.quantization.config import Int4Config as Int4Config
    from lstm_fastkernels.compression.quantization.config import Int8Config as Int8Config
    from lstm_fastkernels.compression.quantization.quantize import quantize_ as quantize_
    from lstm_fastkernels.compression.quantization.report import (
        QuantizationReport as QuantizationReport,
    )
    from lstm_fastkernels.compression.sensitivity.analyze import sensitivity as sensitivity
    from lstm_fastkernels.compression.sensitivity.report import (
        SensitivityReport as SensitivityReport,
    )
    from lstm_fastkernels.compression.tuning.report import TuningReport as TuningReport
    from lstm_fastkernels.compression.tuning.tune import tune_sparsity as tune_sparsity
    from lstm_fastkernels.io.file import load_file as load_file
    from lstm_fastkernels.io.file import save_file as save_file
    from lstm_fastkernels.modules.cell import FastQuantLSTMCell as FastQuantLSTMCell
    from lstm_fastkernels.modules.cell import FastSparseLSTMCell as FastSparseLSTMCell
    from lstm_fastkernels.modules.explanation import explain as explain
    from lstm_fastkernels.modules.lstm import FastQuantLSTM as FastQuantLSTM
    from lstm_fastkernels.modules.lstm import FastSparseLSTM as FastSparseLSTM
    from lstm_fastkernels.modules.stacked import StackedLSTM as StackedLSTM
    from lstm_fastkernels.modules.states import State as State
    from lstm_fastkernels.modules.streams import StreamBatch as StreamBatch
    from lstm_fastkernels.ops import cuda_built as cuda_built
    from lstm_fastkernels.ops import get_isa as get_isa
    from lstm_fastkernels.ops import release_memory as release_memory
    from lstm_fastkernels.ops import set_isa as set_isa
    from lstm_fastkernels.ops import supported_isas as supported_isas
    from lstm_fastkernels.paths import get_cmake_dir as get_cmake_dir
    from lstm_fastkernels.paths import get_include as get_include
    from lstm_fastkernels.paths import get_library_dir as get_library_dir
    from lstm_fastkernels.weights.int4 import quantize_groups as quantize_groups
    from lstm_fastkernels.weights.quantize_rows import quantize_rows as quantize_rows

__version__ = "0.1.0"

# What the extra `torch` installs, by the names that are imported.
_NEEDED = {"torch": "PyTorch", "safetensors": "safetensors", "tqdm": "tqdm"}

_HOMES = {
    "check": "compression.quantization.check",
    "convert": "compression.convert",
    "CubicSchedule": "compression.pruning.config",
    "cuda_built": "ops",
    "dequantize": "compression.dequantize",
    "distillation_loss": "compression.distillation.losses",
    "explain": "modules.explanation",
    "FactorizationReport": "compression.low_rank.report",
    "factorize_": "compression.low_rank.factorize",
    "FastQuantLSTM": "modules.lstm",
    "FastQuantLSTMCell": "modules.cell",
    "FastSparseLSTM": "modules.lstm",
    "FastSparseLSTMCell": "modules.cell",
    "fold_embedding": "compression.fold_embedding",
    "get_cmake_dir": "paths",
    "get_include": "paths",
    "get_isa": "ops",
    "get_library_dir": "paths",
    "hidden_state_loss": "compression.distillation.losses",
    "Int4Config": "compression.quantization.config",
    "Int8Config": "compression.quantization.config",
    "load_file": "io.file",
    "LowRankConfig": "compression.low_rank.config",
    "prune_": "compression.pruning.prune",
    "prune_hidden_": "compression.pruning.hidden",
    "PruneConfig": "compression.pruning.config",
    "Pruner": "compression.pruning.pruner",
    "QATConfig": "compression.qat.config",
    "QuantizationReport": "compression.quantization.report",
    "quantize_": "compression.quantization.quantize",
    "quantize_groups": "weights.int4",
    "quantize_rows": "weights.quantize_rows",
    "release_memory": "ops",
    "remove_low_rank_": "compression.low_rank.factorize",
    "remove_pruning_": "compression.pruning.prune",
    "save_file": "io.file",
    "sensitivity": "compression.sensitivity.analyze",
    "SensitivityReport": "compression.sensitivity.report",
    "set_isa": "ops",
    "sparsity_report": "compression.pruning.report",
    "SparsityReport": "compression.pruning.report",
    "SqnrReport": "compression.quantization.check",
    "StackedLSTM": "modules.stacked",
    "State": "modules.states",
    "StreamBatch": "modules.streams",
    "student_like": "compression.distillation.student",
    "supported_isas": "ops",
    "tune_sparsity": "compression.tuning.tune",
    "TuningReport": "compression.tuning.report",
}

__all__ = ["__version__", *_HOMES]


def _load_home(name: str) -> Any:
    """The module of a public name; ImportError says what to install."""
    try:
        return importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs {_NEEDED[error.name]}: pip install lstm_fastkernels[torch]",
            name=error.name,
        ) from error


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = _load_home(name)
    except ImportError as error:
        explain_imports(__name__, _HOMES, _load_home)
        raise AttributeError(str(error), name=name) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)


load_ops_with_torch()
