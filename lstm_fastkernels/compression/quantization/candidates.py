"""An LSTM's matrices, quantized with what was observed, and LSTMs made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lstm_fastkernels.compression.quantization.calibration import Observations
from lstm_fastkernels.compression.quantization.calls import Call
from lstm_fastkernels.compression.quantization.error_feedback import round_with_feedback
from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.weights.canonical import sum_biases
from lstm_fastkernels.weights.formats import PRECISIONS, Tensors
from lstm_fastkernels.weights.quantize_rows import PairSafe
from lstm_fastkernels.weights.shape import LstmShape

# How much of the inputs' mean counts beside their covariance. The bias takes what rounding does to
# the mean; inputs of another mean should still meet small errors.
MEAN_SHARE = 0.1


@dataclass(frozen=True)
class Candidate:
    """A matrix of some precision: its tensors by what their names end in, and what to add to the
    bias, [4H]."""

    tensors: Tensors
    bias: Tensor | None = None


class Candidates:
    """The matrices of an observed LSTM in each precision, made when they are first asked for."""

    def __init__(self, seen: Observations, pair_safe: PairSafe) -> None:
        self._seen = seen
        self._pair_safe = pair_safe
        self._made: dict[tuple[str, str], Candidate] = {}
        self._biases = sum_biases(seen.floats)

    @property
    def held_out(self) -> Sequence[Call]:
        return self._seen.held_out

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each matrix."""
        return {name: rows * columns for name, (rows, columns) in self._seen.shape.matrices.items()}

    def tensors(self, precision: Mapping[str, str]) -> dict[str, Tensor]:
        """The canonical tensors, dense, with each matrix in the precision named for it."""
        tensors = {name: bias.double() for name, bias in self._biases.items()}
        for name, own in precision.items():
            candidate = self.of(name, own)
            tensors |= {name + end: tensor for end, tensor in candidate.tensors.items()}
            if candidate.bias is not None:
                tensors[_bias_of(name)] = tensors[_bias_of(name)] + candidate.bias
        return {name: t.float() if t.dtype == torch.float64 else t for name, t in tensors.items()}

    def lstm(self, precision: Mapping[str, str]) -> FastQuantLSTM:
        """The LSTM, a cell as one of one layer, on the CPU."""
        tensors = self.tensors(precision)
        lstm = empty_lstm(self._seen.shape, bool(self._biases), precision)
        lstm.take_canonical(tensors)
        return lstm

    def of(self, name: str, precision: str) -> Candidate:
        key = name, precision
        if key not in self._made:
            self._made[key] = self._make(name, precision)
        return self._made[key]

    def _make(self, name: str, precision: str) -> Candidate:
        weight = self._seen.floats[name].detach().cpu()
        if precision == "float32":
            return Candidate(PRECISIONS[precision](self._pair_safe).compress(weight))
        moments = self._seen.moments[name]
        mean, second = moments.mean, moments.second
        corrected = _bias_of(name) in self._biases
        if corrected:
            second = second - (1 - MEAN_SHARE) * torch.outer(mean, mean)
        pair_safe = self._pair_safe if precision == "int8" else False
        integers, scale = round_with_feedback(weight, second, pair_safe=pair_safe)
        tensors = {"": integers, "_scale": scale}
        if not corrected:
            return Candidate(tensors)
        return Candidate(tensors, (weight.double() - integers * scale.double()[:, None]) @ mean)


def empty_lstm(shape: LstmShape, bias: bool, precision: Mapping[str, str]) -> FastQuantLSTM:
    """An LSTM of a shape, without weights."""
    return FastQuantLSTM(
        shape.input_size,
        shape.hidden_size,
        shape.num_layers,
        bias,
        bidirectional=shape.num_directions == 2,
        proj_size=shape.proj_size,
        device="meta",
        precision=precision,
    )


def _bias_of(name: str) -> str:
    """The bias that a matrix's products are added to; weight_hr has none."""
    kind, _, suffix = name.removeprefix("weight_").partition("_")
    return f"bias_{suffix}" if kind != "hr" else ""
