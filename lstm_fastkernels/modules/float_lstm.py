"""nn.LSTM and nn.LSTMCell as they are found in models: their parameters, and what else they do.

People and libraries put hooks, parametrizations, attributes and methods on modules. What computes
as the class does can be replaced; for all else there is a reason here. Needs no compiled op.
"""

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.modules.quantized_lstm import quantized_attributes, quantized_classes
from lstm_fastkernels.weights.canonical import WeightSpec
from lstm_fastkernels.weights.checks import Kind
from lstm_fastkernels.weights.shape import LstmShape

_T = TypeVar("_T")

# nn.LSTM's options and their defaults.
LSTM_OPTIONS: dict[str, int | float] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
}

# Where nn.Module keeps what runs at a call.
_CALL_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_is_full_backward_hook",
)
_STATE_HOOKS = (
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
# Set by Module.compile: another way to run the same, which copies lose too.
_COMPILED = "_compiled_call_impl"


# ---- parameters ----


def parameter_kinds(module: nn.Module) -> dict[str, Kind]:
    """What the parameters must be, by their names, in the order in which the classes have them."""
    assert isinstance(module, nn.LSTM | nn.LSTMCell)
    kinds = WeightSpec(shape_of(module), module.bias, {}).float_kinds()
    return {name.removesuffix(_layer_end(module)): kind for name, kind in kinds.items()}


def shape_of(module: nn.Module) -> LstmShape:
    """The sizes of an nn.LSTM, or of an nn.LSTMCell as an LSTM of one layer."""
    assert isinstance(module, nn.LSTM | nn.LSTMCell)
    if isinstance(module, nn.LSTMCell):
        return LstmShape(module.input_size, module.hidden_size)
    return LstmShape(
        module.input_size,
        module.hidden_size,
        module.proj_size,
        module.num_layers,
        num_directions=2 if module.bidirectional else 1,
    )


def _layer_end(module: nn.Module) -> str:
    """What the names of an LSTM's parameters end in and those of a cell do not."""
    return "_l0" if isinstance(module, nn.LSTMCell) else ""


def matrix_names(module: nn.Module) -> list[str]:
    return [name for name in parameter_kinds(module) if name.startswith("weight")]


def tensor_fault(tensor: object, kind: Kind) -> str | None:
    """What keeps a float parameter's values from being read, if anything."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}, no plain tensor: make it one first"
    assert isinstance(tensor, Tensor)
    if tensor.layout != torch.strided:
        return f"layout {tensor.layout}: make it dense first"
    if tensor.is_meta:
        return "on the meta device: load its values first"
    return kind.fault(tensor)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, parametrized ones as the module would use them in evaluation.

    Raises ValueError for what parts_fault finds and for tensors whose values cannot be read, are of
    the wrong size or not finite. Changes nothing in the module.
    """
    if fault := parts_fault(module):
        raise ValueError(fault)
    kinds = parameter_kinds(module)
    parametrized = getattr(module, "parametrizations", {})
    with torch.no_grad(), _parametrizations_in_evaluation(module):
        # Not by getattr, which finds what parametrize.cached() keeps.
        weights = {
            name: parametrized[name]() if name in parametrized else getattr(module, name)
            for name in kinds
        }
    for name, kind in kinds.items():
        if fault := tensor_fault(weights[name], kind):
            raise ValueError(f"{name}: {fault}")
    if len(devices := {str(weight.device) for weight in weights.values()}) > 1:
        raise ValueError(f"its parameters are on several devices: {', '.join(sorted(devices))}")
    return weights


def weights_as_lstm(module: nn.Module) -> dict[str, Tensor]:
    """weights_of, by the names of an nn.LSTM also for a cell."""
    return as_lstm(module, weights_of(module))


def as_lstm(module: nn.Module, by_name: Mapping[str, _T]) -> dict[str, _T]:
    """What a module has for its parameters, by the names that these have in an nn.LSTM: those of a
    cell are those of one layer."""
    return {name + _layer_end(module): value for name, value in by_name.items()}


def own_names(module: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """These names of a module's parameters, by those that they have in an nn.LSTM."""
    return as_lstm(module, {name: name for name in names})


@contextmanager
def _parametrizations_in_evaluation(module: nn.Module) -> Iterator[None]:
    """Some take a step each time they compute in training: a power iteration, a dropout."""
    found = list(module.parametrizations.modules()) if parametrize.is_parametrized(module) else []  # type: ignore[union-attr]
    training = [part for part in found if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def new_like(module: Any, **sizes: int) -> nn.Module:
    """An nn.LSTM or nn.LSTMCell like this one with new weights; sizes: arguments that differ."""
    parameter = next(module.parameters())
    options = {"input_size": module.input_size, "hidden_size": module.hidden_size}
    names = ["bias"] if isinstance(module, nn.LSTMCell) else LSTM_OPTIONS
    options |= {name: getattr(module, name) for name in names} | sizes
    cls: Any = type_before_parametrizations(module)
    new: nn.Module = cls(**options, device=parameter.device, dtype=parameter.dtype)
    return new.train(module.training)


# ---- reasons not to be replaced ----


def fault_of(module: nn.Module) -> str | None:
    """Why a float LSTM may compute, or save, something else than its class does."""
    return parts_fault(module) or life_fault(module)


def prepared_fault(module: nn.Module) -> str | None:
    """Whether it computes as a quantized LSTM already, which quantization-aware training has made
    it do."""
    forward = vars(type(module)).get("forward")
    if not parametrize.is_parametrized(module) or not _is_ours(forward):
        return None
    return (
        "it is prepared for quantization-aware training, which quantize_ with a QATConfig of step "
        '"convert" ends'
    )


def parts_fault(module: nn.Module) -> str | None:
    """Which parameters, buffers and modules are missing or too many."""
    if fault := missing_fault(module):
        return fault
    kinds = parameter_kinds(module)
    parametrized = getattr(module, "parametrizations", {}).keys()
    own = [name for name, parameter in module._parameters.items() if parameter is not None]
    modules = [name for name in module._modules if name != "parametrizations"]
    for name in [*own, *parametrized, *module._buffers, *modules]:
        if name not in kinds:
            return f"it has {name}, which {_class_name(module)} does not have: take that off first"
    return None


def missing_fault(module: nn.Module) -> str | None:
    """Which parameters it does not have, or has only until its next call."""
    for hook in module._forward_pre_hooks.values():
        if type(hook).__module__.startswith("torch.nn.utils."):
            return (
                f"{_name_of(hook)} computes its weights anew before each call: make them permanent "
                "first, with torch.nn.utils.remove_weight_norm, remove_spectral_norm or "
                "prune.remove"
            )
    parametrized = getattr(module, "parametrizations", {}).keys()
    for name in parameter_kinds(module):
        if name not in parametrized and not isinstance(module._parameters.get(name), nn.Parameter):
            return (
                f"{name} is no parameter of it: put the weights back as parameters before, "
                "outside the wrapper that took or shards them"
            )
    return None


def life_fault(module: nn.Module) -> str | None:
    """Which hook or method of the instance another module could not take over."""
    for kind in _STATE_HOOKS:
        for hook in vars(module)[kind].values():
            if not _is_ours(getattr(hook, "hook", hook), parametrize, parametrizations):
                return (
                    f"the hook {_name_of(hook)} works on its state_dict, which gets other "
                    "tensors: remove it first"
                )
    for kind in _CALL_HOOKS[:-1]:
        for hook in vars(module)[kind].values():
            if refers_to(hook, module):
                return f"the hook {_name_of(hook)} holds the module itself: remove it first"
    if name := _overridden(module):
        return (
            f"its {name} is not that of {_class_name(module)} but was set on this module, as "
            "wrappers, profilers and accelerate do: take that off first"
        )
    return None


def _overridden(module: nn.Module) -> str | None:
    base = type_before_parametrizations(module)
    for name in vars(module):
        if callable(getattr(base, name, None)) and not is_own_method(module, name):
            return name
    if parametrize.is_parametrized(module):
        # parametrize has made a class for this module alone.
        for name, value in vars(type(module)).items():
            if callable(getattr(base, name, None)) and not _is_ours(value, parametrize):
                return name
    return None


def is_own_method(module: nn.Module, name: str) -> bool:
    """Whether an attribute is the class's method, as accelerate leaves it on taking its own off."""
    value = vars(module)[name]
    return (
        isinstance(value, types.MethodType)
        and value.__self__ is module
        and value.__func__ is getattr(type_before_parametrizations(module), name, None)
    )


def _is_ours(function: Any, *others: Any) -> bool:
    """Whether this package, or one of the other modules, has defined it."""
    where = str(getattr(function, "__module__", ""))
    return where.split(".")[0] == __package__.split(".")[0] or where in [o.__name__ for o in others]


def _name_of(hook: Any) -> str:
    hook = getattr(hook, "hook", hook)
    return getattr(hook, "__qualname__", type(hook).__qualname__)


def _class_name(module: nn.Module) -> str:
    return type_before_parametrizations(module).__name__


def refers_to(value: Any, module: nn.Module) -> bool:
    """Whether a value is the module, a method of it, or a container that has it."""
    return any(found is module for found in modules_in(value))


def modules_in(value: Any, depth: int = 3) -> Iterator[nn.Module]:
    """The modules that a value is or holds outside of nn.Module's registry."""
    if isinstance(value, nn.Module):
        yield value
        return
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.MethodType):
        parts = [value.__self__]
    else:
        return
    if depth:
        for part in parts:
            yield from modules_in(part, depth - 1)


# ---- what goes over to a replacement ----


def carried_attributes(module: nn.Module) -> dict[str, Any]:
    """What people have put on the module beside what its class makes."""
    own = _own_attributes(type_before_parametrizations(module))
    return {
        name: value
        for name, value in vars(module).items()
        if name not in own and not is_own_method(module, name)
    }


@functools.cache
def _own_attributes(cls: type[nn.Module]) -> frozenset[str]:
    if cls in quantized_classes():
        return quantized_attributes(cls)
    return frozenset(vars(cls(1, 1, device="meta"))) | {_COMPILED}


def copy_hooks(module: nn.Module, to: nn.Module) -> None:
    """Gives a module the other's hooks that run at a call."""
    for name in _CALL_HOOKS:
        hooks = vars(module)[name]
        vars(to)[name] = hooks.copy() if isinstance(hooks, dict) else hooks


def share_hooks(module: nn.Module, to: nn.Module) -> None:
    """The same for one that takes its place: handles of the hooks go on working."""
    for name in _CALL_HOOKS:
        vars(to)[name] = vars(module)[name]
