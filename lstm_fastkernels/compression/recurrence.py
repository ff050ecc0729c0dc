"""What happened at each step of one direction of an LSTM layer, from what it has put out.

Sizes: T steps, B rows, H hidden units, P outputs. `inside`, bool [T, B, 1], says which rows work at
which step; None is all. `reverse` is the direction that begins at the last step.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lstm_fastkernels.weights.shape import GATES


class Cells(NamedTuple):
    """Gates after their sigmoid or tanh; c as each step finds it; tanh(c) as it leaves it. All are
    [T, B, H], and right where rows work."""

    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    before: Tensor
    tanh_c: Tensor


def states_before(y: Tensor, h0: Tensor, inside: Tensor | None, reverse: bool) -> Tensor:
    """h [T, B, P] as each step finds it, from the outputs y and the first h [B, P]; right where
    rows work."""
    if not reverse:
        return torch.cat((h0[None], y[:-1]))
    before = torch.cat((y[1:], h0[None]))
    if inside is None:
        return before
    is_first = inside & ~torch.cat((inside[1:], torch.zeros_like(inside[:1])))
    return torch.where(is_first, h0, before)


def cells(gates: Tensor, c: Tensor, inside: Tensor | None, reverse: bool) -> Cells:
    """From gates [T, B, 4H] before their sigmoid or tanh and the first c [B, H]."""
    i, f, g, o = gates.chunk(len(GATES), dim=2)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    before, after, added = torch.empty_like(f), torch.empty_like(f), i * g
    for t in order(len(gates), reverse):
        before[t] = c
        new = torch.addcmul(added[t], f[t], c)
        c = new if inside is None else torch.where(inside[t], new, c)
        after[t] = c
    return Cells(i, f, g, o, before, after.tanh())


def order(T: int, reverse: bool) -> range:
    """The steps as they are taken."""
    return range(T - 1, -1, -1) if reverse else range(T)
