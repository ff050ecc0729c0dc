"""prune_hidden_ and StackedLSTM, in float64: units that nothing reads can go unnoticed."""

import copy
import io
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_fastkernels as lfk

# Sums of a few hundred float64 products in another order, through a few saturating steps.
close = {"rtol": 0, "atol": 1e-12}


def same(actual, expected):
    torch.testing.assert_close(actual, expected, **close)


class Tagger(nn.Module):
    """An LSTM or a StackedLSTM with a head that reads its output."""

    def __init__(self, lstm, out_features=5):
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(output_width(lstm), out_features, dtype=torch.float64)

    def forward(self, x, hx=None):
        y, state = self.lstm(x, hx)
        return self.head(y), state


def output_width(lstm):
    return (1 + lstm.bidirectional) * (lstm.proj_size or lstm.hidden_size)


def double_lstm(*sizes, seed=0, **options):
    torch.manual_seed(seed)
    return nn.LSTM(*sizes, dtype=torch.float64, **options)


def tagger(*sizes, seed=0, **options):
    return Tagger(double_lstm(*sizes, seed=seed, **options))


def directions(lstm):
    return ["", "_reverse"][: 1 + lstm.bidirectional]


@torch.no_grad()
def kill(lstm, dead, head=None):
    """Zeroes what the units dead[layer][direction] give, shrinks what they take in."""
    H = lstm.hidden_size
    for layer, runs in enumerate(dead):
        for d, units in enumerate(runs):
            suffix = f"_l{layer}{directions(lstm)[d]}"
            rows = [gate * H + unit for gate in range(4) for unit in units]
            getattr(lstm, f"weight_ih{suffix}")[rows] *= 1e-6
            getattr(lstm, f"weight_hh{suffix}")[rows] *= 1e-6
            if lstm.proj_size:
                getattr(lstm, f"weight_hr{suffix}")[:, units] = 0
                continue
            getattr(lstm, f"weight_hh{suffix}")[:, units] = 0
            columns = [d * H + unit for unit in units]
            if layer + 1 < lstm.num_layers:
                for above in directions(lstm):
                    getattr(lstm, f"weight_ih_l{layer + 1}{above}")[:, columns] = 0
            elif head is not None:
                head.weight[:, columns] = 0


def random_dead(lstm, counts, seed):
    """counts[layer] units of each direction, not the same ones."""
    generator = np.random.default_rng(seed)
    return [
        [sorted(generator.permutation(lstm.hidden_size)[:count]) for _ in directions(lstm)]
        for count in counts
    ]


def kept_states(lstm, dead, states):
    """Per layer, what the states of the unpruned LSTM hold for the units that stay."""
    D, H = len(directions(lstm)), lstm.hidden_size
    layers = []
    for layer, runs in enumerate(dead):
        rows = []
        for d, units in enumerate(runs):
            kept = [unit for unit in range(H) if unit not in units]
            row = states[layer * D + d]
            rows.append(row[..., kept] if states.shape[-1] == H else row)
        layers.append(torch.stack(rows))
    return layers


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
        "lstm.weight_hh_l1 has weights or gradients that are not finite",
        nan_gradient,
    ),
    "nan": ({}, ValueError, "head.weight has weights or gradients that are not", nan_weight),
    "shared": ({}, ValueError, "head.weight is shared with another module", shared_weight),
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


# StackedLSTM


def split(lstm):
    """A StackedLSTM of an nn.LSTM's layers."""
    layers = []
    for k in range(lstm.num_layers):
        layer = nn.LSTM(
            lstm.input_size if k == 0 else output_width(lstm),
            lstm.hidden_size,
            bias=lstm.bias,
            batch_first=lstm.batch_first,
            bidirectional=lstm.bidirectional,
            proj_size=lstm.proj_size,
            dtype=torch.float64,
        )
        names = layer.state_dict()
        layer.load_state_dict({n: lstm.state_dict()[n.replace("_l0", f"_l{k}")] for n in names})
        layers.append(layer)
    return lfk.StackedLSTM(layers, lstm.dropout).train(lstm.training)


def per_layer(state, num_layers):
    return tuple(state.chunk(num_layers))


