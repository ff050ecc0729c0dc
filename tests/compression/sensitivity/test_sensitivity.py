"""sensitivity: every part alone, measured as the parts that it stands for would be."""

import copy
import math

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case
from lstm_fastkernels.compression.sensitivity.analyze import METHODS
from quantization_cases import batches, snr


class Deep(nn.Module):
    """A projected, bidirectional LSTM three modules deep and in two places, and a cell."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        lstm = nn.LSTM(4, 12, 2, bidirectional=True, proj_size=2)
        self.body = nn.ModuleList([nn.ModuleList([nn.ModuleList([lstm]), nn.ModuleList([lstm])])])
        self.cell = nn.LSTMCell(4, 7)

    def forward(self, x):
        y = self.body[0][1][0](self.body[0][0][0](x)[0])[0]
        return self.cell(y[-1])[0], y


def test_parts_and_methods():
    model, x = Deep(), batches(4)
    before = copy.deepcopy(model.state_dict())
    seen = []

    def evaluate(copied):
        seen.append(copied is not model)
        assert not copied.training
        return float(copied(x[0])[1].square().mean())

    counts = {"lstm": 1 + 1, "layer": 2 + 1, "matrix": 12 + 2, "gate": 4 * 8 + 4 + 2 * 4}
    of_gates = {"int4": lfk.Int4Config()}
    for by, count in counts.items():
        methods = of_gates if by == "gate" else None
        report = lfk.sensitivity(model, evaluate, calibration=x, by=by, methods=methods)
        assert len(report.parts) == count
        if methods is None:
            assert report.methods == ["int8", "int4", "80% zeros", "90% energy"]
        assert len(report.rows) == len(report.methods) * count
        assert all(row.sqnr > 0 or row.method != "int8" for row in report.rows)
        assert len(str(report).splitlines()) == count + 2
    assert seen.count(False) == len(counts)  # the model as it is
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert {row.module for row in report.rows} == {"body.0.0.0", "cell"}


def test_matrices_are_quantized_on_the_kernels():
    """As convert with that precision for one matrix alone."""
    lstm = Case(4, 31).lstm()
    model = nn.Sequential(lstm)
    (x,) = batches(1)
    report = lfk.sensitivity(model, lambda m: snr(m, model, x), methods={"int8": lfk.Int8Config()})
    for row in report.rows:
        precision = {"*": "float32", row.part: "int8"}
        alone = lfk.convert(model, precision=precision)
        assert row.metric == snr(alone, model, x)
        assert row.sqnr is None
    assert [row.part for row in report.rows] == ["weight_ih_l0", "weight_hh_l0"]


def test_gates_have_their_rows_changed():
    lstm = Case(4, 31).lstm()
    found = {}

    def evaluate(model):
        different = (model.weight_hh_l0 != lstm.weight_hh_l0).any(1).view(4, -1).any(1)
        found[tuple(different.tolist())] = torch.equal(model.weight_ih_l0, lstm.weight_ih_l0)
        return 0.0

    methods = {"zeros": lfk.PruneConfig(0.9, block_size=None)}
    report = lfk.sensitivity(lstm, evaluate, methods=methods, by="gate")
    assert [row.part for row in report.rows][4:] == [f"weight_hh_l0.{gate}" for gate in "ifgo"]
    for gate in range(4):
        assert found[tuple(number == gate for number in range(4))]


def test_ranking_finds_the_part_that_matters():
    """A column of the first matrix is large, its other columns matter none the less."""
    model, x = Deep(), batches(4)
    lstm = model.body[0][0][0]
    with torch.no_grad():
        lstm.weight_ih_l0[:, 0] *= 100
    methods = {"int4": lfk.Int4Config()}
    report = lfk.sensitivity(model, calibration=x, methods=methods, filter_fn=is_lstm)
    worst = min(report.rows, key=lambda row: row.sqnr)
    assert worst.part == "weight_ih_l0"
    assert report.baseline is None
    assert "dB" in str(report)


def is_lstm(module, name):
    return isinstance(module, nn.LSTM)


def test_pruned_and_factorized_models_are_measured_as_they_are(tmp_path):
    pytest.importorskip("matplotlib")
    lstm = Case(4, 31).lstm()
    lfk.factorize_(lstm, lfk.LowRankConfig(rank={"weight_hh*": 5}))
    lfk.prune_(lstm, lfk.PruneConfig({"weight_ih": 0.5}, block_size=None))
    methods = {
        "int8": lfk.Int8Config(),
        "the same zeros": lfk.PruneConfig(0.5, block_size=None),
        "the same rank": lfk.LowRankConfig(rank={"weight_hh*": 5}),
    }
    report = lfk.sensitivity(lstm, calibration=batches(4), methods=methods)
    found = {(row.part, row.method): row.sqnr for row in report.rows}
    assert found["weight_ih_l0", "the same zeros"] == math.inf
    assert found["weight_hh_l0", "the same rank"] > 80
    assert all(found[part, "int8"] > 20 for part in ("weight_ih_l0", "weight_hh_l0"))
    report.heat_map().savefig(tmp_path / "map.png")


def test_heat_map(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "map.png"
    for options in ({"evaluate": lambda m: 1.0}, {"calibration": batches(4)}):
        options["methods"] = {"int8": lfk.Int8Config(), "80% zeros": lfk.PruneConfig(0.8)}
        lfk.sensitivity(Deep(), **options).heat_map().savefig(path)
        assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("method", METHODS)
def test_prepared_lstms_are_refused(method):
    model = Deep()
    lfk.quantize_(model, lfk.QATConfig(lfk.Int8Config(), step="prepare"), filter_fn=is_lstm)
    with pytest.raises(ValueError, match=r"body\.0\.0\.0: it is prepared for quantization-aware"):
        lfk.sensitivity(model, lambda m: 1.0, methods={method: METHODS[method]})


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ValueError, "nothing to measure with"),
        ({"by": "row"}, ValueError, "by must be one of"),
        ({"methods": {"x": 8}}, TypeError, "method 'x' must be"),
        ({"methods": {"x": lfk.PruneConfig(0.5, importance="taylor")}}, ValueError, "training"),
        ({"filter_fn": lambda m, n: False}, ValueError, "found no nn.LSTM"),
        ({"evaluate": None, "calibration": batches(1)}, ValueError, "second calibration batch"),
        ({"evaluate": lambda m: math.inf}, ValueError, "evaluate gave inf"),
        (
            {"methods": {"x": lfk.Int8Config(precision={"weight_xx": "int4"})}},
            ValueError,
            "none of",
        ),
    ],
)
def test_what_does_not_fit(options, error, match):
    if options and "evaluate" not in options:
        options = {"evaluate": lambda m: 1.0, **options}
    with pytest.raises(error, match=match):
        lfk.sensitivity(Deep(), **options)
