"""quantize_ with 4-bit weights, in all matrices and in some."""

import copy
import re

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import assert_by_contract
from lstm_fastkernels.weights.int4 import GROUP_SIZES
from quantization_cases import batches, quantized, snr

COLUMNS = 133  # no group size divides them, and each makes other groups of them
FORMS = {
    "plain": {},
    "layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "projected": {"num_layers": 2, "proj_size": 9, "bidirectional": True},
}


class Model(nn.Module):
    """Four inputs spread over many, an LSTM, and a cell run step by step."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(5)
        self.embed = nn.Linear(4, COLUMNS)
        self.lstm = nn.LSTM(COLUMNS, 35, **options)
        self.cell = nn.LSTMCell(self.lstm(torch.empty(1, 1, COLUMNS))[0].shape[2], 19)

    def forward(self, x):
        y, _ = self.lstm(self.embed(x))
        state = None
        for step in y:
            state = self.cell(step, state)
        return y, state[0]


def stored_bytes(lstm):
    return sum(tensor.nbytes for tensor in lstm.state_dict().values())


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_data_helps(form, group_size):
    model, config = Model(**FORMS[form]), lfk.Int4Config(group_size=group_size)
    (x,) = batches(1, seed=9)
    plain, report = quantized(model, config)
    assert str(report) == "lstm: int4\ncell: int4"
    calibrated, report = quantized(model, config, calibration=batches())
    assert snr(calibrated, model, x) > snr(plain, model, x) + 2
    for row, lstm in zip(report.lstms, (calibrated.lstm, calibrated.cell), strict=True):
        assert set(lstm.precision.values()) == {"int4"}
        assert lstm.group_size == group_size
        assert str(row) == f"{row.name}: int4, {row.sqnr:.1f} dB on held-out batches"
    assert_by_contract(calibrated.lstm, torch.randn(3, 2, COLUMNS))


def test_without_data_it_is_convert():
    model = Model()
    plain, _ = quantized(model, lfk.Int4Config(group_size=32))
    converted = lfk.convert(model, activations="int4", group_size=32)
    for name, tensor in converted.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor), name


@pytest.mark.parametrize("form", FORMS)
def test_some_matrices_in_4_bits(form):
    """Every matrix is as in a model of its precision alone; either config can say it."""
    model = Model(**FORMS[form])
    config = lfk.Int8Config(precision={"weight_hh*": "int4"})
    mixed, report = quantized(model, config, calibration=batches())
    int8, _ = quantized(model, lfk.Int8Config(), calibration=batches())
    int4, _ = quantized(model, lfk.Int4Config(), calibration=batches())
    found = mixed.lstm.state_dict()
    for name, precision in mixed.lstm.precision.items():
        assert precision == ("int4" if "weight_hh" in name else "int8")
        alone = (int4 if precision == "int4" else int8).lstm.state_dict()
        for end in ("", "_scale"):
            assert torch.equal(found[name + end], alone[name + end]), name + end
    assert "cell: custom (weight_ih_l0: int8, all else int4), " in str(report)
    assert stored_bytes(int4.lstm) < stored_bytes(mixed.lstm) < stored_bytes(int8.lstm)
    assert_by_contract(mixed.lstm, torch.randn(3, 2, COLUMNS))

    config = lfk.Int4Config(precision={"weight_hh*": "int4", "*": "int8"})
    same, _ = quantized(model, config, calibration=batches())
    assert all(torch.equal(tensor, found[name]) for name, tensor in same.lstm.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_min_sqnr_is_reached_with_fewer_bytes_than_int8(form):
    def of(config, **options):
        lstm = copy.deepcopy(model)
        report = lfk.quantize_(
            lstm, config, lambda _, name: name == "lstm", calibration=batches(), **options
        )
        return lstm.lstm, report.lstms[0]

    model = Model(**FORMS[form])
    (int8, _), (_, before) = of(lfk.Int8Config()), of(lfk.Int4Config())
    target = before.sqnr + 1
    found, row = of(lfk.Int4Config(), min_sqnr=target)
    assert row.sqnr >= target
    assert set(row.asked.values()) == {"int4"}
    assert 0 < len(row.raised) < len(row.precision)
    assert all(f"{name} to {own}" in str(row) for name, own in row.raised.items())
    assert stored_bytes(found) < stored_bytes(int8)


@pytest.mark.parametrize(
    "options",
    [
        {"group_size": 48},
        {"group_size": True},
        {"pair_safe": "no"},
        {"layout": "sparse"},
        {"block_size": (4, 4)},
    ],
)
@pytest.mark.parametrize("config", [lfk.Int4Config, lfk.Int8Config])
def test_bad_options_are_refused_before_there_is_a_model(config, options):
    ((name, value),) = options.items()
    with pytest.raises(
        ValueError, match=re.escape(name) + " must be .*, got " + re.escape(f"{value!r}")
    ):
        config(**options)


def never_read():
    yield pytest.fail("the model was run")


@pytest.mark.parametrize("calibration", [None, never_read()], ids=["without data", "with data"])
@pytest.mark.parametrize(
    ("config", "matrix"),
    [
        (lfk.Int4Config(layout="block_sparse"), "weight_ih_l0"),
        (
            lfk.Int8Config(precision={"weight_hh_l0": "int4"}, layout="block_sparse"),
            "weight_hh_l0",
        ),
    ],
    ids=["all", "one"],
)
def test_blocks_are_refused_with_nothing_changed(config, matrix, calibration):
    model = Model()
    before = copy.deepcopy(model)
    message = (
        f"lstm: {matrix}: 4-bit weights and tables have no blocks: use layout 'dense' or 'auto'"
    )
    with pytest.raises(ValueError, match=message):
        lfk.quantize_(model, config, calibration=calibration)
    assert type(model.lstm) is nn.LSTM
    assert type(model.cell) is nn.LSTMCell
    assert all(map(torch.equal, model.parameters(), before.parameters()))
