"""A masked module in a model's life: training, state_dict, copies, resuming, and the way out."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from cases import Case, flat

CASES = [
    Case(9, 31),
    Case(1, 1),
    Case(9, 7, num_layers=3, batch_first=True),
    Case(7, 9, num_layers=2, bidirectional=True, bias=False),
    Case(9, 31, num_layers=2, bidirectional=True, proj_size=8),
]
HALF = lfk.PruneConfig(0.5)


class Model(nn.Module):
    """An LSTM and a cell, the one inside a Sequential."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 5), nn.LSTM(5, 9, 2, batch_first=True))
        self.cell = nn.LSTMCell(9, 7)
        self.head = nn.Linear(7, 1)

    def forward(self, x):
        y, _ = self.layers(x)
        return self.head(self.cell(y[:, -1])[0])


def batch(step, size=16):
    x = torch.randn(size, 6, 5, generator=torch.Generator().manual_seed(step))
    return x, x[:, :, 0].sum(1, keepdim=True).sin()


def train(model, optimizer, pruner, steps):
    losses = []
    for step in steps:
        x, y = batch(step)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if pruner is not None:
            pruner.step()
        losses.append(loss.item())
    return losses


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def masked_weights(lstm):
    """name -> whole weight * mask, for each masked matrix."""
    return {name: pair.original * pair[0].mask for name, pair in lstm.parametrizations.items()}


def reference(lstm, case):
    """A plain nn.LSTM with the weights and biases that the masked one should run with."""
    plain = case.lstm()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            source = masked_weights(lstm).get(name)
            parameter.copy_(getattr(lstm, name) if source is None else source)
    return plain


# ---- the forward and training (pytorch#65688) ----


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_moves_the_weights_that_the_forward_uses(case):
    lstm = case.lstm()
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    lfk.prune_(lstm, lfk.PruneConfig(0.5, block_size=(2, 2)))
    x, hx = case.x(), case.state()
    previous = None
    for _ in range(3):
        result = lstm(x, hx)
        plain = reference(lstm, case)
        expected = plain(x, hx)
        for actual, wanted in zip(flat(result), flat(expected), strict=True):
            assert torch.equal(actual, wanted)
        assert previous is None or not torch.equal(result[0], previous)
        previous = result[0]

        optimizer.zero_grad()
        result[0].square().sum().backward()
        expected[0].square().sum().backward()
        for name, pair in lstm.parametrizations.items():
            assert torch.equal(pair.original.grad, getattr(plain, name).grad * pair[0].mask)
        optimizer.step()
    if case.hidden_size > 1:
        assert any((weight == 0).any() for weight in masked_weights(lstm).values())


def test_packed_sequences_and_cells():
    case = Case(9, 31, num_layers=2, bidirectional=True)
    lstm = case.lstm()
    lfk.prune_(lstm, HALF)
    packed = pack_padded_sequence(case.x(), case.lengths(), enforce_sorted=False)
    for actual, wanted in zip(flat(lstm(packed)), flat(reference(lstm, case)(packed)), strict=True):
        assert torch.equal(actual, wanted)

    cell, plain = nn.LSTMCell(9, 31), nn.LSTMCell(9, 31)
    lfk.prune_(cell, HALF)
    plain.load_state_dict(cell.state_dict())
    x = torch.randn(3, 9)
    assert all(map(torch.equal, cell(x), plain(x)))


def test_autocast():
    case = Case(9, 32)
    lstm = case.lstm()
    lfk.prune_(lstm, HALF)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = lstm(case.x())
        expected, _ = reference(lstm, case)(case.x())
    assert y.dtype == expected.dtype
    assert torch.equal(y, expected)
    y.float().sum().backward()
    assert lstm.parametrizations.weight_hh_l0.original.grad.any()


