"""The ways in which people call nn.LSTM and nn.LSTMCell, as one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from lstm_fastkernels.modules.leaf import call_as_leaf
from lstm_fastkernels.modules.refusals import explain_refusal
from lstm_fastkernels.modules.states import States, two_states
from lstm_fastkernels.ops.dispatch import cast_for_autocast
from lstm_fastkernels.weights.formats import ID_DTYPES

# x [T, B, I], [B, T, I] with batch_first, or a PackedSequence's data [N, I], I = 1 of ids; (h0, c0)
# [layers * directions, B, size], or None; int64 lengths [B] or, with data, batch_sizes;
# batch_first.
ToRun = tuple[Tensor, States | None, Tensor | None, bool]
# Ids' dimensions in each form of a call, and those in words.
_ID_FORMS = {
    "sequence": ((1, 2), "[T, B], [B, T] with batch_first, or [T]"),
    "packed": ((1,), "[N]"),
    "step": ((0, 1), "[B] or []"),
}
# From these y, in the form of x, and (h_n, c_n).
Run = Callable[..., tuple[Tensor, States]]


class IdCalls:
    """Token ids as inputs."""

    takes_ids: bool

    def _with_columns(self, input: Tensor, form: str) -> Tensor:
        """The input or, where the module takes_ids, [..., 1]: as ops.lstm takes them.

        form: a word of _ID_FORMS. Raises TypeError and ValueError for what is no ids then.
        """
        if not self.takes_ids:
            return input
        if not isinstance(input, Tensor):
            raise TypeError(
                f"input must be an int64 tensor of token ids, got {type(input).__name__}: "
                "torch.as_tensor makes one"
            )
        explain_refusal(input, None, None, None)
        dims, shapes = _ID_FORMS[form]
        if input.dtype not in ID_DTYPES:
            raise ValueError(
                f"this {type(self).__name__} reads token ids, int64 or int32 {shapes}, "
                f"got {input.dtype}"
            )
        if input.dim() not in dims:
            raise ValueError(f"token ids must be {shapes}, got {input.dim()}D input")
        return input.unsqueeze(-1)


class LstmCalls(IdCalls):
    """nn.LSTM's call over `_run`."""

    batch_first: bool
    _run: Run

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        """y, (h_n, c_n) as nn.LSTM gives them.

        input: [T, B, I], [B, T, I] with batch_first, [T, I] for one sequence, or a PackedSequence;
        float32, float16 or bfloat16. For a module that takes_ids: the same without I, int64 or
        int32, each in 0..input_size - 1; y is float32. hx: (h0, c0), float32 or of the input's
        dtype, as y is. lengths: int64
        [B] on the CPU, each in 1..T, in any order: y is zero past a row's length and h_n, c_n are
        the states there; the form of a PackedSequence that torch.compile can trace.
        Raises ValueError for a wrong rank or dtype, RuntimeError for wrong sizes, as nn.LSTM does,
        and for ids out of range.
        """
        if not isinstance(input, Tensor):
            return self._forward_other(input, hx, lengths)
        return self._forward_columns(self._with_columns(input, "sequence"), hx, lengths)

    def _forward_columns(
        self, input: Tensor, hx: States | None, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        if input.dim() != 3:
            return self._forward_unbatched(input, hx, lengths)
        return self._run(input, hx, lengths, self.batch_first)

    def _to_run(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        lengths: Tensor | None = None,
    ) -> ToRun:
        if isinstance(input, PackedSequence):
            return self._packed_to_run(input, hx, lengths)
        input = self._with_columns(input, "sequence")
        if input.dim() != 3:
            return self._unbatched_to_run(input, hx, lengths)
        return input, hx, lengths, self.batch_first

    def _forward_other(self, input: Any, hx: States | None, lengths: Tensor | None) -> Any:
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, lengths)
        if isinstance(input, Proxy):
            return call_as_leaf(self, input, hx, lengths)
        raise TypeError(
            f"input must be a tensor or a PackedSequence, got {type(input).__name__}: "
            "torch.as_tensor makes one"
        )

    def _forward_unbatched(
        self, input: Tensor, hx: States | None, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        y, (h, c) = self._run(*self._unbatched_to_run(input, hx, lengths))
        return y.squeeze(1), (h.squeeze(1), c.squeeze(1))

    def _unbatched_to_run(self, input: Tensor, hx: States | None, lengths: Tensor | None) -> ToRun:
        if input.dim() != 2:
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        if lengths is not None:
            raise ValueError("lengths go with a batch of sequences (3D input), got 2D input")
        h, c = (None, None) if hx is None else two_states(hx)
        explain_refusal(input, h, c, None)
        if h is not None and c is not None:
            if h.dim() != 2 or c.dim() != 2:
                raise RuntimeError(
                    "For unbatched 2-D input, hx and cx should also be 2-D "
                    f"but got ({h.dim()}-D, {c.dim()}-D) tensors"
                )
            hx = h.unsqueeze(1), c.unsqueeze(1)
        return input.unsqueeze(1), hx, None, False

    def _forward_packed(
        self, input: PackedSequence, hx: States | None, lengths: Tensor | None
    ) -> tuple[PackedSequence, States]:
        y, (h, c) = self._run(*self._packed_to_run(input, hx, lengths))
        _, batch_sizes, sorted_indices, unsorted_indices = input
        if unsorted_indices is not None:
            h, c = h.index_select(1, unsorted_indices), c.index_select(1, unsorted_indices)
        return PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices), (h, c)

    def _packed_to_run(
        self, input: PackedSequence, hx: States | None, lengths: Tensor | None
    ) -> ToRun:
        if lengths is not None:
            raise ValueError("a PackedSequence has its own lengths: give it without `lengths`")
        data, batch_sizes, sorted_indices, _ = input
        if hx is not None and sorted_indices is not None:
            h, c = two_states(hx)
            hx = h.index_select(1, sorted_indices), c.index_select(1, sorted_indices)
        data = self._with_columns(data, "packed")
        return data, hx, batch_sizes, False


