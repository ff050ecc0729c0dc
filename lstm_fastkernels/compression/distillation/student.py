"""A smaller model of the same kind, to be taught."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from lstm_fastkernels.compression.following import Following, readers_of
from lstm_fastkernels.compression.lstms import (
    FLOAT_LSTMS,
    FilterFn,
    check_unwrapped,
    find_lstms,
    label_of,
    replace_modules,
)
from lstm_fastkernels.modules.float_lstm import new_like, shape_of


def student_like(
    teacher: nn.Module,
    *,
    hidden_size: int | None = None,
    num_layers: int | None = None,
    following: Following | None = None,
    filter_fn: FilterFn | None = None,
) -> nn.Module:
    """A copy of a model in which each nn.LSTM and nn.LSTMCell is another one, of fewer units or
    layers and with new random weights; a teacher that is an LSTM itself gives just that one.

    hidden_size, num_layers: of the new ones, None for the teacher's; cells have one layer. All
    other options, proj_size among them, hooks, dtype and device are the teacher's. What is no LSTM
    is copied with its weights, which are a good beginning.
    following: for each LSTM, by its dotted name in the model, the names of the modules that read
    its output as it is, as for prune_hidden_: an nn.Linear, nn.LSTM or nn.LSTMCell, which is made
    anew for its new width. An LSTM whose output changes its width must be named; with an empty
    sequence its readers are left to the caller. filter_fn(module, name) picks the LSTMs.

    The teacher stays as it is, and modules that it uses in several places are shared in the student
    too. Raises ValueError, naming the module, for what does not fit: nothing to change, a name that
    means no module, an output that changes its width unnamed, a reader of another width or of two
    LSTMs, and as `convert` does for LSTMs that cannot be replaced; TypeError for readers of another
    class.
    """
    if hidden_size is None and num_layers is None:
        raise ValueError("give hidden_size or num_layers of the student")
    for name, value in {"hidden_size": hidden_size, "num_layers": num_layers}.items():
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    lstms = {module: name for name, module in find_lstms(teacher, filter_fn)}
    if not lstms:
        raise ValueError("found no nn.LSTM or nn.LSTMCell in the teacher")
    check_unwrapped(teacher, lstms)
    readers = readers_of(teacher, following or {}, FLOAT_LSTMS)
    widths = _widths_of_readers(teacher, lstms, hidden_size, readers)
    names = {module: name for name, module in teacher.named_modules()}
    replacements = {}
    for module in lstms.keys() | widths.keys():
        sizes = {"input_size": widths.get(module)}
        if module in lstms:
            sizes |= {"hidden_size": hidden_size, "num_layers": num_layers}
        try:
            replacements[names[module]] = _new(module, sizes)
        except ValueError as error:
            raise ValueError(f"{label_of(names[module])}: {error}") from error
    student = copy.deepcopy(teacher)
    copies = dict(student.named_modules())
    return replace_modules(student, {copies[name]: new for name, new in replacements.items()})


def _widths_of_readers(
    teacher: nn.Module,
    lstms: Mapping[nn.Module, str],
    hidden_size: int | None,
    readers: Mapping[nn.Module, list[nn.Module]],
) -> dict[nn.Module, int]:
    """The new input width of each module that reads an output whose width changes."""
    widths: dict[nn.Module, int] = {}
    for lstm, name in lstms.items():
        shape = shape_of(lstm)
        if hidden_size in (None, shape.hidden_size) or shape.proj_size:
            continue
        if lstm is not teacher and lstm not in readers:
            raise ValueError(
                f"the output of {name!r} gets another width: name the modules that read it in "
                "`following`, or give an empty sequence there to change them yourself"
            )
        for reader in readers.get(lstm, ()):
            widths[reader] = shape.num_directions * hidden_size
    return widths


def _new(module: Any, sizes: Mapping[str, int | None]) -> nn.Module:
    """A new module with these sizes, None for those that it has."""
    given = {name: size for name, size in sizes.items() if size is not None}
    if not isinstance(module, nn.Linear):
        if isinstance(module, nn.LSTMCell):
            given.pop("num_layers", None)
        return new_like(module, **given)
    weight, width = module.weight, given["input_size"]
    has_bias = module.bias is not None
    new = nn.Linear(width, module.out_features, has_bias, weight.device, weight.dtype)
    return new.train(module.training)
