"""Going back: every compressed LSTM of a model replaced by a float one with its weights."""

import copy

from torch import nn

from lstm_fastkernels.compression.lstms import FilterFn, replace_modules
from lstm_fastkernels.modules.fast import FastModule


def dequantize(
    model: nn.Module, *, filter_fn: FilterFn | None = None, inplace: bool = False
) -> nn.Module:
    """Replaces every compressed LSTM and cell by the nn.LSTM or nn.LSTMCell of its weights.

    They are float32, where the compressed ones were, and can be trained. filter_fn(module, name)
    picks the ones to replace; a module used in several places stays shared. Returns a copy, or the
    model itself with `inplace`; a model that is an LSTM itself is never changed, its replacement is
    returned. Raises ValueError, and changes nothing, where a compressed LSTM's tensors cannot be
    used.
    """
    if not inplace:
        model = copy.deepcopy(model)
    replacements: dict[nn.Module, nn.Module] = {
        module: module.to_float()
        for name, module in model.named_modules()
        if isinstance(module, FastModule) and (filter_fn is None or filter_fn(module, name))
    }
    return replace_modules(model, replacements)
