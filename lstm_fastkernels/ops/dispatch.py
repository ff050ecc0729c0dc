"""What stands above the op `lstm` in torch's dispatcher: derivatives, autocast, fake tensors."""

from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from lstm_fastkernels.ops.library import compiled

Result = tuple[Tensor, Tensor, Tensor]

_NO_DERIVATIVE = (
    "this LSTM is for inference: its compressed weights have no gradient, and neither torch.func "
    "nor forward-mode differentiation can go through it. Take the float nn.LSTM that dequantize() "
    "or to_dense() gives"
)


class _WithoutGradient(torch.autograd.Function):
    """lstm for tensors that require grad: forward runs, backward raises.

    The first `count` values are no arguments of the op, but their derivatives are asked for, too.
    """

    @staticmethod
    def forward(ctx, count, *values):  # type: ignore[no-untyped-def]
        ctx.shapes = [value.shape if isinstance(value, Tensor) else None for value in values]
        return compiled.lstm.default(*values[count:])

    @staticmethod
    def backward(ctx, gradient, *_):  # type: ignore[no-untyped-def]
        asked = zip(ctx.needs_input_grad[1:], ctx.shapes, strict=True)
        return None, *(
            compiled.no_backward(gradient, shape) if needed else None for needed, shape in asked
        )


def lstm_without_gradient(sources: list[Tensor], *arguments: Any) -> Result:
    """lstm, of which sources' derivatives are asked for beside those of x, h0 and c0."""
    result: Result = _WithoutGradient.apply(len(sources), *sources, *arguments)
    return result


def refuse_derivatives(*tensors: Tensor | None) -> None:
    """RuntimeError where torch.func or forward-mode differentiation would look for a derivative."""
    given = [tensor for tensor in tensors if tensor is not None]
    if forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in given
    ):
        raise RuntimeError(_NO_DERIVATIVE)
    if torch._C._are_functorch_transforms_active() and any(t.requires_grad for t in given):
        raise RuntimeError(_NO_DERIVATIVE)


def _below_autograd(*arguments: Any) -> Result:
    with torch._C._AutoDispatchBelowAutograd():
        result: Result = compiled.lstm.default(*arguments)
    return result


def _autograd(x: Tensor, h0: Tensor | None, c0: Tensor | None, *others: Any) -> Result:
    refuse_derivatives(x, h0, c0)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, h0, c0)):
        return lstm_without_gradient([], x, h0, c0, *others)
    return _below_autograd(x, h0, c0, *others)


def _autocast(device: str) -> Any:
    """Casts x and the states as autocast does for nn.LSTM."""
    key = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device.upper()}"))

    def kernel(x: Tensor, h0: Tensor | None, c0: Tensor | None, *others: Any) -> Result:
        casted = x, h0, c0
        if x.is_floating_point():  # with token ids, y and the states are float32
            dtype = torch.get_autocast_dtype(device)
            casted = tuple(cast_for_autocast(tensor, dtype) for tensor in casted)
        with torch._C._ExcludeDispatchKeyGuard(key):
            result: Result = compiled.lstm.default(*casted, *others)
        return result

    return kernel


def cast_for_autocast(tensor: Any, dtype: torch.dtype) -> Any:
    """The tensor in autocast's dtype; float64 and integers stay, as autocast has it."""
    castable = tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(dtype) if castable else tensor


_kernels = torch.library.Library("lstm_fastkernels", "IMPL")
_kernels.impl("lstm", _autograd, "Autograd")
for _device in ("cpu", "cuda"):
    _kernels.impl("lstm", _autocast(_device), f"Autocast{_device.upper()}")


@torch.library.register_fake("lstm_fastkernels::lstm.plain")
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
) -> Result:
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
    dtype = x.dtype if x.is_floating_point() else torch.float32
    state_dtype = dtype if h0 is None else h0.dtype
    cells, output_size = num_layers * directions, proj_size or hidden_size
    return (
        x.new_empty((*x.shape[:-1], directions * output_size), dtype=dtype),
        x.new_empty((cells, batch, output_size), dtype=state_dtype),
        x.new_empty((cells, batch, hidden_size), dtype=state_dtype),
    )


@torch.library.register_fake("lstm_fastkernels::quantize_rows")
def _quantize_rows_fake(weight: Tensor, pair_safe: bool | None) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape, dtype=torch.int8), weight.new_empty(weight.shape[:1])


@torch.library.register_fake("lstm_fastkernels::quantize_groups")
def _quantize_groups_fake(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    rows, columns = weight.shape
    packed = weight.new_empty((rows, (columns + 1) // 2), dtype=torch.uint8)
    return packed, weight.new_empty((rows, (columns + group_size - 1) // group_size))


@torch.library.register_fake("lstm_fastkernels::pack_lstm")
def _pack_fake(
    tensors: list[Tensor], names: list[str], *_: object, **__: object
) -> tuple[Tensor, None]:
    for name, tensor in zip(names, tensors, strict=True):
        if not tensor.is_cpu:
            raise RuntimeError(f"{name} must be on the CPU, got {tensor.device}")
    return torch.empty(0, dtype=torch.uint8, device="cpu"), None


@torch.library.register_fake("lstm_fastkernels::unpack_lstm")
def _unpack_fake(packed: Tensor, shape: list[int]) -> tuple[list[Tensor], list[str]]:
    raise RuntimeError("packed weights on meta and fake ones have no values to be unpacked")


@torch.library.register_fake("lstm_fastkernels::no_backward")
def _no_backward_fake(gradient: Tensor, shape: list[int]) -> Tensor:
    return gradient.new_empty(shape)


@torch.library.register_fake("lstm_fastkernels::explain_lstm")
def _explain_fake(*arguments: object) -> str:
    raise RuntimeError(
        "explain looks at the weights, which tensors on meta and fake ones do not have: "
        "move the module and the input to the CPU or a CUDA device"
    )
