"""Second moments of what each matrix of a float LSTM multiplies."""

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lstm_fastkernels import reference
from lstm_fastkernels.modules.float_lstm import parameter_name, shape_of, weights_of
from lstm_fastkernels.reference import State
from lstm_fastkernels.weights.canonical import WeightSpec
from lstm_fastkernels.weights.structures import LayoutConfig

# Rows that are held until they are multiplied.
_ROWS_AT_ONCE = 2048


class SecondMoment:
    """The mean of x x' over vectors x [K], float64, summed up as they come."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | float = 0.0
        self._held: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """rows: [n, K]."""
        self.count += len(rows)
        self._held.append(rows)
        if sum(map(len, self._held)) >= _ROWS_AT_ONCE:
            self._sum_up()

    def mean(self) -> Tensor:
        """[K, K]; at least one vector must have been added."""
        self._sum_up()
        assert isinstance(self._sum, Tensor)
        return self._sum / self.count

    def _sum_up(self) -> None:
        if self._held:
            rows = torch.cat(self._held).double()
            self._sum = self._sum + rows.T @ rows
            self._held.clear()


class LstmMoments:
    """Second moments for each matrix of an nn.LSTM or nn.LSTMCell, from its calls.

    `of` has them by the names of nn.LSTM's matrices, a cell's as those of one layer: x of the layer
    for weight_ih, h for weight_hh, o tanh(c) for weight_hr. Between calls it holds one [K, K] for
    each and some thousand rows.
    """

    def __init__(self, module: nn.LSTM | nn.LSTMCell) -> None:
        self._module = module
        self._shape = shape_of(module)
        self.of = {name: SecondMoment() for name in self._shape.matrices}

    @property
    def seen(self) -> bool:
        """Whether there was a call."""
        return all(moment.count for moment in self.of.values())

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """As reference.lstm takes them."""
        spec = WeightSpec(self._shape, self._module.bias, dict.fromkeys(self.of, "float32"))
        weights = weights_of(self._module)
        floats = {name: weights[parameter_name(self._module, name)] for name in spec.float_kinds()}
        canonical = spec.compress(floats, LayoutConfig("dense"))
        return {name: tensor.cpu().double() for name, tensor in canonical.tensors.items()}

    @torch.no_grad()
    def add_call(self, input: Tensor | PackedSequence, hx: State | None = None) -> None:
        """Takes the arguments of a call of the module, in any form that it takes.

        Computes the LSTM in float64 on the CPU. Raises ValueError for inputs and states that are
        not finite.
        """
        x, states, lengths = self._time_first(input, hx)
        for given in (x, *(states or ())):
            if not given.isfinite().all():
                raise ValueError("a calibration batch has inputs or states that are not finite")
        shape = self._shape
        reference.lstm(
            self._weights,
            x,
            states,
            lengths,
            hidden_size=shape.hidden_size,
            num_layers=shape.num_layers,
            bidirectional=shape.num_directions == 2,
            proj_size=shape.proj_size,
            observe=lambda name, rows: self.of[name].add(rows),
        )

    def _time_first(
        self, input: Tensor | PackedSequence, hx: State | None
    ) -> tuple[Tensor, State | None, Tensor | None]:
        """x [T, B, I], (h0, c0) [cells, B, ...] and lengths, float64 on the CPU."""
        lengths = None
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input)
            batched = True
        elif isinstance(self._module, nn.LSTMCell):
            x, batched = input[None], input.dim() == 2
            hx = hx and (hx[0][None], hx[1][None])
        else:
            x, batched = input, input.dim() == 3
            if batched and self._module.batch_first:
                x = x.transpose(0, 1)
        if not batched:
            x = x.unsqueeze(1)
            hx = hx and (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        return x.cpu().double(), hx and (hx[0].cpu().double(), hx[1].cpu().double()), lengths
