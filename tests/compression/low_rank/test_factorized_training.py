"""Training changes the factors, and the forward follows them (pytorch#65688)."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from cases import Case, flat
from low_rank_cases import CASES, plain_twin
from lstm_fastkernels.modules.low_rank import low_rank_factors
from pruning_cases import Model, adam, train, training_steps
from torch_bfloat16 import needs_bfloat16

RANK = lfk.LowRankConfig(3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_changes_the_factors_that_the_forward_uses(case):
    lstm = case.lstm()
    lstm.flatten_parameters()
    lfk.factorize_(lstm, RANK)
    lstm.flatten_parameters()
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for plain in training_steps(lstm, case, plain_twin):
        before = {name: (u.clone(), v.clone()) for name, (u, v) in low_rank_factors(lstm).items()}
        assert len(before) == 2 * case.num_layers * (1 + case.bidirectional)
        for name, (u, v) in before.items():
            pair, grad = lstm.parametrizations[name], getattr(plain, name).grad
            torch.testing.assert_close(pair.original0.grad, grad @ v.T)
            torch.testing.assert_close(pair.original1.grad, u.T @ grad)
        optimizer.step()
        for name, pair in low_rank_factors(lstm).items():
            assert not any(map(torch.equal, pair, before[name])), name


def test_a_model_is_trained():
    model = Model()
    lfk.factorize_(model, RANK)
    losses = train(model, adam(model), None, range(60))
    assert sum(losses[-5:]) < sum(losses[:5])


def test_packed_sequences_and_cells():
    case = CASES[3]
    lstm = case.lstm()
    lfk.factorize_(lstm, RANK)
    packed = pack_padded_sequence(case.x(), case.lengths(), enforce_sorted=False)
    for actual, wanted in zip(
        flat(lstm(packed)), flat(plain_twin(lstm, case)(packed)), strict=True
    ):
        assert torch.equal(actual, wanted)

    cell, x = nn.LSTMCell(9, 31), torch.randn(3, 9)
    lfk.factorize_(cell, RANK)
    factors = low_rank_factors(cell)
    assert list(factors) == ["weight_ih_l0", "weight_hh_l0"]
    plain = nn.LSTMCell(9, 31)
    state = {name: torch.matmul(*pair) for name, pair in factors.items()}
    state = {name.removesuffix("_l0"): weight for name, weight in state.items()}
    plain.load_state_dict({**state, "bias_ih": cell.bias_ih, "bias_hh": cell.bias_hh})
    assert all(map(torch.equal, cell(x), plain(x)))


def test_each_product_is_computed_once_a_forward(monkeypatch):
    lstm = nn.LSTM(9, 7, 2)
    lfk.factorize_(lstm, RANK)
    calls = []
    low_rank = type(lstm.parametrizations.weight_hh_l0[0])
    forward = low_rank.forward
    monkeypatch.setattr(
        low_rank, "forward", lambda self, u, v: calls.append(self) or forward(self, u, v)
    )
    lstm(torch.randn(2, 3, 9))
    assert len(calls) == len(set(calls)) == 4


@needs_bfloat16
def test_autocast():
    case = Case(9, 32)
    lstm = case.lstm()
    lfk.factorize_(lstm, RANK)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = lstm(case.x())
    exact, _ = plain_twin(lstm, case)(case.x())
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = plain_twin(lstm, case)(case.x())
    error = (expected.float() - exact).abs().max()
    assert (y.float() - exact).abs().max() <= 2 * error
    y.float().sum().backward()
    assert lstm.parametrizations.weight_hh_l0.original1.grad.any()


def test_frozen_weights_stay_frozen():
    lstm = nn.LSTM(9, 31)
    lstm.weight_hh_l0.requires_grad_(False)
    lfk.factorize_(lstm, RANK)
    needed = {name: p.requires_grad for name, p in lstm.named_parameters()}
    assert [name for name in needed if not needed[name]] == [
        "parametrizations.weight_hh_l0.original0",
        "parametrizations.weight_hh_l0.original1",
    ]
    lfk.remove_low_rank_(lstm)
    assert [p.requires_grad for p in lstm.parameters()] == [True, False, True, True]


def test_resuming_is_training_straight_through():
    def start():
        model = Model()
        lfk.factorize_(model, RANK)
        return model, adam(model)

    straight = start()
    train(*straight, None, range(10))
    first = start()
    train(*first, None, range(5))
    checkpoint = copy.deepcopy([part.state_dict() for part in first])
    resumed = start()
    for part, state in zip(resumed, checkpoint, strict=True):
        part.load_state_dict(state)
    train(*resumed, None, range(5, 10))
    for name, value in straight[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], value)
