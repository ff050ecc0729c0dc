"""Which weights are pruned: schedules, patterns, importances and scopes, each against a reference
of plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lstm_fastkernels as lfk

GATES = "ifgo"


def masks(pruner):
    return {k: m["mask"].numpy() for k, m in pruner.state_dict()["matrices"].items()}


def groups(gate, rows, columns, block):
    """Where each block of one gate's [rows, columns] is in the matrix, row by row."""
    return [
        np.s_[gate * rows + r : gate * rows + min(r + block[0], rows), c : c + block[1]]
        for r in range(0, rows, block[0])
        for c in range(0, columns, block[1])
    ]


def nearest_prefix(sizes, target):
    """How many of the groups in this order come nearest to the target, the most of equally near."""
    sums = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    return max(range(len(sums)), key=lambda k: (-abs(sums[k] - target), k))


def expected_masks(scores, block, sparsity, scope, mean_root):
    """scores: name -> [4H, K] of each element; the masks that the definition gives."""
    pools = {}
    for name, score in scores.items():
        rows = len(score) // 4
        for gate in range(4):
            key = {"gate": (name, gate), "tensor": name, "global": None}[scope]
            for at in groups(gate, rows, score.shape[1], block):
                part = score[at]
                value = math.sqrt(part.mean()) if mean_root else part.sum()
                pools.setdefault(key, []).append((value, part.size, name, at))
    kept = {name: np.ones(score.shape, dtype=bool) for name, score in scores.items()}
    for pool in pools.values():
        pool.sort(key=lambda group: group[0])  # stable: of equals the first goes first
        sizes = [size for _, size, _, _ in pool]
        for _, _, name, at in pool[: nearest_prefix(sizes, sparsity * sum(sizes))]:
            kept[name][at] = False
    return kept


