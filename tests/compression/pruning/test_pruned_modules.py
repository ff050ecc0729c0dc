"""A masked module in a model's life: parameters, state_dict, copies, errors, and the way out."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lstm_fastkernels as lfk
from pruning_cases import CASES, HALF, Model, adam, batch, masked_weights, train

# ---- parameters, state_dict, copies ----


def test_parameters_stay_the_same_objects():
    model = Model()
    before = dict(model.named_parameters())
    lfk.prune_(model, HALF)
    assert set(model.parameters()) == set(before.values())
    lstm = model.layers[1]
    assert lstm.parametrizations.weight_hh_l0.original is before["layers.1.weight_hh_l0"]
    lfk.remove_pruning_(model)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_state_dict_is_the_float_modules():
    model = Model()
    plain = copy.deepcopy(model)
    pruner = lfk.prune_(model, HALF)
    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    for name, entry in pruner.state_dict()["matrices"].items():
        assert torch.equal(state[name], plain.state_dict()[name] * entry["mask"])
        assert not state[name].requires_grad
    assert model.state_dict(keep_vars=True)["layers.1.weight_hh_l0"].requires_grad
    plain.load_state_dict(state)
    x, _ = batch(0)
    assert torch.equal(plain(x), model(x))
    nn.Sequential(model).load_state_dict(nn.Sequential(plain).state_dict())


def test_a_float_checkpoint_loads_under_the_masks():
    model, other = Model(), Model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    pruner = lfk.prune_(model, HALF)
    masks = {name: m["mask"] for name, m in pruner.state_dict()["matrices"].items()}
    model.load_state_dict(other.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name] * masks.get(name, 1))
    for name, entry in pruner.state_dict()["matrices"].items():
        assert torch.equal(entry["weight"], other.state_dict()[name])
    model.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(model.cell.weight_hh, other.cell.weight_hh * masks["cell.weight_hh"])


def test_checkpoints_with_wrong_keys():
    model = Model()
    state = model.state_dict()
    lfk.prune_(model, HALF)
    del state["cell.weight_hh"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "cell.weight_hh"\.'):
        model.load_state_dict(state)
    state["cell.weight_hx"] = torch.zeros(1)
    keys = model.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["cell.weight_hh"]
    assert keys.unexpected_keys == ["cell.weight_hx"]


def test_copies_are_independent():
    model = Model()
    lfk.prune_(model, HALF)
    x, _ = batch(0)
    model(x).sum().backward()
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    expected = model(x)
    assert torch.equal(first(x), expected)
    lfk.remove_pruning_(first)
    train(second, adam(second), None, [0])
    assert torch.equal(first(x), expected)
    assert torch.equal(model(x), expected)
    assert not torch.equal(second(x), expected)
    assert (second.cell.weight_hh == 0).any()
    assert list(second.state_dict()) == list(first.state_dict())


def test_dtype_and_device_moves():
    model = Model()
    lfk.prune_(model, HALF)
    zeros = model.cell.weight_hh == 0
    model.double()
    model = copy.deepcopy(model)
    assert model(batch(0)[0].double()).dtype == torch.float64
    assert model.cell.parametrizations.weight_hh[0].mask.dtype == torch.bool
    assert torch.equal(model.cell.weight_hh == 0, zeros)
    model.to("meta")
    assert model.cell.weight_hh.is_meta


# ---- which modules ----


def test_filter_fn_picks_modules():
    model = Model()
    seen = []
    pruner = lfk.prune_(
        model, HALF, filter_fn=lambda module, name: seen.append(name) or name == "cell"
    )
    assert seen == ["layers.1", "cell"]
    assert list(pruner.state_dict()["matrices"]) == ["cell.weight_ih", "cell.weight_hh"]
    assert type(model.layers[1]) is nn.LSTM
    lfk.prune_(model, HALF, filter_fn=lambda module, name: name != "cell")


def test_errors_change_nothing():
    model = Model()
    with pytest.raises(ValueError, match=r"found no nn.LSTM or nn.LSTMCell to prune"):
        lfk.prune_(model, HALF, filter_fn=lambda module, name: False)
    with pytest.raises(ValueError, match="sparsity key 'weight_hh_l2' means no matrix"):
        lfk.prune_(model, lfk.PruneConfig({"weight_hh": 0.5, "weight_hh_l2": 0.5}))
    with pytest.raises(ValueError, match="sparsity key 'weight_hr' means no matrix"):
        lfk.prune_(model, lfk.PruneConfig({"weight_hr": 0.5}))
    nn.utils.parametrizations.weight_norm(model.cell, "weight_hh")
    with pytest.raises(ValueError, match=r"cell.weight_hh has another parametrization"):
        lfk.prune_(model, HALF)
    with pytest.raises(ValueError, match="nothing in the model is being pruned"):
        lfk.remove_pruning_(model)
    assert type(model.layers[1]) is nn.LSTM
    parametrize.remove_parametrizations(model.cell, "weight_hh")
    lfk.prune_(model, HALF)
    with pytest.raises(ValueError, match=r"layers.1 is already being pruned"):
        lfk.prune_(model, HALF)
    lstm = nn.LSTM(9, 7)
    lfk.prune_(lstm, HALF)
    with pytest.raises(ValueError, match="the model is already being pruned"):
        lfk.prune_(lstm, HALF)


def test_subclasses_are_left_alone():
    class Other(nn.LSTM):
        pass

    with pytest.raises(ValueError, match="found no"):
        lfk.prune_(Other(9, 7), HALF)


# ---- the way out ----


@pytest.mark.parametrize("case", CASES, ids=str)
def test_removing_makes_a_plain_lstm(case):
    lstm = case.lstm()
    keys = list(lstm.state_dict())
    lfk.prune_(lstm, lfk.PruneConfig(0.5, block_size=(2, 2)))
    before = lstm(case.x())[0]
    weights = {name: weight.detach() for name, weight in masked_weights(lstm).items()}
    lfk.remove_pruning_(lstm)
    assert type(lstm) is nn.LSTM
    assert not hasattr(lstm, "parametrizations")
    assert not lstm._state_dict_hooks
    assert not lstm._load_state_dict_pre_hooks
    assert torch.equal(lstm(case.x())[0], before)
    assert list(lstm.state_dict()) == keys
    for name, weight in weights.items():
        assert isinstance(getattr(lstm, name), nn.Parameter)
        assert torch.equal(getattr(lstm, name), weight)
    again = pickle.loads(pickle.dumps(lstm))
    assert torch.equal(again(case.x())[0], before)
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.5)
    lstm(case.x())[0].square().sum().backward()
    optimizer.step()
    assert not torch.equal(lstm(case.x())[0], before)


def test_other_parametrizations_stay():
    lstm = nn.LSTM(9, 7)
    parametrize.register_parametrization(lstm, "bias_ih_l0", nn.ReLU())
    x = torch.randn(2, 3, 9)
    lfk.prune_(lstm, HALF)
    keys = list(lstm.state_dict())
    assert "weight_hh_l0" in keys
    assert "parametrizations.bias_ih_l0.original" in keys
    expected = lstm(x)[0]
    lfk.remove_pruning_(lstm)
    assert torch.equal(lstm(x)[0], expected)
    assert (lstm.bias_ih_l0 >= 0).all()


@pytest.mark.parametrize("permanent", [False, True])
def test_converted_zeros_stay_zero(permanent):
    model = Model()
    lfk.prune_(model, HALF)
    if permanent:
        lfk.remove_pruning_(model)
    lstm = model.layers[1]
    pairs = [
        (lstm, lfk.FastQuantLSTM.from_float(lstm)),
        (lstm, lfk.convert(model).layers[1]),
        (model.cell, lfk.convert(model).cell),
    ]
    for plain, fast in pairs:
        for kind in ("weight_ih", "weight_hh"):
            name = f"{kind}_l0" if plain is lstm else kind
            zero, quantized = getattr(plain, name) == 0, getattr(fast.dequantize(), name)
            assert zero.any()
            assert (quantized[zero] == 0).all()
            assert quantized.any()
