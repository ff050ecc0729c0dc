"""quantize_: with data the LSTMs are better, and what is asked for is reached or refused."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from cases import Case, assert_by_contract
from lstm_fastkernels.weights.structures import block_density
from quantization_cases import B, T, batches, quantized, snr


class Model(nn.Module):
    """An embedding whose columns go together, an LSTM, and a cell run step by step."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Linear(4, 20)
        self.lstm = nn.LSTM(20, 33, **options)
        self.drop = nn.Dropout(0.5)
        self.cell = nn.LSTMCell(33, 17)

    def forward(self, x, scale=1.0):
        y, _ = self.lstm(self.embed(x * scale))
        state = None
        for step in self.drop(y[..., :33]):
            state = self.cell(step, state)
        return y, state[0]


@pytest.mark.parametrize("pair_safe", [True, False, "auto"])
@pytest.mark.parametrize("activations", ["int8", "mixed", "int16"])
def test_data_helps(activations, pair_safe):
    model = Model()
    (x,) = batches(1, seed=9)
    config = lfk.Int8Config(activations, pair_safe=pair_safe)
    plain, report = quantized(model, config)
    assert all(row.sqnr is None for row in report.lstms)
    calibrated, report = quantized(model, config, calibration=batches())
    assert snr(calibrated, model, x) > snr(plain, model, x) + 2
    assert report.model is calibrated
    assert [row.name for row in report.lstms] == ["lstm", "cell"]
    for row, lstm in zip(report.lstms, (calibrated.lstm, calibrated.cell), strict=True):
        assert row.precision == dict(lstm.precision) == row.asked
        assert lstm.pair_safe == pair_safe
        assert row.sqnr > 30
        assert f"{row.name}: {activations}" in str(report)
    assert_by_contract(calibrated.lstm, torch.randn(3, 2, 20))


def test_without_data_it_is_convert():
    model = Model()
    plain, _ = quantized(model)
    for name, tensor in lfk.convert(model).state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor)


def test_the_options_of_another_module_can_be_used():
    first, _ = quantized(Model(), lfk.Int8Config("mixed"))
    config = lfk.Int8Config(precision=first.lstm.precision, layout="dense", block_size=(16, 8))
    found, _ = quantized(Model(), config, calibration=batches(2))
    assert dict(found.lstm.precision) == dict(first.lstm.precision)
    assert (found.lstm.layout, found.lstm.block_size) == ("dense", (16, 8))


def test_modes_hooks_and_the_rest_stay():
    model = Model().train()
    model.lstm.eval()
    generator = torch.random.get_rng_state()
    lfk.quantize_(model, calibration=batches())
    assert (model.training, model.lstm.training, model.cell.training) == (True, False, True)
    assert torch.equal(torch.random.get_rng_state(), generator), "dropout has run"
    assert not model.lstm._forward_hooks
    assert not model.cell._forward_hooks


def test_forms_of_batches():
    expected, _ = quantized(Model(), calibration=batches())
    for make in (lambda x: (x, 1.0), lambda x: [x], lambda x: {"x": x, "scale": 1.0}):
        found, _ = quantized(Model(), calibration=map(make, batches()))
        for name, tensor in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor), name


def test_an_lstm_by_itself_and_packed_sequences():
    case = Case(9, 12, 2, bidirectional=True, proj_size=5, batch_first=True, T=20, B=8)
    lstm, x = case.lstm(), case.x()
    packed = pack_padded_sequence(x, case.lengths(), batch_first=True, enforce_sorted=False)
    report = lfk.quantize_(lstm, calibration=[packed, (x, case.state()), x[0], packed])
    assert type(lstm) is nn.LSTM
    assert type(report.model) is lfk.FastQuantLSTM
    assert report.model.batch_first
    assert report.lstms[0].sqnr > 30


