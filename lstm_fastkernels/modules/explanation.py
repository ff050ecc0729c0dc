"""Which kernels a call would run, and why."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstm_fastkernels.modules.cell import FastLSTMCell
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.states import State


@torch.no_grad()
def explain(
    module: nn.Module,
    input: Tensor | PackedSequence,
    hx: State | None = None,
    lengths: Tensor | None = None,
) -> str:
    """Says, without running it, how `module(input, hx, lengths)` would run now, and why.

    A fast module and what its forward takes. The first line has the device and the numbers of time
    steps and rows. On the CPU follow the instruction set, the threads, and for each matrix its
    layout, the share of its 8x4 blocks that are not zero and the products that it is multiplied by;
    on CUDA for each layer whether its steps are one launch or a launch each, and the share of its
    16x32 blocks (16x4 of float32) that are kept. Raises TypeError for another module, and what
    forward would raise for the input.
    """
    if not isinstance(module, FastModule):
        raise TypeError(f"explain expects a fast LSTM or cell, got {type(module).__name__}")
    if isinstance(module, FastLSTMCell):
        if lengths is not None:
            raise TypeError("lengths go with sequences, a cell takes one step")
        found = module._explain(input, hx)
    else:
        found = module._explain(input, hx, lengths)
    return f"{type(module).__name__} {found}"
