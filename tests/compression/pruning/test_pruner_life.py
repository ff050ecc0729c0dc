"""A Pruner and its model apart: masks taken off, modules replaced, moved, copied, wrapped."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lstm_fastkernels as lfk
from altered_lstms import wrap_forward
from pruning_cases import HALF, Model, adam, batch, masked_weights, train

GRADUAL = lfk.PruneConfig(0.5, block_size=(2, 2), schedule=lfk.CubicSchedule(0, 9, frequency=3))

# ---- masks that are gone ----


def replace_child(model):
    model.cell = nn.LSTMCell(9, 7)


def prune_again(model):
    lfk.remove_pruning_(model)
    lfk.prune_(model, HALF)


ENDS = {
    "remove_pruning_": lfk.remove_pruning_,
    "of one LSTM": lambda model: lfk.remove_pruning_(model.cell),
    "remove_parametrizations": lambda model: parametrize.remove_parametrizations(
        model.cell, "weight_hh"
    ),
    "convert": lambda model: lfk.convert(model, inplace=True),
    "another module": replace_child,
    "pruned again": prune_again,
}


@pytest.mark.parametrize("config", [HALF, GRADUAL, lfk.PruneConfig(0.5, importance="movement")])
@pytest.mark.parametrize("end", ENDS)
def test_a_pruner_ends_with_its_masks(end, config):
    model = Model()
    pruner = lfk.prune_(model, config)
    train(model, adam(model), pruner, range(2))
    state = pruner.state_dict()
    ENDS[end](model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    message = r"(layers\.1|cell)\.weight_\w+ is no longer being pruned by this Pruner.* prune_"
    for call in (
        pruner.step,
        pruner.state_dict,
        lambda: pruner.load_state_dict(state),
        lambda: pruner.sparsity,
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
    assert repr(pruner) == "Pruner(6 matrices, step 2, ended)"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_new_pruner_after_the_first():
    model = Model()
    lfk.prune_(model, HALF)
    lfk.remove_pruning_(model)
    again = lfk.prune_(model, lfk.PruneConfig(0.75))
    again.step()
    assert again.sparsity == pytest.approx(0.75, abs=0.1)


def test_wrapping_ends_nothing():
    model = Model()
    pruner = lfk.prune_(model, GRADUAL)
    model.cell = torch.compile(model.cell, backend="eager")
    nn.Sequential(model)
    pruner.step()
    lfk.convert(nn.Sequential(Model()))
    assert "sparsity" in repr(pruner)


# ---- weights that cannot be ranked ----


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("importance", ["magnitude", "taylor", "movement"])
def test_weights_that_are_not_finite(importance, bad):
    schedule = lfk.CubicSchedule(0, 9)
    config = lfk.PruneConfig(0.5, block_size=(2, 2), importance=importance, schedule=schedule)
    model = Model()
    optimizer = adam(model)
    pruner = lfk.prune_(model, config)
    train(model, optimizer, pruner, range(2))
    before = copy.deepcopy(pruner.state_dict())
    model(batch(2)[0]).sum().backward()
    with torch.no_grad():
        model.cell.parametrizations.weight_hh.original[5, 3] = bad
    with pytest.raises(ValueError, match=r"cell\.weight_hh: values must be finite"):
        pruner.step()
    after = pruner.state_dict()
    assert after["step"] == before["step"]
    for name, entry in after["matrices"].items():
        assert torch.equal(entry["mask"], before["matrices"][name]["mask"])


def test_after_the_last_renewal_weights_are_not_ranked():
    model = Model()
    pruner = lfk.prune_(model, HALF)
    with torch.no_grad():
        model.cell.parametrizations.weight_hh.original[5, 3] = torch.nan
    pruner.step()


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_importance_neither_overflows_nor_vanishes(importance, scale):
    """In float32 the squares of such weights and gradients would be equal, all infinite or zero."""
    config = lfk.PruneConfig(0.5, block_size=None, importance=importance, scope="tensor")
    masks = []
    for factor in (1, scale):
        cell = nn.LSTMCell(9, 7)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.copy_(factor * torch.rand(parameter.shape, generator=generator).add(0.1))
        pruner = lfk.prune_(cell, config)
        if importance == "taylor":
            for pair in cell.parametrizations.values():
                pair.original.grad = torch.full_like(pair.original, factor)
            pruner.step()
        masks.append(pruner.state_dict()["matrices"]["weight_hh"]["mask"])
    assert torch.equal(*masks)


# ---- moves, copies, wrappers ----


def test_a_model_that_moves_between_steps():
    config = lfk.PruneConfig(
        0.5, block_size=None, importance="taylor", schedule=lfk.CubicSchedule(0, 9)
    )
    model = Model()
    pruner = lfk.prune_(model, config)
    train(model, adam(model), pruner, range(2))
    for dtype in (torch.float64, torch.float32):
        model.to(dtype)
        model(batch(0)[0].to(dtype)).sum().backward()
        pruner.step()
    train(model, adam(model), pruner, range(8))
    assert pruner.sparsity == pytest.approx(0.5, abs=0.01)
    for pair in model.cell.parametrizations.values():
        assert torch.equal(masked_weights(model.cell)["weight_hh"], model.cell.weight_hh)
        assert pair.original.dtype == torch.float32
    with pytest.raises(ValueError, match=r"layers\.1\.weight_ih_l0: on the meta device"):
        lfk.prune_(Model().to("meta"), config)


def test_a_model_that_moves_to_no_device():
    model = Model()
    pruner = lfk.prune_(model, GRADUAL)
    state = pruner.state_dict()
    for _ in range(2):
        pruner.step()
    model.to("meta")
    with pytest.raises(ValueError, match=r"layers\.1\.weight_ih_l0: on the meta device"):
        pruner.step()
    with pytest.raises(ValueError, match="the model's weight is on the meta device"):
        pruner.load_state_dict(state)


def test_a_model_and_its_pruner_are_copied_together():
    model = Model()
    pruner = lfk.prune_(model, GRADUAL)
    copied, its = copy.deepcopy((model, pruner))
    alone = copy.deepcopy(model)
    train(copied, adam(copied), its, range(9))
    assert its.sparsity == lfk.sparsity_report(copied).sparsity > 0.4
    assert pruner.sparsity == lfk.sparsity_report(model).sparsity == 0
    assert lfk.sparsity_report(alone).sparsity == 0
    lfk.remove_pruning_(copied)
    assert repr(its).endswith("ended)")
    pruner.step()


def test_pickling_says_what_to_do():
    model = Model()
    lfk.prune_(model, HALF)
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(model)


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_wrapped_forward(order):
    """A wrapper keeps a bound method, whichever it found."""
    model = Model()
    lstm, x = model.layers[1], batch(0)[0]
    if order == "before":
        wrap_forward(lstm)
    pruner = lfk.prune_(model, GRADUAL)
    if order == "after":
        wrap_forward(lstm)
    optimizer = adam(model)
    train(model, optimizer, pruner, range(9))
    assert pruner.sparsity > 0.4
    plain = Model()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(x), plain(x))
    copied = copy.deepcopy(model)
    assert torch.equal(copied(x), plain(x))

    lfk.remove_pruning_(model)
    assert torch.equal(model(x), plain(x))
    train(model, optimizer, None, range(1))
    assert not torch.equal(model(x), plain(x))
    assert torch.equal(copied(x), plain(x))
    del lstm.forward, lstm._old_forward
    assert type(lfk.convert(model).layers[1]) is lfk.FastQuantLSTM


def test_parametrize_may_take_the_masks_off():
    lstm = nn.LSTM(9, 7)
    lfk.prune_(lstm, HALF)
    x = torch.randn(3, 2, 9)
    expected = lstm(x)[0]
    for name in list(lstm.parametrizations):
        parametrize.remove_parametrizations(lstm, name)
    assert torch.equal(lstm(x)[0], expected)
    with torch.no_grad():
        lstm.weight_hh_l0.mul_(2)
    assert not torch.equal(lstm(x)[0], expected)


def test_compiled_models_follow_the_masks():
    model = Model()
    compiled = torch.compile(model, backend="eager")
    x = batch(0)[0]
    compiled(x)
    pruner = lfk.prune_(compiled, lfk.PruneConfig(0.5, schedule=lfk.CubicSchedule(1, 2)))
    for _ in range(3):
        assert torch.equal(compiled(x), copy.deepcopy(model)(x))
        pruner.step()
    assert pruner.sparsity > 0.4
    assert torch.equal(compiled(x), copy.deepcopy(model)(x))