def test_each_weight_is_masked_once_a_forward(monkeypatch):
    lstm = nn.LSTM(9, 7, 2)
    lfk.prune_(lstm, HALF)
    calls = []
    masked = type(lstm.parametrizations.weight_hh_l0[0])
    forward = masked.forward
    monkeypatch.setattr(masked, "forward", lambda self, w: calls.append(self) or forward(self, w))
    lstm(torch.randn(2, 3, 9))
    assert len(calls) == len(set(calls)) == 4


def test_a_failed_forward_leaves_the_module_usable():
    lstm = nn.LSTM(9, 7)
    lfk.prune_(lstm, HALF)
    with pytest.raises(RuntimeError):
        lstm(torch.randn(2, 3, 8))
    copy.deepcopy(lstm)(torch.randn(2, 3, 9))


def test_what_is_behind_the_mask_has_no_effect():
    lstm = nn.LSTM(9, 7)
    lfk.prune_(lstm, HALF)
    x = torch.randn(2, 3, 9)
    before = lstm(x)[0]
    with torch.no_grad():
        for pair in lstm.parametrizations.values():
            pair.original.masked_fill_(~pair[0].mask, torch.nan)
    assert torch.equal(lstm(x)[0], before)


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "movement"])
@pytest.mark.parametrize("scope", ["gate", "tensor", "global"])
def test_gradual_training_reaches_the_target(importance, scope):
    model = Model()
    config = lfk.PruneConfig(
        0.75,
        block_size=None,
        importance=importance,
        scope=scope,
        schedule=lfk.CubicSchedule(2, 17, frequency=5),
    )
    optimizer = adam(model)
    pruner = lfk.prune_(model, config)
    shares = []
    for step in range(20):
        (loss,) = train(model, optimizer, pruner, [step])
        assert loss < 10
        shares.append(pruner.sparsity)
    assert shares[:6] == [0] * 6  # step() has been called once at shares[0]
    # A gate of 9 x 5 weights has no three quarters: the nearest count is 34.
    goal = 0.75 if scope == "global" else pytest.approx(0.75, abs=0.01)
    assert shares[6] < shares[11] < shares[16] == shares[19] == goal
    assert shares[6] == shares[10]
    assert pruner.sparsity == lfk.sparsity_report(model).sparsity


def test_one_shot_pruning_then_training():
    model = Model()
    optimizer = adam(model)
    before = train(model, optimizer, None, range(20))
    pruner = lfk.prune_(model, lfk.PruneConfig(0.5, block_size=(2, 2)))
    zeros = {k: v == 0 for k, v in model.state_dict().items()}
    after = train(model, optimizer, pruner, range(20, 60))
    assert {k: (v == 0).tolist() for k, v in model.state_dict().items()} == {
        k: v.tolist() for k, v in zeros.items()
    }
    assert sum(after[-5:]) < sum(before[:5])
    assert pruner.sparsity == pytest.approx(0.5, abs=0.03)


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
    assert model(batch(0)[0].double()).dtype == torch.float64
    assert model.cell.parametrizations.weight_hh[0].mask.dtype == torch.bool
    assert torch.equal(model.cell.weight_hh == 0, zeros)
    model.to("meta")
    assert model.cell.weight_hh.is_meta


# ---- resuming ----


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "movement"])
def test_resuming_is_training_straight_through(importance):
    config = lfk.PruneConfig(
        0.6,
        block_size=(2, 2),
        importance=importance,
        schedule=lfk.CubicSchedule(0, 16, frequency=3, initial=0.3),
    )

    def start():
        model = Model()
        optimizer = adam(model)
        return model, optimizer, lfk.prune_(model, config)

    straight = start()
    train(*straight, range(20))

    first = start()
    train(*first, range(10))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    resumed = start()
    for part, state in zip(resumed, torch.load(file), strict=True):
        part.load_state_dict(state)
    train(*resumed, range(10, 20))

    for name, value in straight[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], value)
    for name, entry in straight[2].state_dict()["matrices"].items():
        other = resumed[2].state_dict()["matrices"][name]
        assert torch.equal(other["mask"], entry["mask"])
        assert torch.equal(other["weight"], entry["weight"])
    assert repr(resumed[2]) == repr(straight[2])


