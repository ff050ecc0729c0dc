"""What is left as it is in a model, though it is an LSTM or looks like one."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.lstms import (
    FLOAT_LSTMS,
    FilterFn,
    find_lstms,
    label_of,
    unregistered,
)
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.quantized_lstm import quantized_classes


class _Leftover(NamedTuple):
    name: str
    module: nn.Module
    reason: str

    def __str__(self) -> str:
        return f"{label_of(self.name)} ({type(self.module).__name__}), {self.reason}"


def leftovers(
    model: nn.Module, converted: Collection[nn.Module], filter_fn: FilterFn | None
) -> str | None:
    """A sentence that names what was not converted and why; None if that is all as asked for.

    What filter_fn does not pick is not named. Compressed LSTMs, GRUs and the like are named only
    where nothing was converted.
    """
    found = _resembling(model, converted)
    if not converted:
        found = found or _only(model)
        if not found and not any(find_lstms(model)):
            return "found no nn.LSTM or nn.LSTMCell in the model"
    picked = [leftover for leftover in found if _picks(filter_fn, leftover)]
    if not picked:
        return None
    return f"left as they are: {'; '.join(map(str, picked))}"


def _resembling(model: nn.Module, converted: Collection[nn.Module]) -> list[_Leftover]:
    """What is, or by its name may be, an LSTM, but none that can be converted."""
    inside = _inside_quantized(model)
    reasons = {
        module: None if module in converted else _reason(module)
        for module in model.modules()
        if module not in inside
    }
    lstms = {m for m in reasons if m in converted or isinstance(m, (FastModule, *FLOAT_LSTMS))}
    alike = lstms | {module for module, reason in reasons.items() if reason}
    found = [
        _Leftover(name, module, reason)
        for name, module in model.named_modules()
        if (reason := reasons.get(module))
        # A model around an LSTM may be called after it.
        and not any(child in alike for child in module.modules() if child is not module)
    ]
    return found + [
        _Leftover(place, module, "kept outside nn.Module's registry: use nn.ModuleList")
        for place, module in unregistered(model)
        if isinstance(module, FLOAT_LSTMS) and module not in reasons
    ]


def _reason(module: nn.Module) -> str | None:
    if isinstance(module, FastModule):
        return None
    if isinstance(module, torch.jit.ScriptModule):
        scripted = "scripted: convert before torch.jit.script or torch.jit.trace"
        return scripted if "lstm" in module.original_name.lower() else None
    for cls in FLOAT_LSTMS:
        if type_before_parametrizations(module) is cls:
            return None
        if isinstance(module, cls):
            return f"a subclass of nn.{cls.__name__}, which may compute something else"
    if type(module) in quantized_classes():
        return "quantized by torch.ao to int8: convert it with weights='int8'"
    if _is_quantized(module):
        return "quantized by torch.ao: convert the float model"
    return "no nn.LSTM, for all its name" if "lstm" in type(module).__name__.lower() else None


def _only(model: nn.Module) -> list[_Leftover]:
    """What is of interest in a model that has nothing else."""
    scripted = {
        child
        for module in model.modules()
        if isinstance(module, torch.jit.ScriptModule)
        for child in module.children()
    }
    return [
        _Leftover(name, module, reason)
        for name, module in model.named_modules()
        if module not in scripted and (reason := _reason_alone(module))
    ]


def _reason_alone(module: nn.Module) -> str | None:
    if isinstance(module, FastModule):
        return "compressed already"
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted, which hides what is inside: convert before"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase) and not isinstance(module, FLOAT_LSTMS):
        return "no LSTM"
    return None


def _is_quantized(module: nn.Module) -> bool:
    cls = type(module)
    return cls.__module__.startswith("torch.ao.") and "lstm" in cls.__name__.lower()


def _inside_quantized(model: nn.Module) -> set[nn.Module]:
    """The parts of what torch.ao has quantized, LSTMs in name too."""
    return {
        part
        for module in model.modules()
        if _is_quantized(module)
        for part in module.modules()
        if part is not module
    }


def _picks(filter_fn: FilterFn | None, leftover: _Leftover) -> bool:
    if filter_fn is None:
        return True
    try:
        return filter_fn(leftover.module, leftover.name)
    except AttributeError:  # it may ask for what only LSTMs have
        return False
