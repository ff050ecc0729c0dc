"""The LSTMs of a model: finding them, what keeps them from being replaced, replacing them.

Needs no compiled op.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.modules.float_lstm import (
    carried_attributes,
    fault_of,
    is_own_method,
    life_fault,
    missing_fault,
    modules_in,
    parameter_kinds,
    prepared_fault,
    share_hooks,
    tensor_fault,
)
from lstm_fastkernels.modules.parametrized import originals_of, parametrization_of
from lstm_fastkernels.weights.checks import Kind

FilterFn = Callable[[nn.Module, str], bool]

FLOAT_LSTMS = (nn.LSTM, nn.LSTMCell)

# Classes that keep the parameters they were made with, by name since importing them costs seconds.
SHARDING = {
    "FullyShardedDataParallel": "by FSDP: gather the weights into a model without it first",
    "FSDPModule": "by FSDP: gather the weights into a model without it first",
}
WRAPPING = SHARDING | {
    "DistributedDataParallel": "by DistributedDataParallel: give the model inside, its `.module`",
    "DeepSpeedEngine": "by DeepSpeed: give the model inside, its `.module`",
}


def label_of(name: str) -> str:
    """A module's dotted name in the model, in a message."""
    return name or "the model"


def join(module: str, name: str) -> str:
    """The dotted name of what a module has."""
    return f"{module}.{name}".removeprefix(".")


def find_lstms(
    model: nn.Module,
    filter_fn: FilterFn | None = None,
    *,
    classes: Collection[type[nn.Module]] = FLOAT_LSTMS,
) -> Iterator[tuple[str, nn.Module]]:
    """Every module of these classes that filter_fn(module, name) picks, and its dotted name.

    Subclasses are left out, since they may compute something else; parametrized ones are not.
    Raises TypeError for what is no nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected an nn.Module, got {type(model).__name__}: {model!r:.80}")
    for name, module in model.named_modules():
        if type_before_parametrizations(module) in classes and (
            filter_fn is None or filter_fn(module, name)
        ):
            yield name, module


def parameter_owners(model: nn.Module) -> dict[int, list[str]]:
    """The dotted names of each parameter, by its id: several if modules share it."""
    owners: dict[int, list[str]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module._parameters.items():
            owners.setdefault(id(parameter), []).append(join(module_name, name))
    return owners


def check_unprepared(module: nn.Module, name: str) -> None:
    """Raises ValueError for an LSTM prepared for quantization-aware training."""
    if fault := prepared_fault(module):
        raise ValueError(f"{label_of(name)}: {fault}")


def check_matrices(
    module: nn.Module,
    name: str,
    matrices: Collection[str],
    owners: Mapping[int, list[str]],
    beneath: tuple[type[nn.Module], ...] = (),
) -> None:
    """Raises ValueError for a matrix of an LSTM that cannot be parametrized.

    owners: those of the model's parameters. beneath: classes of which a parametrization may be
    there already.
    """
    check_unprepared(module, name)
    for matrix in matrices:
        if not parametrize.is_parametrized(module, matrix):
            continue
        if [part for part in parametrization_of(module, matrix) if not isinstance(part, beneath)]:
            raise ValueError(
                f"{join(name, matrix)} has another parametrization: make it permanent first"
            )
    if fault := missing_fault(module):
        raise ValueError(f"{label_of(name)}: {fault}")
    kinds = parameter_kinds(module)
    for matrix in matrices:
        for own, parameter in originals_of(module, matrix).items():
            kind, label = kinds[matrix], join(name, own)
            if parametrize.is_parametrized(module, matrix):
                kind = Kind(None, (None, None))
            if fault := tensor_fault(parameter, kind):
                raise ValueError(f"{label}: {fault}")
            if others := [owner for owner in owners[id(parameter)] if owner != label]:
                raise ValueError(f"{label} is shared with {', '.join(others)}: untie them first")


def check_outermost(module: nn.Module, name: str, matrices: Collection[str], what: str) -> None:
    """Raises ValueError for a matrix of an LSTM with another parametrization on top of its `what`,
    which cannot be taken off alone, and for one prepared for training."""
    check_unprepared(module, name)
    for matrix in matrices:
        if len(parametrization_of(module, matrix)) > 1:
            raise ValueError(
                f"{join(name, matrix)} has another parametrization on top of its {what}, which "
                "would become permanent too"
            )


def check_unwrapped(
    model: nn.Module, modules: Collection[nn.Module], wrappers: Mapping[str, str] = WRAPPING
) -> None:
    """Raises ValueError, naming the module, for one inside one of these wrappers."""
    for outer in model.modules():
        for cls in type(outer).__mro__:
            if cls.__name__ in wrappers:
                inside = set(outer.modules())
                for name, module in model.named_modules():
                    if module in modules and module in inside:
                        raise ValueError(f"{label_of(name)} is wrapped {wrappers[cls.__name__]}")


def check_replaceable(model: nn.Module, modules: Collection[nn.Module]) -> None:
    """Raises ValueError, naming the module, where replacing some of the model's would go wrong."""
    check_unwrapped(model, modules)
    names = {module: name for name, module in model.named_modules()}
    for outer in names:
        if type(outer).__name__ == "OptimizedModule" and outer._modules["_orig_mod"] in modules:
            raise ValueError(
                f"{label_of(names[outer])} is compiled by torch.compile, which keeps what it "
                "compiled: give the module inside, and compile afterwards"
            )
    for module in modules:
        is_float = isinstance(module, nn.LSTM | nn.LSTMCell)
        if fault := fault_of(module) if is_float else life_fault(module):
            raise ValueError(f"{label_of(names[module])}: {fault}")
    for place, module in unregistered(model):
        if module in modules:
            raise ValueError(
                f"{label_of(names[module])} is also in {place}, where it cannot be replaced: keep "
                "it in nn.Module attributes, nn.ModuleList or nn.ModuleDict only"
            )


def unregistered(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules in plain attributes, lists and bound methods of the model's modules, and where."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute != "_modules" and not is_own_method(module, attribute):
                for found in modules_in(value):
                    yield join(name, attribute), found


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts each replacement, with its module's hooks and what people have put on that, in its place
    wherever it is in the model; returns the model's, if any.

    Raises ValueError, and changes nothing, where check_replaceable does and for attributes whose
    names the replacement has for something else.
    """
    check_replaceable(model, replacements.keys())
    for name, module in model.named_modules():
        if module in replacements:
            for attribute in carried_attributes(module):
                if hasattr(replacements[module], attribute):
                    raise ValueError(
                        f"{label_of(name)}: its attribute {attribute} has the name of one of "
                        f"{type(replacements[module]).__name__}: rename it first"
                    )
    for module, replacement in replacements.items():
        share_hooks(module, replacement)
        vars(replacement).update(carried_attributes(module))
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(model, model)
