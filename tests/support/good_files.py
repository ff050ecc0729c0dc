"""Makes tests/data/good: small files that load, of every kind.

Run by hand when the format changes: `python tests/support/good_files.py`. malformed.py changes them
into files that must not load.
"""

import struct
from pathlib import Path

import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case

FOLDER = Path(__file__).parents[1] / "data" / "good"

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
    "int4": Case(35, 9, 1, bidirectional=True, activations="int4", group_size=32),
    "float32": Case(4, 5, activations="float32", layout="dense"),
    "mixture": Case(
        3, 9, proj_size=4, precision=(("*ih*", "int16"), ("*hr*", "float32"), ("*hh*", "int4"))
    ),
    "table": Case(5, 3, bidirectional=True, precision=(("weight_ih_l0*", "table"),)),
    "table-halves": Case(
        4, 9, proj_size=3, bias=False, precision=(("weight_ih_l0", "table_float16"),)
    ),
    "float32-blocks": Case(9, 7, activations="float32", bias=False, **SPARSE),
}


# Packed, too.
PACKED = {
    "int8": Case(3, 5),
    "blocks": Case(9, 9, **SPARSE),
    "int4": Case(5, 9, proj_size=3, activations="int4", group_size=32),
    "table": Case(4, 3, bidirectional=True, precision=(("weight_ih_l0*", "table"),)),
}


def model():
    """Several LSTMs, one of them inside a module, and tensors of other types."""
    parts = nn.Module()
    parts.encoder = nn.ModuleDict({"first": Case(3, 4).fast(), "second": Case(4, 3).fast_cell()})
    parts.head = nn.Linear(3, 2).bfloat16()
    parts.register_buffer("halves", torch.arange(3.0).half())
    parts.register_buffer("count", torch.tensor(2**40))
    return parts


if __name__ == "__main__":
    for name, case in CASES.items():
        lfk.save_file(case.fast(), FOLDER / f"{name}.safetensors")
    lfk.save_file(Case(3, 4).fast_cell(), FOLDER / "cell.safetensors")
    for name, case in PACKED.items():
        lfk.save_file(case.fast(), FOLDER / f"packed-{name}.safetensors", packed=True)
    model_file = FOLDER / "model.safetensors"
    lfk.save_file(model(), model_file, other_tensors=True, metadata={"epoch": "7"})
    # What State::save writes for two layers, h of 2, c of 3, one row.
    floats = [0.5 * i for i in range(10)]
    state = struct.pack("<8sIIIIQ10f", b"LFKSTATE", 1, 2, 2, 3, 1, *floats)
    (FOLDER / "saved.state").write_bytes(state)
