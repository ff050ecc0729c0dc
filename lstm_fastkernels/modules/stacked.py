"""StackedLSTM: an LSTM whose layers have hidden sizes of their own."""

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

LayerStates = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


class StackedLSTM(nn.Module):
    """One-layer nn.LSTMs run one after another, as the layers of one nn.LSTM.

    Each may have a hidden size of its own; `dropout` is applied between them in training. Called
    as nn.LSTM is, except that a state is a tuple with one tensor for each layer: hx is (h0, c0)
    with h0[k] [D, B, output size of layer k] and c0[k] [D, B, hidden size of layer k], D = 2 if
    bidirectional and else 1, without B for a sequence on its own; (h_n, c_n) likewise.
    Raises ValueError for layers that do not fit together.
    """

    def __init__(self, layers: Iterable[nn.LSTM], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = dropout
        if not self.layers:
            raise ValueError("StackedLSTM needs at least one layer")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be in [0, 1], got {dropout}")
        first, width = self._lstms()[0], self.input_size
        for k, layer in enumerate(self._lstms()):
            if layer.num_layers != 1:
                raise ValueError(f"layer {k} must have num_layers=1, got {layer.num_layers}")
            for option in ("batch_first", "bidirectional"):
                if getattr(layer, option) != getattr(first, option):
                    raise ValueError(f"layer {k} must have the {option} of layer 0")
            if layer.input_size != width:
                raise ValueError(
                    f"layer {k} must have input_size={width}, the width of what it reads, "
                    f"got {layer.input_size}"
                )
            width = (1 + layer.bidirectional) * (layer.proj_size or layer.hidden_size)

    def _lstms(self) -> list[nn.LSTM]:
        # convert() may have put a FastQuantLSTM in a layer's place; it has nn.LSTM's interface.
        return [cast(nn.LSTM, layer) for layer in self.layers]

    @property
    def input_size(self) -> int:
        return self._lstms()[0].input_size

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """The hidden size of each layer."""
        return tuple(layer.hidden_size for layer in self._lstms())

    def flatten_parameters(self) -> None:
        """nn.LSTM's, of every layer."""
        for layer in self._lstms():
            layer.flatten_parameters()

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    ) -> tuple[Tensor | PackedSequence, LayerStates]:
        """y, (h_n, c_n); see the class for the states. RuntimeError for states of other layers."""
        if hx is not None and not (len(hx) == 2 and all(len(s) == len(self.layers) for s in hx)):
            raise RuntimeError(
                f"hx must be (h0, c0), each with one tensor for each of {len(self.layers)} layers"
            )
        y, h_n, c_n = input, [], []
        for k, layer in enumerate(self.layers):
            if k > 0:
                y = self._drop(y)
            y, (h, c) = layer(y, None if hx is None else (hx[0][k], hx[1][k]))
            h_n.append(h)
            c_n.append(c)
        return y, (tuple(h_n), tuple(c_n))

    def _drop(self, x: Tensor | PackedSequence) -> Tensor | PackedSequence:
        if isinstance(x, PackedSequence):
            return x._replace(data=F.dropout(x.data, self.dropout, self.training))
        return F.dropout(x, self.dropout, self.training)

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}" if self.dropout else ""
