"""Converting: every LSTM of a model replaced by its fast twin."""

import copy
from typing import Any, Literal

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.lstms import FilterFn, find_lstms, replace_modules
from lstm_fastkernels.modules.cell import FastQuantLSTMCell, FastSparseLSTMCell
from lstm_fastkernels.modules.lstm import FastQuantLSTM, FastSparseLSTM

Weights = Literal["int8", "float32"]

_TWINS: dict[Weights, dict[type[nn.Module], Any]] = {
    "int8": {nn.LSTM: FastQuantLSTM, nn.LSTMCell: FastQuantLSTMCell},
    "float32": {nn.LSTM: FastSparseLSTM, nn.LSTMCell: FastSparseLSTMCell},
}


def convert(
    model: nn.Module,
    *,
    weights: Weights = "int8",
    filter_fn: FilterFn | None = None,
    inplace: bool = False,
    **options: Any,
) -> nn.Module:
    """Replaces every nn.LSTM and nn.LSTMCell by its fast twin.

    `weights` "int8" gives FastQuantLSTM and FastQuantLSTMCell, "float32" FastSparseLSTM and
    FastSparseLSTMCell, for models pruned in blocks; options are theirs: `activations`, `layout`,
    `block_size`. Zeros that pay are skipped by default: each matrix is laid out by itself, and the
    modules' repr says how.

    filter_fn(module, name) picks the ones to replace; name is the dotted name in the model. A
    module used in several places stays shared. Subclasses of the two are left alone, since they may
    compute something else. Returns a converted copy, or the model itself with `inplace`; a model
    that is an LSTM itself is never changed, its replacement is returned.
    """
    if weights not in _TWINS:
        raise ValueError(f"weights must be one of {list(_TWINS)}, got {weights!r}")
    if not inplace:
        model = copy.deepcopy(model)
    replacements = {
        lstm: _TWINS[weights][type_before_parametrizations(lstm)].from_float(lstm, **options)
        for _, lstm in find_lstms(model, filter_fn)
    }
    return replace_modules(model, replacements)
