"""Training with masks on: what the forward uses (pytorch#65688), gradual pruning, resuming."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from cases import Case, flat
from pruning_cases import CASES, HALF, Model, adam, masked_weights, train, training_steps
from ranks import on_two_ranks
from torch_bfloat16 import needs_bfloat16


def reference(lstm, case):
    """A plain nn.LSTM with the weights and biases that the masked one should run with."""
    plain = case.lstm()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            source = masked_weights(lstm).get(name)
            parameter.copy_(getattr(lstm, name) if source is None else source)
    return plain


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_moves_the_weights_that_the_forward_uses(case):
    lstm = case.lstm()
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    lfk.prune_(lstm, lfk.PruneConfig(0.5, block_size=(2, 2)))
    for plain in training_steps(lstm, case, reference):
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


@needs_bfloat16
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
    with pytest.raises(ValueError, match=r"weight_ih in the state: mask: .* got \(28, 8\)"):
        pruner.load_state_dict(lfk.prune_(nn.LSTMCell(8, 7), HALF).state_dict())


def test_repr():
    pruner = lfk.prune_(nn.LSTMCell(8, 8), HALF)
    pruner.step()
    assert repr(pruner) == "Pruner(2 matrices, step 1, sparsity 0.5000)"


# ---- more than one process ----


def _train_rank(rank):
    """Magnitude masks at once and Taylor ones in training, put on before and after the wrapping."""
    found = []
    for importance in ("magnitude", "taylor"):
        schedule = lfk.CubicSchedule(0, 4, initial=0.5)
        config = lfk.PruneConfig(0.6, block_size=(2, 2), importance=importance, schedule=schedule)
        for order in ("before", "after", "outside"):
            model = Model()
            with torch.no_grad():
                model.cell.weight_hh.add_(rank * torch.randn(28, 7))  # until DDP makes them equal
            if order == "before":
                pruner = lfk.prune_(model, config)
            parallel = nn.parallel.DistributedDataParallel(model)
            if order == "after":
                pruner = lfk.prune_(model, config)
            elif order == "outside":
                pruner = lfk.prune_(parallel, config)
            train(parallel, adam(model), pruner, range(rank, 2, 2))  # other data on each rank
            found.append(pruner.state_dict())
            train(parallel, adam(model), pruner, range(rank, 10, 2))
            found.append(pruner.state_dict())
            lfk.remove_pruning_(model)
            if order == "before":  # with the masks DDP has lost all of its buffers
                parallel = nn.parallel.DistributedDataParallel(model)
            train(parallel, torch.optim.SGD(model.parameters(), 0.01), None, range(rank, 4, 2))
            found.append({"matrices": {n: {"mask": v} for n, v in model.state_dict().items()}})
    with pytest.raises(ValueError, match=r"module\.layers\.1 is wrapped by Dist"):
        lfk.convert(parallel)
    with pytest.raises(ValueError, match=r"module\.layers\.1 is wrapped by Dist"):
        lfk.prune_hidden_(
            nn.parallel.DistributedDataParallel(Model()),
            following={"module.layers.1": "module.cell", "module.cell": "module.head"},
        )
    return found


@pytest.mark.slow
def test_ranks_agree_on_masks(tmp_path):
    first, second = on_two_ranks(_train_rank, tmp_path)
    for ours, theirs in zip(first, second, strict=True):
        for name, entry in ours["matrices"].items():
            assert torch.equal(theirs["matrices"][name]["mask"], entry["mask"]), name
            if "score" in entry:
                assert 0.3 < 1 - entry["mask"].float().mean() < 0.8
