"""What an LSTM or an LSTM cell was called with and gave, in one form."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lstm_fastkernels.modules.states import States


@dataclass(frozen=True)
class Call:
    """A call of an LSTM, float32 and time-major; a cell is an LSTM of one layer and one step.

    x [T, B, I] and y [T, B, directions * P], zeros past a row's length; lengths int64 [B] on the
    CPU, None where all are T; hx and h_n, c_n as nn.LSTM's.
    """

    x: Tensor
    hx: States
    lengths: Tensor | None
    y: Tensor
    last: States

    @property
    def inside(self) -> Tensor:
        """Which rows are active at which step: bool [T, B]."""
        T, B, _ = self.x.shape
        if self.lengths is None:
            return torch.ones(T, B, dtype=torch.bool, device=self.x.device)
        return (torch.arange(T)[:, None] < self.lengths).to(self.x.device)

    @property
    def bidirectional(self) -> bool:
        return self.y.shape[2] != self.hx[0].shape[2]

    def follows(self, other: "Call") -> bool:
        """Whether both are one sequence: it starts with the state that the other gave."""
        return (
            self.lengths is other.lengths is None
            and not self.bidirectional
            and self.x.shape[1:] == other.x.shape[1:]
            and all(map(torch.equal, self.hx, other.last))
        )


class Recording:
    """Calls in their order, those that follow each other as one."""

    def __init__(self) -> None:
        self._sequences: list[list[Call]] = []

    def add(self, call: Call) -> None:
        if self._sequences and call.follows(self._sequences[-1][-1]):
            self._sequences[-1].append(call)
        else:
            self._sequences.append([call])

    def calls(self) -> list[Call]:
        return [_joined(sequence) for sequence in self._sequences]


def _joined(calls: list[Call]) -> Call:
    if len(calls) == 1:
        return calls[0]
    x, y = torch.cat([call.x for call in calls]), torch.cat([call.y for call in calls])
    return Call(x, calls[0].hx, None, y, calls[-1].last)


def call_of(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> Call:
    """The call of an nn.LSTM or nn.LSTMCell with these arguments and this output."""
    given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
    x: Any = given["input"]
    hx: Any = given.get("hx")
    last: Any
    if isinstance(module, nn.LSTMCell):
        h, c = output
        if x.dim() == 1:
            x, h, c = x[None], h[None], c[None]
            hx = hx and tuple(state[None] for state in hx)
        last = h[None], c[None]
        hx = hx and tuple(state[None] for state in hx)
        return _call(x[None], hx, None, h[None], last)
    y, last = output
    if isinstance(x, PackedSequence):
        (x, lengths), (y, _) = pad_packed_sequence(x), pad_packed_sequence(y)
        return _call(x, hx, lengths, y, last)
    if x.dim() == 2:
        x, y = x[:, None], y[:, None]
        hx, last = (state and tuple(s[:, None] for s in state) for state in (hx, last))
    elif module.batch_first:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    return _call(x, hx, None, y, last)


def _call(x: Tensor, hx: Any, lengths: Tensor | None, y: Tensor, last: Any) -> Call:
    h_n, c_n = (state.detach().float() for state in last)
    h0, c0 = (
        (torch.zeros_like(h_n), torch.zeros_like(c_n))
        if hx is None
        else (state.detach().float() for state in hx)
    )
    return Call(x.detach().float(), (h0, c0), lengths, y.detach().float(), (h_n, c_n))
