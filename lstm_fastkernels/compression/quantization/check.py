"""check: how far a model's quantized LSTMs are from its float ones."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lstm_fastkernels.compression.calibration.calls import Call, Recording
from lstm_fastkernels.compression.calibration.moments import FloatLayers
from lstm_fastkernels.compression.calibration.observe import calls_of
from lstm_fastkernels.compression.calibration.sqnr import signal_of, to_db
from lstm_fastkernels.compression.lstms import find_lstms, label_of
from lstm_fastkernels.compression.quantization.candidates import lstm_noise, lstm_on_cpu
from lstm_fastkernels.modules.fast import FastModule
from lstm_fastkernels.modules.float_lstm import prepared_fault, shape_of, weights_as_lstm
from lstm_fastkernels.modules.lstm import FastQuantLSTM
from lstm_fastkernels.reference import Matrix, RowKind, affine
from lstm_fastkernels.weights.canonical import CanonicalLSTM, WeightSpec
from lstm_fastkernels.weights.shape import names_of_part

# Below so many dB outputs are not to be trusted without a look.
DOUBTFUL = 25.0


@dataclass(frozen=True)
class SqnrRow:
    """What an LSTM, a layer of it or a matrix reaches, in dB."""

    module: str
    part: str  # "" for the whole LSTM, "layer 0", "weight_ih_l0"
    precision: str
    sqnr: float


@dataclass(frozen=True)
class SqnrReport:
    """A row for each LSTM, each of its layers and each matrix; `str()` is a table."""

    rows: list[SqnrRow]

    def __str__(self) -> str:
        width = max(len(row.module) + len(row.part) for row in self.rows) + 3
        lines = [f"{'':{width}}  {'precision':9}  {'SQNR dB':>7}"]
        for row in self.rows:
            name = f"  {row.part}" if row.part else label_of(row.module)
            lines.append(f"{name:{width}}  {row.precision:9}  {row.sqnr:7.1f}")
        return "\n".join(lines)


def check(model: nn.Module, reference: nn.Module, batches: Iterable[Any]) -> SqnrReport:
    """The signal to quantization noise ratio of every fast LSTM in a model.

    reference: the float model, with nn.LSTM or nn.LSTMCell under the names of the model's fast
    LSTMs and cells; it is run on the batches, which are given to it as quantize_ gives them. Each
    LSTM is measured with the inputs and states that its float twin gets, calls that go on from the
    last one with its own state; each layer with what the float layer below gives; of each matrix
    the products, less what is the same in all of them, which a bias may take. A UserWarning names
    LSTMs below 25 dB. Raises ValueError, naming the LSTM, where the two models do not fit together,
    for LSTMs without input and input that is not finite.
    """
    lstms = {name: lstm for name, lstm in model.named_modules() if isinstance(lstm, FastModule)}
    if not lstms:
        raise ValueError("there is no fast LSTM in the model: quantize_ or convert makes them")
    pairs = _pairs(lstms, reference)
    recordings = {name: Recording() for name in lstms}
    with closing(calls_of(reference, pairs, batches)) as by_batch:
        for of_batch in by_batch:
            for twin, call in of_batch:
                recordings[pairs[twin]].add(call)
    rows = []
    for twin, name in pairs.items():
        calls = recordings[name].calls()
        if not calls:
            raise ValueError(f"{label_of(name)} got no input from the batches")
        rows += list(_rows(name, lstms[name], twin, calls))
    if low := [label_of(r.module) for r in rows if not r.part and r.sqnr < DOUBTFUL]:
        warnings.warn(
            f"{', '.join(low)}: below {DOUBTFUL:.0f} dB. Calibrate with quantize_, try "
            'activations="mixed" or min_sqnr=30',
            stacklevel=2,
        )
    return SqnrReport(rows)


def _pairs(lstms: Mapping[str, FastModule], reference: nn.Module) -> dict[nn.Module, str]:
    """The float twins of fast LSTMs, with the names that both have."""
    floats = dict(find_lstms(reference))
    pairs = {}
    for name, lstm in lstms.items():
        twin, expected = floats.get(name), lstm.float_class
        if twin is None or type_before_parametrizations(twin) is not expected:
            raise ValueError(f"{label_of(name)} must be an nn.{expected.__name__} in the reference")
        if fault := prepared_fault(twin):
            raise ValueError(f"{label_of(name)} in the reference: {fault}")
        if lstm.takes_ids:
            raise ValueError(
                f"{label_of(name)} reads token ids, its twin in the reference does not: check the "
                "LSTM before fold_embedding"
            )
        if shape_of(twin) != lstm.canonical().spec.shape:
            raise ValueError(f"{label_of(name)} has other sizes in the reference")
        pairs[twin] = name
    return pairs


def _rows(name: str, lstm: FastModule, twin: nn.Module, calls: list[Call]) -> Iterator[SqnrRow]:
    canonical = lstm.canonical()
    layers = FloatLayers(canonical.spec.shape, weights_as_lstm(twin))
    noise = lstm_noise(_layers_of(canonical, 0, canonical.spec.shape.num_layers), calls)
    yield SqnrRow(name, "", lstm.activations, to_db(signal_of(calls), noise))
    for depth, own in enumerate(zip(*map(layers.calls, calls), strict=True)):
        noise = lstm_noise(_layers_of(canonical, depth, 1), own)
        yield SqnrRow(name, f"layer {depth}", "", to_db(signal_of(own), noise))
    errors = {matrix: _ProductErrors(canonical, matrix) for matrix in lstm.precision}
    for call in calls:
        for matrix, operand in layers.operands(call):
            errors[matrix].add(operand.cpu(), layers.weight(matrix).cpu())
    for matrix, error in errors.items():
        yield SqnrRow(name, matrix, lstm.precision[matrix], error.sqnr())


def _layers_of(canonical: CanonicalLSTM, first: int, count: int) -> FastQuantLSTM:
    """Some of an LSTM's layers as one, on the CPU."""
    spec = canonical.spec
    precision = names_of_part(spec.precision, first, count)
    part = WeightSpec(spec.shape.part(first, count), spec.bias, precision)
    return lstm_on_cpu(part.take(names_of_part(canonical.tensors, first, count)))


class _ProductErrors:
    """Of a matrix's products, against float64."""

    def __init__(self, canonical: CanonicalLSTM, name: str) -> None:
        tensors = {end: t.detach().cpu() for end, t in canonical.dense(name).items()}
        scale = tensors.get("_scale", torch.ones(len(tensors[""])))
        activations: Any = canonical.spec.precision[name]
        self._matrix = Matrix(tensors[""], scale, activations)
        is_bounded = not canonical.spec.shape.proj_size or name.startswith("weight_hr")
        bounded = is_bounded and not name.startswith("weight_ih")
        self._kind: RowKind = "bounded" if bounded else "any"
        self._count = 0
        self._signal = self._squares = 0.0
        self._sum = torch.zeros(len(scale), dtype=torch.float64)

    def add(self, operand: Tensor, weight: Tensor) -> None:
        exact = operand.double() @ weight.double().T
        error = affine(self._matrix, operand.double(), 0.0, self._kind) - exact
        self._count += len(operand)
        self._signal += float(exact.square().sum())
        self._squares += float(error.square().sum())
        self._sum += error.sum(0)

    def sqnr(self) -> float:
        of_the_mean = float(self._sum.square().sum()) / self._count
        return to_db(self._signal, self._squares - of_the_mean)
