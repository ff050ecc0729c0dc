"""Fast twins of nn.LSTM, for inference: int8, or float32 that skips zeros."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.nn.utils.rnn import PackedSequence

from lstm_fastkernels.modules.calls import LstmCalls
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.float_lstm import LSTM_OPTIONS
from lstm_fastkernels.modules.forward_alone import shorten_calls
from lstm_fastkernels.modules.refusals import explain_refusal
from lstm_fastkernels.modules.states import State, States, two_states, zero_state
from lstm_fastkernels.ops import eager
from lstm_fastkernels.weights.formats import TABLES
from lstm_fastkernels.weights.packing import Keep
from lstm_fastkernels.weights.precision import Activations, PrecisionConfig
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import KERNEL_BLOCK, BlockSize, Layout, LayoutConfig


class FastLSTM(LstmCalls, FastModule):
    """nn.LSTM's constructor and call over compressed weights."""

    float_class = nn.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
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
        # nn.LSTM on no device checks the arguments, and words the errors, as people know them.
        nn.LSTM(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device="meta",
        )
        shape = LstmShape(
            input_size, hidden_size, proj_size, num_layers, num_directions=2 if bidirectional else 1
        )
        numbers = PrecisionConfig(activations, precision)
        rounding = RoundingConfig(pair_safe, group_size)
        matrices = LayoutConfig(layout, block_size)
        super().__init__(shape, bias, device, dtype, numbers, rounding, matrices, keep)
        self.batch_first = batch_first
        self.dropout = float(dropout)

    @classmethod
    def from_float(cls, lstm: nn.LSTM, **options: Any) -> Self:
        """Compresses an nn.LSTM; options are those that the class has beside nn.LSTM's.

        Hooks that run at a call are copied. Raises TypeError for another class, ValueError for
        a module that may compute something else (see convert) and weights that are not finite.
        """
        cls._check_float_twin(lstm)
        return cls._like(lstm, **options)._take_float(lstm)

    @classmethod
    def _like(cls, twin: nn.Module, **options: Any) -> Self:
        return cls(**arguments_of(twin), device="meta", **options)

    def to_float(self) -> nn.LSTM:
        return self._give_float(nn.LSTM(**arguments_of(self), device=self.packed.device))

    # ---- calls ----

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        if lengths is None and not is_dynamo_compiling():
            done = eager.lstm(self, input, hx)
            if done is not None:
                return done
        return super().forward(input, hx, lengths)

    forward.__doc__ = LstmCalls.forward.__doc__

    def step(self, x: Tensor, state: States, out: Tensor | None = None) -> Tensor:
        """y [B, directions * output size] of one time step, x [B, I]; or both without B.

        state: as new_state gives it, float32 or of x's dtype; it is replaced by the next one, in
        place. out: memory for y, contiguous and of x's dtype. y and state are those of forward.
        Hooks do not run. Raises RuntimeError, ValueError and TypeError as forward does, and then
        has changed nothing.
        """
        if not is_dynamo_compiling():
            done = eager.step(self, x, state, out, None)
            if done is not None:
                return done
        return self._step(x, state, out)

    def _step(self, x: Tensor, state: States, out: Tensor | None) -> Tensor:
        """The same by forward."""
        x = self._with_columns(x, "step")
        explain_refusal(x, None, None, None)
        if x.dim() not in (1, 2):
            raise ValueError(f"step takes x [B, I] or [I], got {x.dim()}D input")
        if not isinstance(state, tuple):
            raise TypeError(
                f"state must be (h, c), as new_state() makes it, got {type(state).__name__}"
            )
        h, c = two_states(state)
        time = 1 if x.dim() == 2 and self.batch_first else 0
        y, after = self._forward_columns(x.unsqueeze(time), (h, c), None)
        y = y.squeeze(time)
        changes = list(zip((h, c), after, strict=True))
        if out is not None:
            _check_output(out, y)
            changes.append((out, y))
        for tensor, _ in changes:
            tensor.copy_(tensor.clone())  # raises where it must not be written
        for tensor, value in changes:
            tensor.copy_(value)
        return y if out is None else out

    def flatten_parameters(self) -> None:
        """Does nothing: nn.LSTM has it, and models call it."""

    def new_state(self, batch_size: int | None = None, dtype: torch.dtype | None = None) -> State:
        """(h0, c0) of zeros on the module's device, as `forward` and `step` take them.

        h0 [layers * directions, batch_size, output size], c0 likewise with the hidden size; without
        batch_size, for a sequence on its own, without that dimension. float32, or dtype: the
        input's.
        """
        shape = self._spec.shape
        sizes = shape.output_size, shape.hidden_size
        return zero_state((shape.num_cells,), sizes, batch_size, self.packed.device, dtype)

    def extra_repr(self) -> str:
        changed = [
            f"{name}={getattr(self, name)}"
            for name, default in LSTM_OPTIONS.items()
            if getattr(self, name) != default
        ]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return ", ".join([*sizes, *changed, *self._options_repr()])


