"""The golden file: LSTMs of all kinds and what they gave when the file was made.

tests/data/golden_v2.safetensors stays as it is, so that files written once are read for ever, by
Python and by C++. Beside the tensors of an LSTM <name> lie its input <name>_x [T, B, I], its first
state <name>_h0 and <name>_c0, and its results <name>_y, <name>_h and <name>_c, float32; a cell's
are those of an LSTM of one layer. A next version of the format gets a file of its own, made by
`python tests/support/golden.py PATH`.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case

PATH = Path(__file__).parents[1] / "data" / "golden_v2.safetensors"

CASES = {
    "dense": Case(11, 17, 2, bidirectional=True, T=6),
    "projected": Case(
        13, 33, proj_size=15, T=6, block_size=(16, 8), density=0.4, pruned="weight_hh"
    ),
    "encoder.wide": Case(9, 19, activations="int16", bias=False, T=6),
    "encoder.sparse": Case(
        12, 20, 2, activations="float32", layout="block_sparse", density=0.4, T=6
    ),
    "mixture": Case(
        10,
        21,
        2,
        bidirectional=True,
        proj_size=9,
        T=6,
        activations="mixed",
        precision=(("weight_hh_l1", "float32"), ("weight_hr*reverse", "int16")),
    ),
    "cell": Case(7, 10, T=6),
    "grouped": Case(
        71,
        13,
        proj_size=11,
        T=6,
        activations="int4",
        precision=(("weight_hr_l0", "int8"),),
        group_size=32,
    ),
}


def module_of(name, case):
    return case.fast_cell() if name == "cell" else case.fast()


def run(lstm, x, h, c):
    """y, h, c of an LSTM or, step by step, of a cell as an LSTM of one layer."""
    if not isinstance(lstm, lfk.FastQuantLSTMCell):
        y, (h, c) = lstm(x, (h, c))
        return y, h, c
    steps, state = [], (h[0], c[0])
    for step in x:
        state = lstm(step, state)
        steps.append(state[0])
    h, c = state
    return torch.stack(steps), h[None], c[None]


def make(seed=0):
    """The model of the file, with random weights, inputs and what it gives for them."""
    model = nn.Module()
    model.encoder = nn.Module()
    for name, case in CASES.items():
        case = replace(case, seed=seed)
        parent = model.get_submodule(name.rpartition(".")[0])
        own_name = name.rpartition(".")[2]
        lstm = module_of(name, case)
        parent.add_module(own_name, lstm)
        x, (h0, c0) = case.x(), case.state()
        results = dict(zip("yhc", run(lstm, x, h0, c0), strict=True))
        for end, tensor in {"x": x, "h0": h0, "c0": c0, **results}.items():
            parent.register_buffer(f"{own_name}_{end}", tensor)
    model.register_buffer("halves", torch.arange(3.0).add(seed).half())
    model.register_buffer("count", torch.tensor(2**40 + seed))
    return model


if __name__ == "__main__":
    lfk.save_file(make(), sys.argv[1], other_tensors=True, metadata={"made_by": "tests/golden.py"})
