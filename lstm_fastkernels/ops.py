"""The compiled ops: loading, fake kernels for torch.compile and torch.export, instruction sets."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lstm_fastkernels.paths import HOW_TO_BUILD

_LIBRARIES = sorted(Path(__file__).parent.glob("_ops*.so"))
if not _LIBRARIES:
    raise ImportError(
        f"lstm_fastkernels was not built: its compiled ops are missing. {HOW_TO_BUILD}"
    )
torch.ops.load_library(str(_LIBRARIES[0]))
_LIBRARY = ctypes.CDLL(str(_LIBRARIES[0]))

_ops = torch.ops.lstm_fastkernels
lstm = _ops.lstm.default


def cuda_built() -> bool:
    """Whether this build has CUDA kernels."""
    return bool(_ops.cuda_built())


def get_isa() -> str:
    """The instruction set that kernels use: "scalar", "avx2" or "avx512vnni"."""
    return str(_ops.get_isa())


def supported_isas() -> list[str]:
    """The instruction sets that this machine and LSTM_FASTKERNELS_ISA allow, lowest first."""
    return str(_ops.supported_isas()).split()


def set_isa(name: str) -> None:
    """Chooses one of `supported_isas()` for the whole process, from the next call on.

    Outputs are bit-identical on all of them. Raises ValueError for any other name.
    """
    _ops.set_isa(name)


def release_memory() -> None:
    """Frees what the CPU's ops keep between calls; calls that run keep theirs, later ones take new.

    That is scratch memory of threads, up to 32 MB each; idle worker threads, which end by
    themselves after 10 seconds; and packed weights that exported programs have left behind.
    """
    _ops.release_memory()


@torch.library.register_fake("lstm_fastkernels::lstm")
def _lstm_fake(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    packed: Tensor,
    shape: list[int],
    batch_first: bool,
    header: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    for name, tensor in {"input": x, "h0": h0, "c0": c0}.items():
        if tensor is not None and tensor.device != packed.device:
            raise RuntimeError(f"{name} must be on {packed.device}, got {tensor.device}")
    if lengths is not None and lengths.device.type != "cpu" and not packed.is_meta:
        raise RuntimeError(f"lengths must be on cpu, got {lengths.device}")
    _, hidden_size, proj_size, num_layers, directions = shape
    if x.dim() == 2:
        batch = h0.shape[1] if h0 is not None else torch.library.get_ctx().new_dynamic_size()
    else:
        batch = x.shape[0 if batch_first else 1]
    state = x if h0 is None else h0
    cells, output_size = num_layers * directions, proj_size or hidden_size
    return (
        x.new_empty((*x.shape[:-1], directions * output_size)),
        state.new_empty((cells, batch, output_size)),
        state.new_empty((cells, batch, hidden_size)),
    )


@torch.library.register_fake("lstm_fastkernels::no_backward")
def _no_backward_fake(gradient: Tensor, shape: list[int]) -> Tensor:
    return gradient.new_empty(shape)


class _WithoutGradient(torch.autograd.Function):
    """lstm for an input that requires grad: forward runs, backward raises."""

    @staticmethod
    def forward(ctx, x, *arguments):  # type: ignore[no-untyped-def]
        ctx.shape = x.shape
        return lstm(x, *arguments)

    @staticmethod
    def backward(ctx, gradient, *_):  # type: ignore[no-untyped-def]
        return _ops.no_backward(gradient, ctx.shape), *[None] * 7


Result = tuple[Tensor, Tensor, Tensor]
Operation = Callable[..., Result]


def lstm_for(x: Tensor, h0: Tensor | None, c0: Tensor | None) -> Operation:
    """What to call with these tensors in grad mode: lstm, or its twin whose backward raises.

    Both take the op's arguments: (x, h0, c0, lengths, packed, shape, batch_first, header). x: [T,
    B, I], or [B, T, I] with batch_first, or a PackedSequence's data [N, I]; float32, float16 or
    bfloat16. h0, c0: [layers * directions, B, output or hidden size], float32 or of x's dtype, or
    both None for zeros. lengths: int64 [B] on the CPU, each in 1..T, or None; batch_sizes of the
    PackedSequence with 2-D x. shape: [input_size, hidden_size, proj_size, num_layers, directions].
    packed, header: from pack_lstm for the same shape, packed moved to x's device. They return y,
    h_n, c_n as nn.LSTM does, y of x's dtype and states of h0's (x's without h0).
    """
    if x.requires_grad or any(t is not None and t.requires_grad for t in (h0, c0)):
        return _WithoutGradient.apply
    return lstm


explain_lstm = _ops.explain_lstm  # with lstm's arguments
pack_lstm = _ops.pack_lstm.default


def forget_packed(address: int) -> None:
    """Packed weights at that address will not be run any more.

    Not an op: it is called when a module dies, which may be while someone traces ops.
    """
    _LIBRARY.lfk_forget_packed(ctypes.c_void_p(address))


@torch.library.register_fake("lstm_fastkernels::explain_lstm")
def _explain_fake(*arguments: object) -> str:
    raise RuntimeError(
        "explain looks at the weights, which tensors on meta and fake ones do not have: "
        "move the module and the input to the CPU or a CUDA device"
    )
