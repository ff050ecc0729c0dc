"""prune_hidden_ on models: what they share, copy, train and convert; and what it refuses."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import lstm_fastkernels as lfk
from hidden_cases import Tagger, double_lstm, kill, random_dead, tagger

# Life in a model


def test_shared_modules_are_pruned_once_and_go_by_any_name():
    lstm, head = double_lstm(3, 8), nn.Linear(8, 2).double()
    model = nn.ModuleDict({"a": lstm, "b": lstm, "head": head, "same": head})
    seen = []
    lfk.prune_hidden_(
        model,
        following={"b": ["same", "head"]},
        filter_fn=lambda module, name: seen.append(name) or "a" in name,
    )
    assert "b" not in seen
    assert (lstm.hidden_size, head.in_features, head.weight.shape) == (4, 4, (2, 4))


def test_a_shared_lstm_is_replaced_everywhere():
    lstm = double_lstm(3, 8, 2)
    kill(lstm, random_dead(lstm, [3, 5], seed=1))
    model = nn.ModuleDict({"a": lstm, "b": nn.Sequential(lstm)})
    lfk.prune_hidden_(model, scope="global", following={"a": []})
    assert type(model["a"]) is lfk.StackedLSTM
    assert model["b"][0] is model["a"]


def test_filter_fn_and_subclasses_leave_lstms_alone():
    class Own(nn.LSTM):
        pass

    model = nn.ModuleDict({"a": nn.LSTM(3, 8), "b": nn.LSTM(3, 8), "own": Own(3, 8)})
    following = {"a": [], "b": []}
    lfk.prune_hidden_(model, following=following, filter_fn=lambda module, name: name == "b")
    assert [model[name].hidden_size for name in ("a", "b", "own")] == [8, 4, 8]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_dtype_mode_and_requires_grad_stay(scope):
    model = Tagger(double_lstm(3, 8, 2)).bfloat16().eval()
    kill(model.lstm, random_dead(model.lstm, [3, 5], seed=1), model.head)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("weight" in name)
    lfk.prune_hidden_(model, scope=scope, following={"lstm": "head"})
    assert not any(module.training for module in model.modules())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16, name
        assert parameter.requires_grad == ("weight" in name), name


@pytest.fixture(params=["layer", "global"])
def pruned(request):
    model = tagger(3, 8, 2, bidirectional=True)
    kill(model.lstm, random_dead(model.lstm, [3, 5], seed=1), model.head)
    return lfk.prune_hidden_(model, scope=request.param, following={"lstm": "head"})


def test_copies_and_checkpoints(pruned):
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    expected = pruned(x)[0]
    buffer = io.BytesIO()
    torch.save(pruned.state_dict(), buffer)
    buffer.seek(0)
    loaded = copy.deepcopy(pruned)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert not loaded(x)[0].any()
    loaded.load_state_dict(torch.load(buffer))
    for other in (copy.deepcopy(pruned), pickle.loads(pickle.dumps(pruned)), loaded):
        assert torch.equal(other(x)[0], expected)


def test_training_goes_on(pruned):
    before = copy.deepcopy(pruned.state_dict())
    optimizer = torch.optim.SGD(pruned.parameters(), 0.1)
    pruned(torch.randn(4, 2, 3, dtype=torch.float64))[0].square().sum().backward()
    optimizer.step()
    for name, parameter in pruned.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    ("weights", "fast_class", "atol"),
    [("int8", lfk.FastQuantLSTM, 0.05), ("float32", lfk.FastSparseLSTM, 1e-5)],
)
def test_a_pruned_model_converts(weights, fast_class, atol):
    model = Tagger(nn.LSTM(3, 16, 2, bidirectional=True)).float().eval()
    kill(model.lstm, random_dead(model.lstm, [3, 13], seed=1), model.head)
    lfk.prune_hidden_(model, scope="global", following={"lstm": "head"})
    fast = lfk.convert(model, weights=weights)
    assert type(fast.lstm) is lfk.StackedLSTM
    assert [type(layer) for layer in fast.lstm.layers] == [fast_class] * 2
    assert fast.lstm.hidden_sizes == model.lstm.hidden_sizes == (13, 3)
    x = torch.randn(6, 2, 3)
    hx = tuple(tuple(torch.rand(2, 2, size) for size in (13, 3)) for _ in range(2))
    y, states = fast.lstm(x, hx)
    middle, first = fast.lstm.layers[0](x, (hx[0][0], hx[1][0]))
    expected, second = fast.lstm.layers[1](middle, (hx[0][1], hx[1][1]))
    assert torch.equal(y, expected)
    for i in range(2):
        assert torch.equal(states[i][0], first[i])
        assert torch.equal(states[i][1], second[i])
    torch.testing.assert_close(y, model.lstm(x, hx)[0], rtol=0, atol=atol)


# Errors: all of them leave the model as it was


class Masked(nn.Module):
    def forward(self, weight):
        return weight


def no_gradient(model):
    model(torch.randn(4, 2, 3, dtype=torch.float64))[0].sum().backward()
    model.head.weight.grad = None


def nan_gradient(model):
    model(torch.randn(4, 2, 3, dtype=torch.float64))[0].sum().backward()
    model.lstm.weight_hh_l1.grad[0, 0] = float("nan")


def nan_weight(model):
    model.head.weight.data[0, 0] = float("nan")


def second_lstm(model):
    model.other = double_lstm(3, 8)


def stacked(model):
    model.other = lfk.StackedLSTM([double_lstm(3, 8)])


def shared_weight(model):
    model.other = nn.Linear(8, 5)
    model.other.weight = model.head.weight


def narrow_weight(model):
    model.lstm.weight_hh_l1 = nn.Parameter(model.lstm.weight_hh_l1.detach()[:, :-1])


def test_a_model_without_values():
    model = tagger(3, 8, 2).to("meta")
    with pytest.raises(ValueError, match=r"lstm\.weight_ih_l0: on the meta device"):
        lfk.prune_hidden_(model, following={"lstm": "head"})
    assert model.lstm.hidden_size == 8


def nan_bias(model):
    model.lstm.bias_ih_l0.data[3] = torch.nan


def own_forward(model):
    """Of an LSTM whose layers will differ."""
    kill(model.lstm, [[range(6)], [[]]])
    model.lstm.forward = double_lstm(3, 8, 2).forward


ERRORS = {
    "ratio 1": ({"ratio": 1}, ValueError, r"ratio must be in \[0, 1\), got 1"),
    "ratio -": ({"ratio": -0.1}, ValueError, r"ratio must be in \[0, 1\), got -0.1"),
    "ratio nan": ({"ratio": float("nan")}, ValueError, "ratio must be"),
    "importance": (
        {"importance": "size"},
        ValueError,
        r"importance must be one of \['magnitude', 'taylor'\], got 'size'",
    ),
    "scope": (
        {"scope": "all"},
        ValueError,
        r"scope must be one of \['layer', 'global'\], got 'all'",
    ),
    "multiple": ({"multiple_of": 0}, ValueError, "multiple_of must be at least 1, got 0"),
    "none": ({"following": None}, ValueError, "the output of 'lstm' gets narrower: name the mod"),
    "source": ({"following": {"rnn": []}}, ValueError, "following: the model has no module 'rnn'"),
    "reader": (
        {"following": {"lstm": "out"}},
        ValueError,
        "following: the model has no module 'out'",
    ),
    "source kind": (
        {"following": {"head": []}},
        TypeError,
        r"'head' must be one of \['LSTM', 'LSTMCell', 'StackedLSTM'\], got Linear",
    ),
    "reader kind": (
        {"following": {"lstm": ["head", ""]}},
        TypeError,
        r"'' must be one of \['Linear', 'LSTM', 'LSTMCell', 'StackedLSTM'\], got Tagger",
    ),
    "width": (
        {"following": {"lstm": "lstm"}},
        ValueError,
        "'lstm' reads 3 features, but 'lstm' gives 8",
    ),
    "two": (
        {"following": {"lstm": "head", "other": "head"}},
        ValueError,
        "'head' cannot read two LSTMs",
        second_lstm,
    ),
    "missing second": ({}, ValueError, "the output of 'other' gets narrower", second_lstm),
    "inner": (
        {"following": {"lstm": "head", "other.layers.0": []}},
        ValueError,
        "'other.layers.0' is a layer of a StackedLSTM, name that instead",
        stacked,
    ),
    "gradient": (
        {"importance": "taylor"},
        ValueError,
        r"head.weight has no gradient, as importance='taylor' needs: run backward\(\)",
        no_gradient,
    ),
    "nan gradient": (
        {"importance": "taylor"},
        ValueError,
        "lstm.weight_hh_l1 has gradients that are not finite",
        nan_gradient,
    ),
    "nan": ({}, ValueError, "head.weight: values must be finite", nan_weight),
    "shared": ({}, ValueError, "head.weight is shared with other.weight", shared_weight),
    "narrow": (
        {},
        ValueError,
        r"lstm.weight_hh_l1: size mismatch: expected \(32, 8\), got \(32, 7\)",
        narrow_weight,
    ),
    "a bias nan": ({}, ValueError, "lstm.bias_ih_l0: values must be finite", nan_bias),
    "a forward of its own": (
        {"scope": "global"},
        ValueError,
        "lstm: its forward is not that of LSTM",
        own_forward,
    ),
    "parametrized": (
        {},
        ValueError,
        "lstm.weight_hh_l0 is no parameter: remove parametrizations and masks first",
        lambda model: parametrize.register_parametrization(model.lstm, "weight_hh_l0", Masked()),
    ),
    "parametrized reader": (
        {},
        ValueError,
        "head.weight is no parameter",
        lambda model: parametrize.register_parametrization(model.head, "weight", Masked()),
    ),
    "masked": (
        {},
        ValueError,
        "head.weight is no parameter",
        lambda model: prune.random_unstructured(model.head, "weight", 0.5),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_change_nothing(case):
    arguments, error, message, *changes = ERRORS[case]
    model = tagger(3, 8, 2)
    for change in changes:
        change(model)
    before = [(name, p, p.detach().clone()) for name, p in model.named_parameters()]
    with pytest.raises(error, match=message):
        lfk.prune_hidden_(model, **{"following": {"lstm": "head"}, **arguments})
    for (name, parameter, value), (now, current) in zip(
        before, model.named_parameters(), strict=True
    ):
        assert name == now
        assert parameter is current
        assert torch.equal(current.nan_to_num(7.0), value.nan_to_num(7.0))
    assert (model.lstm.hidden_size, model.head.in_features) == (8, 8)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_projection_needs_more_units(scope):
    model = tagger(3, 8, 2, proj_size=4)
    with pytest.raises(
        ValueError, match=r"4 of 8 units of 'lstm' would stay, but nn.LSTM needs more"
    ):
        lfk.prune_hidden_(model, scope=scope)
    lfk.prune_hidden_(model, 0.375, scope=scope)


def test_a_quantized_stack_is_refused():
    model = lfk.convert(lfk.StackedLSTM([nn.LSTM(3, 8)]))
    with pytest.raises(ValueError, match=r"layers.0.weight_ih_l0 is no parameter.* before quant"):
        lfk.prune_hidden_(model)
