"""Every combination of what nn.LSTM's constructor takes, and every form of call that it has."""

from itertools import product

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cases import AWKWARD, KINDS, Case

EPILOGUE = 4e-6  # what float32 and the polynomials add: 1e-6 for each of the four gates
FORMS = ["padded", "packed", "unbatched", "lengths"]

# Sizes go through the awkward ones in turn.
GRID = [
    Case(
        input_size=AWKWARD[n % 7],
        hidden_size=AWKWARD[1 + (n // 2) % 6],
        num_layers=layers,
        bidirectional=bidirectional,
        proj_size=projected * (1 + n % (AWKWARD[1 + (n // 2) % 6] - 1)),
        bias=bias,
        batch_first=batch_first,
        T=4,
        seed=n,
    )
    for n, (layers, bidirectional, projected, bias, batch_first) in enumerate(
        product([1, 2], [False, True], [False, True], [True, False], [False, True])
    )
]


def call(module, case, form, with_state):
    """Runs `module` (fast or nn.LSTM) on the case in one form; returns time-major (y, (h, c))."""
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    device = next(iter(module.state_dict().values())).device
    x, state = case.x().to(device, dtype), tuple(s.to(device, dtype) for s in case.state())
    batch, time = (0, 1) if case.batch_first else (1, 0)
    if form == "unbatched":
        state = tuple(s[:, 0] for s in state) if with_state else None
        y, (h, c) = module(x.select(batch, 0), state)
        return y.unsqueeze(1), (h.unsqueeze(1), c.unsqueeze(1))

    state = state if with_state else None
    if form == "padded":
        y, state = module(x, state)
    elif form == "lengths" and not isinstance(module, nn.LSTM):
        y, state = module(x, state, lengths=case.lengths())
    else:
        packed = pack_padded_sequence(x, case.lengths(), case.batch_first, enforce_sorted=False)
        y, state = module(packed, state)
        y, _ = pad_packed_sequence(y, case.batch_first)
    return y.movedim(time, 0), state


@st.composite
def cases(draw):
    hidden_size = draw(st.integers(1, 40))
    return Case(
        input_size=draw(st.integers(1, 70)),
        hidden_size=hidden_size,
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        proj_size=draw(st.integers(0, hidden_size - 1)),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        T=draw(st.integers(1, 9)),
        B=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 999)),
        **draw(st.sampled_from(list(KINDS.values()))),
    )
