"""Canonical tensors by format and structure: a format of one's own takes one class."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lstm_fastkernels.weights.canonical import WeightSpec
from lstm_fastkernels.weights.checkpoint import Checkpoint
from lstm_fastkernels.weights.checks import Kind
from lstm_fastkernels.weights.formats import PRECISIONS
from lstm_fastkernels.weights.shape import LstmShape
from lstm_fastkernels.weights.structures import LayoutConfig

SHAPE = LstmShape(9, 31, proj_size=13, num_layers=2, num_directions=2)
LAYOUTS = [LayoutConfig(), LayoutConfig("dense"), LayoutConfig("block_sparse", (16, 8))]
# Of the largest weight: half a step, with room for scales that clip it.
TOLERANCES = {"int4": 0.15}


@dataclass(frozen=True)
class Normalized:
    """A format that the library does not have: bfloat16 weights, divided by each row's largest."""

    max_block_density: float = 0.5

    def kinds(self, rows, columns):
        return {
            "": Kind(torch.bfloat16, (rows, columns)),
            "_peak": Kind(torch.float32, (rows,), lambda t: "negative" if (t < 0).any() else None),
        }

    def compress(self, weight):
        peak = weight.detach().float().abs().amax(1).clamp_min(1e-30)
        return {"": (weight.detach() / peak[:, None]).bfloat16(), "_peak": peak}

    def expand(self, tensors, columns):
        return tensors[""] * tensors["_peak"][:, None]


@pytest.fixture(params=["int8", "int16", "int4", "float32", "normalized", "mixed"])
def spec(request, monkeypatch):
    """Of all formats, and of several in one LSTM."""
    monkeypatch.setitem(PRECISIONS, "normalized", lambda pair_safe: Normalized())
    if request.param == "mixed":
        names = {"weight_ih": "int8", "weight_hh": "normalized", "weight_hr": "float32"}
        precision = {name: names[name[:9]] for name in SHAPE.matrices}
    else:
        precision = dict.fromkeys(SHAPE.matrices, request.param)
    return WeightSpec(SHAPE, True, precision)


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request, spec):
    if request.param.layout == "block_sparse" and "int4" in spec.precision.values():
        pytest.skip("4-bit weights have no blocks")
    return request.param


def floats():
    """Parameters of an nn.LSTM, most blocks of one matrix zero."""
    torch.manual_seed(0)
    lstm = nn.LSTM(9, 31, 2, bidirectional=True, proj_size=13)
    lstm.weight_hh_l1.data[:, 3:] = 0
    return lstm.state_dict()


def same(a, b):
    assert list(a) == list(b)
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert torch.equal(tensor, b[name]), name


def test_floats_come_back(spec, layout):
    given, canonical = floats(), spec.compress(floats(), layout)
    found = canonical.to_float()
    assert found.keys() == given.keys()
    for name, tensor in found.items():
        if name in SHAPE.matrices:
            atol = TOLERANCES.get(spec.precision[name], 0.01) * float(given[name].abs().max())
            torch.testing.assert_close(tensor, given[name], rtol=0, atol=atol)
        elif "bias_ih" in name:
            expected = given[name] + given[name.replace("ih", "hh")]
            torch.testing.assert_close(tensor, expected)
    assert canonical.layouts().keys() == SHAPE.matrices.keys()


def test_layouts_change_no_value(spec, layout):
    dense = spec.compress(floats(), LayoutConfig("dense"))
    laid_out = spec.compress(floats(), layout)
    same(dense.laid_out(layout).tensors, laid_out.tensors)
    same(laid_out.laid_out(LayoutConfig("dense")).tensors, dense.tensors)


def test_own_tensors_pass_the_checks(spec, layout):
    tensors = dict(spec.compress(floats(), layout).tensors)
    same(spec.check(dict(reversed(tensors.items()))).tensors, tensors)
    for name, tensor in tensors.items():
        rest = {other: t for other, t in tensors.items() if other != name}
        with pytest.raises(ValueError, match=r"lacks|no place"):
            spec.check(rest)
        for wrong in (tensor.double(), tensor[None], 3):
            with pytest.raises(ValueError, match=f"{name}: "):
                spec.check({**tensors, name: wrong})
    with pytest.raises(ValueError, match="no place for other"):
        spec.check({**tensors, "other": torch.zeros(1)})


def test_a_format_checks_its_values(spec):
    tensors = dict(spec.compress(floats(), LayoutConfig()).tensors)
    for name in tensors:
        if name.endswith("_peak"):
            with pytest.raises(ValueError, match=f"{name}: negative"):
                spec.check({**tensors, name: -tensors[name]})


@pytest.mark.parametrize("of", ["float", "compressed"])
def test_checkpoints_are_told_apart(spec, of):
    canonical = spec.compress(floats(), LayoutConfig())
    given = floats() if of == "float" else canonical.tensors
    names = {name: name for name in floats()}
    checkpoint = Checkpoint(given, spec, names)
    assert checkpoint.missing == checkpoint.unexpected == checkpoint.errors("") == []
    same(checkpoint.read(torch.device("cpu"), LayoutConfig()).tensors, canonical.tensors)


def test_shapes():
    """Names and sizes are nn.LSTM's."""
    sizes = {name: tuple(t.shape) for name, t in floats().items() if name.startswith("weight")}
    assert SHAPE.matrices == sizes
    assert list(SHAPE.matrices) == list(sizes)
    assert (SHAPE.output_size, SHAPE.layer_input_size(0), SHAPE.layer_input_size(1)) == (13, 9, 26)
    assert SHAPE.sizes == [9, 31, 13, 2, 2]
    assert LstmShape(9, 31).output_size == 31
