"""Checkpoints of the fast modules and of nn.LSTM, and the way back."""

import io
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, assert_same
from io_cases import same_tensors
from isas import assert_same_bits, everywhere

CASE = Case(9, 31, 2, bidirectional=True, proj_size=13)


def test_canonical_tensors():
    suffixes = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]
    shapes = {}
    for suffix in suffixes:
        columns = CASE.input_size if "_l0" in suffix else 2 * CASE.proj_size
        shapes["weight_ih" + suffix] = torch.int8, (124, columns)
        shapes["weight_hh" + suffix] = torch.int8, (124, 13)
        shapes["weight_hr" + suffix] = torch.int8, (13, 31)
        shapes[f"weight_ih{suffix}_scale"] = torch.float32, (124,)
        shapes[f"weight_hh{suffix}_scale"] = torch.float32, (124,)
        shapes[f"weight_hr{suffix}_scale"] = torch.float32, (13,)
        shapes["bias" + suffix] = torch.float32, (124,)
    state = CASE.fast().state_dict()
    assert {name: (t.dtype, tuple(t.shape)) for name, t in state.items()} == shapes


def test_without_bias_there_is_none():
    fast = lfk.FastQuantLSTM(9, 31, bias=False)
    assert not [name for name in fast.state_dict() if "bias" in name]


def test_bias_is_the_sum():
    case = Case()
    lstm, fast = case.lstm(), case.fast()
    assert torch.equal(fast.state_dict()["bias_l0"], (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach())


def test_dequantize_is_an_nn_lstm_of_the_quantized_weights(activations):
    fast = lfk.FastQuantLSTM.from_float(CASE.lstm(), activations=activations)
    lstm, state = fast.dequantize(), fast.state_dict()
    assert type(lstm) is nn.LSTM
    for name, parameter in lstm.named_parameters():
        if name.startswith("weight"):
            assert torch.equal(parameter.data, state[name] * state[name + "_scale"][:, None]), name
    for name in state:
        if name.startswith("bias"):
            ih, hh = name.replace("bias", "bias_ih"), name.replace("bias", "bias_hh")
            assert torch.equal((getattr(lstm, ih) + getattr(lstm, hh)).data, state[name]), name
    options = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout")
    for option in (*options, "bidirectional", "proj_size"):
        assert getattr(lstm, option) == getattr(CASE.lstm(), option), option


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")], ids=str)
def test_constructor_takes_what_nn_lstm_takes(device):
    fast = lfk.FastQuantLSTM(5, 4, 2, False, True, 0.1, True, 3, device, torch.float32)
    y, (h, c) = fast(torch.randn(2, 3, 5))
    assert (y.shape, h.shape, c.shape) == ((2, 3, 6), (4, 2, 3), (4, 2, 4))
    assert y.any()


def test_float_checkpoint_is_compressed_on_load(kind):
    case = replace(CASE, **kind)
    fast, expected = case.new(), case.fast()
    result = fast.load_state_dict(case.lstm().state_dict(), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    same_tensors(fast.state_dict(), expected.state_dict())
    assert_same(fast(CASE.x()), expected(CASE.x()))


def test_half_precision_checkpoint_is_compressed_on_load(kind):
    case = replace(CASE, **kind)
    lstm = case.lstm().to(torch.bfloat16)
    fast = case.new()
    fast.load_state_dict(lstm.state_dict())
    expected = type(fast).from_float(lstm.float(), **case.options())
    same_tensors(fast.state_dict(), expected.state_dict())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("of", ["float", "compressed"])
def test_modules_made_without_memory_load_either_checkpoint(of, assign, kind):
    case = replace(CASE, **kind)
    fast, expected = case.new(device="meta"), case.fast()
    assert all(tensor.is_meta for tensor in fast.state_dict().values())
    state = case.lstm().state_dict() if of == "float" else expected.state_dict()
    fast.load_state_dict(state, assign=assign)
    same_tensors(fast.state_dict(), expected.state_dict())
    assert_same(fast(CASE.x()), expected(CASE.x()))


def through_torch_save(fast):
    buffer = io.BytesIO()
    torch.save(fast.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize(
    "travel",
    [through_torch_save, lambda fast: load(save(fast.state_dict()))],
    ids=["torch.save", "safetensors"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_round_trip(travel, bias, kind):
    case = replace(CASE, bias=bias, **kind)
    fast, other = case.fast(), case.new()
    assert not torch.equal(other(case.x())[0], fast(case.x())[0])
    other.load_state_dict(travel(fast))
    assert_same(everywhere(other)(case.x()), fast(case.x()))


@pytest.mark.parametrize("bias", [True, False])
def test_cell_checkpoints(bias, kind):
    """A cell loads nn.LSTMCell's, its own, and that of a module of one layer."""
    case = Case(bias=bias, **kind)
    cell, fast, module = case.cell(), case.fast_cell(), case.new()
    module.load_state_dict(fast.state_dict())
    same_tensors(module.state_dict(), case.fast().state_dict())
    x = torch.randn(3, 9)
    for state in (cell.state_dict(), fast.state_dict(), module.state_dict()):
        other = case.new_cell()
        other.load_state_dict(state)
        assert_same_bits(everywhere(other)(x), fast(x))


def test_cell_dequantizes():
    cell = nn.LSTMCell(9, 31)
    fast = lfk.FastQuantLSTMCell.from_float(cell)
    back = fast.dequantize()
    assert type(back) is nn.LSTMCell
    q, scale = lfk.quantize_rows(cell.weight_hh.detach())
    assert torch.equal(back.weight_hh.data, q * scale[:, None])
    assert fast.packed_bytes() == fast.packed.numel()
