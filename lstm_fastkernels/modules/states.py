"""States of an LSTM: (h, c)."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

States = tuple[Tensor, Tensor]


class State(NamedTuple):
    """h and c of a batch of sequences: the memory of a stream, which `step` changes in place.

    h [layers * directions, B, output size] and c [layers * directions, B, hidden size], of one
    dtype; a cell has no first dimension, a sequence on its own no B. As a pair, (h0, c0), it is
    what `forward` takes.
    """

    h: Tensor
    c: Tensor

    def copy(self) -> Self:
        """A state of its own with the same values."""
        return type(self)(self.h.clone(), self.c.clone())

    def reset(self, row: int | None = None) -> None:
        """Zeros, in all rows or in one."""
        for tensor in self:
            (tensor if row is None else tensor.select(-2, row)).zero_()

    def copy_row(self, row: int, source: States, source_row: int) -> None:
        """Takes over a row of another state of this LSTM, of any batch size."""
        for tensor, other in zip(self, two_states(source), strict=True):
            tensor.select(-2, row).copy_(other.select(-2, source_row))


def two_states(hx: States) -> States:
    """hx itself; RuntimeError unless it holds two tensors."""
    if len(hx) != 2:
        raise RuntimeError(f"hx must hold two tensors, (h0, c0), got {len(hx)}")
    return hx


def zero_state(
    first: tuple[int, ...],
    sizes: tuple[int, int],
    batch_size: int | None,
    device: torch.device,
    dtype: torch.dtype | None,
) -> State:
    """(h, c), each [*first, batch_size, one of the sizes], without the batch for None."""
    rows = () if batch_size is None else (batch_size,)
    h, c = (
        torch.zeros(*first, *rows, size, device=device, dtype=dtype or torch.float32)
        for size in sizes
    )
    return State(h, c)
