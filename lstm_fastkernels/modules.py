"""FastQuantLSTM and FastQuantLSTMCell: int8 twins of nn.LSTM and nn.LSTMCell, for inference."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.nn.utils.rnn import PackedSequence

from lstm_fastkernels import ops
from lstm_fastkernels.quantization import WEIGHT_MAX, quantize_rows

Activations = Literal["int8", "int16"]
State = tuple[Tensor, Tensor]

_ACTIVATION_BITS = {"int8": 8, "int16": 16}
_INPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class _QuantizedLSTMBase(nn.Module):
    """Canonical int8 tensors, their packed form, and the ways in and out of both.

    A subclass names its float twin in `_float_class` and its layers in `_suffixes`.
    """

    _float_class: type[nn.LSTM] | type[nn.LSTMCell]
    packed: Tensor

    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    activations: Activations

    def _finish_init(
        self, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        if self.activations not in _ACTIVATION_BITS:
            raise ValueError(
                f"activations must be one of {list(_ACTIVATION_BITS)}, got {self.activations!r}"
            )
        if dtype is not None and dtype not in _INPUT_DTYPES:
            raise ValueError(f"dtype must be one of {list(_INPUT_DTYPES)}, got {dtype}")
        meta = torch.device("meta")
        for name, (kind, shape) in self._canonical().items():
            self.register_buffer(name, torch.empty(shape, dtype=kind, device=meta))
        empty = torch.empty(0, dtype=torch.uint8, device=meta)
        self.register_buffer("packed", empty, persistent=False)
        device = torch.device(device) if device is not None else torch.get_default_device()
        if device != meta:
            self._reset_parameters(device)

    def _suffixes(self) -> list[tuple[str, int]]:
        """(suffix of its tensors, columns of weight_ih) of each layer and direction, in order."""
        raise NotImplementedError

    def _float_name(self, name: str) -> str:
        """What the float twin calls the parameter that nn.LSTM calls `name`."""
        return name

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

    def _canonical(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Names, dtypes and shapes of the quantized tensors, in the order of pack_int8."""
        floats = self._shapes()
        canonical: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        for suffix, _ in self._suffixes():
            for kind in ("weight_ih", "weight_hh", "bias", "weight_hr"):
                name = kind + suffix
                if kind == "bias" and self.bias:
                    canonical[name] = torch.float32, floats[f"bias_ih{suffix}"]
                elif name in floats:
                    canonical[name] = torch.int8, floats[name]
                    canonical[f"{name}_scale"] = torch.float32, floats[name][:1]
        return canonical

    # ---- weights in ----

    def _reset_parameters(self, device: torch.device) -> None:
        bound = 1 / math.sqrt(self.hidden_size)
        self._set_canonical(
            self._quantize(
                {
                    name: torch.empty(shape, device=device).uniform_(-bound, bound)
                    for name, shape in self._shapes().items()
                }
            )
        )

    def _quantize(self, floats: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pair_safe = self.activations == "int8"
        canonical: dict[str, Tensor] = {}
        for name in self._canonical():
            if name.startswith("weight") and not name.endswith("_scale"):
                canonical[name], canonical[f"{name}_scale"] = quantize_rows(
                    floats[name], pair_safe=pair_safe
                )
            elif name.startswith("bias"):
                suffix = name.removeprefix("bias")
                halves = floats[f"bias_ih{suffix}"], floats[f"bias_hh{suffix}"]
                canonical[name] = (halves[0].detach().double() + halves[1].detach()).float()
        return canonical

    def _set_canonical(self, canonical: Mapping[str, Tensor]) -> None:
        """Takes validated tensors; nothing changes if packing them fails."""
        tensors = {name: canonical[name].contiguous() for name in self._canonical()}
        packed = self._pack(list(tensors.values()))
        for name, tensor in tensors.items():
            self._buffers[name] = tensor
        self._buffers["packed"] = packed

    def _pack(self, tensors: list[Tensor]) -> Tensor:
        if tensors[0].device.type != "cpu":
            return torch.empty(0, dtype=torch.uint8, device=tensors[0].device)
        return ops.pack_int8(
            tensors,
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.bidirectional,
            self.bias,
            _ACTIVATION_BITS[self.activations],
        )

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
        """Loads the float twin's parameters, quantizing them, or this class's own tensors.

        All or nothing: whatever is wrong is reported as nn.Module does and no tensor changes.
        """
        given = {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
        canonical = self._canonical()
        # Weights tell the two kinds apart; a scale betrays a quantized checkpoint without them.
        quantized = any(
            name.endswith("_scale") or getattr(value, "dtype", None) == torch.int8
            for name, value in given.items()
        )
        kind = "quantized" if quantized else "float"
        expected: dict[str, tuple[torch.dtype | None, tuple[int, ...]]]
        if quantized:
            expected = dict(canonical)
        else:
            expected = {
                self._float_name(name): (None, shape) for name, shape in self._shapes().items()
            }
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
        current = next(iter(self.buffers())).device
        tensors = {
            name: given[name].detach().to(given[name].device if current.type == "meta" else current)
            for name in expected
        }
        if quantized:
            self._set_canonical({name: tensor.clone() for name, tensor in tensors.items()})
        else:
            self._set_canonical(
                self._quantize({name: tensors[self._float_name(name)] for name in self._shapes()})
            )

    # ---- weights out ----

    def _dequantized(self) -> dict[str, Tensor]:
        floats: dict[str, Tensor] = {}
        for name, shape in self._shapes().items():
            if name.startswith("weight"):
                floats[name] = getattr(self, name) * getattr(self, f"{name}_scale").unsqueeze(1)
            elif name.startswith("bias_ih"):
                floats[name] = getattr(self, f"bias{name.removeprefix('bias_ih')}").clone()
            else:
                floats[name] = torch.zeros(shape, device=self.packed.device)
        return {self._float_name(name): tensor for name, tensor in floats.items()}

    def packed_bytes(self) -> int:
        """Bytes that the kernels read: int8 weights, scales, biases and their headers."""
        return self.packed.numel()

    # ---- life in a model ----

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_buffers"] = {k: v for k, v in self._buffers.items() if k != "packed"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._set_canonical({name: self._buffers[name] for name in self._canonical()})  # type: ignore[misc]

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
        self._set_canonical(self._quantize(floats))
        return self.train(module.training)


def _fault(
    value: object, dtype: torch.dtype | None, shape: tuple[int, ...]
) -> str | None:
    """What is wrong with a checkpoint's tensor; dtype None: any float dtype."""
    if not isinstance(value, Tensor):
        return f"expected a tensor, got {type(value).__name__}"
    if value.shape != shape:
        return f"size mismatch: expected {tuple(shape)}, got {tuple(value.shape)}"
    if value.dtype != dtype if dtype else not value.is_floating_point():
        return f"expected dtype {dtype or 'float'}, got {value.dtype}"
    if value.device.type == "meta":
        return None
    if dtype == torch.int8 and (value < -WEIGHT_MAX).any():
        return f"weights must be in [-{WEIGHT_MAX}, {WEIGHT_MAX}], got {int(value.min())}"
    if value.is_floating_point() and not value.isfinite().all():
        return "values must be finite"
    return None


class FastQuantLSTM(_QuantizedLSTMBase):
    """An nn.LSTM with int8 weights on fused kernels, for inference.

    Constructor, call and float checkpoints are nn.LSTM's. `activations` says to which integers x
    and h are quantized, dynamically and per row and time step: "int8" is the fastest, "int16" the
    most accurate. `load_state_dict` takes a float nn.LSTM's state_dict, which it quantizes, or its
    own. `dropout` is accepted and idle; a backward pass through the module raises.

    Tensors per layer and direction, suffix `_l{k}` and `_reverse` as in nn.LSTM: `weight_ih`,
    `weight_hh`, `weight_hr` int8; `..._scale` float32, one a row; `bias` float32, b_ih + b_hh.
    Outputs are bit-identical across batch size, padding, chunks of a sequence (with float32
    states), threads and instruction sets.
    """

    _float_class = nn.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activations: Activations = "int8",
    ) -> None:
        # nn.LSTM on no device checks the arguments, and words the errors, as people know them.
        nn.LSTM(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device="meta",
        )
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.activations = activations
        self._finish_init(device, dtype)

    def _suffixes(self) -> list[tuple[str, int]]:
        directions = ("", "_reverse") if self.bidirectional else ("",)
        above = len(directions) * (self.proj_size or self.hidden_size)
        return [
            (f"_l{layer}{direction}", self.input_size if layer == 0 else above)
            for layer in range(self.num_layers)
            for direction in directions
        ]

    @classmethod
    def from_float(cls, lstm: nn.LSTM, *, activations: Activations = "int8") -> Self:
        """Quantizes an nn.LSTM. Raises TypeError for another class, ValueError for NaN weights."""
        cls._check_float_twin(lstm)
        return cls(
            *_arguments(lstm),
            device="meta",
            activations=activations,
        )._take_float(lstm)

    def dequantize(self) -> nn.LSTM:
        """An nn.LSTM with the weights that the int8 tensors stand for, float32, same device."""
        lstm = nn.LSTM(*_arguments(self), device=self.packed.device)
        lstm.load_state_dict(self._dequantized())
        return lstm.train(self.training)

    def flatten_parameters(self) -> None:
        """Does nothing: nn.LSTM has it, and models call it."""

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """y, (h_n, c_n) as nn.LSTM gives them.

        input: [T, B, I], [B, T, I] with batch_first, [T, I] for one sequence, or a PackedSequence;
        float32, float16 or bfloat16. hx: (h0, c0), float32 or of the input's dtype. lengths: int64
        [B] on the CPU, each in 1..T, in any order: y is zero past a row's length and h_n, c_n are
        the states there; the form of a PackedSequence that torch.compile can trace.
        Raises ValueError for a wrong rank or dtype, RuntimeError for wrong sizes, as nn.LSTM does.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, lengths)
        dim = input.dim()
        if dim == 3:
            return self._run(input, hx, lengths, self.batch_first)
        if dim != 2:
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {dim}D instead")
        if lengths is not None:
            raise ValueError("lengths go with a batch of sequences (3D input), got 2D input")
        if hx is not None:
            hx = _map_state(lambda s: s.unsqueeze(1), _checked_state(hx, 2))
        y, (h, c) = self._run(input.unsqueeze(1), hx, None, False)
        return y.squeeze(1), (h.squeeze(1), c.squeeze(1))

    def _forward_packed(
        self, input: PackedSequence, hx: State | None, lengths: Tensor | None
    ) -> tuple[PackedSequence, State]:
        if lengths is not None:
            raise ValueError("a PackedSequence has its own lengths: give it without `lengths`")
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None and sorted_indices is not None:
            hx = _map_state(lambda s: s.index_select(1, sorted_indices), _checked_state(hx, 3))
        y, state = self._run(data, hx, batch_sizes, False)
        if unsorted_indices is not None:
            state = _map_state(lambda s: s.index_select(1, unsorted_indices), state)
        return PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices), state

    def _run(
        self, x: Tensor, hx: State | None, lengths: Tensor | None, batch_first: bool
    ) -> tuple[Tensor, State]:
        if x.dtype not in _INPUT_DTYPES:
            raise ValueError(_dtype_message(x))
        h0, c0 = (None, None) if hx is None else _checked_state(hx, 3)
        y, h, c = ops.lstm_int8(
            x,
            h0,
            c0,
            lengths,
            self._buffers["packed"],  # type: ignore[arg-type]
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.bidirectional,
            batch_first,
        )
        return y, (h, c)

    def extra_repr(self) -> str:
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "proj_size": 0,
        }
        changed = [
            f"{name}={getattr(self, name)}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        ]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return ", ".join([*sizes, *changed, f"activations={self.activations}"])


class FastQuantLSTMCell(_QuantizedLSTMBase):
    """An nn.LSTMCell with int8 weights; see FastQuantLSTM.

    Its tensors are those of a FastQuantLSTM of one layer, `_l0` and all: each loads the other's
    state_dict. A float state_dict is nn.LSTMCell's.
    """

    _float_class = nn.LSTMCell

    num_layers = 1
    bidirectional = False
    proj_size = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activations: Activations = "int8",
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.activations = activations
        self._finish_init(device, dtype)

    def _suffixes(self) -> list[tuple[str, int]]:
        return [("_l0", self.input_size)]

    def _float_name(self, name: str) -> str:
        return name.removesuffix("_l0")

    @classmethod
    def from_float(cls, cell: nn.LSTMCell, *, activations: Activations = "int8") -> Self:
        """Quantizes an nn.LSTMCell. Raises as FastQuantLSTM.from_float."""
        cls._check_float_twin(cell)
        return cls(
            cell.input_size, cell.hidden_size, cell.bias, device="meta", activations=activations
        )._take_float(cell)

    def dequantize(self) -> nn.LSTMCell:
        """An nn.LSTMCell with the weights that the int8 tensors stand for."""
        cell = nn.LSTMCell(
            self.input_size, self.hidden_size, self.bias, device=self.packed.device
        )
        cell.load_state_dict(self._dequantized())
        return cell.train(self.training)

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """(h, c) [B, H] or [H], from input [B, I] or [I] and hx = (h, c), as nn.LSTMCell."""
        dim = input.dim()
        if dim not in (1, 2):
            raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {dim}D instead")
        if input.dtype not in _INPUT_DTYPES:
            raise ValueError(_dtype_message(input))
        h0 = c0 = None
        if hx is not None:
            h0, c0 = _two(hx)
            for i, state in enumerate(hx):
                if state.dim() != dim:
                    raise ValueError(
                        f"LSTMCell: Expected hx[{i}] to be {dim}D, got {state.dim()}D instead"
                    )
            h0, c0 = (h0[None], c0[None]) if dim == 2 else (h0[None, None], c0[None, None])
        x = input[None] if dim == 2 else input[None, None]
        _, h, c = ops.lstm_int8(
            x, h0, c0, None, self.packed, self.input_size, self.hidden_size, 0, 1, False, False
        )
        return (h[0], c[0]) if dim == 2 else (h[0, 0], c[0, 0])

    def extra_repr(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}, activations={self.activations}"


def _arguments(lstm: nn.LSTM | FastQuantLSTM) -> tuple[Any, ...]:
    """The constructor's positional arguments, up to proj_size."""
    return (
        lstm.input_size,
        lstm.hidden_size,
        lstm.num_layers,
        lstm.bias,
        lstm.batch_first,
        lstm.dropout,
        lstm.bidirectional,
        lstm.proj_size,
    )


def _two(hx: State) -> State:
    if len(hx) != 2:
        raise RuntimeError(f"hx must hold two tensors, (h0, c0), got {len(hx)}")
    return hx


def _checked_state(hx: State, dim: int) -> State:
    h, c = _two(hx)
    if h.dim() != dim or c.dim() != dim:
        kind = "batched 3-D" if dim == 3 else "unbatched 2-D"
        raise RuntimeError(
            f"For {kind} input, hx and cx should also be {dim}-D "
            f"but got ({h.dim()}-D, {c.dim()}-D) tensors"
        )
    return h, c


def _map_state(function: Any, state: State) -> State:
    return function(state[0]), function(state[1])


def _dtype_message(x: Tensor) -> str:
    hint = ": convert it with .float()" if x.dtype == torch.float64 else ""
    return f"input must be float32, float16 or bfloat16, got {x.dtype}{hint}"
