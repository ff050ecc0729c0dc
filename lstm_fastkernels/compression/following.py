"""`following`: which modules of a model read the output of its LSTMs."""

from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.pruning.units import input_width, layers_of
from lstm_fastkernels.modules.stacked import StackedLSTM

Following = Mapping[str, str | Iterable[str]]


def stacked_layers(model: nn.Module) -> set[nn.Module]:
    """The layers of its StackedLSTMs."""
    return {layer for m in model.modules() if isinstance(m, StackedLSTM) for layer in m.layers}


def readers_of(
    model: nn.Module, following: Following, classes: tuple[type[nn.Module], ...]
) -> dict[nn.Module, list[nn.Module]]:
    """`following`, with modules for their names.

    classes: of LSTMs; an nn.Linear may read one, too. Raises ValueError, naming the module, for one
    that is not in the model, reads another width or reads two LSTMs and for layers of a
    StackedLSTM, TypeError for other classes.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    stacked = stacked_layers(model)

    def named(name: str, *kinds: type[nn.Module]) -> nn.Module:
        if name not in modules:
            raise ValueError(f"following: the model has no module {name!r}")
        module = modules[name]
        if module in stacked:
            raise ValueError(f"following: {name!r} is a layer of a StackedLSTM, name that instead")
        kind = type_before_parametrizations(module)
        if kind not in kinds:
            raise TypeError(
                f"following: {name!r} must be one of {[k.__name__ for k in kinds]}, "
                f"got {kind.__name__}"
            )
        return module

    readers: dict[nn.Module, list[nn.Module]] = {}
    sources: dict[nn.Module, nn.Module] = {}
    for source_name, given in following.items():
        source = named(source_name, *classes)
        width = sum(units.size for units in layers_of(source)[-1].outputs)
        found = readers.setdefault(source, [])
        for name in [given] if isinstance(given, str) else given:
            reader = named(name, nn.Linear, *classes)
            if input_width(reader) != width:
                raise ValueError(
                    f"following: {name!r} reads {input_width(reader)} features, but "
                    f"{source_name!r} gives {width}"
                )
            if sources.setdefault(reader, source) is not source:
                raise ValueError(f"following: {name!r} cannot read two LSTMs")
            found.append(reader)
    return readers
