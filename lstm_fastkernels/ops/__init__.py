"""The compiled ops by their names, and instruction sets."""

from typing import Any

from lstm_fastkernels.ops import dispatch, eager
from lstm_fastkernels.ops.library import compiled

# lstm(x, h0, c0, lengths, packed, shape, batch_first, header). x: [T, B, I], or [B, T, I] with
# batch_first, or a PackedSequence's data [N, I]; float32, float16 or bfloat16; of token ids, int64
# or int32, I = 1, and all that is of x's dtype below is float32. h0, c0: [layers * directions, B,
# output or hidden size], float32 or of x's dtype, or both None for zeros. lengths:
# int64 [B] on the CPU, each in 1..T, or None; batch_sizes of the PackedSequence with 2-D x. shape:
# [input_size, hidden_size, proj_size, num_layers, directions]. packed, header: from pack_lstm for
# the same shape, packed moved to x's device. Gives y, h_n, c_n as nn.LSTM does, y of x's dtype and
# states of h0's (x's without h0).
lstm = compiled.lstm.default
plain_lstm = compiled.lstm.plain  # for callers who know that nothing listens above it
explain_lstm = compiled.explain_lstm  # with lstm's arguments
pack_lstm = compiled.pack_lstm.default
unpack_lstm = compiled.unpack_lstm.default
packed_fits = compiled.packed_fits.default
hash_tensors = compiled.hash_tensors.default
quantize_rows = compiled.quantize_rows.default
quantize_groups = compiled.quantize_groups.default
lstm_without_gradient = dispatch.lstm_without_gradient
refuse_derivatives = dispatch.refuse_derivatives


def least_lstm() -> Any:
    """lstm or, where nothing but gradients listens to torch's dispatcher, plain_lstm: no mode,
    transform, autocast, tracer or forward-mode differentiation."""
    return plain_lstm if eager.quiet() else lstm


def cuda_built() -> bool:
    """Whether this build has CUDA kernels."""
    return bool(compiled.cuda_built())


def get_isa() -> str:
    """The instruction set that kernels use, one of `supported_isas()`."""
    return str(compiled.get_isa())


def supported_isas() -> list[str]:
    """The instruction sets that this machine and LSTM_FASTKERNELS_ISA allow, lowest first."""
    return str(compiled.supported_isas()).split()


def set_isa(name: str) -> None:
    """Chooses one of `supported_isas()` for the whole process, from the next call on.

    Outputs are bit-identical on all of them. Raises ValueError for any other name.
    """
    compiled.set_isa(name)


def release_memory() -> None:
    """Frees what the CPU's ops keep between calls; calls that run keep theirs, later ones take new.

    That is scratch memory of threads, up to 32 MB each; idle worker threads, which end by
    themselves after 10 seconds; and packed weights that exported programs have left behind.
    """
    compiled.release_memory()
