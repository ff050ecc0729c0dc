"""What nn.Module does with tensors, for compressed ones: checkpoints, moves, copies."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from lstm_fastkernels.modules.packed import PackedLSTM
from lstm_fastkernels.weights.checkpoint import Checkpoint
from lstm_fastkernels.weights.formats import INPUT_DTYPES
from lstm_fastkernels.weights.packing import Keep, checked_keep, pack_if_valid
from lstm_fastkernels.weights.structures import BlockSize, Layout, LayoutConfig


class StatefulLSTM(PackedLSTM):
    """A PackedLSTM that loads float and compressed checkpoints, moves, and is copied and pickled.

    Loading repacks the weights, and so does moving to another device.
    """

    def _float_names(self) -> dict[str, str]:
        """What a float checkpoint calls its tensors, by nn.LSTM's names for them."""
        return {name: name for name in self._spec.float_kinds()}

    @property
    def layout(self) -> Layout:
        """How weights given to the module from now on are laid out, see LayoutConfig."""
        return self._layout_config.layout

    @layout.setter
    def layout(self, layout: Layout) -> None:
        self._layout_config = LayoutConfig(layout, self.block_size)

    @property
    def block_size(self) -> BlockSize:
        """Rows and columns of the blocks of weights given to the module from now on."""
        return self._layout_config.block_size

    @block_size.setter
    def block_size(self, block_size: BlockSize) -> None:
        self._layout_config = LayoutConfig(self.layout, block_size)

    @property
    def keep(self) -> Keep:
        """What the module holds of its weights: "canonical" tensors and the packed form of them, or
        where it can run what is "packed" alone."""
        return self._keep

    @keep.setter
    def keep(self, keep: Keep) -> None:
        checked, canonical = checked_keep(keep), self.canonical()
        self._keep = checked
        self._set_canonical(canonical)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update((prefix + name, tensor) for name, tensor in self._to_read().items())

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
            self._set_canonical(checkpoint.read(self.packed.device, self._layout_config))
        except RuntimeError as error:  # block indices are checked where they are packed
            error_msgs.append(f"{prefix.removesuffix('.') or 'the LSTM'}: {error}")

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moving the module to another device repacks its weights; dtypes stay.

        All tensors move or none. Raises TypeError for a dtype that no input may have, such as
        float64.
        """

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            if moved.dtype == tensor.dtype:
                return moved
            if moved.dtype not in INPUT_DTYPES:
                raise TypeError(
                    f"a {type(self).__name__} takes float32, float16 and bfloat16, not "
                    f"{moved.dtype}: use .float()"
                )
            return tensor.to(moved.device)

        before = self._tensors()
        packed = before.pop("packed")
        with torch.no_grad():
            after = {name: keep_dtype(tensor) for name, tensor in before.items()}
        if all(after[name] is tensor for name, tensor in before.items()):
            if not all(tensor.device == packed.device for tensor in before.values()):
                return self
            moved = keep_dtype(packed)  # it may have been done in place
            if moved is packed or not self._without_matrices:
                self._buffers["packed"] = moved
                return self
        made = self._made_again()
        with torch.no_grad():
            after |= {name: keep_dtype(tensor) for name, tensor in made.items()}
        made_parameters = self._spec.parameters(after.keys()) & made.keys()
        for name, tensor in after.items():
            parameter = self._parameters.get(name)
            if parameter is None and name not in made_parameters:
                self._buffers[name] = tensor
            elif tensor is not parameter:
                requires_grad = parameter is not None and parameter.requires_grad
                self._parameters[name] = nn.Parameter(tensor, requires_grad)
        if packed.device.type == "cuda":
            torch.cuda.synchronize(packed.device)  # non_blocking copies may be under way
        self._set_packed(pack_if_valid(self._spec.take(self._tensors())))
        if not self.packed.numel():
            self._note_change()  # to_empty leaves tensors that cannot be packed: a call says why
        return self

    def __getstate__(self) -> dict[str, Any]:
        buffers = {name: tensor for name, tensor in self._buffers.items() if name != "packed"}
        buffers |= self._made_again()
        made_anew = (
            *("_header", "_file_pages", "_forget_packed", "_without_matrices"),
            *("_made", "_noted", "_floats"),
        )
        state = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        return state | {"_buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._set_canonical(self._checked(self._tensors()))
