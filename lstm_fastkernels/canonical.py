"""What FastQuantLSTM and FastQuantLSTMCell share: canonical int8 tensors, packed and run.

Per layer and direction, with nn.LSTM's suffixes: `weight_ih`, `weight_hh`, `weight_hr` int8 and
`..._scale` float32, one a row; `bias` float32, b_ih + b_hh. They are the state_dict; `packed` is
made from them for the CPU kernels whenever they change, and never saved.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels import ops
from lstm_fastkernels.quantization import WEIGHT_MAX, quantize_rows

Activations = Literal["int8", "int16"]
State = tuple[Tensor, Tensor]

_ACTIVATION_BITS = {"int8": 8, "int16": 16}
_INPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class QuantizedLSTMBase(nn.Module):
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

    def _finish_init(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
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
        # Weights tell the two kinds apart; a scale betrays a quantized checkpoint without them.
        quantized = any(
            name.endswith("_scale") or getattr(value, "dtype", None) == torch.int8
            for name, value in given.items()
        )
        kind = "quantized" if quantized else "float"
        expected: dict[str, tuple[torch.dtype | None, tuple[int, ...]]]
        if quantized:
            expected = {**self._canonical()}
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

    # ---- run ----

    def _run(
        self, x: Tensor, hx: State | None, lengths: Tensor | None, batch_first: bool
    ) -> tuple[Tensor, State]:
        """The op on x, as ops.lstm_int8_for has it, and the state hx."""
        h0, c0 = (None, None) if hx is None else two_states(hx)
        run = ops.lstm_int8_for(x, h0, c0) if torch.is_grad_enabled() else ops.lstm_int8
        y, h, c = run(
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
        )
        return y, (h, c)

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


def two_states(hx: State) -> State:
    """hx itself; RuntimeError unless it holds two tensors."""
    if len(hx) != 2:
        raise RuntimeError(f"hx must hold two tensors, (h0, c0), got {len(hx)}")
    return hx


def _fault(value: object, dtype: torch.dtype | None, shape: tuple[int, ...]) -> str | None:
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
