"""The weights of a prepared nn.LSTM or nn.LSTMCell, as they are and as they are rounded."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.compression.qat.fake_quantize import FakeQuantize, FloatWeight
from lstm_fastkernels.modules.float_lstm import as_lstm, matrix_names, own_names, shape_of
from lstm_fastkernels.modules.low_rank import LowRank
from lstm_fastkernels.modules.parametrized import originals_of, parametrization_of
from lstm_fastkernels.weights.canonical import sum_biases
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import LOW_RANK


def fake_weights(module: nn.Module, name: str) -> list[Any]:
    """That of a matrix, or those of its two factors; none where it is not prepared."""
    if not parametrize.is_parametrized(module, name):
        return []
    last: Any = parametrization_of(module, name)[-1]
    if isinstance(last, FakeQuantize | FloatWeight):
        return [last]
    return list(last.fakes) if isinstance(last, LowRank) else []


def before_rounding(module: nn.Module, name: str) -> list[Tensor]:
    """What goes into a matrix's fake_weights."""
    weights: list[Tensor] = list(originals_of(module, name).values())
    for part in list(parametrization_of(module, name))[:-1]:
        weights = [part(*weights)]
    return weights


@dataclass(frozen=True, eq=False)
class PreparedWeights:
    """Those of a prepared module, by the names that an nn.LSTM has for them.

    weights: float32 with their history: of matrices as they are rounded, or of their two factors,
    and the sums of biases. tensors: the canonical ones, matrices dense or low-rank. precision: of
    each matrix. group_sizes: of those in 4 bits.
    """

    shape: LstmShape
    weights: dict[str, list[Tensor]]
    tensors: dict[str, Tensor]
    precision: dict[str, str]
    group_sizes: dict[str, int]


def read(module: Any) -> PreparedWeights:
    """Raises ValueError for weights that are no longer finite."""
    weights: dict[str, list[Tensor]] = {}
    tensors: dict[str, Tensor] = {}
    precision, group_sizes = {}, {}
    for full, name in own_names(module, matrix_names(module)).items():
        if not (fakes := fake_weights(module, name)):
            raise ValueError(
                f"{name} is prepared for training no longer, or has another parametrization on top "
                'of its rounding: put that on before step "prepare"'
            )
        inputs = before_rounding(module, name)
        _check_finite(full, inputs)
        found = [fake.fake(weight) for fake, weight in zip(fakes, inputs, strict=True)]
        weights[full] = [weight for weight, _ in found]
        _check_finite(full, weights[full])
        own = [tensors for _, tensors in found]
        parts = own[0] if len(own) == 1 else LOW_RANK.join(*own)
        tensors |= {full + end: tensor for end, tensor in parts.items()}
        precision[full] = fakes[0].precision
        if fakes[0].precision == "int4":
            group_sizes[full] = fakes[0].group_size
    if module.bias:
        biases = as_lstm(module, dict(module.named_parameters(recurse=False)))
        tensors |= sum_biases(biases)
        for name, bias in biases.items():
            if name.startswith("bias_ih"):
                both = bias.float() + biases[name.replace("_ih", "_hh")].float()
                _check_finite(name, [both])
                weights[name.replace("bias_ih", "bias")] = [both]
    return PreparedWeights(shape_of(module), weights, tensors, precision, group_sizes)


def _check_finite(name: str, weights: Iterable[Tensor]) -> None:
    if not all(weight.isfinite().all() for weight in weights):
        raise ValueError(f"{name} is no longer finite: training went astray")
