"""prune_hidden_: units that nothing reads can go unnoticed, and the least important go first."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lstm_fastkernels as lfk
from hidden_cases import (
    directions,
    double_lstm,
    kept_states,
    kill,
    output_width,
    random_dead,
    same,
    tagger,
)

# What must not be noticed


@pytest.mark.parametrize("H", [7, 9, 31])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["D1", "D2"])
def test_dead_units_go_unnoticed(H, num_layers, bias, proj_size, bidirectional):
    batch_first = num_layers == 2
    options = {"bias": bias, "bidirectional": bidirectional, "batch_first": batch_first}
    model = tagger(3, H, num_layers, proj_size=proj_size, **options).eval()
    keep = round(H * 0.6)
    dead = random_dead(model.lstm, [H - keep] * num_layers, seed=H)
    kill(model.lstm, dead, model.head)
    before, lstm = copy.deepcopy(model), model.lstm
    assert lfk.prune_hidden_(model, 0.4, following={"lstm": "head"}) is model
    assert model.lstm is lstm
    assert type(lstm) is nn.LSTM
    assert (lstm.hidden_size, lstm.proj_size) == (keep, proj_size)
    assert model.head.in_features == output_width(lstm)

    x = torch.randn(4, 2, 3, dtype=torch.float64)
    B = x.shape[0 if batch_first else 1]
    rows = num_layers * (1 + bidirectional)
    hx = [torch.randn(rows, B, size, dtype=torch.float64) for size in (proj_size or H, H)]
    y, states = before(x, hx)
    kept = [torch.cat(kept_states(before.lstm, dead, state)) for state in hx]
    pruned_y, pruned_states = model(x, tuple(kept))
    same(pruned_y, y)
    for pruned, state in zip(pruned_states, states, strict=True):
        same(pruned, torch.cat(kept_states(before.lstm, dead, state)))


@settings(max_examples=40)
@given(
    st.integers(2, 20),
    st.integers(1, 3),
    st.integers(1, 6),
    st.booleans(),
    st.floats(0, 0.95),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_dead_units_of_any_shape(H, num_layers, input_size, bidirectional, ratio, multiple, seed):
    lstm = double_lstm(input_size, H, num_layers, bidirectional=bidirectional, seed=seed)
    keep = min(H, -(-max(1, round(H * (1 - ratio))) // multiple) * multiple)
    dead = random_dead(lstm, [H - keep] * num_layers, seed)
    kill(lstm, dead)
    before = copy.deepcopy(lstm)
    assert lfk.prune_hidden_(lstm, ratio, multiple_of=multiple) is lstm
    assert lstm.hidden_size == keep
    x = torch.randn(3, 2, input_size, dtype=torch.float64)
    columns = [
        d * H + unit for d, units in enumerate(dead[-1]) for unit in range(H) if unit not in units
    ]
    same(lstm(x)[0], before(x)[0][..., columns])


@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["D1", "D2"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_dead_units_of_layers_that_differ(bias, bidirectional, proj_size):
    options = {"bias": bias, "bidirectional": bidirectional, "proj_size": proj_size}
    model = tagger(3, 8, 3, batch_first=True, dropout=0.3, **options).eval()
    dead = random_dead(model.lstm, [3, 5, 4], seed=1)
    kill(model.lstm, dead, model.head)
    before = copy.deepcopy(model)
    assert lfk.prune_hidden_(model, 0.5, scope="global", following={"lstm": "head"}) is model
    assert type(model.lstm) is lfk.StackedLSTM
    assert model.lstm.hidden_sizes == (5, 3, 4)
    assert model.lstm.dropout == 0.3
    assert not model.lstm.training
    assert not any(layer.training for layer in model.lstm.layers)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    rows = 3 * (1 + bidirectional)
    hx = [torch.randn(rows, 2, size, dtype=torch.float64) for size in (proj_size or 8, 8)]
    y, states = before(x, hx)
    pruned_y, pruned_states = model(x, [kept_states(before.lstm, dead, state) for state in hx])
    same(pruned_y, y)
    for pruned, state in zip(pruned_states, states, strict=True):
        same(list(pruned), kept_states(before.lstm, dead, state))


def test_a_stacked_lstm_is_pruned_further():
    model = tagger(3, 8, 2)
    kill(model.lstm, random_dead(model.lstm, [3, 5], seed=1), model.head)
    following = {"lstm": "head"}
    lfk.prune_hidden_(model, 0.5, scope="global", following=following)
    stacked = model.lstm
    lfk.prune_hidden_(model, 0.4, following=following)
    assert model.lstm is stacked
    assert stacked.hidden_sizes == (3, 2)
    lfk.prune_hidden_(model, 0.5, scope="global", following=following)
    assert model.lstm is stacked
    assert sum(stacked.hidden_sizes) == 3
    assert model.head.in_features == stacked.hidden_sizes[-1]
    model(torch.randn(4, 2, 3, dtype=torch.float64))


def test_equal_widths_stay_an_nn_lstm():
    model = tagger(3, 8, 2)
    kill(model.lstm, random_dead(model.lstm, [4, 4], seed=1), model.head)
    lstm = model.lstm
    lfk.prune_hidden_(model, 0.5, scope="global", following={"lstm": "head"})
    assert model.lstm is lstm
    assert lstm.hidden_size == 4


def test_a_model_that_is_an_lstm_is_replaced_and_stays():
    lstm = double_lstm(3, 8, 2)
    kill(lstm, random_dead(lstm, [3, 5], seed=1))
    before = copy.deepcopy(lstm.state_dict())
    pruned = lfk.prune_hidden_(lstm, 0.5, scope="global")
    assert pruned.hidden_sizes == (5, 3)
    assert lstm.hidden_size == 8
    same(dict(lstm.state_dict()), dict(before))


def test_cells_and_what_reads_them():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "first": nn.LSTMCell(3, 7, dtype=torch.float64),
            "second": nn.LSTMCell(7, 9, bias=False, dtype=torch.float64),
            "head": nn.Linear(9, 2, dtype=torch.float64),
        }
    )
    dead = {"first": [0, 5, 6], "second": [1, 2, 4, 5, 8]}
    with torch.no_grad():
        for name, reader in (("first", "second"), ("second", "head")):
            cell, units = model[name], dead[name]
            rows = [gate * cell.hidden_size + unit for gate in range(4) for unit in units]
            cell.weight_ih[rows] *= 1e-6
            cell.weight_hh[rows] *= 1e-6
            cell.weight_hh[:, units] = 0
            weight = model[reader].weight if reader == "head" else model[reader].weight_ih
            weight[:, units] = 0
    before = copy.deepcopy(model)
    lfk.prune_hidden_(model, 0.5, following={"first": "second", "second": ["head"]})
    sizes = [(c.input_size, c.hidden_size) for c in (model["first"], model["second"])]
    assert sizes == [(3, 4), (4, 4)]

    def run(modules, x):
        h = modules["first"](x)
        return modules["head"](modules["second"](h[0])[0])

    x = torch.randn(2, 3, dtype=torch.float64)
    same(run(model, x), run(before, x))


def test_an_lstm_that_reads_another():
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": double_lstm(3, 6, bidirectional=True), "b": double_lstm(12, 5, 2)})
    with torch.no_grad():
        for suffix, units in (("_l0", [1, 2, 3]), ("_l0_reverse", [0, 2, 5])):
            rows = [gate * 6 + unit for gate in range(4) for unit in units]
            getattr(model["a"], f"weight_ih{suffix}")[rows] *= 1e-6
            getattr(model["a"], f"weight_hh{suffix}")[rows] *= 1e-6
            getattr(model["a"], f"weight_hh{suffix}")[:, units] = 0
        model["b"].weight_ih_l0[:, [1, 2, 3, 6 + 0, 6 + 2, 6 + 5]] = 0
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    expected = model["b"](model["a"](x)[0])[0]
    lfk.prune_hidden_(model, following={"a": "b"}, filter_fn=lambda module, name: name == "a")
    assert (model["a"].hidden_size, model["b"].input_size, model["b"].hidden_size) == (3, 6, 5)
    same(model["b"](model["a"](x)[0])[0], expected)


def test_an_lstm_that_reads_itself():
    lstm = double_lstm(6, 6)
    model = nn.Sequential(lstm)
    lfk.prune_hidden_(model, following={"0": "0"})
    assert (lstm.input_size, lstm.hidden_size) == (3, 3)
    assert lstm.weight_ih_l0.shape == (12, 3)


# Which units go


def weights_of(lstm, head, layer, direction, unit):
    """(parameter name, boolean mask) of the weights that belong to a unit, one by one."""
    H = lstm.hidden_size
    suffix = f"_l{layer}{directions(lstm)[direction]}"
    masks = {
        name: np.zeros(parameter.shape, bool)
        for name, parameter in [*lstm.named_parameters(), ("head", head.weight)]
    }
    for gate in range(4):
        masks[f"weight_ih{suffix}"][gate * H + unit] = True
        masks[f"weight_hh{suffix}"][gate * H + unit] = True
    column = direction * H + unit
    if lstm.proj_size:
        masks[f"weight_hr{suffix}"][:, unit] = True
    else:
        masks[f"weight_hh{suffix}"][:, unit] = True
        if layer + 1 < lstm.num_layers:
            for above in directions(lstm):
                masks[f"weight_ih_l{layer + 1}{above}"][:, column] = True
        else:
            masks["head"][:, column] = True
    return masks


def scores(model, importance):
    """[layer, direction, unit], straight from the definition."""
    lstm, head = model.lstm, model.head
    parameters = {**dict(lstm.named_parameters()), "head": head.weight}
    found = np.zeros((lstm.num_layers, len(directions(lstm)), lstm.hidden_size))
    for index in product(*map(range, found.shape)):
        masks = weights_of(lstm, head, *index)
        if importance == "magnitude":
            values = {n: p.detach().numpy() ** 2 for n, p in parameters.items()}
        else:
            values = {n: (p * p.grad).detach().numpy() for n, p in parameters.items()}
        total = sum(values[name][mask].sum() for name, mask in masks.items())
        found[index] = total**0.5 if importance == "magnitude" else total**2
    return found


def sliced(model, kept):
    """The parameters with only the units kept[layer][direction], cut with np.take."""
    lstm, H = model.lstm, model.lstm.hidden_size
    arrays = {name: p.detach().numpy() for name, p in lstm.named_parameters()}
    head = model.head.weight.detach().numpy()
    for layer, runs in enumerate(kept):
        columns = np.concatenate([d * H + np.array(units) for d, units in enumerate(runs)])
        for d, units in enumerate(runs):
            suffix = f"_l{layer}{directions(lstm)[d]}"
            rows = np.concatenate([gate * H + np.array(units) for gate in range(4)])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                if kind + suffix in arrays:
                    arrays[kind + suffix] = arrays[kind + suffix].take(rows, axis=0)
            outgoing = "weight_hr" if lstm.proj_size else "weight_hh"
            arrays[outgoing + suffix] = arrays[outgoing + suffix].take(units, axis=1)
        if lstm.proj_size:
            continue
        if layer + 1 < lstm.num_layers:
            for above in directions(lstm):
                name = f"weight_ih_l{layer + 1}{above}"
                arrays[name] = arrays[name].take(columns, axis=1)
        else:
            head = head.take(columns, axis=1)
    return {**{f"lstm.{name}": a for name, a in arrays.items()}, "head.weight": head}


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["D1", "D2"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_least_important_go(num_layers, bidirectional, proj_size, importance):
    options = {"bidirectional": bidirectional, "proj_size": proj_size, "seed": 3}
    model = tagger(3, 7, num_layers, **options)
    model(torch.randn(4, 2, 3, dtype=torch.float64))[0].square().sum().backward()
    found = scores(model, importance)
    kept = np.sort(np.argsort(-found, axis=2)[..., :4])
    expected = sliced(model, kept)
    expected["head.bias"] = model.head.bias.detach().numpy()
    lfk.prune_hidden_(model, 0.45, importance=importance, following={"lstm": "head"})
    actual = {name: p.detach().numpy() for name, p in model.named_parameters()}
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def global_widths(found, total, least, multiple):
    """The widths by trying all: those whose worst block that stays is the best."""
    L, _, H = found.shape
    gains = [-np.sort(-layer, axis=1).mean(0) / layer.mean() for layer in map(np.asarray, found)]
    order = sorted(
        (-gains[k][start : start + multiple].mean(), k, start)
        for k in range(L)
        for start in range(0, H, multiple)
        if start >= -(-least // multiple) * multiple
    )
    widths = [min(H, -(-least // multiple) * multiple)] * L
    for _, k, _ in order:
        if sum(widths) >= total:
            break
        widths[k] = min(H, widths[k] + multiple)
    return tuple(widths)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["D1", "D2"])
@pytest.mark.parametrize(("multiple", "proj_size"), [(1, 0), (4, 0), (1, 2), (3, 2)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_layers_compete_for_units(multiple, proj_size, bidirectional, seed):
    H = 11
    model = tagger(3, H, 3, proj_size=proj_size, bidirectional=bidirectional, seed=seed)
    with torch.no_grad():  # the deeper the layer, the more its units differ
        for layer, direction in product(range(3), directions(model.lstm)):
            factors = torch.rand(H, dtype=torch.float64) ** (4 * layer)
            for kind in ("weight_ih", "weight_hh"):
                getattr(model.lstm, f"{kind}_l{layer}{direction}").mul_(factors.repeat(4)[:, None])
    keep = -(-round(H * 0.6) // multiple) * multiple
    expected = global_widths(scores(model, "magnitude"), 3 * keep, proj_size + 1, multiple)
    assert len(set(expected)) > 1, "the example shows nothing"
    options = {"multiple_of": multiple, "following": {"lstm": "head"}}
    lfk.prune_hidden_(model, 0.4, scope="global", **options)
    assert model.lstm.hidden_sizes == expected


def test_a_layer_of_zeros_keeps_what_it_must():
    lstm = double_lstm(3, 6, 2, proj_size=2)
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if "_l0" in name:
                parameter.zero_()
    assert lfk.prune_hidden_(lstm, 0.25, scope="global").hidden_sizes == (3, 5)


@pytest.mark.parametrize(
    ("H", "ratio", "multiple_of", "keep"),
    [
        (9, 0, 1, 9),
        (9, 0.99, 1, 1),
        (9, 0.5, 8, 8),
        (20, 0.5, 8, 16),
        (9, 0.05, 8, 9),
        (7, 0.4, 1, 4),
    ],
)
def test_how_many_stay(H, ratio, multiple_of, keep):
    lstm = double_lstm(3, H)
    lfk.prune_hidden_(lstm, ratio, multiple_of=multiple_of)
    assert lstm.hidden_size == keep
    assert lstm.weight_hh_l0.shape == (4 * keep, keep)


def test_nothing_cut_nothing_new():
    model = tagger(3, 7, 2)
    before = dict(model.named_parameters())
    lfk.prune_hidden_(model, 0, following={"lstm": "head"})
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