def test_filter_and_shared_modules():
    model = Model()
    model.again = model.lstm
    report = lfk.quantize_(model, None, lambda module, name: name == "lstm", calibration=batches(2))
    assert type(model.cell) is nn.LSTMCell
    assert model.again is model.lstm
    assert [row.name for row in report.lstms] == ["lstm"]


def test_pruned_matrices_stay_in_blocks():
    case = Case(20, 32, density=0.3, T=20, B=8)
    lstm = case.lstm()
    weights = dict(lstm.named_parameters())
    fast = lfk.quantize_(lstm, calibration=[case.x() for _ in range(4)]).model
    assert all("blocks" in how for how in fast.layouts().values())
    for name in fast.precision:
        found = fast.canonical().dense(name)[""]
        assert (found[weights[name] == 0] == 0).all()
        assert block_density(found, name) <= block_density(weights[name], name)


# min_sqnr


@pytest.mark.parametrize("target", [45.0, 60.0, 100.0])
def test_min_sqnr_is_reached(target):
    model = Model(num_layers=2)
    _, before = quantized(model, calibration=batches())
    found, report = quantized(model, calibration=batches(), min_sqnr=target)
    for row, low in zip(report.lstms, before.lstms, strict=True):
        assert row.sqnr >= target
        assert set(row.asked.values()) == {"int8"}
        assert bool(row.raised) == (low.sqnr < target)
        assert all(name in str(row) for name in row.raised)
    (x,) = batches(1, seed=9)
    assert snr(found, model, x) > target - 6  # other inputs


def test_min_sqnr_raises_what_costs_most():
    """Inputs of a wide range ruin the first matrix alone."""
    torch.manual_seed(0)
    lstm = nn.LSTM(16, 64, num_layers=2)
    sizes = torch.logspace(-4, 1, 16)
    with torch.no_grad():
        lstm.weight_ih_l0 /= sizes
    data = [torch.randn(T, B, 16) * sizes for _ in range(8)]
    report = lfk.quantize_(lstm, calibration=data, min_sqnr=30)
    assert set(report.lstms[0].raised) == {"weight_ih_l0"}


def test_min_sqnr_beyond_float32():
    model = Model()
    before = copy.deepcopy(model)
    message = r"lstm: min_sqnr=300 cannot be reached: float32 gives 1\d\d"
    with pytest.raises(ValueError, match=message):
        lfk.quantize_(model, calibration=batches(), min_sqnr=300)
    assert type(model.lstm) is nn.LSTM
    assert all(map(torch.equal, model.parameters(), before.parameters()))


# What is refused, with nothing changed


def never_called(model, **options):
    model.other = nn.LSTM(3, 3)
    lfk.quantize_(model, calibration=batches(2), **options)


