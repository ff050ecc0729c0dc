"""convert() of pruned models: the zeros are found, matrix by matrix."""

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case
from isas import everywhere

CASE = Case(32, 32, 2, T=7)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = CASE.lstm()
        self.cell = CASE.cell()

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.cell(y[-1])[0]


@pytest.fixture(params=[False, True], ids=["masks on", "masks removed"])
def pruned(request):
    """The recurrent weights in 8x4 blocks, the others not at all."""
    model = Model()
    lfk.prune_(model, lfk.PruneConfig({"weight_hh": 0.75}, block_size=(8, 4)))
    if request.param:
        lfk.remove_pruning_(model)
    return model


@pytest.mark.parametrize(
    ("weights", "lstm", "cell", "atol"),
    [
        ("int8", lfk.FastQuantLSTM, lfk.FastQuantLSTMCell, 0.03),
        ("float32", lfk.FastSparseLSTM, lfk.FastSparseLSTMCell, 1e-5),
    ],
)
def test_zeros_are_skipped_matrix_by_matrix(pruned, weights, lstm, cell, atol):
    fast = lfk.convert(pruned, weights=weights)
    assert type(fast.lstm) is lstm
    assert type(fast.cell) is cell
    layouts = {"weight_ih_l0": "dense", "weight_hh_l0": "8x4 blocks, 25.0%"}
    assert fast.cell.layouts() == layouts
    above = {name.replace("l0", "l1"): how for name, how in layouts.items()}
    assert fast.lstm.layouts() == layouts | above
    assert "layout=auto (weight_ih_l0: dense, weight_hh_l0: 8x4 blocks, 25.0%" in repr(fast)
    with torch.no_grad():
        torch.testing.assert_close(everywhere(fast)(CASE.x()), pruned(CASE.x()), rtol=0, atol=atol)


def test_options_reach_every_module(pruned):
    fast = lfk.convert(
        pruned, activations="int16", layout="block_sparse", block_size=(16, 4), inplace=True
    )
    assert fast is pruned
    for module in (fast.lstm, fast.cell):
        assert module.activations == "int16"
        assert all(how.startswith("16x4 blocks") for how in module.layouts().values())


def test_masks_on_and_removed_give_the_same():
    model = Model()
    lfk.prune_(model, lfk.PruneConfig(0.75, block_size=(8, 4)))
    masked = lfk.convert(model, weights="float32").state_dict()
    lfk.remove_pruning_(model)
    removed = lfk.convert(model, weights="float32").state_dict()
    assert list(masked) == list(removed)
    assert all(torch.equal(masked[name], removed[name]) for name in masked)


@pytest.mark.parametrize("weights", ["int16", "float16", torch.int8, None], ids=str)
def test_unknown_weights(weights):
    with pytest.raises(ValueError, match=r"weights must be one of \['int8', 'float32'\]") as error:
        lfk.convert(Model(), weights=weights)
    assert repr(weights) in str(error.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"layout": "sparse"}, ValueError),
        ({"block_size": (3, 4)}, ValueError),
        ({"weights": "float32", "activations": "int8"}, ValueError),
        ({"activations": "float32"}, ValueError),
        ({"blocks": (8, 4)}, TypeError),
    ],
    ids=str,
)
def test_bad_options_leave_the_model_as_it_was(options, error):
    model = Model()
    with pytest.raises(error):
        lfk.convert(model, inplace=True, **options)
    assert type(model.lstm) is nn.LSTM
    assert type(model.cell) is nn.LSTMCell
