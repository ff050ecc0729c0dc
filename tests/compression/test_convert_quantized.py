"""convert on models that torch.ao has quantized."""

import warnings

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from isas import assert_same_bits
from torch_ao import quantize


class LSTMTagger(nn.Module):
    """Called after the LSTM inside, which it has twice."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, 2, batch_first=True)
        self.again = self.lstm
        self.cell = nn.LSTMCell(7, 4)
        self.head = nn.Linear(4, 2)


def convert(model, **options):
    """Without a warning."""
    with warnings.catch_warnings(action="error"):
        return lfk.convert(model, **options)


def test_all_are_replaced():
    model = nn.ModuleDict({"quantized": quantize(LSTMTagger()), "plain": LSTMTagger()})
    tagger = model["quantized"]
    tagger.again = tagger.lstm
    tagger.lstm.note = "kept"
    before = torch.random.get_rng_state()
    fast = convert(model, activations="mixed")
    assert torch.equal(torch.random.get_rng_state(), before)
    found = fast["quantized"]
    assert found.lstm is found.again
    assert found.lstm.note == "kept"
    assert type(found.lstm) is type(fast["plain"].lstm) is lfk.FastQuantLSTM
    assert type(found.cell) is type(fast["plain"].cell) is lfk.FastQuantLSTMCell
    assert found.lstm.activations == "mixed"
    assert type(tagger.lstm) is not lfk.FastQuantLSTM
    expected = lfk.FastQuantLSTM.from_quantized(tagger.lstm, activations="mixed")
    x = torch.randn(3, 2, 5)
    assert_same_bits(found.lstm(x), expected(x))


def test_in_place_and_by_name():
    model = quantize(LSTMTagger())
    assert convert(model, filter_fn=lambda module, name: name == "cell", inplace=True) is model
    assert type(model.cell) is lfk.FastQuantLSTMCell
    assert "quantized.dynamic" in type(model.lstm).__module__


def test_handles_of_hooks_go_on_working():
    model, calls = quantize(LSTMTagger()), []
    handle = model.cell.register_forward_hook(lambda *_: calls.append("called"))
    convert(model, inplace=True)
    model.cell(torch.randn(2, 7))
    handle.remove()
    model.cell(torch.randn(2, 7))
    assert calls == ["called"]


def test_float32_leaves_them():
    model = quantize(LSTMTagger())
    message = r"lstm \(LSTM\), quantized by torch.ao to int8: convert it with weights='int8'; cell"
    with pytest.warns(UserWarning, match=message):
        fast = lfk.convert(model, weights="float32")
    assert type(fast.lstm) is type(model.lstm)


def test_float16_is_refused_by_name():
    model = nn.ModuleDict({"plain": nn.LSTM(3, 5), "narrow": quantize(nn.LSTM(3, 5), "float16")})
    with pytest.raises(ValueError, match=r"^narrow: weight_ih_l0: .* from_float"):
        convert(model, inplace=True)
    assert type(model["plain"]) is nn.LSTM
    assert type(convert(model, filter_fn=lambda m, name: name == "plain")["narrow"]) is type(
        model["narrow"]
    )
