"""A precision for each matrix, so that what LSTMs return is as near to float as asked for."""

from collections.abc import Mapping
from typing import NamedTuple

from lstm_fastkernels.compression.quantization.twins import Quantizer
from lstm_fastkernels.compression.quantization.variants import Comparison

# What multiplying a weight costs beside int8, in time and, for float32, in bytes: operands of 16
# bits run at half the rate, float32 ones at a quarter.
_COSTS = {"int8": 0, "int16": 1, "float32": 3}

# Of each LSTM, by its name in the model: the precision of each matrix.
Precisions = dict[str, dict[str, str]]


class _Step(NamedTuple):
    lstm: str
    matrix: str
    precision: str


def raise_precision(
    quantizers: Mapping[str, Quantizer],
    precisions: Precisions,
    comparison: Comparison,
    min_sqnr: float,
) -> tuple[Precisions, dict[str, float]]:
    """Raises precisions until the outputs of every LSTM reach min_sqnr; returns the precisions and
    the ratios reached, in dB.

    Each matrix is measured alone, all else in float32. While an LSTM is below, the matrix is raised
    that takes away most of its noise for what it costs. Raises ValueError where float32 for all
    that counts is not enough.
    """
    precisions = {name: dict(precision) for name, precision in precisions.items()}
    noise = _Noise(quantizers, comparison)
    while True:
        twins = {name: quantizers[name].make_twin(how) for name, how in precisions.items()}
        ratios = comparison.sqnr(twins, "with raised precision")
        worst = min(ratios, key=lambda name: ratios[name])
        if ratios[worst] >= min_sqnr:
            return precisions, ratios
        step = _best_step(quantizers, precisions, noise, worst)
        if step is None:
            raise ValueError(
                f"min_sqnr={min_sqnr} cannot be reached: {worst} has {ratios[worst]:.1f} dB with "
                "float32 for every matrix that counts"
            )
        precisions[step.lstm][step.matrix] = step.precision


class _Noise:
    """What a matrix alone adds to the outputs of LSTMs, measured where it is asked for."""

    def __init__(self, quantizers: Mapping[str, Quantizer], comparison: Comparison) -> None:
        self._quantizers, self._comparison = quantizers, comparison
        self._found: dict[_Step, dict[str, float]] = {}

    def of(self, step: _Step, output: str) -> float:
        """Noise, relative to the signal, in the outputs of that LSTM."""
        if step.precision == "float32":
            return 0.0
        if step not in self._found:
            quantizer = self._quantizers[step.lstm]
            alone = dict.fromkeys(quantizer.shape.matrices, "float32") | {
                step.matrix: step.precision
            }
            twins = {step.lstm: quantizer.make_twin(alone)}
            ratios = self._comparison.sqnr(twins, f"{step.matrix} in {step.precision}")
            self._found[step] = {name: 10 ** (-ratio / 10) for name, ratio in ratios.items()}
        return self._found[step][output]


def _best_step(
    quantizers: Mapping[str, Quantizer], precisions: Precisions, noise: _Noise, output: str
) -> _Step | None:
    """The step that takes away most noise of that LSTM's outputs for what it costs, if any."""
    best, most = None, 0.0
    for lstm, precision in precisions.items():
        for matrix, now in precision.items():
            rows, columns = quantizers[lstm].shape.matrices[matrix]
            for to, cost in _COSTS.items():
                if cost > _COSTS[now]:
                    less = noise.of(_Step(lstm, matrix, now), output) - noise.of(
                        _Step(lstm, matrix, to), output
                    )
                    gain = less / ((cost - _COSTS[now]) * rows * columns)
                    if gain > most:
                        best, most = _Step(lstm, matrix, to), gain
    return best
