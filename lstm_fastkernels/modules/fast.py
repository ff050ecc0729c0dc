"""What the fast modules share: options, float twins and the way to the kernels."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, is_grad_enabled, is_inference_mode_enabled, nn
from torch.compiler import is_dynamo_compiling
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.modules.float_lstm import (
    copy_hooks,
    fault_of,
    life_fault,
    prepared_fault,
    weights_of,
)
from lstm_fastkernels.modules.forward_alone import ForwardAlone
from lstm_fastkernels.modules.low_rank import low_rank_factors
from lstm_fastkernels.modules.quantized_lstm import quantized_classes, quantized_tensors
from lstm_fastkernels.modules.refusals import explain_refusal
from lstm_fastkernels.modules.running import explain_run, explain_steps
from lstm_fastkernels.modules.stateful import StatefulLSTM
from lstm_fastkernels.modules.states import States, two_states
from lstm_fastkernels.ops import least_lstm, lstm, lstm_without_gradient
from lstm_fastkernels.ops.eager import current
from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.formats import INPUT_DTYPES, stored_as
from lstm_fastkernels.weights.packing import Keep
from lstm_fastkernels.weights.precision import Activations, PrecisionConfig, describe, word_for
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import LayoutConfig

_Twin = TypeVar("_Twin", nn.LSTM, nn.LSTMCell)


class FastModule(StatefulLSTM, ForwardAlone):
    """A module that stands in the place of its float twin and is called as that is."""

    float_class: ClassVar[type[nn.LSTM] | type[nn.LSTMCell]]
    activation_choices: ClassVar[tuple[Activations, ...]]  # the first is the default
    precision_choices: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        shape: LstmShape,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        numbers: PrecisionConfig,
        rounding: RoundingConfig,
        layout: LayoutConfig,
        keep: Keep,
    ) -> None:
        if dtype is not None and dtype not in INPUT_DTYPES:
            raise ValueError(f"dtype must be one of {list(INPUT_DTYPES)}, got {dtype}")
        precision = numbers.of(shape, self.activation_choices, self.precision_choices)
        super().__init__(WeightSpec(shape, bias, precision, rounding), layout, device, keep)

    @property
    def input_size(self) -> int:
        """Columns of the input; of a module that takes_ids, how many ids there are."""
        return self._spec.shape.input_size

    @property
    def takes_ids(self) -> bool:
        """Whether the input is token ids in 0..input_size - 1, see fold_embedding."""
        return self._takes_ids

    @property
    def hidden_size(self) -> int:
        return self._spec.shape.hidden_size

    @property
    def proj_size(self) -> int:
        return self._spec.shape.proj_size

    @property
    def num_layers(self) -> int:
        return self._spec.shape.num_layers

    @property
    def bidirectional(self) -> bool:
        return self._spec.shape.num_directions == 2

    @property
    def bias(self) -> bool:
        return self._spec.bias

    @property
    def precision(self) -> Mapping[str, str]:
        """How each matrix is stored and run: "int8", "int16", "int4", "float32", "table" or
        "table_float16"."""
        return MappingProxyType(self._spec.precision)

    @property
    def activations(self) -> str:
        """The precision of all matrices in a word: "int8", "int16", "mixed", "int4" or "float32";
        "custom" where there is none for it, see `precision`."""
        return word_for(self.precision)

    @property
    def pair_safe(self) -> PairSafe:
        """How floats given to the module are rounded to "int8" matrices, see quantize_rows."""
        return self._spec.rounding.pair_safe

    @property
    def group_size(self) -> int:
        """Columns that share a scale in floats given to "int4" matrices."""
        return self._spec.rounding.group_size

    # ---- the float twin ----

    @classmethod
    def _like(cls, twin: nn.Module, **options: Any) -> Self:
        """One of a twin's sizes, on the meta device; options are those that the class has beside
        its float class's."""
        raise NotImplementedError

    @classmethod
    def from_canonical(cls, twin: nn.Module, canonical: CanonicalLSTM, **options: Any) -> Self:
        """One in a float twin's place with these weights, of the sizes and precision that it gets;
        else as from_float, and on the twin's device."""
        if fault := fault_of(twin):
            raise ValueError(fault)
        module = cls._like(twin, **options)
        device = next(twin.parameters()).device
        module._set_canonical(
            canonical.spec.take({name: t.to(device) for name, t in canonical.tensors.items()})
        )
        return module._follow(twin)

    def _follow(self, twin: nn.Module) -> Self:
        """The module with the twin's hooks and mode."""
        copy_hooks(twin, self)
        return self.train(twin.training)

    @classmethod
    def _check_float_twin(cls, module: nn.Module) -> None:
        # A subclass may compute something else; a parametrized module's class is a subclass too,
        # and computes the same.
        found = type_before_parametrizations(module)
        if found is not cls.float_class:
            raise TypeError(
                f"{cls.__name__}.from_float expects an nn.{cls.float_class.__name__}, "
                f"got {found.__name__}"
            )
        if fault := fault_of(module) or prepared_fault(module):
            raise ValueError(fault)

    def _take_float(self, twin: nn.Module) -> Self:
        """The module with the twin's weights, hooks and mode."""
        weights = weights_of(twin)
        floats = {name: weights[theirs] for name, theirs in self._float_names().items()}
        factors = low_rank_factors(twin)
        self._set_canonical(self._spec.compress(floats, self._layout_config, factors))
        return self._follow(twin)

    @classmethod
    def _check_quantized_twin(cls, module: nn.Module) -> None:
        found, expected = type(module), cls.float_class.__name__
        if found not in quantized_classes() or found.__name__ != expected:
            raise TypeError(
                f"{cls.__name__}.from_quantized expects a torch.ao.nn.quantized.dynamic."
                f"{expected}, got {found.__module__}.{found.__name__}"
            )
        if fault := life_fault(module):
            raise ValueError(fault)

    def _take_quantized(self, twin: nn.Module) -> Self:
        """The module with the integers, scales, hooks and mode of a quantized twin."""
        for name, precision in self.precision.items():
            if precision not in (choices := stored_as(torch.int8)):
                raise ValueError(
                    f"{name} is int8 already: its precision must be one of {choices}, "
                    f"got {precision!r}"
                )
        self.take_dense(quantized_tensors(twin, self._spec, self._float_names()))
        return self._follow(twin)

    def to_float(self) -> nn.Module:
        """The float twin with the weights that the module has, float32, on its device."""
        raise NotImplementedError

    def _give_float(self, twin: _Twin) -> _Twin:
        """The twin with the weights that the canonical tensors stand for."""
        floats, names = self.canonical().to_float(), self._float_names()
        twin.load_state_dict({names[name]: tensor for name, tensor in floats.items()})
        return twin.train(self.training)

    # ---- calls ----

    def _run(
        self, x: Tensor, hx: States | None, lengths: Tensor | None, batch_first: bool
    ) -> tuple[Tensor, States]:
        """y, (h_n, c_n) of x, in one of the forms that ops.lstm takes."""
        op: Any
        h0 = c0 = None
        if hx is not None:
            h0, c0 = hx if len(hx) == 2 else two_states(hx)
        if is_dynamo_compiling():
            self._prepare_tracing()
            packed = self.packed
            op = (is_grad_enabled() and self._in_grad_mode(x, h0, c0)) or lstm
        else:
            found = current(self.__dict__)
            packed = self._renew() if found is None else found
            if is_inference_mode_enabled():
                op = lstm
            elif is_grad_enabled():
                op = self._in_grad_mode(x, h0, c0) or least_lstm()
            else:
                op = least_lstm()
        try:
            y, h, c = op(x, h0, c0, lengths, packed, self._sizes, batch_first, self._header)
        except (RuntimeError, TypeError):
            explain_refusal(x, h0, c0, lengths)
            raise
        return y, (h, c)

    def _in_grad_mode(self, *inputs: Any) -> Any:
        """The op whose backward raises, where a derivative is asked for."""
        if own := [tensor for tensor in self._floats if tensor.requires_grad]:
            return partial(lstm_without_gradient, own)
        if any(getattr(value, "requires_grad", False) for value in inputs):
            return lstm
        return None

    def __prepare_scriptable__(self) -> Self:
        raise RuntimeError(
            f"torch.jit.script cannot take a {type(self).__name__}: use torch.jit.trace, "
            "torch.export or torch.compile"
        )

    def _to_run(self, *inputs: Any) -> tuple[Tensor, States | None, Tensor | None, bool]:
        """What forward gives to _run for these inputs."""
        raise NotImplementedError

    def _explain(self, *inputs: Any) -> str:
        """What forward would do with these inputs."""
        return explain_run(self._current(), self._header, self._spec.shape, *self._to_run(*inputs))

    def _options_repr(self) -> list[str]:
        try:
            layouts = self.layouts()
        except (KeyError, RuntimeError) as error:
            return [f"without {error}"]
        how = ", ".join(f"{name}: {kind}" for name, kind in layouts.items())
        if set(layouts.values()) == {"dense"}:
            how = "all dense"
        steps = explain_steps(self.packed, self._header, self._spec.shape)
        return [
            f"activations={describe(self.precision)}",
            *([f"pair_safe={self.pair_safe}"] if self.pair_safe != "auto" else []),
            *([f"group_size={self.group_size}"] if "int4" in self.precision.values() else []),
            f"layout={self.layout} ({how})",
            *([f"keep={self.keep}"] if self.keep != "canonical" else []),
            *([f"steps: {steps}"] if steps else []),
        ]
