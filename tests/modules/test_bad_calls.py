"""Bad calls raise what nn.LSTM raises for the same mistake, and say what was expected and came."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_fastkernels as lfk
from bad_calls import BAD_CALLS, CASE, REFUSED, C, H, X, check, error_of
from cases import assert_same
from isas import everywhere

zeros = torch.zeros


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_raise_as_in_nn_lstm(name):
    arguments, *words = BAD_CALLS[name]
    expected = error_of(lambda: CASE.lstm()(*arguments))
    check(error_of(lambda: CASE.fast()(*arguments)), type(expected), *words)


def test_one_state_of_two():
    """nn.LSTM stumbles over the tuple's length here; this is the error it has for three."""
    check(error_of(lambda: CASE.fast()(X, (H,))), RuntimeError, "two")


@pytest.mark.parametrize(
    "packed",
    [
        pack_padded_sequence(zeros(3, 2, 6), [3, 2]),
        PackedSequence(zeros(5, 5), torch.tensor([2, 2])),
        PackedSequence(zeros(5, 5), torch.tensor([2, 4, -1])),
        PackedSequence(zeros(5, 5), torch.tensor([0, 5])),
    ],
    ids=["feature size", "too much data", "negative batch size", "no rows at first"],
)
def test_bad_packed_sequences(packed):
    check(error_of(lambda: CASE.fast()(packed)), REFUSED)


def test_state_does_not_fit_the_packed_sequence():
    packed = pack_padded_sequence(X, [3, 2])
    state = zeros(2, 3, 4), zeros(2, 3, 4)
    assert isinstance(error_of(lambda: CASE.lstm()(packed, state)), RuntimeError)
    check(error_of(lambda: CASE.fast()(packed, state)), RuntimeError, "(2, 2, 4)", "2, 3, 4")


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (torch.tensor([3, 4]), ["4", "3"]),
        (torch.tensor([3, 0]), ["0"]),
        (torch.tensor([3, -1]), ["-1"]),
        (torch.tensor([3]), ["2", "1"]),
        (torch.tensor([3, 2, 1]), ["2", "3"]),
        (torch.tensor([[3, 2]]), []),
        (torch.tensor([3.0, 2.0]), ["int64", "float32"]),
        (torch.tensor([3, 2], dtype=torch.int32), ["int64", "int32"]),
        (torch.tensor([3, 2], device="meta"), ["meta", "cpu"]),
    ],
    ids=["too long", "zero", "negative", "too few", "too many", "2-D", "float", "int32", "meta"],
)
def test_bad_lengths(lengths, words):
    check(error_of(lambda: CASE.fast()(X, lengths=lengths)), REFUSED, "lengths", *words)


def test_lengths_of_one_sequence():
    error = error_of(lambda: CASE.fast()(X[:, 0], lengths=torch.tensor([2])))
    check(error, ValueError, "lengths", "2D")


CELL = nn.LSTMCell(5, 4)
BAD_CELL_CALLS = {
    "feature size": ((zeros(2, 6),), "5", "6"),
    "3-D input": ((zeros(1, 2, 5),), "1D or 2D", "3D"),
    "0-D input": ((zeros(()),), "1D or 2D", "0D"),
    "float64": ((zeros(2, 5).double(),), "float64", ".float()"),
    "h0 batch": ((zeros(2, 5), (zeros(3, 4), zeros(3, 4))), "2", "3"),
    "h0 size": ((zeros(2, 5), (zeros(2, 7), zeros(2, 7))), "4", "7"),
    "one state": ((zeros(2, 5), (zeros(2, 4),)), "two"),
    "3-D h": ((zeros(2, 5), (zeros(1, 2, 4), zeros(2, 4))), "hx[0]", "2D", "3D"),
}


@pytest.mark.parametrize("name", BAD_CELL_CALLS)
def test_bad_cell_calls_raise(name):
    arguments, *words = BAD_CELL_CALLS[name]
    expected = error_of(lambda: CELL(*arguments))
    # For float64, nn.LSTMCell has no check of its own, only what its matrix product says.
    kind = ValueError if name == "float64" else type(expected)
    fast = lfk.FastQuantLSTMCell.from_float(CELL)
    check(error_of(lambda: fast(*arguments)), kind, *words)


def test_states_of_a_cell_of_another_rank():
    """nn.LSTMCell leaves it to its matrix products to refuse them, if they do."""
    fast = lfk.FastQuantLSTMCell.from_float(CELL)
    for x, h, c, words in (
        (zeros(2, 5), zeros(2, 4), zeros(4), ("hx[1]", "2D", "1D")),
        (zeros(5), zeros(1, 4), zeros(1, 4), ("hx[0]", "1D", "2D")),
        (zeros(5), zeros(4), zeros(1, 4), ("hx[1]", "1D", "2D")),
    ):
        check(error_of(lambda x=x, h=h, c=c: fast(x, (h, c))), ValueError, *words)


@pytest.mark.parametrize(
    "options",
    [
        {"input_size": 0},
        {"hidden_size": 0},
        {"hidden_size": "4"},
        {"num_layers": 0},
        {"proj_size": 4},
        {"proj_size": -1},
        {"dropout": 2.0},
    ],
    ids=str,
)
def test_bad_constructions_raise_as_in_nn_lstm(options):
    options = {"input_size": 5, "hidden_size": 4, **options}
    expected = error_of(lambda: nn.LSTM(**options))
    check(error_of(lambda: lfk.FastQuantLSTM(**options)), type(expected))


def test_sizes_beyond_exact_sums():
    check(error_of(lambda: lfk.FastQuantLSTM(65536, 1)), REFUSED, "65535", "65536")


def test_unknown_activations():
    error = error_of(lambda: lfk.FastQuantLSTM(5, 4, activations="int2"))
    check(error, ValueError, "int2", "int8", "int16", "int4")


@pytest.mark.parametrize("which", ["x", "h0", "c0"])
def test_backward_says_what_to_use_instead(which, kind):
    tensors = {"x": X.clone(), "h0": H.clone(), "c0": C.clone()}
    tensors[which].requires_grad_()
    x, *state = tensors.values()
    y, _ = replace(CASE, **kind).fast()(x, tuple(state))
    error = error_of(lambda: y.sum().backward())
    check(error, RuntimeError, "dequantize", "to_dense")  # NotImplementedError is a RuntimeError


def test_forward_ignores_grad_mode(kind):
    fast = everywhere(replace(CASE, **kind).fast())
    with torch.no_grad():
        expected = fast(X)
    y, state = fast(X.clone().requires_grad_())
    assert_same((y.detach(), tuple(s.detach() for s in state)), expected)
