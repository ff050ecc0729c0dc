"""safetensors files: read or mapped, and written with packed weights in front of other tensors."""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from lstm_fastkernels.io import configuration
from lstm_fastkernels.io.read import open_file, read_file

_LENGTH_BYTES = 8  # of what says how long the header is
_CACHE_LINE = 64
_INVALID = (SafetensorError, KeyError, RuntimeError)  # the last two name types and shapes

Header = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """Of a mapped file, the tensors are pages of it until they are gone."""

    tensors: dict[str, Tensor]
    header: Header
    _mapping: mmap.mmap | None = None

    @property
    def metadata(self) -> dict[str, str]:
        return self.header.get("__metadata__") or {}

    @property
    def is_mapped(self) -> bool:
        return self._mapping is not None

    def in_place(self, name: str) -> Tensor:
        """A tensor of bytes, as pages of the mapped file that are apart from those of `tensors`.
        Writes to it stay the process's own."""
        assert self._mapping is not None
        begin, end = self.header[name]["data_offsets"]
        if begin == end:
            return self.tensors[name]
        place = {"count": end - begin, "offset": _data_begin(self._mapping) + begin}
        with torch.inference_mode(False):  # a module notices writes to it
            return torch.frombuffer(self._mapping, dtype=torch.uint8, **place)


def read(path: Path) -> Contents:
    """A whole file. Raises OSError if it cannot be read, ValueError if it is not valid."""
    data = read_file(path)
    try:
        tensors = load(data)
    except _INVALID as error:
        raise _invalid(error) from error
    return Contents(tensors, _header_of(data))


def map_file(path: Path) -> Contents:
    """A file without reading it; errors as of read."""
    with open_file(path) as file:
        try:  # by its descriptor: the path may be another file's by now
            with safe_open(f"/proc/self/fd/{file.fileno()}", framework="pt") as opened:
                names = opened.keys()
                tensors = {name: opened.get_tensor(name) for name in names}
            for tensor in tensors.values():
                torch.empty(tensor.shape, device="meta")  # sizes may be too large, of no elements
        except _INVALID as error:
            raise _invalid(error) from error
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return Contents(tensors, _header_of(mapping), mapping)


def _invalid(error: Exception) -> ValueError:
    return ValueError(f"not a safetensors file that can be read: {error}")


def _data_begin(file: bytes | mmap.mmap) -> int:
    return _LENGTH_BYTES + int.from_bytes(file[:_LENGTH_BYTES], "little")


def _header_of(file: bytes | mmap.mmap) -> Header:
    """Of a file that safetensors has read; ValueError where others may read it differently."""
    header: Header = configuration.loads(file[_LENGTH_BYTES : _data_begin(file)].decode())
    return header


def check_can_hold(name: str, tensor: Tensor) -> None:
    """ValueError for a dtype or name that a file could not give back."""
    try:
        load(save({name: tensor.new_empty(0)}))
    except Exception as error:
        raise ValueError(f"safetensors cannot hold {name}, {tensor.dtype}: {error}") from error


def to_bytes(
    tensors: dict[str, Tensor], metadata: dict[str, str], packed: Mapping[str, Tensor]
) -> bytes:
    """A file of contiguous tensors on the CPU and of packed weights, uint8 [bytes].

    Packed weights are the first tensors, and each begins at a multiple of 64 bytes of the file:
    they are multiples of that long.
    """
    file = save(tensors, metadata)
    if not packed:
        return file
    header = _header_of(file)
    others = {name: entry for name, entry in header.items() if name != "__metadata__"}
    begin = 0
    for name, tensor in packed.items():
        end = begin + tensor.numel()
        header[name] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        begin = end
    for entry in others.values():
        entry["data_offsets"] = [begin + offset for offset in entry["data_offsets"]]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _CACHE_LINE)
    first = [tensor.numpy().data for tensor in packed.values()]
    rest = memoryview(file)[_data_begin(file) :]
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *first, rest])
