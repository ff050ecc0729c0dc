"""Makes tests/cpp/fuzz_corpus: small files that load, good-*, and files that must not, bad-*.

Run by hand when the format changes: `python tests/cpp/make_fuzz_corpus.py`. What the fuzzer found
is kept beside them as found-*, which this script leaves alone.
"""

import json
import struct
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import lstm_fastkernels as lfk
from cases import Case

FOLDER = Path(__file__).parent / "fuzz_corpus"
KEY = "lstm_fastkernels"

SPARSE = {"layout": "block_sparse", "density": 0.4}
CASES = {
    "int8": Case(3, 5),
    "int8-bidirectional": Case(4, 3, 2, bidirectional=True),
    "int8-projected": Case(3, 9, proj_size=4),
    "int8-blocks": Case(9, 9, **SPARSE),
    "int8-large-blocks": Case(7, 9, **SPARSE, block_size=(16, 8)),
    "int8-no-bias": Case(3, 4, bias=False),
    "int16": Case(5, 7, activations="int16"),
    "int16-blocks": Case(5, 9, proj_size=3, activations="int16", **SPARSE),
    "float32": Case(4, 5, activations="float32", layout="dense"),
    "float32-blocks": Case(9, 7, activations="float32", bias=False, **SPARSE),
}


def model():
    """Several LSTMs, one of them inside a module, and tensors of other types."""
    parts = nn.Module()
    parts.encoder = nn.ModuleDict({"first": Case(3, 4).fast(), "second": Case(4, 3).fast_cell()})
    parts.head = nn.Linear(3, 2).bfloat16()
    parts.register_buffer("halves", torch.arange(3.0).half())
    parts.register_buffer("count", torch.tensor(2**40))
    return parts


def write_good():
    for name, case in CASES.items():
        lfk.save_file(case.fast(), FOLDER / f"good-{name}.safetensors")
    lfk.save_file(Case(3, 4).fast_cell(), FOLDER / "good-cell.safetensors")
    lfk.save_file(
        model(), FOLDER / "good-model.safetensors", other_tensors=True, metadata={"epoch": "7"}
    )
    # What State::save writes for two layers, h of 2, c of 3, one row.
    floats = [0.5 * i for i in range(10)]
    state = struct.pack("<8sIIIIQ10f", b"LFKSTATE", 1, 2, 2, 3, 1, *floats)
    (FOLDER / "good-saved.state").write_bytes(state)
    (FOLDER / "bad-cut.state").write_bytes(state[:-1])
    (FOLDER / "bad-sizes.state").write_bytes(state[:12] + b"\xff" * 20 + state[32:])


class Parts:
    """A good file, taken apart."""

    def __init__(self, name):
        whole = (FOLDER / f"good-{name}.safetensors").read_bytes()
        length = int.from_bytes(whole[:8], "little")
        self.header = json.loads(whole[8 : 8 + length])
        self.data = bytearray(whole[8 + length :])
        self.configuration = json.loads(self.header["__metadata__"][KEY])
        self.options = next(iter(self.configuration["lstms"].values()))

    def put(self, name, value):
        """Over the tensor's first bytes."""
        begin = self.header[name]["data_offsets"][0]
        self.data[begin : begin + len(value)] = value

    def bytes(self):
        self.header["__metadata__"][KEY] = json.dumps(self.configuration)
        return with_header(json.dumps(self.header).encode(), self.data)


def with_header(header, data=b""):
    return struct.pack("<Q", len(header)) + header + bytes(data)


def overlap(p):
    offsets = p.header["weight_ih_l0_scale"]["data_offsets"]
    offsets[:] = p.header["weight_hh_l0_scale"]["data_offsets"]


def hole(p):
    first = p.header["bias_l0"]
    first["shape"], first["data_offsets"] = [19], [4, 80]


def overflow(p):
    p.header["weight_ih_l0"]["shape"] = [2**62, 2**62, 4]


def missing(p):
    last = max((e for e in p.header if e != "__metadata__"), key=lambda e: end_of(p, e))
    begin, end = p.header.pop(last)["data_offsets"]
    del p.data[begin:end]


def end_of(p, name):
    return p.header[name]["data_offsets"][1]


def extra(p):
    p.header["more"] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}


def renamed(p):
    p.configuration["lstms"] = {"a": p.options}


def inside(p):
    p.configuration["lstms"]["encoder"] = p.options


# A file of CASES and what to change in it.
BROKEN = {
    "overlap": ("int8", overlap),
    "hole": ("int8", hole),
    "overflow": ("int8", overflow),
    "missing": ("int8", missing),
    "extra": ("int8", extra),
    "renamed": ("int8", renamed),
    "inside": ("model", inside),
    "left-over": ("int8", lambda p: p.data.append(0)),
    "dtype": ("int8", lambda p: p.header["weight_ih_l0"].update(dtype="U8")),
    "unknown-dtype": ("int8", lambda p: p.header["weight_ih_l0"].update(dtype="I4")),
    "shape": ("int8", lambda p: p.header["weight_ih_l0"].update(shape=[60])),
    "metadata": ("int8", lambda p: p.header["__metadata__"].update(epoch=7)),
    "version": ("int8", lambda p: p.configuration.update(format_version=2)),
    "sizes": ("int8", lambda p: p.options.update(hidden_size=65535, num_layers=1024)),
    "size-type": ("int8", lambda p: p.options.update(hidden_size=5.0)),
    "no-options": ("int8", lambda p: p.options.clear()),
    "activations": ("int8", lambda p: p.options.update(activations="float32")),
    "smallest-weight": ("int8", lambda p: p.put("weight_hh_l0", b"\x80")),
    "scale-nan": ("int8", lambda p: p.put("weight_hh_l0_scale", b"\xff" * 4)),
    "scale-negative": ("int8", lambda p: p.put("weight_ih_l0_scale", struct.pack("<f", -1))),
    "bias-infinite": ("int8", lambda p: p.put("bias_l0", struct.pack("<f", float("inf")))),
    "weight-nan": ("float32", lambda p: p.put("weight_ih_l0", b"\xff" * 4)),
    "crow": ("int8-blocks", lambda p: p.put("weight_ih_l0_crow_indices", b"\x01")),
    "crow-far": (
        "int8-blocks",
        lambda p: p.put("weight_ih_l0_crow_indices", struct.pack("<ii", 0, 2**31 - 1)),
    ),
    "column": ("int8-blocks", lambda p: p.put("weight_hh_l0_col_indices", b"\x03")),
    "column-negative": ("int8-blocks", lambda p: p.put("weight_hh_l0_col_indices", b"\xff" * 4)),
    "padding": ("int8-large-blocks", lambda p: p.put("weight_hh_l0_values", b"\x01" * 128)),
}

BROKEN_HEADERS = {
    "no-json": b"{]",
    "no-object": b"[]",
    "deep": b'{"a":' * 1000,
    "twice": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    b'"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}',
}


def write_broken():
    broken = {name: with_header(header) for name, header in BROKEN_HEADERS.items()}
    for name, (good, change) in BROKEN.items():
        parts = Parts(good)
        change(parts)
        broken[name] = parts.bytes()
    whole = Parts("int8").bytes()
    broken["cut"] = whole[:-1]
    broken["cut-header"] = whole[:100]
    broken["length"] = b"\xff" * 8 + whole[8:]
    for name, contents in broken.items():
        (FOLDER / f"bad-{name}.safetensors").write_bytes(contents)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in [*FOLDER.glob("good-*"), *FOLDER.glob("bad-*")]:
        old.unlink()
    write_good()
    write_broken()
