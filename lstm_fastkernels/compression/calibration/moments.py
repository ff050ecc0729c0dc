"""Second moments of what each matrix of an LSTM multiplies, streamed over its calls."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_fastkernels.compression.calibration.calls import Call
from lstm_fastkernels.compression.recurrence import cells, states_before
from lstm_fastkernels.modules.states import States
from lstm_fastkernels.weights.shape import LstmShape

# Of the mean diagonal of a second moment, which is added to its diagonal.
DAMPING = 0.01
# Rows multiplied at once: enough to be fast, and few enough to keep.
_CHUNK = 4096


class Moments:
    """The second moment of rows [n, K], float64: K * K numbers, however many rows."""

    def __init__(self, columns: int) -> None:
        self.count = 0
        self._products = torch.zeros(columns, columns, dtype=torch.float64)
        self._pending: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        self._pending.append(rows)
        multiplied = self.count // _CHUNK
        self.count += len(rows)
        if self.count // _CHUNK > multiplied:
            self._multiply()

    @property
    def second(self) -> Tensor:
        """The mean of x x'."""
        self._multiply()
        return self._products / max(1, self.count)

    def _multiply(self) -> None:
        for rows in torch.cat(self._pending).split(_CHUNK) if self._pending else ():
            self._products += (rows.double().T @ rows.double()).cpu()
        self._pending.clear()


def damped(second_moment: Tensor) -> Tensor:
    """A second moment [K, K] made positive definite, float64 on the CPU; I if it is zero."""
    added = DAMPING * second_moment.diagonal().mean()
    return second_moment + torch.eye(len(second_moment), dtype=torch.float64) * (added or 1.0)


class FloatLayers:
    """An LSTM's layers, float32, to run one by one.

    floats: the parameters, named as in nn.LSTM.
    """

    def __init__(self, shape: LstmShape, floats: Mapping[str, Tensor]) -> None:
        self._shape = shape
        self._floats = {name: tensor.detach().float() for name, tensor in floats.items()}
        self._layers = [self._layer(depth) for depth in range(shape.num_layers)]

    def _layer(self, depth: int) -> nn.LSTM:
        shape = self._shape
        layer = nn.LSTM(
            shape.layer_input_size(depth),
            shape.hidden_size,
            bias="bias_ih_l0" in self._floats,
            bidirectional=shape.num_directions == 2,
            proj_size=shape.proj_size,
            device="meta",
        )
        own = {name: name.replace("_l0", f"_l{depth}") for name in layer.state_dict()}
        floats = {name: self._floats[given] for name, given in own.items()}
        layer.load_state_dict(floats, assign=True)
        return layer.eval()

    @torch.no_grad()
    def calls(self, call: Call) -> Iterator[Call]:
        """A call of the LSTM as one of each of its layers."""
        directions, x = self._shape.num_directions, call.x
        for depth, layer in enumerate(self._layers):
            cells = slice(depth * directions, (depth + 1) * directions)
            hx = call.hx[0][cells], call.hx[1][cells]
            y = _run(layer, x, hx, call.lengths)
            yield Call(x, hx, call.lengths, y, (call.last[0][cells], call.last[1][cells]))
            x = y

    def output(self, call: Call) -> Tensor:
        """y of the last layer."""
        *_, last = self.calls(call)
        return last.y

    @torch.no_grad()
    def operands(self, call: Call) -> Iterator[tuple[str, Tensor]]:
        """What each matrix multiplies in a call, by its name: rows [n, K] of all active steps."""
        shape, inside = self._shape, call.inside
        working = None if call.lengths is None else inside[..., None]
        suffixes = iter(shape.layers)
        for layer in self.calls(call):
            halves = layer.y.chunk(shape.num_directions, dim=2)
            for y, h0, c0, reverse in zip(halves, *layer.hx, (False, True), strict=False):
                suffix = next(suffixes)
                before = states_before(y, h0, working, reverse)
                yield f"weight_ih{suffix}", layer.x[inside]
                yield f"weight_hh{suffix}", before[inside]
                if shape.proj_size:
                    gates = self._gates(suffix, layer.x, before)
                    *_, o, _, tanh_c = cells(gates, c0, working, reverse)
                    yield f"weight_hr{suffix}", (o * tanh_c)[inside]

    def weight(self, name: str) -> Tensor:
        return self._floats[name]

    def _gates(self, suffix: str, x: Tensor, before: Tensor) -> Tensor:
        """[T, B, 4H] before their sigmoid or tanh."""
        of = self._floats
        gates = x @ of[f"weight_ih{suffix}"].T + before @ of[f"weight_hh{suffix}"].T
        if f"bias_ih{suffix}" in of:
            gates = gates + (of[f"bias_ih{suffix}"] + of[f"bias_hh{suffix}"])
        return gates


def _run(layer: nn.LSTM, x: Tensor, hx: States, lengths: Tensor | None) -> Tensor:
    """y, zeros past a row's length."""
    if lengths is None:
        return layer(x, hx)[0]
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return pad_packed_sequence(layer(packed, hx)[0], total_length=len(x))[0]
