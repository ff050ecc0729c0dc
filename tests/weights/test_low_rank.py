"""Low-rank matrices: what is kept, stored and computed, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, assert_by_contract, assert_same
from isas import everywhere
from lstm_fastkernels.modules.low_rank import low_rank_factors
from lstm_fastkernels.weights.structures import MAX_FACTOR_SHARE

KINDS = {
    "int8": {"activations": "int8"},
    "int16": {"activations": "int16"},
    "mixed": {"activations": "mixed"},
    "int4": {"activations": "int4", "group_size": 32},
    "float32": {"precision": {"*": "float32"}},
}
RANKS = {"weight_ih_l0": 5, "weight_hh*": 8, "weight_hr_l1": 3}


def factorized(case, ranks=RANKS):
    lstm = case.lstm()
    present = {name for name, _ in lstm.named_parameters()}
    config = {name: rank for name, rank in ranks.items() if name.rstrip("*") in " ".join(present)}
    lfk.factorize_(lstm, lfk.LowRankConfig(rank=config))
    return lstm


def snr(a, b):
    return float(10 * torch.log10(a.square().sum() / (a - b).square().sum()))


@pytest.mark.parametrize("proj_size", [0, 17])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_both_factors_run_by_the_contract(kind, bidirectional, proj_size, path):
    case = Case(37, 41, 2, bidirectional, proj_size, B=5)
    lstm = factorized(case)
    fast = lfk.FastQuantLSTM.from_float(lstm, **KINDS[kind])
    layouts = fast.layouts()
    for name, (u, v) in low_rank_factors(lstm).items():
        assert layouts[name] == f"rank {len(v)}"
        assert fast.state_dict()[f"{name}_u"].shape[0] == u.shape[0]
    assert layouts["weight_ih_l1"] == "dense"
    x = case.x()
    x[1, 2, 3] = torch.nan
    assert_by_contract(fast, x, case.state(), case.lengths())

    x = torch.randn(9, 4, 37)
    least = {"float32": 100, "int4": 12}.get(kind, 25)
    assert snr(lstm(x)[0].detach(), fast(x)[0]) > least
    lfk.save_file(fast, path)
    assert_same(everywhere(lfk.load_file(path))(x), fast(x))
    other = lfk.FastQuantLSTM(37, 41, 2, bidirectional=bidirectional, proj_size=proj_size,
                              **KINDS[kind])  # fmt: skip
    other.load_state_dict(fast.state_dict())
    assert_same(other(x), fast(x))
    assert_same(copy.deepcopy(fast)(x), fast(x))


def test_the_floats_are_the_product():
    lstm = factorized(Case(37, 41, 2))
    fast = lfk.FastSparseLSTM.from_float(lstm)
    floats = fast.to_dense().state_dict()
    for name, (u, v) in low_rank_factors(lstm).items():
        assert torch.equal(floats[name], u @ v)


def test_cells_and_models():
    model = nn.ModuleDict({"a": nn.ModuleList([nn.LSTMCell(40, 33)]), "b": nn.LSTM(40, 33)})
    lfk.factorize_(model, lfk.LowRankConfig(rank=6))
    fast = lfk.convert(model)
    for module in (fast["a"][0], fast["b"]):
        assert module.layouts() == {"weight_ih_l0": "rank 6", "weight_hh_l0": "rank 6"}
    x = torch.randn(3, 40)
    h, c = fast["a"][0](x)
    expected = model["a"][0](x)
    assert snr(expected[0].detach(), h) > 30
    assert snr(expected[1].detach(), c) > 30


def test_smaller_and_said_so():
    lstm = nn.LSTM(256, 256)
    dense = lfk.FastQuantLSTM.from_float(lstm)
    lfk.factorize_(lstm, lfk.LowRankConfig(rank=32))
    fast = lfk.FastQuantLSTM.from_float(lstm)
    assert fast.packed_bytes() < 0.19 * dense.packed_bytes()
    lines = lfk.explain(fast, torch.randn(3, 1, 256)).splitlines()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        for factor in ("u", "v"):
            (line,) = (line for line in lines if line.startswith(f"{name}_{factor}: "))
            assert "rank 32, dense" in line


def test_factors_that_do_not_pay_are_multiplied_out():
    """rank (N + K) over N K is their share of the matrix's weights."""
    most = int(MAX_FACTOR_SHARE * 4 * 40 * 40 / (5 * 40))
    for rank, expected in ((most, f"rank {most}"), (most + 1, "dense")):
        lstm = nn.LSTM(40, 40)
        lfk.factorize_(lstm, lfk.LowRankConfig(rank=rank))
        fast = lfk.FastQuantLSTM.from_float(lstm)
        assert set(fast.layouts().values()) == {expected}
        x = torch.randn(5, 2, 40)
        assert snr(lstm(x)[0].detach(), fast(x)[0]) > 30


@pytest.mark.parametrize("layout", ["dense", "block_sparse"])
def test_other_layouts_have_no_factors(layout):
    lstm = factorized(Case(37, 41))
    fast = lfk.FastQuantLSTM.from_float(lstm, layout=layout)
    assert not any("rank" in how for how in fast.layouts().values())
    low_rank = lfk.FastQuantLSTM.from_float(lstm)
    message = "weight_ih_l0 is low-rank: layout must be 'auto'"
    with pytest.raises((ValueError, RuntimeError), match=message):
        fast.load_state_dict(low_rank.state_dict())


@pytest.mark.parametrize("config", [lfk.Int8Config(), lfk.Int4Config(group_size=32)], ids=str)
def test_calibration_rounds_both_factors(config):
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(48, 48, generator=generator) * torch.logspace(0, -1.5, 48)
    batches = [torch.randn(30, 8, 48, generator=generator) @ mixing for _ in range(5)]
    torch.manual_seed(2)
    lstm = nn.LSTM(48, 64, 2, bidirectional=True)
    lfk.factorize_(lstm, lfk.LowRankConfig(rank=12), calibration=batches[:4])
    found = {}
    for calibration in (None, batches[:4]):
        model = nn.Sequential(copy.deepcopy(lstm))
        lfk.quantize_(model, config, calibration=calibration)
        assert model[0].layouts()["weight_hh_l1"] == "rank 12"
        found[calibration is None] = snr(lstm(batches[4])[0].detach(), model(batches[4])[0])
    assert found[False] > found[True] + 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weight_hh_l0_u", lambda t: t[:, :-1], "weight_hh_l0_u: expected I8"),
        ("weight_hh_l0_v", lambda t: t[:0], "weight_hh_l0_v must have at least one row"),
        ("weight_hh_l0_v", lambda t: t[:, :-1], "size mismatch"),
        ("weight_hh_l0_v_scale", lambda t: t[:-1], "weight_hh_l0_v_scale: expected F32"),
        ("weight_hh_l0_u_scale", lambda t: -t, "scales must be finite and not negative"),
        ("weight_hh_l0_u", lambda t: t.float(), "'int8', got torch.float32 weights"),
        ("weight_hh_l0_u", None, "lacks weight_hh_l0_u"),
    ],
)
def test_bad_checkpoints(name, change, message):
    fast = lfk.FastQuantLSTM.from_float(factorized(Case(37, 41)))
    x = torch.randn(3, 2, 37)
    expected, state = fast(x), fast.state_dict()
    if change is None:
        del state[name]
    else:
        state[name] = change(state[name])
    with pytest.raises((ValueError, RuntimeError), match=message):
        fast.load_state_dict(state)
    assert_same(fast(x), expected)
