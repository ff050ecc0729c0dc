"""Fast twins of nn.LSTMCell, for inference: int8, or float32 that skips zeros."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from lstm_fastkernels.modules.calls import CellCalls
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.forward_alone import shorten_calls
from lstm_fastkernels.modules.lstm import FastQuantLSTM, FastSparseLSTM
from lstm_fastkernels.modules.states import State, States, zero_state
from lstm_fastkernels.ops import eager
from lstm_fastkernels.weights.packing import Keep
from lstm_fastkernels.weights.precision import Activations, PrecisionConfig
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import KERNEL_BLOCK, BlockSize, Layout, LayoutConfig


class FastLSTMCell(CellCalls, FastModule):
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
        keep: Keep = "canonical",
    ) -> None:
        shape = LstmShape(input_size, hidden_size)
        numbers = PrecisionConfig(activations, precision)
        rounding = RoundingConfig(pair_safe, group_size)
        matrices = LayoutConfig(layout, block_size)
        super().__init__(shape, bias, device, dtype, numbers, rounding, matrices, keep)

    def _float_names(self) -> dict[str, str]:
        return {name: name.removesuffix("_l0") for name in super()._float_names()}

    @classmethod
    def from_float(cls, cell: nn.LSTMCell, **options: Any) -> Self:
        """Compresses an nn.LSTMCell; options and errors are those of FastQuantLSTM.from_float."""
        cls._check_float_twin(cell)
        return cls._like(cell, **options)._take_float(cell)

    @classmethod
    def _like(cls, twin: Any, **options: Any) -> Self:
        sizes = twin.input_size, twin.hidden_size, bool(twin.bias)
        return cls(*sizes, device="meta", **options)

    def to_float(self) -> nn.LSTMCell:
        cell = nn.LSTMCell(self.input_size, self.hidden_size, self.bias, device=self.packed.device)
        return self._give_float(cell)

    def new_state(self, batch_size: int | None = None, dtype: torch.dtype | None = None) -> State:
        """(h, c) of zeros, each [batch_size, H] or [H], on the module's device; float32, or dtype:
        the input's."""
        sizes = self.hidden_size, self.hidden_size
        return zero_state((), sizes, batch_size, self.packed.device, dtype)

    def forward(self, input: Tensor, hx: States | None = None) -> States:
        if not is_dynamo_compiling():
            done = eager.cell(self, input, hx)
            if done is not None:
                return done
        return super().forward(input, hx)

    forward.__doc__ = CellCalls.forward.__doc__

    def extra_repr(self) -> str:
        bias = [] if self.bias else ["bias=False"]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return ", ".join([*sizes, *bias, *self._options_repr()])


@shorten_calls(is_cell=True)
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
        return cls._like(cell, **options)._take_quantized(cell)

    def dequantize(self) -> nn.LSTMCell:
        """An nn.LSTMCell with the weights that the int8 tensors stand for."""
        return self.to_float()


@shorten_calls(is_cell=True)
class FastSparseLSTMCell(FastLSTMCell):
    """An nn.LSTMCell with float32 weights on kernels that skip zeros; see FastSparseLSTM."""

    activation_choices = FastSparseLSTM.activation_choices
    precision_choices = FastSparseLSTM.precision_choices

    def to_dense(self) -> nn.LSTMCell:
        """An nn.LSTMCell with the same weights, zeros written out."""
        return self.to_float()
