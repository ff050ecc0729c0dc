"""What a file says about the LSTMs in it: a JSON text, see docs/file_format.md."""

import itertools
import json
import re
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from lstm_fastkernels.modules.cell import FastLSTMCell, FastQuantLSTMCell, FastSparseLSTMCell
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.float_lstm import LSTM_OPTIONS
from lstm_fastkernels.modules.lstm import FastQuantLSTM, FastSparseLSTM
from lstm_fastkernels.weights.packing import Keep
from lstm_fastkernels.weights.shape import MAX_LAYERS, MAX_SIZE

FORMAT_VERSION = 2
NUMERIC_CONTRACT = 2  # of the kernels, see docs/numerics.md

CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (FastQuantLSTM, FastQuantLSTMCell, FastSparseLSTM, FastSparseLSTMCell)
}

# What the kernels can run; held before a module is built, which takes time and memory by its sizes.
_RANGES = {
    "input_size": (1, MAX_SIZE),
    "hidden_size": (1, MAX_SIZE),
    "num_layers": (1, MAX_LAYERS),
    "proj_size": (0, MAX_SIZE),
}

_TYPES: dict[str, type] = {
    "class": str,
    "input_size": int,
    "hidden_size": int,
    **{name: type(default) for name, default in LSTM_OPTIONS.items()},
    "precision": dict,
    "pair_safe": object,
    "group_size": int,
    "layout": str,
    "block_size": list,
}
_JSON_NAMES: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a string",
}


def prefix(name: str) -> str:
    """What the names of a module's tensors begin with."""
    return f"{name}." if name else ""


def arguments(lstm: nn.Module) -> dict[str, Any]:
    """nn.LSTM's arguments that describe an LSTM or, with one layer and no options, a cell."""
    defaults = {"input_size": 0, "hidden_size": 0, **LSTM_OPTIONS}
    return {name: type(default)(getattr(lstm, name, default)) for name, default in defaults.items()}


class Described(NamedTuple):
    """An LSTM of a file. packed_from: the hash of the tensors that its `packed` was made from, if
    there is one."""

    lstm: FastModule
    packed_from: str | None


def to_json(lstms: Mapping[str, FastModule], packed_from: Mapping[str, str]) -> str:
    """The configuration of the LSTMs by their names; packed_from is that of those that are packed,
    too."""
    described = {
        name: {
            "class": type(lstm).__name__,
            **arguments(lstm),
            "precision": dict(lstm.precision),
            "pair_safe": lstm.pair_safe,
            "group_size": lstm.group_size,
            "layout": lstm.layout,
            "block_size": lstm.block_size,
            **({"packed_from": packed_from[name]} if name in packed_from else {}),
        }
        for name, lstm in lstms.items()
    }
    versions = {"format_version": FORMAT_VERSION, "numeric_contract": NUMERIC_CONTRACT}
    return json.dumps({**versions, "lstms": described})


def from_json(text: str, keep: Keep) -> dict[str, Described]:
    """The LSTMs by their names, on the meta device; ValueError says what is wrong."""
    try:
        configuration = loads(text)
    except ValueError as error:
        raise ValueError(f"the configuration is not JSON: {error}") from error
    _check_versions(configuration)
    lstms = _get(configuration, "lstms", dict)
    if not lstms:
        raise ValueError("the file holds no LSTM")
    # Sorted, a name is followed by those that lie inside.
    for outer, inner in itertools.pairwise(sorted(map(prefix, lstms))):
        if inner.startswith(outer):
            raise ValueError(f"LSTM {inner[:-1]!r} lies inside LSTM {outer[:-1]!r}")
    modules = {}
    for name, described in lstms.items():
        try:
            modules[name] = Described(_build(described, keep), _packed_from(described))
        except ValueError as error:
            raise ValueError(f"LSTM {name!r}: {error}") from error
    return modules


def _check_versions(configuration: object) -> None:
    version = _get(configuration, "format_version", int)
    if version == 1:
        raise ValueError(
            "format version 1 was made by an unreleased version: convert the model again"
        )
    if version != FORMAT_VERSION:
        raise ValueError(
            f"the file has format version {version}, this library reads version {FORMAT_VERSION}"
        )
    contract = _get(configuration, "numeric_contract", int)
    if contract != NUMERIC_CONTRACT:
        raise ValueError(
            f"the file was made for numeric contract {contract}, this library computes contract "
            f"{NUMERIC_CONTRACT}: convert the model again"
        )


def loads(text: str) -> Any:
    """json.loads, but ValueError for whatever another reader may understand differently."""
    try:
        return json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError("too deeply nested") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _get(described: object, key: str, kind: type) -> Any:
    if not isinstance(described, dict):
        raise ValueError(f"the configuration must be an object, got {reprlib.repr(described)}")
    if key not in described:
        raise ValueError(f"the configuration lacks {key!r}")
    value = described[key]
    if not _is(value, kind):
        raise ValueError(f"{key} must be {_JSON_NAMES[kind]}, got {reprlib.repr(value)}")
    return value


def _is(value: object, kind: type) -> bool:
    # An integer is a number too; but Python's bool, an int, is not JSON's. Any value is an object.
    return type(value) is kind or kind is object or (kind is float and type(value) is int)


def _build(described: object, keep: Keep) -> FastModule:
    given = {key: _get(described, key, kind) for key, kind in _TYPES.items()}
    name = given.pop("class")
    if name not in CLASSES:
        raise ValueError(f"class must be one of {list(CLASSES)}, got {name!r}")
    for key, (low, high) in _RANGES.items():
        if not low <= given[key] <= high:
            raise ValueError(f"{key} must be in {low}..{high}, got {given[key]}")
    given["block_size"] = _block_size(given["block_size"])
    if issubclass(CLASSES[name], FastLSTMCell):
        for option, default in LSTM_OPTIONS.items():
            if option != "bias" and given.pop(option) != default:
                raise ValueError(f"{option} of a cell must be {json.dumps(default)}")
    lstm: FastModule = CLASSES[name](**given, device="meta", keep=keep)
    named, expected = given["precision"].keys(), lstm.precision.keys()
    if named != expected:
        raise ValueError(f"precision must name {', '.join(expected)}, got {', '.join(named)}")
    return lstm


def _packed_from(described: dict[str, Any]) -> str | None:
    if "packed_from" not in described:
        return None
    given: str = _get(described, "packed_from", str)
    if not re.fullmatch("[0-9a-f]{16}", given):
        raise ValueError(f"packed_from must be 16 hexadecimal digits, got {reprlib.repr(given)}")
    return given


def _block_size(given: list[Any]) -> tuple[int, int]:
    if not (len(given) == 2 and all(_is(n, int) and 1 <= n <= MAX_SIZE for n in given)):
        raise ValueError(
            f"block_size must be two integers in 1..{MAX_SIZE}, got {reprlib.repr(given)}"
        )
    return given[0], given[1]