class CellCalls(IdCalls):
    """nn.LSTMCell's call over `_run`, as an LSTM of one layer and one step."""

    hidden_size: int
    _run: Run

    def forward(self, input: Tensor, hx: States | None = None) -> States:
        """(h, c) [B, H] or [H], from input [B, I] or [I], ids [B] or [], and hx = (h, c), as
        nn.LSTMCell."""
        if isinstance(input, Proxy):
            proxy: Any = call_as_leaf(self, input, hx)
            return proxy
        return self._forward_columns(self._with_columns(input, "step"), hx)

    def _forward_columns(self, input: Tensor, hx: States | None) -> States:
        ids = self.takes_ids  # which autocast leaves as they are
        if not ids and torch.is_autocast_enabled("cpu") and getattr(input, "is_cpu", False):
            return self._forward_autocast(input, hx)
        try:
            arguments = self._columns_to_run(input, hx)
        except (AttributeError, RuntimeError):
            states: Any = (None, None) if hx is None else two_states(hx)
            explain_refusal(input, states[0], states[1], None)
            raise
        _, (h, c) = self._run(*arguments)
        first = (0,) * (3 - input.dim())
        return h[first], c[first]

    def _forward_autocast(self, input: Tensor, hx: States | None) -> States:
        """As nn.LSTMCell on the CPU, where autocast reaches its products alone: the state is as
        wide as the one before."""
        dtype = torch.get_autocast_dtype("cpu")
        if hx is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            hx = zeros, zeros
        h, c = (state.to(torch.promote_types(state.dtype, dtype)) for state in two_states(hx))
        with torch.autocast("cpu", enabled=False):
            return self.forward(cast_for_autocast(input, dtype), (h, c))

    def _to_run(self, input: Tensor, hx: States | None = None) -> ToRun:
        return self._columns_to_run(self._with_columns(input, "step"), hx)

    def _columns_to_run(self, input: Tensor, hx: States | None) -> ToRun:
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
