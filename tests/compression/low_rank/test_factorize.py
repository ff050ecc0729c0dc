"""factorize_: which modules and matrices, with data and without, the report, refusals."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import char_lm
import lstm_fastkernels as lfk
from altered_lstms import ALTERATIONS, BAD_WEIGHTS, DEPRECATED, Held, altered, with_bad_weights
from cases import Case
from low_rank_cases import CASES
from lstm_fastkernels.compression.low_rank.spectrum import Spectrum
from lstm_fastkernels.modules.low_rank import low_rank_factors
from pruning_cases import HALF, Model

RANK = lfk.LowRankConfig(3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_factors_are_the_best_of_each_matrix(case):
    lstm, plain = case.lstm(), case.lstm()
    report = lfk.factorize_(lstm, RANK)
    factors = low_rank_factors(lstm)
    assert list(factors) == [row.matrix for row in report.matrices]
    for row in report.matrices:
        weight = getattr(plain, row.matrix)
        spectrum = Spectrum(weight)
        for found, expected in zip(factors[row.matrix], spectrum.factors(3), strict=True):
            assert torch.equal(found, expected.float())
        assert (row.rows, row.columns, row.rank) == (*weight.shape, 3)
        assert row.energy == spectrum.kept(3)
        assert row.factorized
        assert row.parameters == sum(factor.numel() for factor in factors[row.matrix])
        assert row.parameters_before == weight.numel()
    assert isinstance(lstm, nn.LSTM)
    assert not report.sqnr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    torch.manual_seed(0)
    lstm = nn.LSTM(9, 31).to(dtype)
    observed, exact = copy.deepcopy(lstm), copy.deepcopy(lstm).double()
    for module in (lstm, exact):
        lfk.factorize_(module, RANK)
    for name, pair in low_rank_factors(lstm).items():
        assert {factor.dtype for factor in pair} == {dtype}
        u, v = low_rank_factors(exact)[name]
        # Half a unit in the last place for each factor, and for each of three sums.
        bound = 5 / 2 * torch.finfo(dtype).eps * (u.abs() @ v.abs())
        assert ((getattr(lstm, name).double() - u @ v).abs() <= bound).all()
    batches = [torch.randn(5, 4, 9, dtype=dtype) for _ in range(2)]
    report = lfk.factorize_(observed, RANK, calibration=batches)
    assert observed(batches[0])[0].dtype == dtype
    assert report.sqnr[""] > 0


def test_matrices_that_would_not_get_smaller_are_left():
    lstm = nn.LSTM(9, 31)
    before = lstm.weight_ih_l0
    report = lfk.factorize_(lstm, lfk.LowRankConfig({"weight_ih_l0": 9, "weight_hh_l0": 3}))
    left, factorized = report.matrices
    assert (left.factorized, left.energy, left.rank) == (False, 1, 9)
    assert left.parameters == left.parameters_before == 124 * 9
    assert lstm.weight_ih_l0 is before
    assert list(low_rank_factors(lstm)) == ["weight_hh_l0"]
    assert factorized.parameters == 3 * (124 + 31)
    assert "left (9)  1.0000        1116    1116" in str(report)
    # 3 (12 + 4) = 12 * 4
    report = lfk.factorize_(nn.LSTM(4, 3), lfk.LowRankConfig({"weight_ih_l0": 3}))
    assert not report.matrices[0].factorized


def test_energy_takes_the_least_rank():
    lstm = nn.LSTM(20, 64)
    spectrum = Spectrum(lstm.weight_hh_l0)
    report = lfk.factorize_(lstm, lfk.LowRankConfig(energy={"weight_hh*": 0.6}))
    (row,) = report.matrices
    assert row.energy == spectrum.kept(row.rank) >= 0.6 > spectrum.kept(row.rank - 1)
    assert low_rank_factors(lstm)["weight_hh_l0"][1].shape == (row.rank, 64)


def test_projections_when_they_are_named():
    lstm = Case(9, 31, proj_size=8).lstm()
    lfk.factorize_(lstm, lfk.LowRankConfig(3, matrices=["weight_hr*"]))
    assert [pair[0].shape[0] for pair in low_rank_factors(lstm).values()] == [8]


def test_report_is_a_table():
    model = Model()
    report = lfk.factorize_(model, RANK, calibration=[torch.randn(16, 6, 5) for _ in range(2)])
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "module", "matrix", "rows", "columns", "rank", "energy", "parameters", "before",
    ]  # fmt: skip
    row = report.matrices[5]
    assert lines[6].split() == [
        "cell", "weight_hh_l0", "28", "7", "3", f"{row.energy:.4f}", "105", "196",
    ]  # fmt: skip
    assert lines[7].split() == ["total", str(report.parameters), str(report.parameters_before)]
    assert len({len(line) for line in lines[:8]}) == 1
    assert lines[8:] == [
        f"layers.1: {report.sqnr['layers.1']:.1f} dB on held-out batches",
        f"cell: {report.sqnr['cell']:.1f} dB on held-out batches",
    ]


# ---- with data ----


def test_a_trained_model_with_data():
    """Two layers of 256 units: what is measured is what the model gives, and data helps."""
    model, _ = char_lm.load_model(Path(char_lm.__file__).with_name("char_lm.safetensors"))
    sample = char_lm.text_sample(char_lm.load_corpus()[0], streams=16, length=128)
    batches = [(part,) for part in sample.split(4)]  # the second is held out
    config = lfk.LowRankConfig({"weight_ih_l0": 40, "weight_*": 128})
    plain, weighted = copy.deepcopy(model), copy.deepcopy(model)
    lfk.factorize_(plain, config)
    report = lfk.factorize_(weighted, config, calibration=batches)
    assert {row.rows for row in report.matrices} == {1024}
    x = model.embedding(batches[1][0])
    with torch.no_grad():
        exact, found, without = (lstm(x)[0] for lstm in (model.lstm, weighted.lstm, plain.lstm))

    def sqnr(y):
        return float(10 * torch.log10(exact.square().sum() / (y - exact).square().sum()))

    assert report.sqnr["lstm"] == pytest.approx(sqnr(found), abs=0.01)
    assert sqnr(found) > sqnr(without) + 1


def test_data_without_a_held_out_batch():
    lstm, x = nn.LSTM(9, 31), torch.randn(5, 4, 9)
    plain = copy.deepcopy(lstm)
    report = lfk.factorize_(lstm, RANK, calibration=[x])
    assert not report.sqnr
    moment = x.double().flatten(0, 1).T @ x.double().flatten(0, 1) / 20
    expected = torch.matmul(*Spectrum(plain.weight_ih_l0, moment).factors(3))
    torch.testing.assert_close(lstm.weight_ih_l0.double(), expected, rtol=1e-5, atol=1e-6)


# ---- which modules ----


def test_shared_modules_three_deep_and_filters():
    model = nn.ModuleDict({"a": nn.ModuleDict({"b": Held(nn.LSTM(5, 7, 2))})})
    held = model["a"]["b"]
    seen = []

    def is_shared(module, name):
        seen.append(name)
        return module is held.again

    report = lfk.factorize_(model, RANK, is_shared)
    assert seen == ["a.b.first", "a.b.block.rnn"]
    assert {row.module for row in report.matrices} == {"a.b.block.rnn"}
    assert held.again is held.block["rnn"]
    assert len(low_rank_factors(held.again)) == 4
    assert type(held.first) is nn.LSTM


def test_subclasses_are_left_alone():
    class Other(nn.LSTM):
        pass

    with pytest.raises(ValueError, match=r"found no nn.LSTM or nn.LSTMCell to factorize"):
        lfk.factorize_(Other(9, 7), RANK)


# ---- refusals change nothing ----


class DistributedDataParallel(nn.Module):
    """Known by its name, as the one that needs processes is."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def tied(model):
    model.other = nn.LSTMCell(9, 7)
    model.other.weight_hh = model.cell.weight_hh


