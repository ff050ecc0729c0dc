"""Good files, taken apart, changed and put together again."""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

GOOD = Path(__file__).parents[2] / "data" / "good"
KEY = "lstm_fastkernels"
NO_FILE = (
    "not a safetensors file",
)  # what Python says of whatever the safetensors package refuses


@dataclass(frozen=True)
class Malformed:
    name: str  # of a file
    contents: bytes
    cpp: str  # how the message begins, behind the file's name
    python: tuple[str, ...]  # parts of the message, which begins with the file's name


class Parts:
    """A good file, by its name in the folder or its path, taken apart."""

    def __init__(self, file: str | Path) -> None:
        path = file if isinstance(file, Path) else GOOD / f"{file}.safetensors"
        whole = path.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        self.header = json.loads(whole[8 : 8 + length])
        self.data = bytearray(whole[8 + length :])
        self.configuration = json.loads(self.header["__metadata__"][KEY])

    @property
    def options(self):
        """Of the only LSTM."""
        (options,) = self.configuration["lstms"].values()
        return options

    def tensors(self) -> list[str]:
        return [name for name in self.header if name != "__metadata__"]

    def put(self, name: str, at: int, value: bytes) -> None:
        """Over bytes of a tensor; `at` may count from its end."""
        begin, end = self.header[name]["data_offsets"]
        start = begin + at if at >= 0 else end + at
        self.data[start : start + len(value)] = value

    def change(self, name: str, dtype: str, shape: list[int], data: bytes) -> None:
        """Another tensor of that name."""
        self.remove(name)
        self.header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(self.data), len(self.data) + len(data)],
        }
        self.data += data

    def remove(self, name: str) -> None:
        """And move what lies behind it."""
        if name not in self.header:
            return
        begin, end = self.header.pop(name)["data_offsets"]
        del self.data[begin:end]
        for tensor in self.tensors():
            offsets = self.header[tensor]["data_offsets"]
            if offsets[0] >= end:
                offsets[:] = [offset - (end - begin) for offset in offsets]

    def bytes(self) -> bytes:
        self.header["__metadata__"][KEY] = to_json(self.configuration)
        return container(to_json(self.header), self.data)


def container(header: str | bytes, data: bytes = b"") -> bytes:
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header)) + header + bytes(data)


def raw(text: str) -> str:
    """JSON text that to_json writes as it stands, be it JSON or not."""
    return f"<<{text}>>"


def to_json(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return re.sub(r'"<<(?:[^"\\]|\\.)*>>"', lambda found: json.loads(found[0])[2:-2], text)


Change = Callable[[Parts], "bytes | None"]


def made(name: str, base: str, change: Change, cpp: str, *python: str) -> Malformed:
    """Of a good file, which `change` changes in place or gives in full."""
    parts = Parts(base)
    contents = change(parts)
    if contents is None:
        contents = parts.bytes()
    return Malformed(f"{name}.safetensors", contents, cpp, python)


LAST = "weight_ih_l0"  # of the file int8: [20, 3] in the last 60 of 400 bytes
