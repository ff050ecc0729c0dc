"""StackedLSTM does what nn.LSTM does, and takes layers of other widths."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_fastkernels as lfk
from hidden_cases import double_lstm, output_width, same


def split(lstm):
    """A StackedLSTM of an nn.LSTM's layers."""
    layers = []
    for k in range(lstm.num_layers):
        layer = nn.LSTM(
            lstm.input_size if k == 0 else output_width(lstm),
            lstm.hidden_size,
            bias=lstm.bias,
            batch_first=lstm.batch_first,
            bidirectional=lstm.bidirectional,
            proj_size=lstm.proj_size,
            dtype=torch.float64,
        )
        names = layer.state_dict()
        layer.load_state_dict({n: lstm.state_dict()[n.replace("_l0", f"_l{k}")] for n in names})
        layers.append(layer)
    return lfk.StackedLSTM(layers, lstm.dropout).train(lstm.training)


def per_layer(state, num_layers):
    return tuple(state.chunk(num_layers))


def assert_same_as_lstm(lstm, x, hx=None):
    stack, L = split(lstm), lstm.num_layers
    torch.manual_seed(5)
    expected, states = lstm(x, hx)
    torch.manual_seed(5)
    y, stack_states = stack(x, None if hx is None else tuple(per_layer(s, L) for s in hx))
    if isinstance(x, PackedSequence):
        assert isinstance(y, PackedSequence)
        same(y[1:], expected[1:])
        y, expected = y.data, expected.data
    same(y, expected)
    for ours, theirs in zip(stack_states, states, strict=True):
        assert type(ours) is tuple
        same(ours, per_layer(theirs, L))


OPTIONS = [
    {"num_layers": L, "bidirectional": D, "proj_size": P, "batch_first": F}
    for L, D, P, F in product([1, 3], [False, True], [0, 2], [False, True])
]


@pytest.mark.parametrize("form", ["batch", "unbatched", "packed"])
@pytest.mark.parametrize("with_state", [False, True], ids=["hx0", "hx"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_stacked_is_an_nn_lstm(options, with_state, form):
    lstm = double_lstm(3, 7, **options)
    B, rows = 4, lstm.num_layers * (1 + lstm.bidirectional)
    x = torch.randn(B, B, 3, dtype=torch.float64)
    hx = [torch.randn(rows, B, size, dtype=torch.float64) for size in (lstm.proj_size or 7, 7)]
    if form == "unbatched":
        x, hx = x[:, 0], [state[:, 0] for state in hx]
    elif form == "packed":
        options = {"batch_first": lstm.batch_first, "enforce_sorted": False}
        x = pack_padded_sequence(x, torch.tensor([2, 4, 1, 3]), **options)
    assert_same_as_lstm(lstm, x, tuple(hx) if with_state else None)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_stacked_drops_out_where_nn_lstm_does(training, packed):
    lstm = double_lstm(3, 7, 3, dropout=0.4).train(training)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    if packed:
        x = pack_padded_sequence(x, torch.tensor([4, 2]))
    assert_same_as_lstm(lstm, x)


def test_stacked_gradients():
    lstm = double_lstm(3, 7, 2)
    stack, x = split(lstm), torch.randn(4, 2, 3, dtype=torch.float64)
    for module in (lstm, stack):
        module(x)[0].square().sum().backward()
    for k, layer in enumerate(stack.layers):
        for name, parameter in layer.named_parameters():
            same(parameter.grad, getattr(lstm, name.replace("_l0", f"_l{k}")).grad)


@pytest.mark.parametrize(
    ("layers", "dropout", "message"),
    [
        ([], 0, "StackedLSTM needs at least one layer"),
        ([nn.LSTM(3, 4)], 1.5, r"dropout must be in \[0, 1\], got 1.5"),
        ([nn.LSTM(3, 4), nn.LSTM(4, 4, 2)], 0, "layer 1 must have num_layers=1, got 2"),
        (
            [nn.LSTM(3, 4), nn.LSTM(4, 4, batch_first=True)],
            0,
            "layer 1 must have the batch_first of layer 0",
        ),
        (
            [nn.LSTM(3, 4), nn.LSTM(4, 4, bidirectional=True)],
            0,
            "layer 1 must have the bidirectional of layer 0",
        ),
        (
            [nn.LSTM(3, 4, bidirectional=True, proj_size=2), nn.LSTM(8, 4, bidirectional=True)],
            0,
            "layer 1 must have input_size=4, the width of what it reads, got 8",
        ),
    ],
    ids=["none", "dropout", "layers", "batch_first", "bidirectional", "width"],
)
def test_stacked_refuses_layers_that_do_not_fit(layers, dropout, message):
    with pytest.raises(ValueError, match=message):
        lfk.StackedLSTM(layers, dropout)


@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 2, 2), (3, 3)], ids=str)
def test_stacked_refuses_states_of_other_layers(counts):
    stack = lfk.StackedLSTM([nn.LSTM(3, 4), nn.LSTM(4, 5)])
    hx = tuple((torch.zeros(1, 2, 4),) * count for count in counts)
    with pytest.raises(RuntimeError, match="each with one tensor for each of 2 layers"):
        stack(torch.zeros(3, 2, 3), hx)


def test_stacked_describes_itself():
    stack = lfk.StackedLSTM([nn.LSTM(3, 4), nn.LSTM(4, 5)], dropout=0.5)
    assert (stack.input_size, stack.hidden_sizes) == (3, (4, 5))
    assert "dropout=0.5" in repr(stack)
    assert "dropout" not in repr(lfk.StackedLSTM([nn.LSTM(3, 4)]))
    stack.flatten_parameters()
