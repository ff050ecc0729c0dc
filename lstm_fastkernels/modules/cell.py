"""Fast twins of nn.LSTMCell, for inference: int8, or float32 that skips zeros."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.leaf import call_as_leaf
from lstm_fastkernels.modules.lstm import FastQuantLSTM, FastSparseLSTM
from lstm_fastkernels.modules.refusals import explain_refusal
from lstm_fastkernels.modules.states import State, two_states, zero_state
from lstm_fastkernels.ops.dispatch import cast_for_autocast
from lstm_fastkernels.weights.precision import Activations, PrecisionConfig
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import KERNEL_BLOCK, BlockSize, Layout, LayoutConfig


class FastLSTMCell(FastModule):
    """nn.LSTMCell's constructor and call over compressed weights.

    Its tensors are those of an LSTM of one layer, `_l0` and all: each loads the other's state_dict.
    """

    float_class = nn.LSTMCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activations: Activations | None = None,
        precision: Mapping[str, str] | None = None,
        pair_safe: PairSafe = "auto",
        group_size: int = 64,
        layout: Layout = "auto",
        block_size: BlockSize = KERNEL_BLOCK,
    ) -> None:
        shape = LstmShape(input_size, hidden_size)
        numbers = PrecisionConfig(activations, precision)
        rounding = RoundingConfig(pair_safe, group_size)
        matrices = LayoutConfig(layout, block_size)
        super().__init__(shape, bias, device, dtype, numbers, rounding, matrices)

    def _float_names(self) -> dict[str, str]:
        return {name: name.removesuffix("_l0") for name in super()._float_names()}

    @classmethod
    def from_float(cls, cell: nn.LSTMCell, **options: Any) -> Self:
        """Compresses an nn.LSTMCell; options and errors are those of FastQuantLSTM.from_float."""
        cls._check_float_twin(cell)
        sizes = cell.input_size, cell.hidden_size, cell.bias
        return cls(*sizes, device="meta", **options)._take_float(cell)

    def to_float(self) -> nn.LSTMCell:
        cell = nn.LSTMCell(self.input_size, self.hidden_size, self.bias, device=self.packed.device)
        return self._give_float(cell)

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """(h, c) [B, H] or [H], from input [B, I] or [I] and hx = (h, c), as nn.LSTMCell."""
        if isinstance(input, Proxy):
            proxy: Any = call_as_leaf(self, input, hx)
            return proxy
        if torch.is_autocast_enabled("cpu") and self.packed.device.type == "cpu":
            return self._forward_autocast(input, hx)
        try:
            arguments = self._to_run(input, hx)
        except (AttributeError, RuntimeError):
            states: Any = (None, None) if hx is None else two_states(hx)
            explain_refusal(input, states[0], states[1], None)
            raise
        _, (h, c) = self._run(*arguments)
        first = (0,) * (3 - input.dim())
        return h[first], c[first]

    def _forward_autocast(self, input: Tensor, hx: State | None) -> State:
        """As nn.LSTMCell on the CPU, where autocast reaches its products alone: the state is as
        wide as the one before."""
        dtype = torch.get_autocast_dtype("cpu")
        if hx is None:
            batch = None if input.dim() == 1 else input.shape[0]
            hx = self.new_state(batch, input.dtype)
        h, c = (state.to(torch.promote_types(state.dtype, dtype)) for state in two_states(hx))
        with torch.autocast("cpu", enabled=False):
            return self.forward(cast_for_autocast(input, dtype), (h, c))

    def new_state(self, batch_size: int | None = None, dtype: torch.dtype | None = None) -> State:
        """(h, c) of zeros, each [batch_size, H] or [H], on the module's device; float32, or dtype:
        the input's."""
        sizes = self.hidden_size, self.hidden_size
        return zero_state((), sizes, batch_size, self.packed.device, dtype)

    def _to_run(
        self, input: Tensor, hx: State | None = None
    ) -> tuple[Tensor, State | None, None, bool]:
        dim = input.dim()
        if dim not in (1, 2):
            raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {dim}D instead")
        one = (None,) * (3 - dim)  # as an index, adds the dimensions of one step and of one row
        if hx is not None:
            h, c = two_states(hx)
            for i, state in enumerate((h, c)):
                if state.dim() != dim:
                    raise ValueError(
                        f"LSTMCell: Expected hx[{i}] to be {dim}D, got {state.dim()}D instead"
                    )
            hx = h[one], c[one]
        return input[one], hx, None, False

    def extra_repr(self) -> str:
        bias = [] if self.bias else ["bias=False"]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return ", ".join([*sizes, *bias, *self._options_repr()])


class FastQuantLSTMCell(FastLSTMCell):
    """An nn.LSTMCell with int8 weights; see FastQuantLSTM.

    Its tensors are those of a FastQuantLSTM of one layer, `_l0` and all: each loads the other's
    state_dict. A float state_dict is nn.LSTMCell's.
    """

    activation_choices = FastQuantLSTM.activation_choices
    precision_choices = FastQuantLSTM.precision_choices

    @classmethod
    def from_quantized(cls, cell: Any, **options: Any) -> Self:
        """Takes over a torch.ao.nn.quantized.dynamic.LSTMCell, see FastQuantLSTM.from_quantized."""
        cls._check_quantized_twin(cell)
        sizes = cell.input_size, cell.hidden_size, cell.bias
        return cls(*sizes, device="meta", **options)._take_quantized(cell)

    def dequantize(self) -> nn.LSTMCell:
        """An nn.LSTMCell with the weights that the int8 tensors stand for."""
        return self.to_float()


class FastSparseLSTMCell(FastLSTMCell):
    """An nn.LSTMCell with float32 weights on kernels that skip zeros; see FastSparseLSTM."""

    activation_choices = FastSparseLSTM.activation_choices
    precision_choices = FastSparseLSTM.precision_choices

    def to_dense(self) -> nn.LSTMCell:
        """An nn.LSTMCell with the same weights, zeros written out."""
        return self.to_float()
