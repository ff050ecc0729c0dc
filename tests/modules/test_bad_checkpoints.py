"""Checkpoints that do not fit are refused, by name; a failed load changes nothing."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bad_calls import CASE, X, check, error_of
from cases import Case, assert_same

zeros = torch.zeros


def float_state():
    return CASE.lstm().state_dict()


def quantized_state():
    return copy.deepcopy(CASE.fast().state_dict())


def changed(state, key, value):
    """The state with one tensor replaced, or without it."""
    state = dict(state)
    del state[key]
    return state if value is None else {**state, key: value}


def with_element(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[1] = value
    return tensor


NAN, INF = float("nan"), float("inf")
BAD_CHECKPOINTS = {
    "float missing": (
        changed(float_state(), "weight_hh_l1", None),
        ["missing", "weight_hh_l1"],
    ),
    "float missing bias": (
        changed(float_state(), "bias_ih_l0", None),
        ["missing", "bias_ih_l0"],
    ),
    "float extra": (
        {**float_state(), "weight_hh_l2": zeros(16, 4)},
        ["unexpected", "weight_hh_l2"],
    ),
    "float misshapen": (
        changed(float_state(), "weight_ih_l0", zeros(16, 6)),
        ["weight_ih_l0", "16, 5", "16, 6"],
    ),
    "float transposed": (
        changed(float_state(), "weight_ih_l0", zeros(5, 16)),
        ["weight_ih_l0", "16, 5", "5, 16"],
    ),
    "float nan": (
        changed(float_state(), "weight_ih_l0", with_element(zeros(16, 5), NAN)),
        ["weight_ih_l0", "finite"],
    ),
    "float inf bias": (
        changed(float_state(), "bias_hh_l1", with_element(zeros(16), INF)),
        ["bias", "finite"],
    ),
    "quantized missing": (
        changed(quantized_state(), "weight_hh_l1", None),
        ["missing", "weight_hh_l1"],
    ),
    "quantized missing scale": (
        changed(quantized_state(), "weight_hh_l1_scale", None),
        ["missing", "weight_hh_l1_scale"],
    ),
    "quantized extra": (
        {**quantized_state(), "weight_hr_l0": zeros(3, 4, dtype=torch.int8)},
        ["unexpected", "weight_hr_l0"],
    ),
    "quantized misshapen": (
        changed(quantized_state(), "weight_hh_l0", zeros(16, 5, dtype=torch.int8)),
        ["weight_hh_l0", "16, 4", "16, 5"],
    ),
    "quantized misshapen scale": (
        changed(quantized_state(), "weight_hh_l0_scale", zeros(15)),
        ["weight_hh_l0_scale", "16", "15"],
    ),
    "quantized nan scale": (
        changed(quantized_state(), "weight_hh_l0_scale", with_element(zeros(16), NAN)),
        ["weight_hh_l0_scale", "finite"],
    ),
    "quantized inf bias": (
        changed(quantized_state(), "bias_l0", with_element(zeros(16), INF)),
        ["bias_l0", "finite"],
    ),
    "float weight with a scale": (
        changed(quantized_state(), "weight_hh_l0", torch.ones(16, 4)),
        ["weight_hh_l0", "int8", "float32"],
    ),
    "int16 weight": (
        changed(quantized_state(), "weight_hh_l0", zeros(16, 4, dtype=torch.int16)),
        ["weight_hh_l0", "int8", "int16"],
    ),
    "float and quantized together": (
        {**float_state(), **quantized_state()},
        ["unexpected"],
    ),
    "empty": ({}, ["missing", "weight_ih_l0"]),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoints_are_refused_and_change_nothing(name):
    state, words = BAD_CHECKPOINTS[name]
    fast = Case(5, 4, 2, T=3, B=2, seed=9).fast()
    before, output = copy.deepcopy(fast.state_dict()), fast(X)
    check(error_of(lambda: fast.load_state_dict(state)), RuntimeError, *words)
    for key, tensor in fast.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{key} was changed by the failed load"
    assert_same(fast(X), output)


# In blocks of 8x4 weight_ih has 4 gates of 2 block rows of 3 blocks.
BLOCKS = Case(9, 9, layout="block_sparse", activations="float32")
CROW = torch.arange(9, dtype=torch.int32) * 3
COL = torch.arange(24, dtype=torch.int32) % 3


def in_padding(row, column):
    """Full blocks of weight_ih, with one value in the padding of its sixth."""
    values = BLOCKS.fast().weight_ih_l0_values.clone()
    values[5, row, column] = 1
    return values


# Which part of weight_ih_l0, its value (None: it is missing) and what the message says.
BAD_BLOCKS = {
    "no values": ("values", None, "missing"),
    "no crow_indices": ("crow_indices", None, "missing"),
    "no col_indices": ("col_indices", None, "missing"),
    "starts late": ("crow_indices", CROW.clamp(min=1), "start with 0", "1"),
    "ends early": ("crow_indices", CROW.clamp(max=23), "end with", "24", "23"),
    "goes down": ("crow_indices", with_element(CROW, 9), "decrease", "6", "9"),
    "goes beyond": ("crow_indices", with_element(CROW, 25), "exceed", "24", "25"),
    "negative": ("crow_indices", with_element(CROW, -1), "decrease", "-1"),
    "too few block rows": ("crow_indices", CROW[:-1].clone(), "9", "8"),
    "int64 crow_indices": ("crow_indices", CROW.long(), "int32", "int64"),
    "2-D crow_indices": ("crow_indices", CROW[None], "(1, 9)"),
    "negative column": ("col_indices", with_element(COL, -1), "0..2", "-1", "block 1 of"),
    "column beyond": ("col_indices", with_element(COL, 3), "0..2", "3", "block 1 of"),
    "huge column": ("col_indices", with_element(COL, 2**31 - 1), "0..2", "2147483647"),
    "column twice": ("col_indices", with_element(COL, 0), "increase", "0 after 0"),
    "columns go down": ("col_indices", COL.flip(0), "increase", "1 after 2"),
    "too few columns": ("col_indices", COL[:-1].clone(), "24", "23"),
    "int64 col_indices": ("col_indices", COL.long(), "int32", "int64"),
    "too few blocks": ("values", zeros(23, 8, 4), "col_indices", "23", "24"),
    "2-D values": ("values", zeros(24, 32), "(any, any, any)", "(24, 32)"),
    "no rows": ("values", zeros(24, 0, 4), "1..65535 rows, got 0"),
    "7 rows": ("values", zeros(24, 7, 4), "8 rows", "7 x 4"),
    "6 columns": ("values", zeros(24, 8, 6), "4 columns", "8 x 6"),
    "nan": ("values", with_element(zeros(24, 8, 4), NAN), "finite"),
    "inf": ("values", with_element(zeros(24, 8, 4), INF), "finite"),
    "padding below": ("values", in_padding(1, 0), "zero in the padding", "block 5 of block row 1"),
    "padding beside": ("values", in_padding(0, 3), "zero in the padding"),
    "int8 values": ("values", zeros(24, 8, 4, dtype=torch.int8), "float32", "int8"),
    "float64 values": ("values", zeros(24, 8, 4, dtype=torch.float64), "float32", "float64"),
}


@pytest.mark.parametrize("layout", ["auto", "dense", "block_sparse"])
@pytest.mark.parametrize("name", BAD_BLOCKS)
def test_bad_blocks_are_refused_and_change_nothing(name, layout):
    part, value, *words = BAD_BLOCKS[name]
    state = changed(BLOCKS.fast().state_dict(), f"weight_ih_l0_{part}", value)
    fast = replace(BLOCKS, layout=layout, seed=9).fast()
    model = nn.ModuleDict({"encoder": fast})
    before, output = copy.deepcopy(fast.state_dict()), fast(BLOCKS.x())
    given = {f"encoder.{key}": tensor for key, tensor in state.items()}
    error = error_of(lambda: model.load_state_dict(given))
    check(error, RuntimeError, "encoder", "weight_ih_l0", *words)
    assert list(fast.state_dict()) == list(before)
    for key, tensor in fast.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{key} was changed by the failed load"
    assert_same(fast(BLOCKS.x()), output)


def test_bad_int8_blocks():
    case = replace(BLOCKS, activations="int8")
    bad = changed(case.fast().state_dict(), "weight_ih_l0_values", zeros(24, 8, 4))
    check(error_of(lambda: case.new().load_state_dict(bad)), RuntimeError, "weight_ih_l0", "int8")


def test_a_matrix_that_is_there_twice():
    state = {**BLOCKS.fast().state_dict(), "weight_ih_l0": zeros(36, 9)}
    error = error_of(lambda: BLOCKS.new().load_state_dict(state))
    check(error, RuntimeError, "unexpected", '"weight_ih_l0"')


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_checkpoints_of_the_other_class(bias):
    """int8 and float32 tensors are not taken for each other."""
    floats, ints = (replace(BLOCKS, bias=bias, activations=a) for a in ("float32", "int8"))
    for one, other in ((floats, ints), (ints, floats)):
        error = error_of(
            lambda one=one, other=other: one.new().load_state_dict(other.fast().state_dict())
        )
        check(error, RuntimeError, "weight_ih_l0")


def test_strict_false_reports_the_rest():
    result = CASE.fast().load_state_dict({**float_state(), "other": zeros(1)}, strict=False)
    assert result.unexpected_keys == ["other"]
    assert not result.missing_keys


def test_a_quantized_checkpoint_does_not_pass_for_a_float_one():
    """nn.LSTM itself refuses it; dequantize() is the way back."""
    with pytest.raises(RuntimeError, match="bias_ih_l0"):
        CASE.lstm().load_state_dict(quantized_state())


def test_bad_checkpoint_inside_a_model_names_the_path():
    model = nn.Sequential(CASE.fast())
    state = {"0." + key: tensor for key, tensor in float_state().items()}
    state["0.weight_ih_l0"] = zeros(16, 6)
    check(error_of(lambda: model.load_state_dict(state)), RuntimeError, "0.weight_ih_l0", "16, 6")
