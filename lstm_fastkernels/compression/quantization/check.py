"""How near a quantized model is to its float one, and what each of its matrices costs."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from lstm_fastkernels.compression.lstms import label_of
from lstm_fastkernels.compression.quantization.twins import make_twin
from lstm_fastkernels.compression.quantization.variants import Comparison
from lstm_fastkernels.compression.table import format_table
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.weights.precision import describe

# Below it, in dB, outputs are likely to differ enough to change what a model decides.
_LOW = 25.0


@dataclass(frozen=True)
class SqnrRow:
    """part: "" for a whole LSTM, else a layer ("layer 1") or a matrix ("weight_hh_l1"). sqnr: in
    dB, of the LSTM's outputs."""

    lstm: str
    part: str
    precision: str
    sqnr: float


@dataclass(frozen=True)
class SqnrReport:
    """A row for each LSTM and, where they stand alone with all else in float32, each of its layers
    and matrices; `str()` is a table."""

    rows: list[SqnrRow]

    @property
    def sqnr(self) -> dict[str, float]:
        """In dB, of each LSTM's outputs, by its name."""
        return {row.lstm: row.sqnr for row in self.rows if not row.part}

    def __str__(self) -> str:
        head = ("LSTM", "part", "precision", "SQNR, dB")
        cells = [(row.lstm, row.part, row.precision, f"{row.sqnr:.1f}") for row in self.rows]
        return format_table([head, *cells], names=3)


def check(model: nn.Module, reference: nn.Module, batches: Iterable[Any]) -> SqnrReport:
    """Compares the LSTMs of a quantized model with those of the float model that it comes from.

    model: with FastQuantLSTM and the like in the places where `reference` has nn.LSTM and
    nn.LSTMCell. batches: of the models' input, as quantize_ takes them, best none that it was
    calibrated with. Copies of both models run on them in evaluation mode. A row's ratio is the
    signal to quantization noise ratio (SQNR) of what the LSTM returns: of a whole LSTM in `model`
    as it is, of a layer or a matrix in `reference` with this part quantized and nothing else.

    Returns the report; a UserWarning names the LSTMs with less than 25 dB. Raises ValueError where
    the models have no LSTM in common and for batches that do not call them.
    """
    batches = list(batches)
    lstms = dict(_pairs(model, reference))
    if not lstms:
        raise ValueError("the model has no quantized LSTM, or the reference none in its place")
    comparison = Comparison(reference, lstms, batches)
    whole = comparison.sqnr_of(model, "quantized outputs")
    rows = []
    for name, (fast, exact) in lstms.items():
        rows.append(SqnrRow(name, "", describe(fast.precision), whole[name]))
        for part, matrices in _parts(fast):
            precision = {matrix: fast.precision[matrix] for matrix in matrices}
            weights = fast.canonical().to_float()
            twin = make_twin(
                exact,
                name,
                dict.fromkeys(fast.precision, "float32") | precision,
                {matrix: weights[matrix] for matrix in matrices},
                pair_safe=False,
            )
            ratio = comparison.sqnr({name: twin}, f"{label_of(name)}: {part}")[name]
            rows.append(SqnrRow(name, part, describe(precision), ratio))
    low = [f"{label_of(name)} {ratio:.1f}" for name, ratio in whole.items() if ratio < _LOW]
    if low:
        warnings.warn(
            f"less than {_LOW:.0f} dB is left in the outputs of {', '.join(low)}: calibrate, or "
            "let quantize_ raise the precision of some matrices with min_sqnr",
            stacklevel=2,
        )
    return SqnrReport(rows)


def _pairs(
    model: nn.Module, reference: nn.Module
) -> Iterator[tuple[str, tuple[FastModule, nn.LSTM | nn.LSTMCell]]]:
    """The compressed LSTMs by name, each with the float one in its place."""
    floats = dict(reference.named_modules())
    for name, module in model.named_modules():
        exact = floats.get(name)
        if isinstance(module, FastModule) and isinstance(exact, nn.LSTM | nn.LSTMCell):
            yield name, (module, exact)


def _parts(lstm: FastModule) -> Iterator[tuple[str, list[str]]]:
    """Layers, where there are several, and matrices: what they are called, and their matrices."""
    for layer in range(lstm.num_layers):
        ends = f"_l{layer}", f"_l{layer}_reverse"
        matrices = [name for name in lstm.precision if name.endswith(ends)]
        if lstm.num_layers > 1:
            yield f"layer {layer}", matrices
        for name in matrices:
            yield name, [name]