def assert_same_as_lstm(lstm, x, hx=None):
    stack, L = split(lstm), lstm.num_layers
    torch.manual_seed(5)
    expected, states = lstm(x, hx)
    torch.manual_seed(5)
    y, stack_states = stack(x, None if hx is None else tuple(per_layer(s, L) for s in hx))
    if isinstance(x, PackedSequence):
        assert isinstance(y, PackedSequence)
        same(y[1:], expected[1:])
        y, expected = y.data, expected.data
    same(y, expected)
    for ours, theirs in zip(stack_states, states, strict=True):
        assert type(ours) is tuple
        same(ours, per_layer(theirs, L))


OPTIONS = [
    {"num_layers": L, "bidirectional": D, "proj_size": P, "batch_first": F}
    for L, D, P, F in product([1, 3], [False, True], [0, 2], [False, True])
]


@pytest.mark.parametrize("form", ["batch", "unbatched", "packed"])
@pytest.mark.parametrize("with_state", [False, True], ids=["hx0", "hx"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_stacked_is_an_nn_lstm(options, with_state, form):
    lstm = double_lstm(3, 7, **options)
    B, rows = 4, lstm.num_layers * (1 + lstm.bidirectional)
    x = torch.randn(B, B, 3, dtype=torch.float64)
    hx = [torch.randn(rows, B, size, dtype=torch.float64) for size in (lstm.proj_size or 7, 7)]
    if form == "unbatched":
        x, hx = x[:, 0], [state[:, 0] for state in hx]
    elif form == "packed":
        options = {"batch_first": lstm.batch_first, "enforce_sorted": False}
        x = pack_padded_sequence(x, torch.tensor([2, 4, 1, 3]), **options)
    assert_same_as_lstm(lstm, x, tuple(hx) if with_state else None)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_stacked_drops_out_where_nn_lstm_does(training, packed):
    lstm = double_lstm(3, 7, 3, dropout=0.4).train(training)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    if packed:
        x = pack_padded_sequence(x, torch.tensor([4, 2]))
    assert_same_as_lstm(lstm, x)


def test_stacked_gradients():
    lstm = double_lstm(3, 7, 2)
    stack, x = split(lstm), torch.randn(4, 2, 3, dtype=torch.float64)
    for module in (lstm, stack):
        module(x)[0].square().sum().backward()
    for k, layer in enumerate(stack.layers):
        for name, parameter in layer.named_parameters():
            same(parameter.grad, getattr(lstm, name.replace("_l0", f"_l{k}")).grad)


@pytest.mark.parametrize(
    ("layers", "dropout", "message"),
    [
        ([], 0, "StackedLSTM needs at least one layer"),
        ([nn.LSTM(3, 4)], 1.5, r"dropout must be in \[0, 1\], got 1.5"),
        ([nn.LSTM(3, 4), nn.LSTM(4, 4, 2)], 0, "layer 1 must have num_layers=1, got 2"),
        (
            [nn.LSTM(3, 4), nn.LSTM(4, 4, batch_first=True)],
            0,
            "layer 1 must have the batch_first of layer 0",
        ),
        (
            [nn.LSTM(3, 4), nn.LSTM(4, 4, bidirectional=True)],
            0,
            "layer 1 must have the bidirectional of layer 0",
        ),
        (
            [nn.LSTM(3, 4, bidirectional=True, proj_size=2), nn.LSTM(8, 4, bidirectional=True)],
            0,
            "layer 1 must have input_size=4, the width of what it reads, got 8",
        ),
    ],
    ids=["none", "dropout", "layers", "batch_first", "bidirectional", "width"],
)
def test_stacked_refuses_layers_that_do_not_fit(layers, dropout, message):
    with pytest.raises(ValueError, match=message):
        lfk.StackedLSTM(layers, dropout)


@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 2, 2), (3, 3)], ids=str)
def test_stacked_refuses_states_of_other_layers(counts):
    stack = lfk.StackedLSTM([nn.LSTM(3, 4), nn.LSTM(4, 5)])
    hx = tuple((torch.zeros(1, 2, 4),) * count for count in counts)
    with pytest.raises(RuntimeError, match="each with one tensor for each of 2 layers"):
        stack(torch.zeros(3, 2, 3), hx)


def test_stacked_describes_itself():
    stack = lfk.StackedLSTM([nn.LSTM(3, 4), nn.LSTM(4, 5)], dropout=0.5)
    assert (stack.input_size, stack.hidden_sizes) == (3, (4, 5))
    assert "dropout=0.5" in repr(stack)
    assert "dropout" not in repr(lfk.StackedLSTM([nn.LSTM(3, 4)]))
    stack.flatten_parameters()
