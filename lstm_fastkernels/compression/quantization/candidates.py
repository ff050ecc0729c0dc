"""An LSTM's matrices, quantized with what was observed, and LSTMs made of them."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from lstm_fastkernels.compression.calibration.calls import Call
from lstm_fastkernels.compression.calibration.observe import Observations
from lstm_fastkernels.compression.calibration.sqnr import noise_of
from lstm_fastkernels.compression.quantization.error_feedback import round_with_feedback
from lstm_fastkernels.compression.quantization.int4_feedback import round_groups_with_feedback
from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec, sum_biases
from lstm_fastkernels.weights.formats import PRECISIONS, Int4, Int8, Tensors, WeightFormat
from lstm_fastkernels.weights.int4 import pack_int4
from lstm_fastkernels.weights.rounding import RoundingConfig
from lstm_fastkernels.weights.structures import LOW_RANK, Factors


class Candidates:
    """The matrices of an observed LSTM in each precision, made when they are first asked for."""

    def __init__(
        self, seen: Observations, rounding: RoundingConfig, factors: Factors | None = None
    ) -> None:
        """factors: of matrices that are to stay low-rank."""
        self._seen = seen
        self._rounding = rounding
        self._factors = factors or {}
        self._made: dict[tuple[str, str], Tensors] = {}
        self._biases = {name: t.cpu() for name, t in sum_biases(seen.floats).items()}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each matrix."""
        sizes = {
            name: rows * columns for name, (rows, columns) in self._seen.shape.matrices.items()
        }
        return sizes | {name: u.numel() + v.numel() for name, (u, v) in self._factors.items()}

    def canonical(self, precision: Mapping[str, str]) -> CanonicalLSTM:
        """The LSTM, matrices dense or low-rank, each in the precision named for it."""
        tensors = dict(self._biases)
        for name, own in precision.items():
            tensors |= {name + end: tensor for end, tensor in self._matrix(name, own).items()}
        shape, bias = self._seen.shape, bool(self._biases)
        return WeightSpec(shape, bias, precision, self._rounding).take(tensors)

    def lstm(self, precision: Mapping[str, str]) -> FastQuantLSTM:
        return lstm_on_cpu(self.canonical(precision))

    def _matrix(self, name: str, precision: str) -> Tensors:
        """By what the names of its tensors end in."""
        key = name, precision
        if key not in self._made:
            self._made[key] = self._make(name, precision)
        return self._made[key]

    def _make(self, name: str, precision: str) -> Tensors:
        weight_format = PRECISIONS[precision](self._rounding)
        second_moment = self._seen.moments[name].second
        if name not in self._factors:
            return _rounded(weight_format, self._seen.floats[name], second_moment)
        u, v = self._factors[name]
        inner = _rounded(weight_format, v, second_moment)
        given = weight_format.expand(inner, v.shape[1]).double()  # by V, and read by U
        outer = _rounded(weight_format, u, given @ second_moment @ given.T)
        return LOW_RANK.join(outer, inner)


def _rounded(weight_format: WeightFormat, weight: Tensor, second_moment: Tensor) -> Tensors:
    """The tensors of a float matrix on the CPU, for inputs of this second moment."""
    weight = weight.detach().cpu()
    if isinstance(weight_format, Int8):
        integers, scale = round_with_feedback(
            weight, second_moment, pair_safe=weight_format.pair_safe
        )
        return {"": integers, "_scale": scale}
    if isinstance(weight_format, Int4):
        integers, scale = round_groups_with_feedback(
            weight, second_moment, group_size=weight_format.group_size
        )
        return {"": pack_int4(integers), "_scale": scale}
    return weight_format.compress(weight)


def lstm_noise(lstm: FastQuantLSTM, calls: Iterable[Call]) -> float:
    """The sum of the squared errors of an LSTM on the CPU, time-major, for these calls."""

    def output(call: Call) -> Tensor:
        h, c = (state.cpu() for state in call.hx)
        y, _ = lstm(call.x.cpu(), (h, c), call.lengths)
        return y

    return noise_of(output, calls)


def lstm_on_cpu(canonical: CanonicalLSTM) -> FastQuantLSTM:
    """The LSTM with these weights, a cell as one of one layer."""
    spec, shape = canonical.spec, canonical.spec.shape
    lstm = FastQuantLSTM(
        shape.input_size,
        shape.hidden_size,
        shape.num_layers,
        spec.bias,
        bidirectional=shape.num_directions == 2,
        proj_size=shape.proj_size,
        device="meta",
        precision=spec.precision,
    )
    lstm.take_canonical({name: t.detach().cpu() for name, t in canonical.tensors.items()})
    return lstm
