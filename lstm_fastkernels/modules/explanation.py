"""Which kernels a call would run, and why."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstm_fastkernels.modules.cell import FastLSTMCell
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.states import States


@torch.no_grad()
def explain(
    module: nn.Module,
    input: Tensor | PackedSequence | None = None,
    hx: States | None = None,
    lengths: Tensor | None = None,
) -> str:
    """Says, without running it, how `module(input, hx, lengths)` would run now, and why.

    module: a fast LSTM or cell, and what its forward takes; or without input any model, of which
    every fast LSTM is explained for one step of one row, under its name. The first line has the
    device and the numbers of time steps and rows. On the CPU follow the instruction set, the
    threads, and for each matrix its layout, the share of its 8x4 blocks that are not zero and the
    products that it is multiplied by; on CUDA for each layer whether its steps are one launch or a
    launch each, and the share of its 16x32 blocks (16x4 of float32) that are kept. Raises TypeError
    for a module that has no fast LSTM or, with an input, is none; and what forward would raise for
    the input.
    """
    if input is None:
        return _explain_model(module)
    if not isinstance(module, FastModule):
        raise TypeError(f"explain expects a fast LSTM or cell, got {type(module).__name__}")
    if isinstance(module, FastLSTMCell):
        if lengths is not None:
            raise TypeError("lengths go with sequences, a cell takes one step")
        found = module._explain(input, hx)
    else:
        found = module._explain(input, hx, lengths)
    return f"{type(module).__name__} {found}"


def _explain_model(model: nn.Module) -> str:
    lstms = {name: lstm for name, lstm in model.named_modules() if isinstance(lstm, FastModule)}
    if not lstms:
        raise TypeError(f"there is no fast LSTM or cell in this {type(model).__name__}")
    return "\n".join(
        (f"{name}: " if name else "") + explain(lstm, _one_step(lstm))
        for name, lstm in lstms.items()
    )


def _one_step(lstm: FastModule) -> Tensor:
    """An input of one step and one row, on the module's device."""
    sizes = (1,) if isinstance(lstm, FastLSTMCell) else (1, 1)
    if lstm.takes_ids:
        return torch.zeros(sizes, dtype=torch.int64, device=lstm.packed.device)
    return torch.zeros(*sizes, lstm.input_size, device=lstm.packed.device)
