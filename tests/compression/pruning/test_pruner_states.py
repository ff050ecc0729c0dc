"""States of a Pruner: what is loaded, and what is refused with nothing changed."""

import copy

import pytest
import torch

import lstm_fastkernels as lfk
from pruning_cases import Model, adam, train


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


def test_a_loaded_state_stays_its_owners():
    config = lfk.PruneConfig(0.5, block_size=(2, 2), importance="taylor")
    model, other = Model(), Model()
    pruner, loading = lfk.prune_(model, config), lfk.prune_(other, config)
    train(model, adam(model), pruner, range(1))
    state = pruner.state_dict()
    loading.load_state_dict(state)
    before = copy.deepcopy(loading.state_dict())
    for entry in state["matrices"].values():
        for tensor in entry.values():
            tensor.zero_()
    for name, entry in loading.state_dict()["matrices"].items():
        for key, tensor in entry.items():
            assert torch.equal(tensor, before["matrices"][name][key]), (name, key)
