"""An nn.Module's life around canonical tensors: buffers, checkpoints, devices, copies."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.checkpoint import Checkpoint
from lstm_fastkernels.weights.packing import Packed, forget_with, pack, pack_if_valid
from lstm_fastkernels.weights.structures import BlockSize, Layout, LayoutConfig


class PackedLSTM(nn.Module):
    """A module whose buffers are canonical tensors and their packed form.

    The state_dict holds the canonical tensors. `packed`, with its `_header` on CUDA, is what the
    kernels read; it is never saved. Loading repacks the weights, and so does moving a module to
    another device.
    """

    packed: Tensor
    _header: list[int] | None

    # How weights given to the module are laid out, see LayoutConfig.
    layout: Layout
    block_size: BlockSize

    def __init__(
        self, spec: WeightSpec, layout: LayoutConfig, device: torch.device | str | None
    ) -> None:
        """Draws random weights, as nn.LSTM does; on the meta device there are none."""
        super().__init__()
        self._spec = spec
        self.layout, self.block_size = layout.layout, layout.block_size
        nothing = torch.empty(0, dtype=torch.uint8, device="meta")
        self.register_buffer("packed", nothing, persistent=False)
        self._set_canonical(spec.empty())
        device = torch.device(device) if device is not None else torch.get_default_device()
        if device.type == "meta":
            return
        bound = 1 / math.sqrt(spec.shape.hidden_size)
        kinds = spec.float_kinds()
        floats = {name: kind.empty(device).uniform_(-bound, bound) for name, kind in kinds.items()}
        self._compress(floats)

    def _float_names(self) -> dict[str, str]:
        """What a float checkpoint calls its tensors, by nn.LSTM's names for them."""
        return {name: name for name in self._spec.float_kinds()}

    def packed_bytes(self) -> int:
        """Bytes that the kernels read: weights, indices, scales, biases and their headers."""
        return self.packed.numel()

    def layouts(self) -> dict[str, str]:
        """How each matrix is stored: "dense", or the size of its blocks and their share of all."""
        return self.canonical().layouts()

    # ---- weights ----

    def canonical(self) -> CanonicalLSTM:
        """The module's weights: its own tensors, not copies of them."""
        buffers = {name: tensor for name, tensor in self._buffers.items() if tensor is not None}
        return self._spec.take(buffers)

    def take_canonical(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes canonical tensors as they are laid out, whatever `layout` asks for.

        Raises ValueError that says what is missing, unexpected or wrong; then nothing has changed.
        """
        canonical = self._spec.check(tensors)
        try:
            self._set_canonical(canonical)
        except RuntimeError as error:  # block indices and scales are checked where they are packed
            raise ValueError(str(error)) from error

    def _set_canonical(self, canonical: CanonicalLSTM) -> None:
        """Takes weights; nothing changes if packing, which checks them, fails."""
        tensors = {name: tensor.contiguous() for name, tensor in canonical.tensors.items()}
        packed = pack(self._spec.take(tensors))
        for name in self._spec.kinds(self._buffers.keys()):
            self._buffers.pop(name, None)
        self._buffers.update(tensors)
        self._set_packed(packed)

    def _set_packed(self, packed: Packed) -> None:
        if forget := self.__dict__.get("_forget_packed"):
            forget()
        self._buffers["packed"], self._header = packed
        self._forget_packed = forget_with(self, packed)

    def _compress(self, floats: Mapping[str, Tensor]) -> None:
        """Takes the parameters of a float LSTM, named as in nn.LSTM."""
        self._set_canonical(self._spec.compress(floats, self._layout_config()))

    def _layout_config(self) -> LayoutConfig:
        return LayoutConfig(self.layout, self.block_size)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Loads the float twin's parameters, compressing them, or this class's own tensors.

        All or nothing: whatever is wrong is reported as nn.Module does and no tensor changes.
        """
        given = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        checkpoint = Checkpoint(given, self._spec, self._float_names())
        unexpected = checkpoint.unexpected if strict else []
        missing_keys += [prefix + name for name in checkpoint.missing]
        unexpected_keys += [prefix + name for name in unexpected]
        error_msgs += checkpoint.errors(prefix)
        if checkpoint.missing or checkpoint.faults or unexpected:
            return
        try:
            self._set_canonical(checkpoint.read(self.packed.device, self._layout_config()))
        except RuntimeError as error:  # block indices are checked where they are packed
            error_msgs.append(f"{prefix.removesuffix('.') or 'the LSTM'}: {error}")

    # ---- moves and copies ----

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moving the module to another device repacks its weights; dtypes stay."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        before, packed = self.canonical().tensors, self.packed
        del self._buffers["packed"]
        try:
            super()._apply(keep_dtype, recurse)
        finally:
            self._buffers["packed"] = packed
        after = self.canonical()
        if all(tensor is before[name] for name, tensor in after.tensors.items()):
            self._buffers["packed"] = keep_dtype(packed)  # it may have been done in place
            return self
        if packed.device.type == "cuda":
            torch.cuda.synchronize(packed.device)  # non_blocking copies may be under way
        self._set_packed(pack_if_valid(after))
        return self

    def __getstate__(self) -> dict[str, Any]:
        buffers = {name: tensor for name, tensor in self._buffers.items() if name != "packed"}
        made_anew = ("_header", "_forget_packed")
        state = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        return state | {"_buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._set_canonical(self.canonical())
