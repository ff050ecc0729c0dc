"""The warning that names what convert leaves as it is."""

import warnings

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Subclass(nn.LSTM):
    pass


class SubclassCell(nn.LSTMCell):
    def __init__(self):
        super().__init__(5, 7)


class PeepholeLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(5, 28)


class LSTMTagger(nn.Module):
    """Called after the LSTM inside."""

    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(7, 2)


def scripted():
    return torch.jit.script(nn.Sequential(nn.LSTM(5, 7)))


def traced():
    return torch.jit.trace(nn.LSTM(5, 7), torch.randn(3, 2, 5))


def parametrized_subclass():
    lstm = Subclass(5, 7)
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    return lstm


ALIKE = {
    "subclass": (lambda: Subclass(5, 7), r"odd \(Subclass\), a subclass of nn.LSTM"),
    "parametrized": (parametrized_subclass, r"odd \(ParametrizedSubclass\), a subclass of nn.LSTM"),
    "cell": (
        lambda: type("Cell", (nn.LSTMCell,), {})(5, 7),
        r"odd \(Cell\), a subclass of nn.LSTMC",
    ),
    "custom": (PeepholeLSTM, r"odd \(PeepholeLSTM\), no nn.LSTM"),
    "custom, deeper": (
        lambda: LSTMTagger(PeepholeLSTM()),
        r"odd.lstm \(PeepholeLSTM\), no nn.LSTM[^;]*$",
    ),
    "scripted": (scripted, r"odd.0 \(RecursiveScriptModule\), scripted: convert before"),
    "traced": (traced, r"odd \(TopLevelTracedModule\), scripted: convert before"),
    "quantizable": (
        lambda: torch.ao.nn.quantizable.LSTM(5, 7),
        r"odd \(LSTM\), quantized by torch.ao: convert the float model[^;]*$",
    ),
}


class Model(nn.Module):
    def __init__(self, odd, plain=True):
        super().__init__()
        self.odd = odd
        if plain:
            self.plain = LSTMTagger(nn.LSTM(5, 7))


def warning_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert len(caught) <= 1
    for found in caught:
        assert found.category is UserWarning
        assert found.filename == __file__
    return str(caught[0].message) if caught else None


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("plain", [True, False])
def test_what_looks_like_an_lstm_is_named(name, plain):
    make, message = ALIKE[name]
    model = Model(make(), plain)
    with pytest.warns(UserWarning, match=message):
        lfk.convert(model)
    assert warning_of(lambda: lfk.convert(model)).count(";") == 0
    assert warning_of(lambda: lfk.convert(model, filter_fn=lambda m, n: "odd" not in n)) is None


def test_all_in_one_warning():
    model = Model(nn.ModuleList([Subclass(5, 7), PeepholeLSTM()]))
    text = warning_of(lambda: lfk.convert(model))
    assert text.startswith("left as they are: odd.0 (Subclass), ")
    assert "; odd.1 (PeepholeLSTM), " in text


def test_models_without_leftovers():
    for lstm in (nn.LSTM(5, 7), lfk.StackedLSTM([nn.LSTM(5, 7), nn.LSTM(7, 4)])):
        model = Model(nn.ModuleList([nn.GRU(5, 7), LSTMTagger(lstm)]))
        assert warning_of(lambda model=model: lfk.convert(model)) is None
    parametrized = nn.LSTM(5, 7)
    nn.utils.parametrizations.weight_norm(parametrized, "weight_hh_l0")
    assert warning_of(lambda: lfk.convert(Model(parametrized))) is None


def test_one_pass_for_some_and_another_for_others():
    model = Model(nn.LSTM(5, 7))
    first = lfk.convert(model, activations="int16", filter_fn=lambda m, name: name == "odd")
    assert warning_of(lambda: lfk.convert(first)) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.GRU(5, 7), r"odd \(GRU\), no LSTM$"),
        (lambda: nn.ModuleList([nn.RNN(5, 7), nn.GRUCell(5, 7)]), r"odd.0 .RNN., no LSTM; odd.1"),
        (lambda: lfk.FastSparseLSTM(5, 7), r"odd \(FastSparseLSTM\), compressed already$"),
        (
            lambda: torch.jit.script(nn.Sequential(nn.Sequential(nn.Linear(5, 7)))),
            r"odd \(RecursiveScriptModule\), scripted, which hides what is inside: [^;]*$",
        ),
        (lambda: nn.Linear(5, 7), "found no nn.LSTM or nn.LSTMCell in the model$"),
    ],
)
def test_models_with_nothing_to_convert(make, message):
    model = Model(make(), plain=False)
    with pytest.warns(UserWarning, match=message):
        lfk.convert(model)
    assert warning_of(lambda: lfk.convert(model, inplace=True)).startswith(("left ", "found "))


def test_the_model_itself():
    with pytest.warns(UserWarning, match=r"the model \(Subclass\), a subclass"):
        assert type(lfk.convert(Subclass(5, 7))) is Subclass


def test_nothing_picked_is_nothing_to_warn_of():
    for odd in (nn.GRU(5, 7), Subclass(5, 7), lfk.FastQuantLSTM(5, 7)):
        for plain in (True, False):
            model = Model(odd, plain)
            assert warning_of(lambda m=model: lfk.convert(m, filter_fn=lambda m, n: False)) is None


def test_a_filter_that_asks_for_what_only_lstms_have():
    model = Model(PeepholeLSTM())
    fast = lfk.convert(model, filter_fn=lambda module, name: module.hidden_size > 5)
    assert type(fast.plain.lstm) is lfk.FastQuantLSTM


def test_lstms_in_plain_lists():
    model = Model(nn.Linear(5, 7))
    model.rnns = [nn.LSTM(5, 7)]
    with pytest.warns(UserWarning, match=r"rnns \(LSTM\), kept outside nn.Module's registry"):
        lfk.convert(model)


def test_a_warning_as_error_changes_nothing():
    model = Model(Subclass(5, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            lfk.convert(model, inplace=True)
    assert type(model.plain.lstm) is nn.LSTM
