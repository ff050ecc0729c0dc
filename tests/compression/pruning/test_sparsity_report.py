"""Counts of zeros and blocks."""

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from altered_lstms import ALTERATIONS, DEPRECATED, altered
from pruning_cases import HALF, Model


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


@pytest.mark.filterwarnings(DEPRECATED)
@pytest.mark.parametrize("name", ["weight_norm", "torch's prune", "weight missing"])
def test_weights_that_are_not_the_parameters(name):
    with pytest.raises(ValueError, match=f"0: {ALTERATIONS[name][1]}"):
        lfk.sparsity_report(nn.Sequential(altered(name)))