BAD = {
    "no input": (never_called, ValueError, "other got no input from the calibration batches"),
    "no batches": (
        lambda model: lfk.quantize_(model, calibration=[]),
        ValueError,
        "lstm got no input from the calibration batches",
    ),
    "a batch for batches": (
        lambda model: lfk.quantize_(model, calibration=batches(1)[0]),
        TypeError,
        "expected an iterable of batches, got a Tensor",
    ),
    "one batch": (
        lambda model: lfk.quantize_(model, calibration=batches(1), min_sqnr=30),
        ValueError,
        "min_sqnr needs a second calibration batch",
    ),
    "min_sqnr alone": (
        lambda model: lfk.quantize_(model, min_sqnr=30),
        ValueError,
        "min_sqnr needs calibration batches",
    ),
    "not finite": (
        lambda model: lfk.quantize_(model, calibration=[torch.full((T, B, 4), torch.nan)]),
        ValueError,
        "lstm got values that are not finite",
    ),
    "a class": (
        lambda model: lfk.quantize_(model, lfk.Int8Config),
        TypeError,
        "expects an Int8Config",
    ),
    "activations": (
        lambda model: lfk.quantize_(model, lfk.Int8Config("int4"), calibration=[None]),
        ValueError,
        "activations must be one of",
    ),
    "precision": (
        lambda model: lfk.quantize_(model, lfk.Int8Config(precision={"weight_xx*": "int8"})),
        ValueError,
        "weight_xx",
    ),
    "the model's own error": (
        lambda model: lfk.quantize_(model, calibration=[torch.zeros(T, B, 5)]),
        RuntimeError,
        "shapes cannot be multiplied",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_refusals_change_nothing(what):
    act, error, message = BAD[what]
    model = Model().train()
    with pytest.raises(error, match=message):
        act(model)
    assert type(model.lstm) is nn.LSTM
    assert model.lstm.training
    assert not model.lstm._forward_hooks


# check


def test_check_has_a_row_for_each_part():
    model = Model(num_layers=2, bidirectional=True)
    fast, _ = quantized(model, calibration=batches())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = lfk.check(fast, model, batches(2, seed=5))
    parts = [row.part for row in report.rows if row.module == "lstm"]
    assert parts == ["", "layer 0", "layer 1", *fast.lstm.precision]
    assert [row.part for row in report.rows if row.module == "cell"] == [
        "", "layer 0", "weight_ih_l0", "weight_hh_l0",
    ]  # fmt: skip
    assert all(30 < row.sqnr < 70 for row in report.rows)
    whole = next(row.sqnr for row in report.rows if row.module == "lstm")
    exact = snr(fast, model, torch.cat(batches(2, seed=5), dim=1))
    assert abs(whole - exact) < 0.05
    assert "weight_hh_l1_reverse" in str(report)


def test_check_finds_the_bad_matrix():
    model = Model(num_layers=2)
    config = lfk.Int8Config(precision={"*": "float32", "weight_hh_l1": "int8"})
    fast, _ = quantized(model, config, lambda module, name: name == "lstm")
    state = fast.lstm.state_dict()
    state["weight_hh_l1"] = state["weight_hh_l1"] // 64 * 64
    fast.lstm.load_state_dict(state)
    with pytest.warns(UserWarning, match="lstm: below 25 dB"):
        report = lfk.check(fast, model, batches(2))
    found = {row.part: row.sqnr for row in report.rows if row.module == "lstm"}
    bad = {part for part, sqnr in found.items() if sqnr < 100}
    assert bad == {"", "layer 1", "weight_hh_l1"}


def test_check_carries_states_from_call_to_call():
    """Steps one by one are as one sequence."""

    class Steps(nn.Module):
        def __init__(self, lstm):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            state = None
            for step in x.split(1):
                _, state = self.lstm(step, state)

    lstm, x = nn.LSTM(5, 16), torch.randn(30, 2, 5)
    fast = lfk.FastQuantLSTM.from_float(lstm)
    stepwise = lfk.check(Steps(fast), Steps(lstm), [x])
    whole = lfk.check(fast, lstm, [x])
    assert stepwise.rows[0].sqnr == pytest.approx(whole.rows[0].sqnr, abs=0.01)


def test_states_carried_through_both_directions_are_sequences_of_their_own():
    class Twice(nn.Module):
        def __init__(self, lstm):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            _, state = self.lstm(x)
            return self.lstm(x, state)[0]

    lstm, x = nn.LSTM(5, 16, bidirectional=True), torch.randn(30, 2, 5)
    report = lfk.check(Twice(lfk.FastQuantLSTM.from_float(lstm)), Twice(lstm), [x])
    assert report.rows[0].sqnr > 30


def test_check_refuses_what_does_not_fit():
    model = Model()
    fast, _ = quantized(model)
    with pytest.raises(ValueError, match="there is no fast LSTM in the model"):
        lfk.check(model, model, batches(1))
    with pytest.raises(ValueError, match=r"lstm must be an nn\.LSTM in the reference"):
        lfk.check(fast, fast, batches(1))
    with pytest.raises(ValueError, match="lstm has other sizes"):
        lfk.check(fast, Model(num_layers=2), batches(1))
    with pytest.raises(ValueError, match="lstm got no input"):
        lfk.check(fast, model, [])
