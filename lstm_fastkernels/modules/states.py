"""States of an LSTM: (h, c)."""

import torch
from torch import Tensor

State = tuple[Tensor, Tensor]


def two_states(hx: State) -> State:
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
    return h, c
