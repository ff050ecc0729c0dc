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


# ---- states ----


def test_a_state_of_another_config():
    model = Model()
    config = {"sparsity": 0.5, "block_size": (2, 2)}
    pruner = lfk.prune_(model, lfk.PruneConfig(**config))
    before = copy.deepcopy(pruner.state_dict())
    others = {
        "sparsity": ({"sparsity": 0.75}, "sparsity=0.75, this one has 0.5"),
        "mapping": (
            {"sparsity": {"weight_ih": 0.5, "weight_hh": 0.5}},
            "sparsity={'weight_ih': 0.5, 'weight_hh': 0.5}, this one has 0.5",
        ),
        "block": ({"block_size": (4, 2)}, r"block_size=\[4, 2\], this one has \[2, 2\]"),
        "no blocks": ({"block_size": None}, r"block_size=None, this one has \[2, 2\]"),
        "importance": ({"importance": "taylor"}, "importance='taylor', this one has 'magnitude'"),
        "scope": ({"scope": "tensor"}, "scope='tensor', this one has 'gate'"),
        "threshold": ({"sparsity": None, "threshold": 0.1}, "sparsity=None, this one has 0.5"),
        "n_m": ({"sparsity": None, "n_m": (2, 4), "block_size": None}, "sparsity=None"),
        "schedule": (
            {"schedule": lfk.CubicSchedule(0, 9)},
            r"schedule={'begin': 0, 'end': 9, .*}, this one has None",
        ),
    }
    for changes, message in others.values():
        state = lfk.prune_(Model(), lfk.PruneConfig(**config | changes)).state_dict()
        with pytest.raises(ValueError, match=message):
            pruner.load_state_dict(state)
    after = pruner.state_dict()
    assert after["step"] == before["step"]
    for name, entry in after["matrices"].items():
        assert torch.equal(entry["mask"], before["matrices"][name]["mask"])
    with pytest.raises(ValueError, match="end': 8"):
        lfk.prune_(Model(), lfk.PruneConfig(0.5, schedule=lfk.CubicSchedule(0, 9))).load_state_dict(
            lfk.prune_(Model(), lfk.PruneConfig(0.5, schedule=lfk.CubicSchedule(0, 8))).state_dict()
        )


def test_equal_configs_in_other_types():
    state = lfk.prune_(Model(), lfk.PruneConfig(1, block_size=[2, 2])).state_dict()
    lfk.prune_(Model(), lfk.PruneConfig(1.0, block_size=(2, 2))).load_state_dict(state)


NAME = "cell.weight_hh"


def entry_without(key):
    return lambda state: state["matrices"][NAME].pop(key)


def entry_with(key, value):
    return lambda state: state["matrices"][NAME].__setitem__(key, value)


