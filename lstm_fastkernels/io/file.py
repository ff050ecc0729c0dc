"""Saving and loading compressed LSTMs: one safetensors file, for Python and for C++.

docs/file_format.md is the specification.
"""

import itertools
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.lstms import replace_modules
from lstm_fastkernels.io import configuration
from lstm_fastkernels.io.atomic import write_atomically
from lstm_fastkernels.io.container import Contents, check_can_hold, map_file, read, to_bytes
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.weights.packing import Keep, PackedForFile, checked_keep, pack_for_file

METADATA_KEY = "lstm_fastkernels"
PACKED = "packed"  # below the name of an LSTM


def save_file(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    other_tensors: bool = False,
    packed: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a compressed LSTM, or all of those in a model, into a safetensors file.

    The file holds their canonical tensors, named as in the model's state_dict, and their options;
    with other_tensors also every other tensor of the state_dict as it is, so that load_file gives
    the whole model back. What is used in several places is loaded so too: an LSTM is written once,
    a tensor under each of its names. `metadata` goes beside the library's own.

    packed: the file also holds each LSTM packed for the CPU, which takes once more the room of its
    weights; processes that map the file (load_file, the NumPy runtime, C++ and C) then run from its
    pages and share them.

    The file appears whole or not at all: if anything fails, an old file under that name stays. One
    that is replaced keeps its mode and, where that is permitted, its owner. Raises ValueError for a
    model without compressed LSTMs, tensors that a file cannot hold, names that are taken and a path
    that is no file, TypeError for a subclass of the LSTMs, OSError where it cannot be written.
    """
    lstms = _lstms_of(module)
    tensors: dict[str, Tensor] = {}
    for name, lstm in lstms.items():
        prefix, own = configuration.prefix(name), lstm.canonical().tensors
        if others := lstm.state_dict().keys() - own.keys():
            raise ValueError(
                f"{prefix}{min(others)} is no tensor of a {type(lstm).__name__}: a file has no "
                "place for it"
            )
        tensors |= {prefix + key: tensor for key, tensor in own.items()}
    if other_tensors:
        tensors |= _tensors_outside(module, lstms.values())
    described = dict(metadata or {})
    if METADATA_KEY in described:
        raise ValueError(f"the metadata key {METADATA_KEY!r} is the library's own")
    copies = {name: _copy(name, tensor) for name, tensor in tensors.items()}
    packings = _packings(lstms, copies) if packed else {}
    hashes = {name: packing.packed_from for name, packing in packings.items()}
    described[METADATA_KEY] = configuration.to_json(lstms, hashes)
    first = {configuration.prefix(name) + PACKED: p.data for name, p in packings.items()}
    write_atomically(path, to_bytes(copies, described, first))


def load_file(
    path: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    keep: Keep = "canonical",
    mmap: bool = False,
) -> nn.Module:
    """Reads what save_file wrote; outputs are those of the saved LSTMs, bit by bit.

    Without a model the file must hold one LSTM that was saved by itself: it is returned in
    evaluation mode, on the CPU. Otherwise the model's modules of the names in the file, nn.LSTM,
    nn.LSTMCell or compressed ones of the same sizes, are replaced, each on its device (the CPU for
    the meta device) and in its mode, shared ones wherever they are, with their hooks and under the
    conditions of convert; and the file's other tensors
    are loaded into the model's. The model is returned, changed in place; a model that is an LSTM
    itself is never changed, its replacement is returned.

    The model may have more LSTMs and tensors than a file of LSTMs alone: they stay as they are. But
    a file that has other tensors must have all that the model has: what is left out would keep
    random weights in silence.

    keep: what the LSTMs hold of their weights, see FastQuantLSTM; a file does not say.

    mmap, with keep="packed": LSTMs that were saved with packed=True run from the file's pages,
    which all processes that map it share, unless another version of the library packed them or
    their canonical tensors were changed; shares_file says which do. As long as they do, the file
    may be removed or replaced, as save_file does, but not changed in place. What is written to
    their tensors stays the process's own.

    Everything is checked before anything changes. Raises ValueError that begins with the path for a
    file that is broken or does not fit the model, OSError for one that cannot be read.
    """
    if mmap and checked_keep(keep) != "packed":
        raise ValueError(
            f'mmap=True needs keep="packed", got {keep!r}: canonical tensors are memory of the '
            "process's own"
        )
    try:
        lstms, others = _read(Path(path), keep, mmap)
        if model is not None:
            return _put_into(model, lstms, others)
        if "" not in lstms:
            raise ValueError(
                f"holds the LSTMs {', '.join(lstms)} of a model: give the model to load_file"
            )
        return lstms[""].eval()
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _tensors_outside(model: nn.Module, modules: Collection[nn.Module]) -> dict[str, Tensor]:
    """The model's state_dict without these modules, wherever in the model they are used."""
    prefixes = tuple(
        configuration.prefix(name)
        for name, module in model.named_modules(remove_duplicate=False)
        if module in modules
    )
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


# ---- saving ----


def _lstms_of(model: nn.Module) -> dict[str, FastModule]:
    """The model's compressed LSTMs, each by its first name."""
    lstms = {
        name: module for name, module in model.named_modules() if isinstance(module, FastModule)
    }
    if not lstms:
        raise ValueError("there is no compressed LSTM to save: convert() the model first")
    for name, lstm in lstms.items():
        if type(lstm) not in configuration.CLASSES.values():
            raise TypeError(
                f"{name or 'the LSTM'} is a {type(lstm).__name__}: a file holds one of "
                f"{', '.join(configuration.CLASSES)}, no subclass"
            )
    return lstms


def _packings(
    lstms: Mapping[str, FastModule], tensors: Mapping[str, Tensor]
) -> dict[str, PackedForFile]:
    """The LSTMs packed, from their tensors as they will be in the file."""
    packings = {}
    for name, lstm in lstms.items():
        canonical = lstm.canonical()
        prefix = configuration.prefix(name)
        own = {key: tensors[prefix + key] for key in canonical.tensors}
        packings[name] = pack_for_file(canonical.spec.take(own))
    return packings


def _copy(name: str, tensor: Tensor) -> Tensor:
    """The tensor on the CPU, contiguous, in memory of its own, as safetensors wants it."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is no tensor but a {type(tensor).__name__}")
    if tensor.is_meta:
        raise ValueError(f"{name} is on the meta device: it has no values to save")
    check_can_hold(name, tensor)
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


# ---- loading ----


def _read(path: Path, keep: Keep, mmap: bool) -> tuple[dict[str, FastModule], dict[str, Tensor]]:
    """The file's LSTMs by their names, on the CPU, and its other tensors."""
    contents = map_file(path) if mmap else read(path)
    if METADATA_KEY not in contents.metadata:
        raise ValueError(
            f"the metadata has no {METADATA_KEY!r}: save_file did not write it. A float checkpoint "
            "loads with load_state_dict"
        )
    lstms = {}
    others = dict(contents.tensors)
    for name, described in configuration.from_json(contents.metadata[METADATA_KEY], keep).items():
        prefix = configuration.prefix(name)
        inside = [key for key in others if key.startswith(prefix)]
        tensors = {key.removeprefix(prefix): others.pop(key) for key in inside}
        try:
            _give(name, described, tensors, contents)
        except ValueError as error:
            raise ValueError(f"LSTM {name!r}: {error}") from error
        lstms[name] = described.lstm
    return lstms, others


def _give(
    name: str, described: configuration.Described, tensors: dict[str, Tensor], file: Contents
) -> None:
    """Gives an LSTM its tensors, those of the file below its name; ValueError where they are not
    its."""
    lstm, packed_from = described
    if packed_from is not None:
        if PACKED not in tensors:
            raise ValueError(f"lacks {PACKED}")
        packed = tensors.pop(PACKED)
        if packed.dtype != torch.uint8 or packed.dim() != 1:
            raise ValueError(
                f"{PACKED}: expected torch.uint8 of one dimension, got {packed.dtype} of "
                f"{packed.dim()}"
            )
    if file.is_mapped:
        # What the LSTM holds of them must not hold the whole file.
        tensors = {n: t.clone() if n.startswith("bias") else t for n, t in tensors.items()}
        if packed_from is not None:
            packed = file.in_place(configuration.prefix(name) + PACKED)
            if lstm.take_packed(packed, packed_from, tensors):
                return
    lstm.take_canonical(tensors)


def _put_into(
    model: nn.Module, lstms: Mapping[str, FastModule], others: dict[str, Tensor]
) -> nn.Module:
    replacements = _replacements(model, lstms)
    if others:
        _check_others(model, replacements, others)
    replaced = replace_modules(model, replacements)
    if others:
        model.load_state_dict(others, strict=False)
    return replaced


def _replacements(model: nn.Module, lstms: Mapping[str, FastModule]) -> dict[nn.Module, nn.Module]:
    """Which of the model's modules the LSTMs take the place of; ValueError if they may not."""
    modules = dict(model.named_modules(remove_duplicate=False))
    replacements: dict[nn.Module, nn.Module] = {}
    for name, lstm in lstms.items():
        if name not in modules:
            raise ValueError(f"the model has no module {name!r}")
        module = modules[name]
        if module in replacements:
            raise ValueError(f"{name!r} is, in the model, the module of another LSTM of the file")
        _check_twins(name, module, lstm)
        device = next(itertools.chain(module.parameters(), module.buffers())).device
        lstm.train(module.training)
        replacements[module] = lstm if device.type == "meta" else lstm.to(device)
    return replacements


def _check_twins(name: str, module: nn.Module, lstm: FastModule) -> None:
    """Raises ValueError unless the LSTM may take the module's place."""
    found, expected = type_before_parametrizations(module), lstm.float_class
    fast = [cls for cls in configuration.CLASSES.values() if cls.float_class is expected]
    if found not in (expected, *fast):
        raise ValueError(
            f"{name!r} is a {type(lstm).__name__} in the file, in the model a {found.__name__}"
        )
    wanted = configuration.arguments(module)
    for option, given in configuration.arguments(lstm).items():
        # dropout is idle: nobody would miss it.
        if given != wanted[option] and option != "dropout":
            raise ValueError(
                f"{name!r} has {option}={given} in the file, in the model {wanted[option]}"
            )


def _check_others(
    model: nn.Module, replaced: Collection[nn.Module], others: Mapping[str, Tensor]
) -> None:
    """Raises ValueError unless the tensors are all that the model has beside what is replaced."""
    lacking = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, FastModule) and module not in replaced
    }
    targets = _tensors_outside(model, [*replaced, *lacking.values()])
    if nowhere := others.keys() - targets.keys():
        raise ValueError(f"the model has no place for {', '.join(sorted(nowhere))}")
    if missing := lacking.keys() | (targets.keys() - others.keys()):
        raise ValueError(f"the file lacks the model's {', '.join(sorted(missing))}")
    for name, tensor in others.items():
        if fault := _fault(tensor, targets[name]):
            raise ValueError(f"{name}: {fault}")


def _fault(tensor: Tensor, target: Tensor) -> str | None:
    """Why a tensor of the file cannot be copied into one of the model."""
    if tensor.dtype != target.dtype or tensor.shape != target.shape:
        return (
            f"{tensor.dtype} {tuple(tensor.shape)} in the file, "
            f"in the model {target.dtype} {tuple(target.shape)}"
        )
    if target.is_meta:
        return "in the model it is on the meta device, which holds no values"
    if any(n > 1 and stride == 0 for n, stride in zip(target.shape, target.stride(), strict=True)):
        return "in the model several of its elements share memory"
    if target.is_inference() and not torch.is_inference_mode_enabled():
        return "in the model it is an inference tensor, which cannot change"
    return None
