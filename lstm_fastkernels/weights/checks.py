"""What tensors from outside must be, and what is wrong with those that are not."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake


class Kind(NamedTuple):
    """What a tensor must be: dtype None is any float dtype, None in the shape any size."""

    dtype: torch.dtype | None
    shape: tuple[int | None, ...]
    check: Callable[[Tensor], str | None] | None = None  # says what is wrong with the values

    def empty(self, device: torch.device | str) -> Tensor:
        """Memory for one; any size is 0."""
        return torch.empty([size or 0 for size in self.shape], dtype=self.dtype, device=device)

    def fault(self, value: object) -> str | None:
        """What is wrong with a value, if anything. Floats must be finite."""
        if not isinstance(value, Tensor):
            return f"expected a tensor, got {type(value).__name__}"
        if kind := special_kind(value):
            return f"expected a dense tensor, got a {kind} one"
        if value.dim() != len(self.shape) or any(
            wanted not in (None, size) for size, wanted in zip(value.shape, self.shape, strict=True)
        ):
            sizes = str(tuple("any" if size is None else size for size in self.shape))
            expected = sizes.replace("'", "")
            return f"size mismatch: expected {expected}, got {tuple(value.shape)}"
        if value.dtype != self.dtype if self.dtype else not value.is_floating_point():
            return f"expected dtype {self.dtype or 'float'}, got {value.dtype}"
        if value.is_meta or is_fake(value):
            return None
        if value.is_floating_point() and not value.isfinite().all():
            return "values must be finite"
        return self.check(value) if self.check else None


def special_kind(tensor: Tensor) -> str | None:
    """What a tensor is if it is no plain, dense one: "sparse_coo", "nested", "quantized"."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantized"
    layout = str(tensor.layout).removeprefix("torch.")
    return None if tensor.layout is torch.strided else layout


class Misfits(NamedTuple):
    """What is wrong with tensors by name."""

    missing: list[str]
    unexpected: list[str]
    faults: dict[str, str]


def compare(given: Mapping[str, object], expected: Mapping[str, Kind]) -> Misfits:
    return Misfits(
        [name for name in expected if name not in given],
        [name for name in given if name not in expected],
        {
            name: fault
            for name, kind in expected.items()
            if name in given and (fault := kind.fault(given[name]))
        },
    )