BROKEN = {
    "no config": (lambda state: state.pop("config"), "state has config, this has not"),
    "no step": (lambda state: state.pop("step"), "state has step, this has not"),
    "empty": (dict.clear, "state has config, matrices, step, this has not"),
    "step": (lambda state: state.update(step=-1), "step must be an int of at least 0"),
    "step float": (lambda state: state.update(step=1.0), "step must be an int of at least 0"),
    "no matrix": (lambda state: state["matrices"].pop(NAME), "state is of "),
    "no mask": (entry_without("mask"), f"{NAME} in the state: expected mask, score, weight"),
    "mask of floats": (entry_with("mask", torch.ones(28, 7)), "mask: expected dtype torch.bool"),
    "mask shape": (entry_with("mask", torch.ones(7, 28).bool()), "mask: size mismatch"),
    "weight shape": (entry_with("weight", torch.ones(1, 7)), "weight: size mismatch"),
    "weight nan": (entry_with("weight", torch.full((28, 7), torch.nan)), "weight: values must"),
    "weight meta": (entry_with("weight", torch.ones(28, 7, device="meta")), "weight: on the meta"),
    "no score": (entry_with("score", None), "score: a NoneType, no plain tensor"),
    "score shape": (entry_with("score", torch.ones(28)), "score: size mismatch"),
    "score inf": (entry_with("score", torch.full((28, 7), torch.inf)), "score: values must"),
    "score early": (lambda state: state.update(step=0), "a score where none is expected"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_states_change_nothing(name):
    config = lfk.PruneConfig(0.5, block_size=(2, 2), importance="taylor")
    model = Model()
    pruner = lfk.prune_(model, config)
    train(model, adam(model), pruner, range(1))
    whole = copy.deepcopy(pruner.state_dict())
    state = copy.deepcopy(whole)
    break_it, message = BROKEN[name]
    break_it(state)
    other = Model()
    loading = lfk.prune_(other, config)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        loading.load_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert repr(loading) == "Pruner(6 matrices, step 0, sparsity 0.0000)"
    loading.load_state_dict(whole)
    assert repr(loading) == repr(pruner)


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


# ---- what cannot be masked, or unmasked ----


def tie(model):
    model.other = nn.LSTM(9, 9)
    model.other.weight_hh_l0 = model.layers[1].weight_hh_l1


def tie_inside(model):
    model.layers[1].weight_hh_l1 = model.layers[1].weight_hh_l0


def tie_with_a_linear(model):
    model.other = nn.Linear(7, 28)
    model.other.weight = model.cell.weight_hh


def drop_weight(model):
    del model.cell.weight_hh


def narrow(model):
    model.cell.weight_hh = nn.Parameter(torch.zeros(28, 5))


def old_weight_norm(model):
    nn.utils.weight_norm(model.cell, "weight_hh")


def old_pruning(model):
    nn.utils.prune.l1_unstructured(model.cell, "bias_hh", 0.5)


def not_finite(model):
    model.cell.weight_hh.data[0, 0] = torch.nan


UNFIT = {
    "tied LSTMs": (tie, r"layers\.1\.weight_hh_l1 is shared with other\.weight_hh_l0: untie"),
    "tied in one LSTM": (tie_inside, "weight_hh_l0 is shared with layers.1.weight_hh_l1"),
    "tied with a Linear": (tie_with_a_linear, r"cell\.weight_hh is shared with other\.weight"),
    "missing": (drop_weight, "cell: weight_hh is no parameter of it"),
    "narrow": (narrow, r"cell\.weight_hh: size mismatch: expected \(28, 7\), got \(28, 5\)"),
    "weight_norm": (old_weight_norm, "cell: WeightNorm computes its weights anew"),
    "torch's prune": (old_pruning, "cell: L1Unstructured computes its weights anew"),
    "nan": (not_finite, r"cell\.weight_hh: values must be finite"),
    "meta": (lambda model: model.cell.to("meta"), r"cell\.weight_ih: on the meta device"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", UNFIT)
def test_unfit_matrices_leave_no_mask_anywhere(name):
    change, message = UNFIT[name]
    model = Model()
    change(model)
    keys = [key for key, _ in model.named_parameters()]
    for importance in ("magnitude", "taylor"):
        with pytest.raises(ValueError, match=message):
            lfk.prune_(model, lfk.PruneConfig(0.5, importance=importance))
    assert type(model.layers[1]) is nn.LSTM
    assert type(model.cell) is nn.LSTMCell
    assert [key for key, _ in model.named_parameters()] == keys


def test_what_a_module_has_besides_does_not_matter():
    model = Model()
    model.cell.register_parameter("h0", nn.Parameter(torch.zeros(7)))
    model.cell.register_buffer("count", torch.zeros(1))
    assert lfk.prune_(model, HALF).sparsity == pytest.approx(0.5, abs=0.1)


def test_a_module_in_two_places_is_masked_once():
    model = Model()
    model.again = model.cell
    pruner = lfk.prune_(model, HALF)
    assert len(pruner.state_dict()["matrices"]) == 6


def test_a_parametrization_on_top_of_a_mask_stays():
    model = Model()
    pruner = lfk.prune_(model, HALF)
    parametrize.register_parametrization(model.cell, "weight_hh", nn.Identity())
    with pytest.raises(ValueError, match=r"cell\.weight_hh has another parametrization on top"):
        lfk.remove_pruning_(model)
    pruner.step()
    lfk.remove_pruning_(model.layers)
