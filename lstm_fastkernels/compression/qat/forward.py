"""What a prepared nn.LSTM or nn.LSTMCell does when it is called: what its quantized twin will."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_fastkernels.compression.qat.layer import Layer
from lstm_fastkernels.compression.qat.prepared import read
from lstm_fastkernels.modules.calls import CellCalls, LstmCalls
from lstm_fastkernels.modules.refusals import explain_refusal
from lstm_fastkernels.modules.states import States, two_states
from lstm_fastkernels.ops.dispatch import cast_for_autocast
from lstm_fastkernels.weights.formats import INPUT_DTYPES
from lstm_fastkernels.weights.shape import names_of_part


@torch.compiler.disable
def lstm_forward(
    self: nn.LSTM, input: Tensor | PackedSequence, hx: States | None = None
) -> tuple[Tensor | PackedSequence, States]:
    """As nn.LSTM.forward, with what the FastQuantLSTM gives that the module will be."""
    return _LstmCall(self).forward(input, hx)


@torch.compiler.disable
def cell_forward(self: nn.LSTMCell, input: Tensor, hx: States | None = None) -> States:
    """As nn.LSTMCell.forward, with what the FastQuantLSTMCell gives that the module will be."""
    return _CellCall(self).forward(input, hx)


class _Call:
    """A call of a prepared module."""

    def __init__(self, module: Any) -> None:
        if torch._C._is_tracing() or torch.compiler.is_exporting():
            raise RuntimeError(
                "a prepared LSTM cannot be traced or exported: call quantize_ with a QATConfig of "
                'step "convert" before'
            )
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                "torch.func cannot go through a prepared LSTM: use torch.autograd.grad"
            )
        self.takes_ids = False  # an embedding is trained before it is folded
        self.hidden_size: int = module.hidden_size
        self.batch_first: bool = getattr(module, "batch_first", False)
        self._dropout = getattr(module, "dropout", 0.0) if module.training else 0.0
        self._prepared = read(module)
        self._device = next(iter(self._prepared.tensors.values())).device

    def _run(
        self, x: Tensor, hx: States | None, lengths: Tensor | None, batch_first: bool
    ) -> tuple[Tensor, States]:
        h0, c0 = (None, None) if hx is None else two_states(hx)
        explain_refusal(x, h0, c0, None)
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x = cast_for_autocast(x, dtype)
            hx = hx and tuple(cast_for_autocast(state, dtype) for state in hx)
        if x.dim() == 2:
            assert lengths is not None
            sequence = PackedSequence(x, lengths)
            x, counts = pad_packed_sequence(sequence)
            y, last = self._run_padded(x, hx, counts)
            return pack_padded_sequence(y, counts).data, last
        if not batch_first:
            return self._run_padded(x, hx, lengths)
        y, last = self._run_padded(x.transpose(0, 1), hx, lengths)
        return y.transpose(0, 1), last

    def _run_padded(
        self, x: Tensor, hx: States | None, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        """y, (h_n, c_n) of x [T, B, I]."""
        shape = self._prepared.shape
        sizes = shape.output_size, shape.hidden_size
        h0, c0 = hx or (x.new_zeros(shape.num_cells, x.shape[1], size) for size in sizes)
        self._check(x, (h0, c0))
        y, finals = x.float(), []
        for depth in range(shape.num_layers):
            if depth and self._dropout:
                y = F.dropout(y, self._dropout)
            cells = slice(depth * shape.num_directions, (depth + 1) * shape.num_directions)
            own = h0[cells].float(), c0[cells].float()
            y, final = self._layer(depth)(y, own, lengths)
            finals.append(final)
        h, c = (torch.cat(states).to(h0.dtype) for states in zip(*finals, strict=True))
        return y.to(x.dtype), (h, c)

    def _layer(self, depth: int) -> Layer:
        whole = self._prepared
        own = names_of_part(whole.weights, depth), names_of_part(whole.tensors, depth)
        return Layer(whole.shape.part(depth), names_of_part(whole.precision, depth), *own)

    def _check(self, x: Tensor, hx: States) -> None:
        """Raises what FastQuantLSTM would for these, ValueError or RuntimeError."""
        shape = self._prepared.shape
        if x.dtype not in INPUT_DTYPES:
            raise ValueError(
                f"input must be float32, float16 or bfloat16, got {x.dtype}: use .float()"
            )
        if x.shape[2] != shape.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {shape.input_size}, got {x.shape[2]}"
            )
        if not len(x):
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        for number, (state, size) in enumerate(
            zip(hx, (shape.output_size, shape.hidden_size), strict=True)
        ):
            expected = shape.num_cells, x.shape[1], size
            if state.shape != expected:
                raise RuntimeError(
                    f"Expected hidden[{number}] size {expected}, got {list(state.shape)}"
                )
            if state.dtype != hx[0].dtype or state.dtype not in (torch.float32, x.dtype):
                raise ValueError(
                    "h0 and c0 must be of one dtype, float32 or the input's, got "
                    f"{hx[0].dtype} and {hx[1].dtype}"
                )
        for name, tensor in {"input": x, "h0": hx[0], "c0": hx[1]}.items():
            if tensor.device != self._device:
                raise RuntimeError(
                    f"{name} must be on {self._device}, where the weights are, got {tensor.device}"
                )


class _LstmCall(LstmCalls, _Call):
    pass


class _CellCall(CellCalls, _Call):
    pass
