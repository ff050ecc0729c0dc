"""Raising the precision of an LSTM's matrices, where it buys most, until its output is good."""

from collections.abc import Mapping, Sequence

from lstm_fastkernels.compression.calibration.calls import Call
from lstm_fastkernels.compression.calibration.sqnr import signal_of, to_db
from lstm_fastkernels.compression.quantization.candidates import Candidates, lstm_noise

# What a weight costs more than in int8, in bytes: float32 has three more, which one row of a batch
# waits for, int4 half a byte less; 16-bit activations have none, and take the time of about 0.6.
PRICES = {"int4": -0.5, "int8": 0.0, "int16": 0.6, "float32": 3.0}


def raise_precision(
    candidates: Candidates,
    precision: Mapping[str, str],
    calls: Sequence[Call],
    min_sqnr: float,
) -> tuple[dict[str, str], float]:
    """The precision of each matrix from which the outputs for these calls reach min_sqnr [dB], and
    what they reach.

    Errors of different matrices add up about as if they were independent: each is measured alone,
    with float32 for all others, and the step that saves most for its price is taken next. Raises
    ValueError where even float32 does not reach it.
    """
    sizes = candidates.sizes
    signal = signal_of(calls)
    found = dict(precision)
    alone: dict[tuple[str, str], float] = {}

    def noise(name: str, own: str) -> float:
        if own == "float32":
            return 0.0
        if (name, own) not in alone:
            trial = {**dict.fromkeys(found, "float32"), name: own}
            alone[name, own] = lstm_noise(candidates.lstm(trial), calls)
        return alone[name, own]

    def reached() -> float:
        return to_db(signal, lstm_noise(candidates.lstm(found), calls))

    sqnr = reached()
    while sqnr < min_sqnr:
        steps = {
            (name, better): (noise(name, own) - noise(name, better))
            / ((PRICES[better] - PRICES[own]) * sizes[name])
            for name, own in found.items()
            for better in PRICES
            if PRICES[better] > PRICES[own]
        }
        if not steps:
            raise ValueError(f"min_sqnr={min_sqnr} cannot be reached: float32 gives {sqnr:.1f} dB")
        name, better = max(steps, key=lambda step: steps[step])
        found[name] = better
        sqnr = reached()
    return found, sqnr