@shorten_calls()
class FastQuantLSTM(FastLSTM):
    """An nn.LSTM with int8 weights on fused kernels, for inference.

    Constructor, call and float checkpoints are nn.LSTM's. Each matrix has a precision: "int8",
    weights and activations in 8 bits; "int4", half the bytes: 4-bit weights with a scale for each
    group of `group_size` columns, 32, 64 or 128, and 8-bit activations; "int16", int8 weights with
    16-bit activations; or "float32", both float32. Activations, x and h, are quantized dynamically,
    per row and time step. `activations` gives all matrices one: "int8", the default; "int16";
    "int4"; or "mixed", which is "int16" for weight_ih of the first layer, in both directions, and
    "int8" for all else. `precision` maps names ("weight_hh_l1_reverse") and patterns as in fnmatch
    ("weight_ih_*") of those that are to differ to their precisions; a name wins over patterns, of
    patterns the first that matches. Two more are for `weight_ih` of the first layer, in both
    directions: "table" and "table_float16", its columns as float32 or float16 rows of a table, to
    which token ids are given as input, see fold_embedding.
    `pair_safe`, "auto", True or False, says how "int8" matrices are rounded, see quantize_rows.

    `layout` says how each matrix is stored and run: "dense"; "block_sparse", which skips the 8x4
    blocks that are zero; or "auto", which takes the faster one by the share of blocks that are not
    zero. `block_size`, rows and columns, is how blocks are stored. `load_state_dict` takes a float
    nn.LSTM's state_dict, which it quantizes, or its own, whose integers it takes as they are.
    `dropout` is accepted and idle; a backward pass through the module raises. Raises ValueError for
    options that are none of these, and for names and patterns that match no matrix.

    `keep` says what stays in memory: "canonical", the tensors below and the packed form of them,
    which the kernels read; or "packed", half of that: the packed form and the biases alone. The
    other tensors are then made again when they are asked for, see docs/modules.md.

    Tensors per layer and direction, suffix `_l{k}` and `_reverse` as in nn.LSTM: `weight_ih`,
    `weight_hh`, `weight_hr` int8, with `..._scale` float32, one a row; or uint8, two 4-bit integers
    a byte, with `..._scale` float32 [rows, groups]; or float32; `bias` float32, b_ih + b_hh. For
    token ids, `weight_ih_l0_table` float32 or float16 [input_size, 4 hidden_size]. In the place of
    a block-sparse matrix stand `..._values` [blocks, rows, columns], and int32 `..._crow_indices`
    and `..._col_indices`, as in torch's BSR, each gate padded to whole blocks.
    Outputs are bit-identical across layouts, batch size, padding, chunks of a sequence (with
    float32 states), threads, instruction sets, and the CPU and CUDA.
    """

    activation_choices = ("int8", "int16", "mixed", "int4")
    precision_choices = ("int8", "int16", "int4", "float32", *TABLES)

    @classmethod
    def from_quantized(cls, lstm: nn.Module, **options: Any) -> Self:
        """Takes over an LSTM that torch.ao's quantize_dynamic has made, its integers as they are.

        lstm: a torch.ao.nn.quantized.dynamic.LSTM of int8 weights, with scales of its matrices or
        of their rows; options are those of from_float. A precision is "int8" or "int16". Hooks that
        run at a call are copied. Raises TypeError for another class, ValueError for float16
        weights, zero points, another precision and what from_float refuses.
        """
        cls._check_quantized_twin(lstm)
        return cls._like(lstm, **options)._take_quantized(lstm)

    def dequantize(self) -> nn.LSTM:
        """An nn.LSTM with the weights that the tensors stand for, float32, same device."""
        return self.to_float()


@shorten_calls()
class FastSparseLSTM(FastLSTM):
    """An nn.LSTM with float32 weights on fused kernels that skip zeros, for inference.

    For a model that was pruned in blocks (see prune_): the kernels skip each 8x4 block that is
    zero, cut per gate. Constructor, call and float checkpoints are nn.LSTM's; `layout` and
    `block_size` say how matrices are stored, `keep` what stays in memory, as in FastQuantLSTM; they
    do not change the arithmetic.
    Sums run in the order of the columns, whatever the batch, chunks, threads, instruction set and
    device: outputs are bit-identical across them. `dropout` is idle; a backward pass through the
    module raises.

    Tensors and precisions are those of a FastQuantLSTM whose matrices are all "float32"; there are
    no other precisions.
    """

    activation_choices = ("float32",)
    precision_choices = ("float32",)

    def to_dense(self) -> nn.LSTM:
        """An nn.LSTM with the same weights, zeros written out."""
        return self.to_float()


def arguments_of(lstm: Any) -> dict[str, Any]:
    """nn.LSTM's arguments that describe an LSTM, of whatever class."""
    options = {name: getattr(lstm, name, default) for name, default in LSTM_OPTIONS.items()}
    return {"input_size": lstm.input_size, "hidden_size": lstm.hidden_size, **options}


def _check_output(out: object, y: Tensor) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a tensor, got {type(out).__name__}")
    if (out.shape, out.dtype, out.device) != (y.shape, y.dtype, y.device):
        raise ValueError(
            f"out must be {y.dtype}, {list(y.shape)}, on {y.device}, got {out.dtype}, "
            f"{list(out.shape)}, on {out.device}"
        )
