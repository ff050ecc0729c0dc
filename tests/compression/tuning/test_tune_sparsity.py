"""tune_sparsity goes as far as the metric allows, and no trial touches the model given."""

import copy
import math

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from pruning_cases import Model, adam, train


class Deep(nn.Module):
    """An LSTM three modules deep and in two places."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        lstm = nn.LSTM(8, 16)
        self.body = nn.ModuleList([nn.ModuleList([nn.ModuleList([lstm]), nn.ModuleList([lstm])])])

    def forward(self, x):
        return self.body[0][1][0](self.body[0][0][0](x)[0][..., :8])[0]


def sparsity(model):
    return lfk.sparsity_report(model).sparsity


def weights(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("limit", [0.0, 0.2, 0.5, 0.83])
def test_sparsity_as_far_as_a_metric_allows(limit):
    model = Deep()
    before = copy.deepcopy(model.state_dict())
    config = lfk.PruneConfig(0.9, block_size=None)
    found = lfk.tune_sparsity(model, config, lambda m: -sparsity(m), limit, tolerance=0.02)
    assert limit - 0.025 <= sparsity(found.model) <= limit
    assert found.metric == pytest.approx(-sparsity(found.model))
    assert found.baseline == 0
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert "parametrizations" not in dict(found.model.body[0][0][0].named_modules())
    assert found.model.body[0][0][0] is found.model.body[0][1][0]
    assert ("taken" in str(found)) == (found.config is not None)
    lfk.quantize_(found.model)


def test_the_config_itself_where_it_keeps_the_metric():
    found = lfk.tune_sparsity(Deep(), lfk.PruneConfig(0.5), lambda m: 1.0, 0)
    assert found.config == lfk.PruneConfig(0.5)
    assert len(found.trials) == 1


def test_losses_and_metrics_that_break():
    def loss(model):
        share = sparsity(model)
        return math.nan if share > 0.6 else share

    found = lfk.tune_sparsity(
        Deep(), lfk.PruneConfig(0.9, block_size=None), loss, 0.3, mode="min", tolerance=0.02
    )
    assert 0.27 <= sparsity(found.model) <= 0.3
    assert any(math.isnan(trial.metric) for trial in found.trials)


def test_thresholds_and_mappings():
    def zeros(model):
        return -sparsity(model)

    found = lfk.tune_sparsity(Deep(), lfk.PruneConfig(threshold=1.0, block_size=None), zeros, 0.4)
    assert 0.35 <= sparsity(found.model) <= 0.4
    assert found.config.threshold < 0.25
    config = lfk.PruneConfig({"weight_hh": 0.9, "weight_ih.g": 0.45}, block_size=None)
    found = lfk.tune_sparsity(Deep(), config, zeros, 0.3)
    shares = found.config.sparsity
    assert shares["weight_hh"] == pytest.approx(2 * shares["weight_ih.g"])


@pytest.mark.parametrize(
    ("config", "limit"),
    [(lfk.LowRankConfig(rank={"weight_hh*": 1}), 0.03), (lfk.LowRankConfig(energy=0.3), 0.1)],
)
def test_ranks_and_energies(config, limit):
    model = Deep()
    x = torch.randn(5, 3, 8)
    expected = model(x)
    found = lfk.tune_sparsity(
        model,
        config,
        lambda m: float((m(x) - expected).norm() / expected.norm()),
        limit,
        mode="min",
        calibration=[x, x],
    )
    assert found.metric <= limit
    assert weights(found.model) < weights(model)
    assert max(t.metric for t in found.trials) > limit


def test_ranks_are_tried_once():
    """Eight between 16 and 8, of which those from 13 on are left as they are."""
    model, limit = Deep(), 64 * 16 - 10 * (64 + 16)
    measured = []

    def evaluate(copied):
        measured.append(weights(copied))
        return float(measured[-1])

    config = lfk.LowRankConfig(rank={"weight_hh*": 8})
    found = lfk.tune_sparsity(model, config, evaluate, limit)
    assert found.config == lfk.LowRankConfig(rank={"weight_hh*": 10})
    assert weights(found.model) == weights(model) - limit == found.metric
    ranks = [trial.config.amounts["weight_hh*"] for trial in found.trials]
    assert ranks[0] == 8
    assert len(set(ranks)) == len(ranks) == len(measured) - 1


def test_trials_are_trained():
    model = Model()
    config = lfk.PruneConfig(0.8, importance="taylor", schedule=lfk.CubicSchedule(1, 4))
    modes = []

    def fit(copied, pruner):
        train(copied.train(), adam(copied), pruner, range(5))

    def evaluate(copied):
        modes.append(copied.training or torch.is_grad_enabled())
        return -sparsity(copied)

    found = lfk.tune_sparsity(model, config, evaluate, 0.5, train=fit, tolerance=0.1)
    assert 0.3 < sparsity(found.model) <= 0.5
    assert not any(modes)


def test_nothing_kept_gives_the_model_as_it_was():
    model = Deep()
    config = lfk.PruneConfig(0.9, block_size=None)
    found = lfk.tune_sparsity(model, config, lambda m: float(not sparsity(m)), 0.5, tolerance=0.3)
    assert found.config is None
    assert found.model is not model
    assert sparsity(found.model) == 0
    assert "as it was" in str(found)


@pytest.mark.parametrize(
    ("config", "options", "error", "match"),
    [
        (lfk.PruneConfig(n_m=(2, 4), block_size=None), {}, ValueError, "n_m has no amount"),
        (lfk.PruneConfig(0.5, importance="taylor"), {}, ValueError, "needs training"),
        (lfk.PruneConfig(0.5, schedule=lfk.CubicSchedule(0, 5)), {}, ValueError, "needs training"),
        (lfk.PruneConfig(0.5), {"calibration": []}, ValueError, "calibration goes"),
        (lfk.PruneConfig(0.5), {"mode": "up"}, ValueError, "mode must be"),
        (lfk.PruneConfig(0.5), {"max_drop": -1}, ValueError, "max_drop must be"),
        (lfk.PruneConfig(0.5), {"tolerance": 0}, ValueError, "tolerance must be"),
        (lfk.Int8Config(), {}, TypeError, "PruneConfig or a LowRankConfig"),
        (lfk.LowRankConfig(rank={"weight_xx": 3}), {}, ValueError, "matches none"),
        (lfk.PruneConfig(0.5), {"evaluate": lambda m: math.nan}, ValueError, "evaluate gave nan"),
        (lfk.PruneConfig(0.5), {"evaluate": lambda m: "good"}, TypeError, "must give a number"),
        (lfk.PruneConfig(0.5), {"filter_fn": lambda m, n: False}, ValueError, "found no nn.LSTM"),
    ],
)
def test_what_does_not_fit(config, options, error, match):
    options = {"evaluate": lambda m: 1.0, "max_drop": 0.1} | options
    with pytest.raises(error, match=match):
        lfk.tune_sparsity(Deep(), config, **options)
