"""What the Fast modules share: canonical tensors, packed and run.

Per layer and direction, with nn.LSTM's suffixes: the matrices `weight_ih`, `weight_hh` and
`weight_hr`, int8 with a float32 `..._scale` a row, or float32; `bias` float32, b_ih + b_hh. In the
place of a matrix in blocks stand `..._values`, `..._crow_indices` and `..._col_indices`, those of
block_sparse.Blocks. They are the state_dict. `packed`, with its `_head` on CUDA, is made from them
for the kernels of their device whenever they change or move, and never saved.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels import ops
from lstm_fastkernels.weights.quantize_rows import WEIGHT_MAX, quantize_rows
from lstm_fastkernels.weights.structures import (
    Blocks,
    BlockSize,
    Layout,
    block_density,
    check_block_size,
    from_blocks,
    grid_shape,
    to_blocks,
)

Activations = Literal["int8", "int16", "float32"]
State = tuple[Tensor, Tensor]

# Of inputs, states and blocks: keeps integer sums exact and the number of blocks from overflowing.
LARGEST_SIZE = 65_535
_ACTIVATION_BITS: dict[Activations, int] = {"int8": 8, "int16": 16, "float32": 32}
_INPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LAYOUTS = ("auto", "dense", "block_sparse")
_BLOCK_PARTS = ("_values", "_crow_indices", "_col_indices")
_REPR_STEPS = 1000  # of the sequences of which repr says how they are run

# A dtype and a shape; None in a shape is any size.
Kind = tuple[torch.dtype, tuple[int | None, ...]]


class CompressedLSTM(nn.Module):
    """Canonical tensors, their packed form, and the ways in and out of both.

    A subclass names its float twin in `_float_class` and its layers in `_suffixes`; whether its
    weights are int8 or float32 it inherits from Int8Weights or Float32Weights.
    """

    _float_class: type[nn.LSTM] | type[nn.LSTMCell]
    _weight_dtype: ClassVar[torch.dtype]
    _activation_choices: ClassVar[tuple[Activations, ...]]  # the first is the default
    # "auto" stores a matrix in blocks if at most this share of its 8x4 blocks is not zero.
    _most_blocks: ClassVar[float]

    packed: Tensor
    _head: list[int] | None  # what the host knows of packed; on CUDA devices alone

    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    activations: Activations
    layout: Layout
    block_size: BlockSize

    def _finish_init(
        self,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        activations: Activations | None,
        layout: Layout,
        block_size: BlockSize,
    ) -> None:
        choices = self._activation_choices
        self.activations = choices[0] if activations is None else activations
        if self.activations not in choices:
            raise ValueError(f"activations must be one of {list(choices)}, got {activations!r}")
        if dtype is not None and dtype not in _INPUT_DTYPES:
            raise ValueError(f"dtype must be one of {list(_INPUT_DTYPES)}, got {dtype}")
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be one of {list(_LAYOUTS)}, got {layout!r}")
        check_block_size(block_size)
        self.layout = layout
        self.block_size = (block_size[0], block_size[1])
        meta = torch.device("meta")
        for name, (kind, shape) in self._canonical(in_blocks=()).items():
            self.register_buffer(name, torch.empty(shape, dtype=kind, device=meta))  # type: ignore[arg-type]
        empty = torch.empty(0, dtype=torch.uint8, device=meta)
        self.register_buffer("packed", empty, persistent=False)
        self._head = None
        device = torch.device(device) if device is not None else torch.get_default_device()
        if device != meta:
            self._reset_parameters(device)

    def _suffixes(self) -> list[tuple[str, int]]:
        """(suffix of its tensors, columns of weight_ih) of each layer and direction, in order."""
        raise NotImplementedError

    def _float_name(self, name: str) -> str:
        """What the float twin calls the parameter that nn.LSTM calls `name`."""
        return name

    def _compress(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """A float matrix as it is stored, and the tensors beside it by what their names end in."""
        raise NotImplementedError

    def _expand(self, name: str, stored: Tensor) -> Tensor:
        """The float32 matrix that `stored` and the tensors beside it stand for."""
        raise NotImplementedError

    def _beside(self) -> dict[str, torch.dtype]:
        """dtypes of the tensors [rows] beside each matrix, by what their names end in."""
        raise NotImplementedError

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Names, as nn.LSTM has them, and shapes of the float twin's parameters."""
        rows, output = 4 * self.hidden_size, self.proj_size or self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for suffix, columns in self._suffixes():
            shapes[f"weight_ih{suffix}"] = (rows, columns)
            shapes[f"weight_hh{suffix}"] = (rows, output)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (rows,)
            if self.proj_size:
                shapes[f"weight_hr{suffix}"] = (self.proj_size, self.hidden_size)
        return shapes

    def _matrices(self) -> dict[str, tuple[int, ...]]:
        return {n: shape for n, shape in self._shapes().items() if n.startswith("weight")}

    def _canonical(self, in_blocks: Collection[str]) -> dict[str, Kind]:
        """Names, dtypes and shapes of the canonical tensors, in the order of pack_lstm."""
        floats = self._shapes()
        canonical: dict[str, Kind] = {}
        for suffix, _ in self._suffixes():
            for kind in ("weight_ih", "weight_hh", "bias", "weight_hr"):
                name = kind + suffix
                if kind == "bias" and self.bias:
                    canonical[name] = torch.float32, floats[f"bias_ih{suffix}"]
                elif name in floats:
                    if name in in_blocks:
                        values, crow_indices, col_indices = (name + part for part in _BLOCK_PARTS)
                        canonical[values] = self._weight_dtype, (None, None, None)
                        canonical[crow_indices] = torch.int32, (None,)
                        canonical[col_indices] = torch.int32, (None,)
                    else:
                        canonical[name] = self._weight_dtype, floats[name]
                    for end, dtype in self._beside().items():
                        canonical[name + end] = dtype, floats[name][:1]
        return canonical

    def _in_blocks(self, names: Collection[str]) -> list[str]:
        """The matrices that a set of tensor names has in blocks."""
        return [n for n in self._matrices() if any(n + part in names for part in _BLOCK_PARTS)]

    # ---- weights in ----

    def _reset_parameters(self, device: torch.device) -> None:
        bound = 1 / math.sqrt(self.hidden_size)
        self._set_canonical(
            self._compress_all(
                {
                    name: torch.empty(shape, device=device).uniform_(-bound, bound)
                    for name, shape in self._shapes().items()
                }
            )
        )

    def _compress_all(self, floats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Canonical tensors from the float twin's parameters."""
        canonical: dict[str, Tensor] = {}
        for name, tensor in floats.items():
            if name.startswith("weight"):
                matrix, beside = self._compress(tensor)
                canonical |= self._lay_out(name, matrix)
                canonical |= {name + end: t for end, t in beside.items()}
            elif name.startswith("bias_ih"):
                suffix = name.removeprefix("bias_ih")
                other = floats[f"bias_hh{suffix}"].detach()
                canonical[f"bias{suffix}"] = (tensor.detach().double() + other).float()
        return canonical

    def _lay_out(self, name: str, matrix: Tensor) -> dict[str, Tensor]:
        """A stored matrix as its tensors, dense or in blocks."""
        sparse = self.layout == "block_sparse" or (
            self.layout == "auto" and block_density(matrix, name) <= self._most_blocks
        )
        if not sparse:
            return {name: matrix}
        blocks = to_blocks(matrix, name, self.block_size)
        return {name + part: t for part, t in zip(_BLOCK_PARTS, blocks, strict=True)}

    def _matrix(self, name: str, canonical: Mapping[str, Tensor]) -> Tensor:
        """A stored matrix with its zeros written out."""
        if name in canonical:
            return canonical[name]
        blocks = Blocks(*(canonical[name + part] for part in _BLOCK_PARTS))
        return from_blocks(blocks, self._matrices()[name], name)

    def _set_canonical(self, canonical: Mapping[str, Tensor]) -> None:
        """Takes canonical tensors; nothing changes if packing, which checks them, fails."""
        names = self._canonical(self._in_blocks(canonical.keys()))
        tensors = {name: canonical[name].contiguous() for name in names}
        packed, head = self._pack(tensors)
        packed = packed.to(tensors[next(iter(names))].device)
        for name in self._tensors():
            del self._buffers[name]
        self._buffers.update(tensors)
        self._buffers["packed"] = packed
        self._head = head

    def _pack(self, canonical: Mapping[str, Tensor]) -> tuple[Tensor, list[int] | None]:
        """packed, not yet on the tensors' device, and its head; empty without kernels for there.

        Raises RuntimeError, naming the tensor, for indices and values that are not valid.
        """
        names = self._canonical(self._in_blocks(canonical.keys()))
        tensors = [canonical[name] for name in names]
        device = tensors[0].device.type
        if device == "meta":
            return _nothing_packed()
        packed, head = ops.pack_lstm(
            [tensor.cpu() for tensor in tensors],
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.bidirectional,
            self.bias,
            _ACTIVATION_BITS[self.activations],
            device == "cuda" and ops.cuda_built(),
        )
        # Without kernels there, packing for the CPU has checked the tensors all the same.
        return (packed, head) if device == "cpu" or head is not None else _nothing_packed()

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
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
        floats = {self._float_name(name): shape for name, shape in self._shapes().items()}
        in_blocks = self._in_blocks(given.keys())
        own = self._canonical(in_blocks)
        # Names that only one of the two has tell them apart, or else int8 weights.
        compressed = any(name in own and name not in floats for name in given) or any(
            getattr(value, "dtype", None) == torch.int8 for value in given.values()
        )
        kind = "compressed" if compressed else "float"
        expected: Mapping[str, tuple[torch.dtype | None, tuple[int | None, ...]]]
        expected = own if compressed else {n: (None, shape) for n, shape in floats.items()}
        missing = [name for name in expected if name not in given]
        missing_keys += [prefix + name for name in missing]
        unexpected = [name for name in given if name not in expected] if strict else []
        unexpected_keys += [prefix + name for name in unexpected]
        if 0 < len(missing) < len(expected):
            error_msgs.append(
                f"{kind} LSTM checkpoint is incomplete: it lacks "
                f"{', '.join(prefix + name for name in missing)}"
            )
        faults = [
            f"{prefix}{name} of the {kind} LSTM checkpoint: {fault}"
            for name, (dtype, shape) in expected.items()
            if name in given and (fault := _fault(given[name], dtype, shape))
        ]
        error_msgs += faults
        if missing or faults or unexpected:
            return
        device = self.packed.device
        if device.type == "meta":
            device = given[next(iter(expected))].device
        tensors = {name: given[name].detach().to(device) for name in expected}
        try:
            if compressed:
                self._take_own({name: tensor.clone() for name, tensor in tensors.items()})
            else:
                names = {name: tensors[self._float_name(name)] for name in self._shapes()}
                self._set_canonical(self._compress_all(names))
        except RuntimeError as error:  # block indices are checked where they are packed
            error_msgs.append(f"{prefix.removesuffix('.') or 'the LSTM'}: {error}")

    def _take_own(self, canonical: dict[str, Tensor]) -> None:
        """Takes tensors as they are laid out, or as `layout` wants it."""
        if self.layout != "auto":
            self._pack(canonical)  # checks the indices before they are used
            for name in self._matrices():
                matrix = self._matrix(name, canonical)
                for part in ("", *_BLOCK_PARTS):
                    canonical.pop(name + part, None)
                canonical |= self._lay_out(name, matrix)
        self._set_canonical(canonical)

    def take_canonical(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes canonical tensors as they are laid out, whatever `layout` asks for.

        Raises ValueError that says what is missing, unexpected or wrong; then nothing has changed.
        """
        expected = self._canonical(self._in_blocks(tensors.keys()))
        if missing := [name for name in expected if name not in tensors]:
            raise ValueError(f"lacks {', '.join(missing)}")
        if unexpected := [name for name in tensors if name not in expected]:
            raise ValueError(f"has no place for {', '.join(unexpected)}")
        for name, (dtype, shape) in expected.items():
            if fault := _fault(tensors[name], dtype, shape):
                raise ValueError(f"{name}: {fault}")
        try:
            self._set_canonical(tensors)
        except RuntimeError as error:  # block indices and scales are checked where they are packed
            raise ValueError(str(error)) from error

    # ---- weights out ----

    def _float_tensors(self) -> dict[str, Tensor]:
        """The float twin's parameters that the canonical tensors stand for."""
        canonical = self._tensors()
        floats: dict[str, Tensor] = {}
        for name, shape in self._shapes().items():
            if name.startswith("weight"):
                floats[name] = self._expand(name, self._matrix(name, canonical))
            elif name.startswith("bias_ih"):
                floats[name] = getattr(self, f"bias{name.removeprefix('bias_ih')}").clone()
            else:
                floats[name] = torch.zeros(shape, device=self.packed.device)
        return {self._float_name(name): tensor for name, tensor in floats.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """The canonical tensors."""
        names = self._canonical(self._in_blocks(self._buffers.keys()))
        return {name: getattr(self, name) for name in names}

    def packed_bytes(self) -> int:
        """Bytes that the kernels read: weights, indices, scales, biases and their headers."""
        return self.packed.numel()

    def layouts(self) -> dict[str, str]:
        """How each matrix is stored: "dense", or the size of its blocks and their share of all."""
        found = dict.fromkeys(self._matrices(), "dense")
        for name in self._in_blocks(self._buffers.keys()):
            values = getattr(self, name + _BLOCK_PARTS[0])
            rows, columns = grid_shape(self._matrices()[name], name, values.shape[1:])
            size = "x".join(map(str, values.shape[1:]))
            found[name] = f"{size} blocks, {values.shape[0] / (rows * columns):.1%}"
        return found

    # ---- run ----

    def _run(
        self, x: Tensor, hx: State | None, lengths: Tensor | None, batch_first: bool
    ) -> tuple[Tensor, State]:
        """The op on x, as ops.lstm_for has it, and the state hx."""
        arguments = self._op_arguments(x, hx, lengths, batch_first)
        run = ops.lstm_for(*arguments[:3]) if torch.is_grad_enabled() else ops.lstm
        y, h, c = run(*arguments)
        return y, (h, c)

    def _op_arguments(
        self, x: Tensor, hx: State | None, lengths: Tensor | None, batch_first: bool
    ) -> tuple[Any, ...]:
        h0, c0 = (None, None) if hx is None else two_states(hx)
        return (
            x,
            h0,
            c0,
            lengths,
            self._buffers["packed"],
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.bidirectional,
            batch_first,
            self._head,
        )

    def _explain(self, *inputs: Any) -> str:
        """What forward would do with these inputs."""
        return ops.explain_lstm(*self._op_arguments(*self._to_run(*inputs)))

    def _to_run(self, *inputs: Any) -> tuple[Tensor, State | None, Tensor | None, bool]:
        """What forward gives to _run for these inputs."""
        raise NotImplementedError

    def _steps_repr(self) -> list[str]:
        """On CUDA, how the time steps of a long sequence are run, for one row and for 16."""
        if self.packed.device.type != "cuda":
            return []
        found = []
        try:
            for rows in (1, 16):
                x = self.packed.new_empty(1, dtype=torch.float32)
                x = x.expand(_REPR_STEPS, rows, self.input_size)
                lines = ops.explain_lstm(*self._op_arguments(x, None, None, False)).splitlines()
                # "layer 0: persistent: in a cluster of 8 blocks; blocks kept: ..."
                steps = [line.partition(": ")[2].partition(";")[0] for line in lines[1:]]
                found.append(" / ".join(dict.fromkeys(steps)))
        except Exception:  # without weights or kernels there is nothing to say
            return []
        one, many = found
        how = one if one == many else f"{one} (1 row), {many} (16 rows)"
        return [f"steps: {how}"]

    # ---- life in a model ----

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        before, packed = self._tensors(), self.packed
        del self._buffers["packed"]
        try:
            super()._apply(keep_dtype, recurse)
        finally:
            self._buffers["packed"] = packed
        after = self._tensors()
        if all(tensor is before[name] for name, tensor in after.items()):
            self._buffers["packed"] = keep_dtype(packed)  # it may have been done in place
        else:
            self._pack_moved(packed.device)
        return self

    def _pack_moved(self, source: torch.device) -> None:
        """Packs the module's own tensors again; to_empty leaves them with nothing to pack."""
        if source.type == "cuda":
            torch.cuda.synchronize(source)  # non_blocking copies may be under way
        tensors = self._tensors()
        try:
            packed, head = self._pack(tensors)
        except RuntimeError:
            packed, head = _nothing_packed()
        self._buffers["packed"] = packed.to(next(iter(tensors.values())).device)
        self._head = head

    def __getstate__(self) -> dict[str, Any]:
        buffers = {name: tensor for name, tensor in self._buffers.items() if name != "packed"}
        return {n: v for n, v in self.__dict__.items() if n != "_head"} | {"_buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._set_canonical(self._tensors())

    @classmethod
    def _check_float_twin(cls, module: nn.Module) -> None:
        # A subclass may compute something else; a parametrized module's class is a subclass too,
        # and computes the same.
        found = type_before_parametrizations(module)
        if found is not cls._float_class:
            raise TypeError(
                f"{cls.__name__}.from_float expects an nn.{cls._float_class.__name__}, "
                f"got {found.__name__}"
            )

    def _take_float(self, module: nn.Module) -> Self:
        floats = {name: getattr(module, self._float_name(name)) for name in self._shapes()}
        for name, tensor in floats.items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
        self._set_canonical(self._compress_all(floats))
        return self.train(module.training)

    def _options_repr(self) -> list[str]:
        layouts = self.layouts()
        how = ", ".join(f"{name}: {kind}" for name, kind in layouts.items())
        if set(layouts.values()) == {"dense"}:
            how = "all dense"
        options = [f"activations={self.activations}", f"layout={self.layout} ({how})"]
        return [*options, *self._steps_repr()]


class Int8Weights(CompressedLSTM):
    """int8 weights with one float32 scale a row."""

    _weight_dtype = torch.int8
    _activation_choices = ("int8", "int16")
    _most_blocks = 0.55

    def _beside(self) -> dict[str, torch.dtype]:
        return {"_scale": torch.float32}

    def _compress(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        matrix, scale = quantize_rows(weight, pair_safe=self.activations == "int8")
        return matrix, {"_scale": scale}

    def _expand(self, name: str, stored: Tensor) -> Tensor:
        return stored * getattr(self, f"{name}_scale").unsqueeze(1)


class Float32Weights(CompressedLSTM):
    """float32 weights; worth their while where many blocks of them are zero."""

    _weight_dtype = torch.float32
    _activation_choices = ("float32",)
    _most_blocks = 0.9

    def _beside(self) -> dict[str, torch.dtype]:
        return {}

    def _compress(self, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # A copy, and 0.0 for -0.0, which the kernels would not skip.
        return weight.detach().float() + 0.0, {}

    def _expand(self, name: str, stored: Tensor) -> Tensor:
        return stored.clone()


def _nothing_packed() -> tuple[Tensor, None]:
    return torch.empty(0, dtype=torch.uint8, device="cpu"), None


def two_states(hx: State) -> State:
    """hx itself; RuntimeError unless it holds two tensors."""
    if len(hx) != 2:
        raise RuntimeError(f"hx must hold two tensors, (h0, c0), got {len(hx)}")
    return hx


def _fault(value: object, dtype: torch.dtype | None, shape: tuple[int | None, ...]) -> str | None:
    """What is wrong with a checkpoint's tensor; dtype None: any float dtype."""
    if not isinstance(value, Tensor):
        return f"expected a tensor, got {type(value).__name__}"
    if value.dim() != len(shape) or any(
        wanted not in (None, size) for size, wanted in zip(value.shape, shape, strict=True)
    ):
        wanted = str(tuple("any" if size is None else size for size in shape)).replace("'", "")
        return f"size mismatch: expected {wanted}, got {tuple(value.shape)}"
    if value.dim() == 3 and max(value.shape[1:]) > LARGEST_SIZE:
        return f"blocks must be at most {LARGEST_SIZE} long, got {tuple(value.shape)}"
    if value.dtype != dtype if dtype else not value.is_floating_point():
        return f"expected dtype {dtype or 'float'}, got {value.dtype}"
    if value.device.type == "meta":
        return None
    if dtype == torch.int8 and (value < -WEIGHT_MAX).any():
        return f"weights must be in [-{WEIGHT_MAX}, {WEIGHT_MAX}], got {int(value.min())}"
    if value.is_floating_point() and not value.isfinite().all():
        return "values must be finite"
    return None
