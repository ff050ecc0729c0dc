"""What kinds of tensor a module meets among its own."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import _disable_current_modes


def is_traced(tensor: Tensor) -> bool:
    """Whether a tracer or transform put it in another tensor's place: it has no values of its own,
    or more than one of them."""
    return (
        torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        or torch._is_functional_tensor(tensor)
        or is_fake(tensor)
    )


def to_hold(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that is contiguous and counts its changes."""
    return tensor.clone() if tensor.is_inference() else tensor.contiguous()


def in_same_place(held: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor can be copied into the one that is held."""
    return (
        not held.is_inference()
        and not held.is_meta
        and (held.shape, held.dtype, held.device) == (tensor.shape, tensor.dtype, tensor.device)
    )


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """What is computed from real tensors inside is no part of what tracers and transforms see."""
    with _disable_current_modes(), temporarily_clear_interpreter_stack():
        yield