def with_levels(module, seed):
    """Few distinct magnitudes, exact in floating point: ties abound and sums have no rounding."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            level = torch.randint(-4, 5, parameter.shape, generator=generator)
            parameter.copy_(level / 8)
    return module


def assert_masks(pruner, expected):
    actual = masks(pruner)
    assert actual.keys() == expected.keys()
    for name, mask in expected.items():
        np.testing.assert_array_equal(actual[name], mask, err_msg=name)


# ---- schedule ----


def test_cubic_schedule_values():
    schedule = lfk.CubicSchedule(begin=10, end=20, initial=0.2)
    assert [schedule(step) for step in (0, 9)] == [0, 0]
    assert schedule(10) == pytest.approx(0.2)
    assert schedule(15) == pytest.approx(1 - 0.8 * 0.5**3)
    assert schedule(19) == pytest.approx(1 - 0.8 * 0.1**3)
    assert [schedule(step) for step in (20, 21, 10**9)] == [1, 1, 1]


def test_cubic_schedule_moves_in_stairs():
    schedule = lfk.CubicSchedule(begin=2, end=12, frequency=4)
    assert [step for step in range(15) if schedule.updates_at(step)] == [2, 6, 10, 12]
    for step in range(1, 15):
        assert schedule.updates_at(step) or schedule(step) == schedule(step - 1)
    assert schedule(9) == pytest.approx(1 - 0.6**3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 5), "expected 0 <= begin < end, got begin 5 and end 5"),
        ((-1, 5), "got begin -1"),
        ((0, 5, 0), "frequency must be at least 1, got 0"),
        ((0, 5, 1, 1.5), r"initial must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_schedules(arguments, message):
    with pytest.raises(ValueError, match=message):
        lfk.CubicSchedule(*arguments)


# ---- config ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of sparsity, threshold and n_m"),
        ({"sparsity": 0.5, "threshold": 0.1}, "exactly one of sparsity, threshold and n_m"),
        ({"sparsity": 0.5, "n_m": (2, 4), "block_size": None}, "exactly one of"),
        ({"sparsity": 1.1}, r"sparsity must be in \[0, 1\], got 1.1"),
        ({"sparsity": -0.1}, r"sparsity must be in \[0, 1\]"),
        ({"sparsity": math.nan}, r"sparsity must be in \[0, 1\], got nan"),
        ({"sparsity": {}}, "sparsity is an empty mapping"),
        ({"sparsity": {"weight_hh": 2}}, r"sparsity of 'weight_hh' must be in \[0, 1\], got 2"),
        ({"sparsity": {"bias_hh": 0.5}}, "unknown sparsity key 'bias_hh'"),
        ({"sparsity": {"weight_hh.x": 0.5}}, "unknown sparsity key 'weight_hh.x'"),
        ({"sparsity": {"weight_hr.i": 0.5}}, "unknown sparsity key 'weight_hr.i'"),
        ({"sparsity": {"weight_hh_reverse": 0.5}}, "unknown sparsity key 'weight_hh_reverse'"),
        ({"sparsity": {"weight_hh": 0.5}, "scope": "global"}, "'global' needs a number"),
        ({"sparsity": {"weight_hh.i": 0.5}, "scope": "tensor"}, "names a gate, which needs scope"),
        ({"threshold": math.inf}, "threshold must be finite, got inf"),
        ({"sparsity": 0.5, "block_size": (0, 4)}, r"block_size must be .* got \(0, 4\)"),
        ({"sparsity": 0.5, "block_size": (8,)}, "block_size must be"),
        ({"n_m": (4, 4), "block_size": None}, "n_m must be"),
        ({"n_m": (0, 4), "block_size": None}, "n_m must be"),
        ({"n_m": (2, 4)}, "n_m needs block_size None"),
        (
            {"n_m": (2, 4), "block_size": None, "schedule": lfk.CubicSchedule(0, 9)},
            "n_m goes without a schedule",
        ),
        ({"sparsity": 0.5, "importance": "random"}, "importance must be one of .* got 'random'"),
        ({"sparsity": 0.5, "scope": "layer"}, "scope must be one of .* got 'layer'"),
    ],
)
def test_wrong_configs(options, message):
    with pytest.raises(ValueError, match=message):
        lfk.PruneConfig(**options)


def test_the_most_specific_key_wins():
    lstm = nn.LSTM(16, 32, 2, bidirectional=True, proj_size=8)
    sparsity = {
        "weight_hh": 0.25,
        "weight_hh.g": 0.5,
        "weight_hh_l1": 0.75,
        "weight_hh_l0_reverse.o": 1.0,
        "weight_ih_l1.f": 0.5,
        "weight_hr": 0.5,
    }
    lfk.prune_(lstm, lfk.PruneConfig(sparsity))
    actual = {(r.matrix, r.gate): r.sparsity for r in lfk.sparsity_report(lstm).rows}
    plain = {"i": 0.25, "f": 0.25, "g": 0.5, "o": 0.25}
    expected = {
        "weight_hh_l0": plain,
        "weight_hh_l0_reverse": plain | {"o": 1.0},
        "weight_hh_l1": dict.fromkeys(GATES, 0.75),
        "weight_hh_l1_reverse": plain,
        "weight_ih_l1": {"i": 0, "f": 0.5, "g": 0, "o": 0},
    }
    for matrix in ("weight_ih_l0", "weight_ih_l0_reverse", "weight_ih_l1_reverse"):
        expected[matrix] = dict.fromkeys(GATES, 0)
    expected = {(m, g): share for m, gates in expected.items() for g, share in gates.items()}
    expected |= {(f"weight_hr_l{k}{d}", ""): 0.5 for k in (0, 1) for d in ("", "_reverse")}
    assert actual == expected


# ---- which groups ----


@settings(max_examples=60)
@given(
    hidden=st.sampled_from([1, 2, 7, 8, 9, 31]),
    inputs=st.integers(1, 13),
    block=st.sampled_from([None, (8, 4), (1, 4), (3, 2), (16, 32), (2, 1)]),
    sparsity=st.floats(0, 1),
    scope=st.sampled_from(["gate", "tensor", "global"]),
    seed=st.integers(0, 99),
)
def test_magnitude_masks_are_those_of_the_definition(hidden, inputs, block, sparsity, scope, seed):
    cell = with_levels(nn.LSTMCell(inputs, hidden), seed)
    squares = {
        name: getattr(cell, name).detach().double().numpy() ** 2
        for name in ("weight_ih", "weight_hh")
    }
    pruner = lfk.prune_(cell, lfk.PruneConfig(sparsity, block_size=block, scope=scope))
    assert_masks(pruner, expected_masks(squares, block or (1, 1), sparsity, scope, True))


@pytest.mark.parametrize("hidden", [1, 7, 9, 31])
def test_no_block_straddles_two_gates(hidden):
    lstm = nn.LSTM(9, hidden)
    (mask, _) = masks(lfk.prune_(lstm, lfk.PruneConfig(0.5, scope="tensor"))).values()
    for gate in range(4):
        for at in groups(gate, hidden, 9, (8, 4)):
            assert mask[at].all() or not mask[at].any()
    assert 0 < mask.mean() < 1


@settings(max_examples=30)
@given(
    hidden=st.sampled_from([1, 7, 9]),
    inputs=st.integers(1, 11),
    n_m=st.sampled_from([(1, 2), (2, 4), (3, 5), (4, 16)]),
    seed=st.integers(0, 99),
)
def test_n_of_m_keeps_the_largest(hidden, inputs, n_m, seed):
    cell = with_levels(nn.LSTMCell(inputs, hidden), seed)
    pruner = lfk.prune_(cell, lfk.PruneConfig(n_m=n_m, block_size=None))
    n, m = n_m
    for name, mask in masks(pruner).items():
        size = cell.parametrizations[name].original.detach().abs().numpy()
        for row, kept in zip(size, mask, strict=True):
            for start in range(0, len(row), m):
                group = row[start : start + m]
                order = sorted(range(len(group)), key=lambda i: -group[i])  # stable
                expected = [i in order[:n] for i in range(len(group))]
                assert kept[start : start + m].tolist() == expected


@pytest.mark.parametrize("block", [None, (8, 4), (3, 3)])
def test_threshold_is_on_the_root_mean_square(block):
    cell = nn.LSTMCell(4, 8)
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4]).repeat_interleave(8)[:, None]
    with torch.no_grad():
        cell.weight_ih.copy_(sizes.expand(-1, 4))
        cell.weight_hh.copy_(-sizes.expand(-1, 8))
    pruner = lfk.prune_(cell, lfk.PruneConfig(threshold=0.25, block_size=block))
    for mask in masks(pruner).values():
        np.testing.assert_array_equal(mask, (sizes > 0.25).expand(mask.shape))


def test_threshold_grows_with_the_schedule():
    cell = nn.LSTMCell(4, 8)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.linspace(0, 0.992, 128).view(32, 4))
        cell.weight_hh.fill_(1)
    config = lfk.PruneConfig(
        threshold=0.8, block_size=None, schedule=lfk.CubicSchedule(0, 2, initial=0.2)
    )
    pruner = lfk.prune_(cell, config)
    size = cell.parametrizations.weight_ih.original.detach().numpy()
    for factor in (0.2, 1 - 0.8 / 8, 1.0):
        np.testing.assert_array_equal(masks(pruner)["weight_ih"], size >= np.float32(0.8 * factor))
        pruner.step()


def test_blocks_larger_than_the_matrix():
    cell = nn.LSTMCell(3, 2)
    pruner = lfk.prune_(cell, lfk.PruneConfig({"weight_ih": 0.6}, block_size=(10**9, 10**9)))
    assert not masks(pruner)["weight_ih"].any()


# ---- importances that need gradients ----


def step_with(pruner, cell, gradients):
    for name, gradient in gradients.items():
        cell.parametrizations[name].original.grad = gradient
    pruner.step()


@pytest.mark.parametrize("importance", ["taylor", "movement"])
@pytest.mark.parametrize("block", [None, (3, 2)])
@pytest.mark.parametrize("scope", ["gate", "tensor", "global"])
def test_scores_are_summed_over_steps(importance, block, scope):
    cell = with_levels(nn.LSTMCell(5, 7), 1)
    config = lfk.PruneConfig(
        0.6,
        block_size=block,
        importance=importance,
        scope=scope,
        schedule=lfk.CubicSchedule(2, 3),
    )
    pruner = lfk.prune_(cell, config)
    generator = torch.Generator().manual_seed(2)
    totals = {"weight_ih": 0, "weight_hh": 0}
    for _ in range(3):
        assert pruner.sparsity == 0
        gradients = {
            name: torch.randint(-4, 5, pair.original.shape, generator=generator) / 8
            for name, pair in cell.parametrizations.items()
        }
        step_with(pruner, cell, gradients)
        for name, pair in cell.parametrizations.items():
            product = pair.original.detach().double().numpy() * gradients[name].double().numpy()
            totals[name] += product**2 if importance == "taylor" else -product
        with torch.no_grad():  # the weights that later steps multiply with
            for pair in cell.parametrizations.values():
                pair.original.neg_().add_(0.125)
    assert_masks(pruner, expected_masks(totals, block or (1, 1), 0.6, scope, False))


@pytest.mark.parametrize("importance", ["taylor", "movement"])
def test_one_shot_by_gradients_waits_for_the_first_step(importance):
    cell = nn.LSTMCell(5, 7)
    config = lfk.PruneConfig(0.5, block_size=None, importance=importance, scope="tensor")
    pruner = lfk.prune_(cell, config)
    assert pruner.sparsity == 0
    with pytest.raises(RuntimeError, match=r"weight_ih has no gradient.*before zero_grad"):
        pruner.step()
    cell(torch.ones(2, 5))[0].sum().backward()
    pruner.step()
    assert pruner.sparsity == 0.5
    before = masks(pruner)
    cell.zero_grad()
    pruner.step()  # done: needs no gradient, changes nothing
    assert_masks(pruner, before)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_step_with_gradients_that_are_not_finite_does_not_count(bad):
    cells = with_levels(nn.LSTMCell(5, 7), 3), with_levels(nn.LSTMCell(5, 7), 3)
    config = lfk.PruneConfig(0.5, block_size=(2, 2), importance="taylor")
    pruners = [lfk.prune_(cell, config) for cell in cells]
    ones = {name: torch.ones_like(p.original) for name, p in cells[0].parametrizations.items()}
    step_with(pruners[0], cells[0], ones | {"weight_hh": torch.full((28, 7), bad)})
    assert pruners[0].sparsity == 0
    for pruner, cell in zip(pruners, cells, strict=True):
        step_with(pruner, cell, ones)
    assert_masks(pruners[0], masks(pruners[1]))
    assert pruners[0].sparsity > 0.4


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "movement"])
def test_only_movement_has_gradients_behind_the_mask(importance):
    cell = nn.LSTMCell(5, 7)
    pruner = lfk.prune_(cell, lfk.PruneConfig(0.5, block_size=None, importance=importance))
    for _ in range(2):
        cell.zero_grad()
        ones = torch.ones(2, 7)
        cell(torch.ones(2, 5), (ones, ones))[0].sum().backward()
        pruner.step()
    pair = cell.parametrizations.weight_hh
    behind = pair.original.grad[~pair[0].mask]
    assert len(behind) == 4 * 25
    assert behind.all() if importance == "movement" else not behind.any()


def test_a_pruned_group_comes_back_when_it_matters_more():
    cell = with_levels(nn.LSTMCell(4, 1), 0)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([1.0, 2, 3, 4]).expand(4, 4))
    config = lfk.PruneConfig(
        {"weight_ih": 0.5}, block_size=None, schedule=lfk.CubicSchedule(0, 3, initial=1)
    )
    pruner = lfk.prune_(cell, config)
    assert masks(pruner)["weight_ih"][0].tolist() == [False, False, True, True]
    with torch.no_grad():
        cell.parametrizations.weight_ih.original[:, 3] = 0.5
    pruner.step()
    assert masks(pruner)["weight_ih"][0].tolist() == [False, True, True, False]
    assert cell.weight_ih[0].tolist() == [0, 2, 3, 0]
