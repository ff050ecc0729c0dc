"""LSTMs to prepare for training, what they are to become, and what autograd makes of the same."""

import copy
from dataclasses import replace

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_fastkernels as lfk
from cases import Case
from lstm_fastkernels import reference

CASES = [
    Case(9, 31),
    Case(1, 1),
    Case(9, 7, num_layers=3, batch_first=True),
    Case(7, 9, num_layers=2, bidirectional=True, bias=False),
    Case(37, 41, num_layers=2, bidirectional=True, proj_size=19),
]
BASES = {
    "int8": lfk.Int8Config(),
    "int8-pairs": lfk.Int8Config(pair_safe=True),
    "int16": lfk.Int8Config(activations="int16"),
    "mixed": lfk.Int8Config(activations="mixed"),
    "int4": lfk.Int4Config(group_size=32),
    "each": lfk.Int8Config(
        precision={"weight_ih_l0*": "int4", "weight_hh*": "float32", "weight_hr*": "int16"}
    ),
    "float32": lfk.Int8Config(precision={"*": "float32"}),
}


def only_matching(base, case):
    """The config without patterns for matrices that the case does not have."""
    kept = {
        pattern: precision
        for pattern, precision in (base.precision or {}).items()
        if case.proj_size or not pattern.startswith("weight_hr")
    }
    return replace(base, precision=kept or None)


def prepared(lstm, base, scales="learned", **options):
    lfk.quantize_(lstm, lfk.QATConfig(base, "prepare", scales), **options)
    return lstm


def converted(lstm, base):
    """The module itself, which a model around it holds."""
    model = torch.nn.Sequential(lstm)
    lfk.quantize_(model, lfk.QATConfig(base, "convert"))
    return model[0]


# ---- the same by autograd ----


def straight_through(lstm, base, x, hx, lengths):
    """y of a prepared LSTM of one layer, time-major, step by step in float32, for autograd to
    derive; after each step it goes on with the h that the kernels gave, so that all is rounded as
    they have it."""
    run = _Products(lstm, base)
    given = lstm(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)[0]
    given = pad_packed_sequence(given, total_length=len(x))[0].detach()
    outputs = []
    for number, direction in enumerate(("", "_reverse")[: 1 + lstm.bidirectional]):
        h, c = hx[0][number], hx[1][number]
        own_given = given.chunk(1 + lstm.bidirectional, 2)[number]
        steps = range(len(x) - 1, -1, -1) if direction else range(len(x))
        own = [None] * len(x)
        for t in steps:
            gates = run(f"weight_ih_l0{direction}", x[t], "any")
            kind = "any" if lstm.proj_size else "bounded"
            gates = gates + run(f"weight_hh_l0{direction}", h, kind)
            if lstm.bias:
                gates = gates + getattr(lstm, f"bias_ih_l0{direction}")
                gates = gates + getattr(lstm, f"bias_hh_l0{direction}")
            i, f, g, o = gates.chunk(4, 1)
            new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            new_h = o.sigmoid() * new_c.tanh()
            if lstm.proj_size:
                new_h = run(f"weight_hr_l0{direction}", new_h, "bounded")
            inside = (t < lengths)[:, None]
            new_h = new_h + torch.where(inside, own_given[t] - new_h, 0).detach()
            h, c = torch.where(inside, new_h, h), torch.where(inside, new_c, c)
            own[t] = torch.where(inside, h, 0)
        outputs.append(torch.stack(own))
    return torch.cat(outputs, 2)


class _Products:
    """Rows times a matrix, both rounded straight through."""

    def __init__(self, lstm, base):
        self._lstm = lstm
        self._twin = converted(copy.deepcopy(lstm), base)
        self._tensors = self._twin.state_dict()

    def __call__(self, name, rows, kind):
        parts = self._lstm.parametrizations[name]
        gates = 1 if name.startswith("weight_hr") else 4
        rows_of_all, columns = self._twin.canonical().spec.shape.matrices[name]
        size = gates, rows_of_all // gates, columns
        precision = self._twin.precision[name]
        matrix = reference.canonical_matrix(self._tensors, name, size, precision)
        if isinstance(matrix, reference.LowRank):
            factors = parts.original0, parts.original1
            u, v = map(_weight, parts[0].fakes, factors)
            inner = _activations(matrix.v, rows, kind) @ v.T
            return _activations(matrix.u, inner, "any") @ u.T
        weight = parts.original
        for part in list(parts)[:-1]:
            weight = part(weight)
        return _activations(matrix, rows, kind) @ _weight(parts[-1], weight).T


def _weight(fake, weight):
    """LSQ by the straight-through trick; integers that are held to a limit are constants."""
    if fake.precision == "float32":
        return weight
    steps = fake.base * fake.log2_gain.exp2()
    steps = steps.repeat_interleave(fake.group_size, 1)[:, : weight.shape[1]]
    exact = weight / steps
    held = fake.fake(weight)[1][""]
    held = reference.unpack_int4(held, weight.shape[1]) if fake.precision == "int4" else held
    rounded = exact + (exact.round() - exact).detach()
    return torch.where(held == exact.round(), rounded, held.float()) * steps


def _activations(matrix, rows, kind):
    integers, scale = reference.take_activations(matrix, rows.detach(), kind)
    return rows + (integers * scale - rows).detach()