def test_state_of_another_model_is_refused():
    pruner = lfk.prune_(nn.LSTMCell(9, 7), HALF)
    with pytest.raises(ValueError, match=r"state is of .*weight_hh_l0"):
        pruner.load_state_dict(lfk.prune_(nn.LSTM(9, 7), HALF).state_dict())
    with pytest.raises(ValueError, match=r"weight_ih is \(28, 9\), in the state \(28, 8\)"):
        pruner.load_state_dict(lfk.prune_(nn.LSTMCell(8, 7), HALF).state_dict())


def test_repr():
    pruner = lfk.prune_(nn.LSTMCell(8, 8), HALF)
    pruner.step()
    assert repr(pruner) == "Pruner(2 matrices, step 1, sparsity 0.5000)"


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
        for name in ("weight_ih", "weight_hh"):
            zero = getattr(plain, f"{name}_l0" if plain is lstm else name) == 0
            quantized = getattr(fast, f"{name}_l0")
            assert zero.any()
            assert (quantized[zero] == 0).all()
            assert quantized.any()


# ---- report ----


def test_report_counts():
    cell = nn.LSTMCell(9, 9)
    report = lfk.sparsity_report(cell)
    assert report.sparsity == 0
    assert [row.gate for row in report.rows] == list("ifgoifgo")
    with torch.no_grad():
        cell.weight_hh[9:17, 4:8] = 0  # one whole 8x4 block of gate f
        cell.weight_hh[17] = 0  # the last row of gate f: blocks of 1 x 4, 4 and 1
        cell.weight_ih[0, 0] = 0
    report = lfk.sparsity_report(nn.ModuleDict({"cell": cell}))
    row = report.rows[5]
    assert (row.module, row.matrix, row.gate) == ("cell", "weight_hh", "f")
    assert (row.weights, row.zeros, row.sparsity) == (81, 41, 41 / 81)
    assert row.block_density == 2 / 6
    assert report.rows[0].zeros == 1
    assert report.rows[0].block_density == 1
    assert report.sparsity == report.total.zeros / report.total.weights == 42 / 648
    lines = str(report).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == [
        "module",
        "matrix",
        "gate",
        "weights",
        "zeros",
        "sparsity",
        "8x4",
        "density",
    ]
    assert lines[6].split() == ["cell", "weight_hh", "f", "81", "41", "0.5062", "0.3333"]
    assert lines[-1].split() == ["total", "648", "42", "0.0648", "0.9167"]


def test_report_is_the_same_masked_and_permanent():
    model = Model()
    pruner = lfk.prune_(model, HALF)
    masked = lfk.sparsity_report(model)
    assert masked.sparsity == pruner.sparsity
    lfk.remove_pruning_(model)
    assert lfk.sparsity_report(model) == masked
    with pytest.raises(ValueError, match=r"found no nn.LSTM or nn.LSTMCell in the model"):
        lfk.sparsity_report(nn.Linear(2, 2))


# ---- more than one process ----


def _train_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    model = Model()
    config = lfk.PruneConfig(
        0.6, block_size=(2, 2), importance="taylor", schedule=lfk.CubicSchedule(0, 4)
    )
    pruner = lfk.prune_(model, config)
    parallel = nn.parallel.DistributedDataParallel(model)
    train(parallel, adam(model), pruner, range(rank, 12, 2))  # other data on each rank
    torch.save((model.state_dict(), pruner.state_dict()), f"{folder}/rank{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_agree_on_masks(tmp_path):
    torch.multiprocessing.spawn(_train_rank, (str(tmp_path),), nprocs=2)
    (first, pruner), (second, other) = (torch.load(tmp_path / f"rank{rank}") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(second[name], value)
    for name, entry in pruner["matrices"].items():
        assert torch.equal(other["matrices"][name]["mask"], entry["mask"])
        assert 0.4 < 1 - entry["mask"].float().mean() < 0.8
