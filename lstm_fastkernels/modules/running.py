"""Asking how packed weights would run."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from lstm_fastkernels import ops
from lstm_fastkernels.modules.states import States, two_states
from lstm_fastkernels.weights.shape import LstmShape

_REPR_STEPS = 1000  # time steps of the sequences for which repr says how they run


def explain_run(*arguments: Any) -> str:
    """What running packed weights with these arguments would do."""
    return ops.explain_lstm(*_arguments(*arguments))


def explain_steps(packed: Tensor, header: list[int] | None, shape: LstmShape) -> str | None:
    """On CUDA, how the time steps of a long sequence run, for one row and for 16."""
    if header is None or packed.device.type != "cuda" or is_fake(packed):
        return None
    found = []
    for rows in (1, 16):
        x = packed.new_empty(1, dtype=torch.float32).expand(_REPR_STEPS, rows, shape.input_size)
        arguments = _arguments(packed, header, shape, x, None, None, False)
        found.append(ops.explain_lstm(*arguments, brief=True))
    one, many = found
    return one if one == many else f"{one} (1 row), {many} (16 rows)"


def _arguments(
    packed: Tensor,
    header: list[int] | None,
    shape: LstmShape,
    x: Tensor,
    hx: States | None,
    lengths: Tensor | None,
    batch_first: bool,
) -> tuple[Any, ...]:
    h0, c0 = (None, None) if hx is None else two_states(hx)
    return (
        x,
        h0,
        c0,
        lengths,
        packed,
        shape.sizes,
        batch_first,
        header,
    )