REFUSED = {
    "no config": (lambda m: lfk.factorize_(m, 3), TypeError, "expects a LowRankConfig, got int"),
    "a pattern": (
        lambda m: lfk.factorize_(m, lfk.LowRankConfig({"weight_ih*": 2, "weight_hr*": 2})),
        ValueError,
        r"'weight_hr\*' matches none of the matrices weight_hh_l0, ",
    ),
    "a rank": (
        lambda m: lfk.factorize_(m, lfk.LowRankConfig(6)),
        ValueError,
        r"layers\.1\.weight_ih_l0: rank 6 is beyond 5, the lesser of its sizes \(36, 5\)",
    ),
    "tied": (
        lambda m: (tied(m), lfk.factorize_(m, RANK)),
        ValueError,
        r"cell\.weight_hh is shared with other\.weight_hh: untie them first",
    ),
    "wrapped": (
        lambda m: lfk.factorize_(DistributedDataParallel(m), RANK),
        ValueError,
        r"module\.layers\.1 is wrapped by DistributedDataParallel",
    ),
    "pruned": (
        lambda m: (lfk.prune_(m.cell, HALF), lfk.factorize_(m, RANK)),
        ValueError,
        r"cell\.weight_ih has another parametrization: make it permanent first",
    ),
    "parametrized": (
        lambda m: (parametrizations.weight_norm(m.cell, "weight_hh"), lfk.factorize_(m, RANK)),
        ValueError,
        r"cell\.weight_hh has another parametrization",
    ),
    "meta": (
        lambda m: (m.cell.to("meta"), lfk.factorize_(m, RANK)),
        ValueError,
        r"cell\.weight_ih: on the meta device: load its values first",
    ),
    "no input": (
        lambda m: lfk.factorize_(m, RANK, calibration=[]),
        ValueError,
        r"layers\.1 got no input from the calibration batches",
    ),
    "not finite": (
        lambda m: lfk.factorize_(m, RANK, calibration=[torch.full((2, 6, 5), torch.inf)]),
        ValueError,
        r"layers\.1 got values that are not finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_change_nothing(what):
    act, error, message = REFUSED[what]
    model = Model()
    before = list(model.layers[1].parameters())
    with pytest.raises(error, match=message):
        act(model)
    assert type(model.layers[1]) is nn.LSTM
    assert all(a is b for a, b in zip(model.layers[1].parameters(), before, strict=True))
    assert not model.layers[1]._forward_hooks
    assert not low_rank_factors(model.cell)


def test_factorizing_twice():
    lstm = nn.LSTM(9, 31)
    lfk.factorize_(lstm, lfk.LowRankConfig(3, matrices=["weight_hh*"]))
    with pytest.raises(ValueError, match="weight_hh_l0 has another parametrization"):
        lfk.factorize_(lstm, RANK)
    lfk.factorize_(lstm, lfk.LowRankConfig(3, matrices=["weight_ih*"]))
    assert len(low_rank_factors(lstm)) == 2


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_cannot_be_read(name):
    with pytest.raises(ValueError, match=rf"(0: |0\.){BAD_WEIGHTS[name][1]}"):
        lfk.factorize_(nn.Sequential(with_bad_weights(name)), RANK)


@pytest.mark.filterwarnings(DEPRECATED)
@pytest.mark.parametrize("name", ["weight_norm", "torch's prune", "weight missing", "buffer"])
def test_weights_that_are_not_the_parameters(name):
    with pytest.raises(ValueError, match=f"0: {ALTERATIONS[name][1]}"):
        lfk.factorize_(nn.Sequential(altered(name)), RANK)


@pytest.mark.parametrize("name", ["forward", "accelerate", "state_dict hook"])
def test_modules_of_their_own_kind_are_not_observed(name):
    with pytest.raises(ValueError, match=f"0: {ALTERATIONS[name][1]}"):
        lfk.factorize_(nn.Sequential(altered(name)), RANK, calibration=[torch.randn(3, 2, 5)])
    lstm = altered(name)
    lfk.factorize_(lstm, RANK)
    assert len(low_rank_factors(lstm)) == 4
