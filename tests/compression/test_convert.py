"""convert: which modules of a model become fast ones."""

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from io_cases import same_tensors
from isas import everywhere


class Model(nn.Module):
    """An encoder and a decoder that share one LSTM, and a cell."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(9, 9)
        self.encoder = nn.LSTM(9, 9, batch_first=True)
        self.decoder = nn.ModuleDict({"rnn": self.encoder, "cell": nn.LSTMCell(9, 31)})

    def forward(self, x):
        y, _ = self.decoder["rnn"](self.encoder(self.embed(x))[0])
        return self.decoder["cell"](y[:, -1])[0]


def test_convert_replaces_all_and_leaves_the_original(activations):
    model, x = Model(), torch.randn(2, 5, 9)
    fast = lfk.convert(model, activations=activations)
    assert type(model.encoder) is nn.LSTM
    assert type(fast.encoder) is lfk.FastQuantLSTM
    assert fast.encoder is fast.decoder["rnn"], "shared modules stay shared"
    assert type(fast.decoder["cell"]) is lfk.FastQuantLSTMCell
    assert fast.encoder.activations == fast.decoder["cell"].activations == activations
    with torch.no_grad():
        torch.testing.assert_close(everywhere(fast)(x), model(x), atol=0.02, rtol=0)


def test_convert_in_place():
    model = Model()
    assert lfk.convert(model, inplace=True) is model
    assert type(model.encoder) is lfk.FastQuantLSTM


def test_convert_picks_by_filter():
    seen = {}

    def cells_only(module, name):
        seen[name] = type(module)
        return isinstance(module, nn.LSTMCell)

    fast = lfk.convert(Model(), filter_fn=cells_only)
    assert type(fast.encoder) is nn.LSTM
    assert type(fast.decoder["cell"]) is lfk.FastQuantLSTMCell
    assert seen["encoder"] is nn.LSTM
    assert seen["decoder.cell"] is nn.LSTMCell


def test_convert_of_a_bare_module():
    assert type(lfk.convert(nn.LSTM(5, 4))) is lfk.FastQuantLSTM
    assert type(lfk.convert(nn.LSTMCell(5, 4))) is lfk.FastQuantLSTMCell


def test_converted_model_loads_the_float_checkpoint():
    model = Model()
    fast, other = lfk.convert(model), lfk.convert(Model())
    other.load_state_dict(model.state_dict())
    same_tensors(other.state_dict(), fast.state_dict())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("weights", ["int8", "float32"])
def test_modes_are_kept(training, weights):
    for module in (nn.LSTM(9, 9), nn.LSTMCell(9, 9)):
        model = nn.Sequential(module).train(training)
        fast = lfk.convert(model, weights=weights)
        assert fast[0].training == training
        assert lfk.dequantize(fast)[0].training == training
