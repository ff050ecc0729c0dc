"""A factorized module in a model's life: state_dict, copies, other methods, and the way out."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lstm_fastkernels as lfk
from low_rank_cases import CASES, plain_twin
from lstm_fastkernels.modules.low_rank import low_rank_factors
from pruning_cases import Model, adam, batch, train

RANK = lfk.LowRankConfig(3)
OF_HH = lfk.LowRankConfig({"weight_hh*": 3})


def factorized(config=RANK):
    model = Model()
    lfk.factorize_(model, config)
    return model


def test_state_dicts():
    model, other = factorized(OF_HH), factorized(OF_HH)
    train(model, adam(model), None, [0])
    x, _ = batch(0)
    assert not torch.equal(model(x), other(x))
    state = model.state_dict()
    assert {name for name in state if name.startswith("cell.")} == {
        "cell.weight_ih",
        "cell.bias_ih",
        "cell.bias_hh",
        "cell.parametrizations.weight_hh.original0",
        "cell.parametrizations.weight_hh.original1",
    }
    other.load_state_dict(state)
    assert torch.equal(model(x), other(x))
    nn.Sequential(other).load_state_dict(nn.Sequential(model).state_dict(), assign=True)
    assert torch.equal(model(x), other(x))


def test_state_dicts_of_others():
    model = factorized()
    with pytest.raises(RuntimeError, match="size mismatch for cell"):
        model.load_state_dict(factorized(lfk.LowRankConfig(2)).state_dict())
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*original0.*Unexpected.*weight_hh_l0"):
        model.load_state_dict(Model().state_dict())


def test_assignment_is_refused():
    lstm = factorized().layers[1]
    before = lstm(batch(0)[0])[0]
    with pytest.raises(RuntimeError, match="a factorized matrix cannot be assigned to"):
        lstm.weight_hh_l0 = torch.zeros(36, 9)
    assert torch.equal(lstm(batch(0)[0])[0], before)


def test_copies_are_independent():
    model = factorized(OF_HH)
    x, _ = batch(0)
    model(x).sum().backward()
    expected = model(x)
    first, second, third = (copy.deepcopy(model) for _ in range(3))
    lfk.remove_low_rank_(first)
    lfk.factorize_(second, lfk.LowRankConfig({"weight_ih*": 3}))
    train(third, adam(third), None, [0])
    assert torch.equal(first(x), expected)
    assert torch.equal(model(x), expected)
    assert not torch.equal(third(x), expected)
    assert set(low_rank_factors(second.cell)) == {"weight_ih_l0", "weight_hh_l0"}
    assert list(low_rank_factors(model.cell)) == ["weight_hh_l0"]


def test_dtype_and_device_moves():
    model = factorized().double()
    assert model(batch(0)[0].double()).dtype == torch.float64
    model.to("meta")
    assert all(factor.is_meta for factor in low_rank_factors(model.cell)["weight_hh_l0"])


# ---- the way out ----


@pytest.mark.parametrize("case", CASES, ids=str)
def test_removing_makes_a_plain_lstm(case):
    lstm = case.lstm()
    keys = list(lstm.state_dict())
    lfk.factorize_(lstm, RANK)
    weights = dict(plain_twin(lstm, case).named_parameters())
    before = lstm(case.x())[0]
    with torch.no_grad():
        lfk.remove_low_rank_(lstm)
    assert type(lstm) is nn.LSTM
    assert list(lstm.state_dict()) == keys
    for name, parameter in lstm.named_parameters():
        assert type(parameter) is nn.Parameter
        assert parameter.is_leaf
        assert parameter.requires_grad
        assert torch.equal(parameter, weights[name])
    assert torch.equal(pickle.loads(pickle.dumps(lstm))(case.x())[0], before)
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.5)
    lstm(case.x())[0].square().sum().backward()
    optimizer.step()
    assert not torch.equal(lstm(case.x())[0], before)


def test_removing_refuses():
    with pytest.raises(ValueError, match="nothing in the model is factorized"):
        lfk.remove_low_rank_(Model())
    model = factorized()
    parametrize.register_parametrization(model.cell, "weight_hh", nn.Tanh())
    with pytest.raises(ValueError, match=r"cell\.weight_hh has another parametrization on top"):
        lfk.remove_low_rank_(model)
    assert list(low_rank_factors(model.cell)) == ["weight_ih_l0"]
    assert len(low_rank_factors(model.layers[1])) == 4


# ---- other methods ----


WAYS_OUT = [lfk.remove_pruning_, lfk.remove_low_rank_]


@pytest.mark.parametrize("ways_out", [WAYS_OUT, WAYS_OUT[::-1]])
def test_one_matrix_pruned_and_the_other_factorized(ways_out):
    model = Model()
    keys = list(model.state_dict())
    lfk.prune_(model, lfk.PruneConfig({"weight_hh": 0.5}))
    lfk.factorize_(model, lfk.LowRankConfig({"weight_ih*": 3}))
    train(model, adam(model), None, range(3))
    x, _ = batch(0)
    expected = model(x)
    for remove in ways_out:
        remove(model)
        assert torch.equal(model(x), expected)
    assert list(model.state_dict()) == keys
    assert (model.cell.weight_hh == 0).any()


def test_converting_keeps_the_factors():
    """In the layout "auto"; others multiply them out."""
    model = factorized()
    for name, lstm in lfk.convert(model).named_modules():
        if isinstance(lstm, lfk.FastQuantLSTM | lfk.FastQuantLSTMCell):
            ranks = {
                n: f"rank {len(v)}"
                for n, (_, v) in low_rank_factors(model.get_submodule(name)).items()
            }
            assert ranks.items() <= lstm.layouts().items()
    found = lfk.convert(model, layout="dense").state_dict()
    assert len(low_rank_factors(model.cell)) == 2
    lfk.remove_low_rank_(model)
    expected = lfk.convert(model, layout="dense").state_dict()
    assert found.keys() == expected.keys()
    assert all(map(torch.equal, found.values(), expected.values()))


def test_hidden_pruning_refuses():
    model = factorized()
    with pytest.raises(ValueError, match="parametri"):
        lfk.prune_hidden_(model, following={"layers.1": "cell", "cell": "head"})
