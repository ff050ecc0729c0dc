"""Packing: canonical tensors as the bytes that the kernels of a device read, and back."""

import weakref
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from lstm_fastkernels import ops
from lstm_fastkernels.ops.library import forget_packed
from lstm_fastkernels.weights.canonical import CanonicalLSTM
from lstm_fastkernels.weights.shape import LstmShape

# What a module holds: canonical tensors and what is packed from them, or that alone.
Keep = Literal["canonical", "packed"]


def checked_keep(keep: Keep) -> Keep:
    """ValueError for another one."""
    if keep not in get_args(Keep):
        raise ValueError(f"keep must be one of {list(get_args(Keep))}, got {keep!r}")
    return keep


class Packed(NamedTuple):
    """data: uint8 [bytes], empty for a device without kernels. header: the host's copy of the
    header, on CUDA alone."""

    data: Tensor
    header: list[int] | None

    @property
    def can_be_unpacked(self) -> bool:
        """Whether unpack gives the tensors back: there are bytes for kernels."""
        return self.data.numel() > 0


def forget_with(owner: object, packed: Packed) -> "weakref.finalize[..., object]":
    """What lets the ops forget packed weights, when called or when their owner is gone."""
    address = 0 if is_fake(packed.data) else packed.data.data_ptr()
    forget = weakref.finalize(owner, forget_packed, address)
    forget.atexit = False
    return forget


def pack(canonical: CanonicalLSTM) -> Packed:
    """Packs for the device that the tensors are on; the result is on that device.

    Raises RuntimeError, naming the tensor, for invalid block indices and scales.
    """
    return _to(_pack_on_host(canonical), canonical.device)


def pack_if_valid(canonical: CanonicalLSTM) -> Packed:
    """As pack, but empty for invalid tensors, which to_empty leaves behind."""
    try:
        packed = _pack_on_host(canonical)
    except RuntimeError:
        packed = _nothing()
    return _to(packed, canonical.device)


def unpack(data: Tensor, shape: LstmShape) -> dict[str, Tensor]:
    """The canonical tensors that `data`, uint8 [bytes], was packed from, in new memory on its
    device.

    They are equal to those that were packed, but blocks of a block-sparse matrix that hold zeros
    alone are left out, and without biases there are zeros for them. Raises RuntimeError, naming the
    matrix, for bytes that pack did not write, and for those of another shape.
    """
    tensors, names = ops.unpack_lstm(data.cpu(), shape.sizes)
    return {name: t.to(data.device) for name, t in zip(names, tensors, strict=True)}


class PackedForFile(NamedTuple):
    """data: packed for the CPU, uint8 [bytes]. packed_from: the hash of the canonical tensors."""

    data: Tensor
    packed_from: str


def pack_for_file(canonical: CanonicalLSTM) -> PackedForFile:
    """Packs for the CPU, whatever device the tensors are on."""
    data, _ = ops.pack_lstm(*_named(canonical), *_sizes(canonical), False)
    return PackedForFile(data, ops.hash_tensors(*_named(canonical)))


def fits(packed: Tensor, packed_from: str, canonical: CanonicalLSTM) -> bool:
    """Whether `packed`, uint8 [bytes], is what pack makes of these tensors, all on the CPU.

    packed_from: the hash of those that it was made from. False where that is another, and where
    another version of the library packed. Raises RuntimeError for damaged packed weights.
    """
    return bool(ops.packed_fits(packed, packed_from, *_named(canonical), *_sizes(canonical)))


def _named(canonical: CanonicalLSTM) -> tuple[list[Tensor], list[str]]:
    return [tensor.cpu() for tensor in canonical.tensors.values()], list(canonical.tensors)


def _sizes(canonical: CanonicalLSTM) -> tuple[list[int], list[str]]:
    spec = canonical.spec
    return spec.shape.sizes, [spec.precision[name] for name in spec.shape.matrices]


def _pack_on_host(canonical: CanonicalLSTM) -> Packed:
    device = canonical.device.type
    if device == "meta":
        return _nothing()
    for_cuda = device == "cuda" and ops.cuda_built()
    packed, header = ops.pack_lstm(*_named(canonical), *_sizes(canonical), for_cuda)
    # For a device without kernels, packing for the CPU still checks the tensors.
    return Packed(packed, header) if device == "cpu" or header is not None else _nothing()


def _nothing() -> Packed:
    return Packed(torch.empty(0, dtype=torch.uint8, device="cpu"), None)


def _to(packed: Packed, device: torch.device) -> Packed:
    return packed._replace(data=packed.data.to(device))
