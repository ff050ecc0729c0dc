"""A module of canonical tensors and their packed form, which keeps the two together."""

import math
import os
import threading
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from lstm_fastkernels.modules.tensor_kinds import in_same_place, is_traced, to_hold, unseen
from lstm_fastkernels.ops import refuse_derivatives
from lstm_fastkernels.ops.eager import current
from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.packing import (
    Keep,
    Packed,
    checked_keep,
    fits,
    forget_with,
    pack,
    unpack,
)
from lstm_fastkernels.weights.structures import LayoutConfig

_renewing = threading.RLock()


def _after_fork() -> None:
    """A thread that held the lock is not in the child."""
    global _renewing
    _renewing = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class PackedLSTM(nn.Module):
    """A module that holds canonical tensors and their packed form.

    The state_dict holds the canonical tensors: the biases are parameters without a gradient, which
    say the module's device and dtype, and the rest are buffers. `packed`, with its `_header` on
    CUDA, is what the kernels read; it is never saved. It is made anew when a call finds that a
    tensor was changed in place or replaced, and when a module moves to another device.

    keep "packed": wherever `packed` can be unpacked, the module holds it and the biases alone. The
    other canonical tensors are made again from it each time that they are asked for.
    """

    packed: Tensor
    _header: list[int] | None
    _without_matrices = False  # whether `packed` alone has them
    _file_pages: int | None  # where `packed` was when it was taken from a file that is mapped

    # What the dicts of parameters and buffers held when `packed` was made, and the sum of the
    # versions then; -1 if that was never. Those tensors; and the floats among the canonical ones,
    # which can have derivatives.
    _made: tuple[tuple[Tensor | None, ...], int]
    _noted: list[Tensor]
    _floats: list[Tensor]

    def __init__(
        self,
        spec: WeightSpec,
        layout: LayoutConfig,
        device: torch.device | str | None,
        keep: Keep,
    ) -> None:
        """Draws random weights, as nn.LSTM does; on the meta device there are none."""
        super().__init__()
        self._keep = checked_keep(keep)
        self._spec = spec
        self._sizes = spec.shape.sizes
        self._takes_ids = spec.takes_ids
        self._layout_config = layout
        device = torch.device(device) if device is not None else torch.get_default_device()
        bound = 1 / math.sqrt(spec.shape.hidden_size)
        self._set_canonical(spec.random(bound, layout, device))

    def packed_bytes(self) -> int:
        """Bytes that the kernels read: weights, indices, scales, biases and their headers."""
        return self._current().numel()

    def layouts(self) -> dict[str, str]:
        """How each matrix is stored: "dense", the size of its blocks and their share of all, or its
        rank."""
        return self._spec.take(self._tensors() | self._made_again()).layouts()

    # ---- weights ----

    def _tensors(self) -> dict[str, Tensor]:
        held = {**self._parameters, **self._buffers}
        return {name: tensor for name, tensor in held.items() if tensor is not None}

    def _made_again(self) -> dict[str, Tensor]:
        """The canonical tensors that the module does not hold, from `packed`: new ones each time.

        Raises RuntimeError where `packed` was replaced by what is none.
        """
        if not self._without_matrices:
            return {}
        held = self._tensors()
        if "packed" not in held:
            raise RuntimeError("there are no packed weights")
        with unseen():
            made = unpack(held["packed"], self._spec.shape)
        return {n: t for n, t in made.items() if not n.startswith("bias") and n not in held}

    def _to_read(self) -> dict[str, Tensor]:
        """The same as inference tensors: what was written to them would be lost, and raises."""
        with torch.inference_mode():
            return self._made_again()

    def canonical(self) -> CanonicalLSTM:
        """The module's weights, packed as they are now: its own tensors, not copies of them. Those
        that it does not hold, with keep "packed", are copies, inference tensors, which cannot be
        written outside of inference mode.

        Raises ValueError where a tensor was put into the module that cannot be one of them.
        """
        return self.repack_()._spec.take(self._tensors() | self._to_read())

    def take_canonical(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes canonical tensors as they are laid out, whatever `layout` asks for.

        Raises ValueError that says what is missing, unexpected or wrong; then nothing has changed.
        """
        canonical = self._spec.check(tensors)
        try:
            self._set_canonical(canonical)
        except RuntimeError as error:  # block indices and scales are checked where they are packed
            raise ValueError(str(error)) from error

    def take_packed(self, packed: Tensor, packed_from: str, tensors: Mapping[str, Tensor]) -> bool:
        """Takes a file's packed weights where they lie, uint8 [bytes], and of the canonical tensors
        the biases. For modules that keep "packed", and the CPU.

        packed_from: the hash of the tensors that they were packed from. False, and nothing has
        changed, where they are not what this version of the library packs. Raises ValueError for
        tensors that are missing, unexpected or wrong and for damaged packed weights.
        """
        canonical = self._spec.check(tensors)
        try:
            if not fits(packed, packed_from, canonical):
                return False
        except RuntimeError as error:
            raise ValueError(f"packed: {error}") from error
        with torch.inference_mode(False), torch.no_grad():
            self._hold({name: to_hold(tensor) for name, tensor in canonical.tensors.items()})
        self._set_packed(Packed(packed, None))
        self._file_pages = packed.data_ptr()
        return True

    @property
    def shares_file(self) -> bool:
        """Whether the packed weights are pages of the file that they were loaded from, see
        load_file. Changes and copies of a module, other devices and share_memory() make them memory
        of its own."""
        packed = self._buffers.get("packed")
        return self._file_pages is not None and (
            packed is not None and packed.data_ptr() == self._file_pages
        )

    def take_dense(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes canonical tensors of dense matrices, which it lays out as `layout` says.

        Raises ValueError that says what is missing, unexpected or wrong; then nothing has changed.
        """
        self._set_canonical(self._spec.check(tensors).laid_out(self._layout_config))

    def _set_canonical(self, canonical: CanonicalLSTM) -> None:
        """Takes weights; nothing changes if packing, which checks them, fails."""
        with torch.inference_mode(False), torch.no_grad():
            tensors = {name: to_hold(tensor) for name, tensor in canonical.tensors.items()}
            packed = pack(self._spec.take(tensors))
            self._hold(tensors)
        self._set_packed(packed)

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts canonical tensors in the place of those that are there."""
        before = self._parameters.copy()
        for name in self._spec.kinds(self._tensors().keys()):
            self._parameters.pop(name, None)
            self._buffers.pop(name, None)
        parameters = self._spec.parameters(tensors.keys())
        for name, tensor in tensors.items():
            parameter = before.get(name)
            if name not in parameters:
                self._buffers[name] = tensor
            elif parameter is not None and in_same_place(parameter, tensor):
                self._parameters[name] = parameter
                if parameter is not tensor:
                    parameter.copy_(tensor)
            else:
                self._parameters[name] = nn.Parameter(tensor, requires_grad=False)

    def _set_packed(self, packed: Packed) -> None:
        if forget := self.__dict__.get("_forget_packed"):
            forget()
        self._buffers.pop("packed", None)  # the last one
        self._non_persistent_buffers_set.add("packed")
        self._buffers["packed"], self._header = packed
        self._file_pages = None
        self._without_matrices = self._keep == "packed" and packed.can_be_unpacked
        if self._without_matrices:
            self._drop_matrices()
        self._forget_packed = forget_with(self, packed)
        self._note_versions()

    def _drop_matrices(self) -> None:
        for name in self._spec.kinds(self._tensors().keys()).keys() - self._spec.biases:
            self._parameters.pop(name, None)
            self._buffers.pop(name, None)

    def _note_versions(self) -> None:
        tensors = self._tensors()
        known = (*self._parameters.values(), *self._buffers.values())
        self._noted = list(tensors.values())
        self._made = known, sum(tensor._version for tensor in self._noted)
        own = self._spec.kinds(tensors.keys())
        self._floats = [t for name, t in tensors.items() if name in own and t.is_floating_point()]

    def _note_change(self) -> None:
        self.__dict__["_made"] = (), -1

    # ---- changes ----

    def _current(self) -> Tensor:
        """`packed` for the tensors as they are now."""
        found = current(self.__dict__)
        return self._renew() if found is None else found

    def _renew(self) -> Tensor:
        """What _current gives, packed by one thread at a time."""
        with _renewing:
            found = current(self.__dict__)
            return self._pack_again() if found is None else found

    def _pack_again(self) -> Tensor:
        tensors = self._tensors()
        refuse_derivatives(*tensors.values())
        if torch._C._is_tracing() or any(map(is_traced, tensors.values())):
            return self._traced()
        try:
            with unseen():
                self._set_canonical(self._checked(tensors | self._made_again()))
        except (ValueError, RuntimeError) as error:
            name = type(self).__name__
            raise ValueError(
                f"this {name}'s tensors cannot be used, load_state_dict gives it others: {error}"
            ) from error
        return self.packed

    def _checked(self, tensors: Mapping[str, Tensor]) -> CanonicalLSTM:
        """The canonical ones of the module's tensors; ValueError unless they can be."""
        names = self._spec.kinds(tensors.keys())
        own = {name: tensors[name] for name in names if name in tensors}
        canonical = self._spec.check(own)
        if len({tensor.device for tensor in own.values()}) > 1:
            places = ", ".join(f"{name} on {tensor.device}" for name, tensor in own.items())
            raise ValueError(f"must be on one device, but has {places}")
        return canonical

    def _traced(self) -> Tensor:
        """What a tracer put in the place of `packed`, if that was made from the tensors there."""
        versions = sum(tensor._version for tensor in self._noted)
        if versions != self._made[1] or not is_traced(self.packed):
            raise RuntimeError(
                f"this {type(self).__name__}'s tensors were changed or replaced: tracers and "
                "transforms need them packed before, call repack_() on the module"
            )
        return self.packed

    @torch.compiler.assume_constant_result
    def _prepare_tracing(self) -> bool:
        """For torch.compile, which traces `packed` as a constant."""
        self._current()
        return True

    def repack_(self) -> Self:
        """Packs the tensors as they are now, for changes that leave no trace.

        The module notices tensors that are changed in place or replaced. It cannot notice writes
        through `.data`, NumPy arrays and other views of the memory, nor, in a compiled graph,
        changes after it was compiled. Raises ValueError for tensors that cannot be packed.
        """
        self._note_change()
        self._current()
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if not (self._without_matrices and self._spec.claims(name)):
                raise
        raise AttributeError(
            f"this {type(self).__name__} keeps its weights packed and does not hold {name}: "
            "state_dict() and canonical() give copies of its tensors, load_state_dict takes others"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        is_tensor = isinstance(value, Tensor)
        if is_tensor or self._without_matrices:
            held = name in self._parameters or name in self._buffers
            if not held and self._spec.claims(name):
                own = self._spec.kinds((self._tensors() | self._made_again()).keys())
                kept = " and keeps them packed" * self._without_matrices
                raise AttributeError(
                    f"this {type(self).__name__} holds no tensor {name}, its tensors are "
                    f"{', '.join(own)}{kept}: load_state_dict takes them, those of a float LSTM "
                    "and of other layouts"
                )
        if is_tensor:
            self._note_change()
        super().__setattr__(name, value)
