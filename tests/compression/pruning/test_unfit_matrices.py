"""Matrices that cannot be masked, or unmasked: nothing changes anywhere in the model."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lstm_fastkernels as lfk
from altered_lstms import DEPRECATED
from pruning_cases import HALF, Model


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


@pytest.mark.filterwarnings(DEPRECATED)
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


class FSDPModule:
    """What fully_shard makes of a module's class, by its name."""


class Sharded(FSDPModule, Model):
    pass


def test_sharded_models():
    model = Sharded()
    with pytest.raises(ValueError, match=r"layers\.1 is wrapped by FSDP: gather the weights"):
        lfk.prune_(model, HALF)
    assert type(model.cell) is nn.LSTMCell
