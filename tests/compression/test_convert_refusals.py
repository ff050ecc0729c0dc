"""What cannot be replaced is refused by name, and nothing has changed then."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lstm_fastkernels as lfk
from altered_lstms import ALTERATIONS, BAD_WEIGHTS, DEPRECATED, Held, altered, with_bad_weights

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


def unchanged(model, before):
    assert [(n, type(m)) for n, m in model.named_modules()] == before


def refused(model, message, call):
    before = [(n, type(m)) for n, m in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        call(model)
    unchanged(model, before)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", ALTERATIONS)
def test_convert_names_what_is_altered(name, inplace):
    model = Held(altered(name))
    message = f"block.rnn: {ALTERATIONS[name][1]}"
    refused(model, message, lambda model: lfk.convert(model, inplace=inplace))
    lfk.convert(model.first, inplace=inplace)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_convert_names_weights_that_cannot_be_read(name, inplace):
    model = Held(with_bad_weights(name))
    message = f"block.rnn: {BAD_WEIGHTS[name][1]}"
    refused(model, message, lambda model: lfk.convert(model, inplace=inplace))


@pytest.mark.parametrize("name", ALTERATIONS)
def test_from_float_names_what_is_altered(name):
    with pytest.raises(ValueError, match=ALTERATIONS[name][1]):
        lfk.FastQuantLSTM.from_float(altered(name))


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_from_float_names_weights_that_cannot_be_read(name):
    with pytest.raises(ValueError, match=BAD_WEIGHTS[name][1]):
        lfk.FastSparseLSTM.from_float(with_bad_weights(name))


@pytest.mark.parametrize("name", ALTERATIONS)
def test_load_file_names_what_is_altered(name, path):
    fast = lfk.convert(Held(nn.LSTM(5, 7, 2)))
    lfk.save_file(fast, path)
    model = Held(nn.LSTM(5, 7, 2))
    ALTERATIONS[name][0](model.again)
    if "layers" in name:
        return  # those do not fit the file in the first place
    refused(model, f"block.rnn: {ALTERATIONS[name][1]}", lambda model: lfk.load_file(path, model))


def test_load_file_takes_models_without_values(path):
    model = Held(nn.LSTM(5, 7, 2))
    lfk.save_file(lfk.convert(model), path)
    with torch.device("meta"):
        empty = Held(nn.LSTM(5, 7, 2))
    x = torch.randn(3, 2, 5)
    assert torch.equal(lfk.load_file(path, empty)(x), lfk.convert(model)(x))


def test_a_cell_is_checked_as_well():
    cell = nn.LSTMCell(5, 7)
    cell.forward = nn.LSTMCell(5, 7).forward
    with pytest.raises(ValueError, match="the model: its forward is not that of LSTMCell"):
        lfk.convert(cell)
    cell = nn.LSTMCell(5, 7)
    cell.weight_hh = nn.Parameter(torch.zeros(28, 5))
    with pytest.raises(ValueError, match=r"weight_hh: size mismatch: expected \(28, 7\)"):
        lfk.FastQuantLSTMCell.from_float(cell)
    cell = nn.LSTMCell(5, 7)
    del cell.bias_hh
    with pytest.raises(ValueError, match="bias_hh is no parameter"):
        lfk.FastQuantLSTMCell.from_float(cell)
    assert lfk.FastQuantLSTMCell.from_float(nn.LSTMCell(5, 7, bias=False)).bias is False


def test_a_parametrization_of_another_size():
    class Taller(nn.Module):
        def forward(self, weight):
            return torch.cat([weight, weight])

    lstm = nn.LSTM(5, 7, 2)
    parametrize.register_parametrization(lstm, "weight_ih_l1", Taller(), unsafe=True)
    refused(lstm, r"weight_ih_l1: size mismatch: .* got \(56, 7\)", lfk.convert)


def test_attributes_with_taken_names():
    model = Held(nn.LSTM(5, 7, 2))
    model.again.layout = "mine"
    refused(model, "block.rnn: its attribute layout", lambda m: lfk.convert(m, inplace=True))
    refused(model, "its attribute layout has the name of one of FastQuantLSTM", lfk.convert)


# ---- where it is ----


class Lists(nn.Module):
    """An LSTM that the model also has where nn.Module does not look."""

    def __init__(self, put):
        super().__init__()
        self.lstm = nn.LSTM(5, 7)
        put(self)


PLACES = {
    "list": lambda model: setattr(model, "plain", [model.lstm]),
    "tuples in a dict": lambda model: setattr(model, "plain", {1: ("rnn", model.lstm)}),
    "attribute": lambda model: model.__dict__.update(plain=model.lstm),
    "bound method": lambda model: setattr(model, "plain", model.lstm.forward),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_second_home_outside_the_registry(place, inplace):
    outer = nn.Sequential(Lists(PLACES[place]))
    message = r"0\.lstm is also in 0\.plain, where it cannot be replaced"
    refused(outer, message, lambda model: lfk.convert(model, inplace=inplace))
    lfk.convert(outer, filter_fn=lambda module, name: False)


def test_a_second_name_for_its_own_method():
    model = Held(nn.LSTM(5, 7))
    model.again.run = model.again.forward
    refused(model, r"block\.rnn is also in block\.rnn\.run, where it cannot", lfk.convert)


@pytest.mark.parametrize("inplace", [False, True])
def test_compiled_models(inplace):
    plain = Held(nn.LSTM(5, 7, 2))
    x = torch.randn(3, 2, 5)
    expected = lfk.convert(plain)(x)
    compiled = torch.compile(plain, backend="eager")
    fast = lfk.convert(compiled, inplace=inplace)
    assert (fast is compiled) == inplace
    assert torch.equal(fast(x), expected)

    alone = nn.Sequential(torch.compile(nn.LSTM(5, 7), backend="eager"))
    refused(alone, "is compiled by torch.compile", lambda m: lfk.convert(m, inplace=inplace))

    plain = Held(nn.LSTM(5, 7, 2))
    expected = lfk.convert(plain)(x)
    plain.again.compile(backend="eager")
    plain.compile(backend="eager")
    assert torch.equal(lfk.convert(plain, inplace=inplace)(x), expected)
    assert plain(x).shape == expected.shape


class DistributedDataParallel(nn.Module):
    """A wrapper by its name: a real one needs a process group."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class FSDPModule:
    pass


class FSDPHeld(FSDPModule, Held):
    """As fully_shard makes of a Held."""


@pytest.mark.parametrize("inplace", [False, True])
def test_wrappers_that_keep_parameters(inplace):
    parallel = nn.Sequential(DistributedDataParallel(Held(nn.LSTM(5, 7, 2))))
    refused(
        parallel,
        "0.module.first is wrapped by DistributedDataParallel: give the model inside",
        lambda model: lfk.convert(model, inplace=inplace),
    )
    refused(
        FSDPHeld(nn.LSTM(5, 7)),
        "first is wrapped by FSDP: gather the weights",
        lambda model: lfk.convert(model, inplace=inplace),
    )
    beside = nn.Sequential(DistributedDataParallel(nn.Linear(5, 5)), nn.LSTM(5, 7))
    assert type(lfk.convert(beside, inplace=inplace)[1]) is lfk.FastQuantLSTM


# ---- what changes no result ----


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
        lambda lstm, name: parametrize.register_parametrization(lstm, name, nn.Dropout(0.5)),
    ],
    ids=["spectral_norm", "weight_norm", "orthogonal", "dropout"],
)
def test_parametrizations_are_those_of_evaluation(norm, training):
    lstm = nn.LSTM(5, 7, 2)
    norm(lstm, "weight_hh_l1")
    lstm.parametrizations.weight_hh_l1.eval()
    plain = nn.LSTM(5, 7, 2)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(getattr(lstm, name))
    lstm.train(training)
    before = {name: value.clone() for name, value in lstm.state_dict().items()}
    modes = [module.training for module in lstm.modules()]
    fast = lfk.FastSparseLSTM.from_float(lstm)
    assert fast.training == training
    assert [module.training for module in lstm.modules()] == modes
    for name, value in lstm.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in lfk.FastSparseLSTM.from_float(plain).state_dict().items():
        assert torch.equal(fast.state_dict()[name], value), name


def test_a_cached_parametrization_is_computed_for_evaluation():
    lstm = nn.LSTM(5, 7)
    expected = lfk.FastSparseLSTM.from_float(lstm).state_dict()
    parametrize.register_parametrization(lstm, "weight_hh_l0", nn.Dropout(0.5))
    with parametrize.cached():
        lstm(torch.randn(3, 2, 5))
        fast = lfk.FastSparseLSTM.from_float(lstm).state_dict()
    assert torch.equal(fast["weight_hh_l0"], expected["weight_hh_l0"])


@pytest.mark.parametrize("model", [nn.LSTM, [nn.LSTM(5, 7)], None])
def test_what_is_no_module(model):
    config = lfk.PruneConfig(0.5)
    calls = (lfk.convert, lambda m: lfk.prune_(m, config), lfk.remove_pruning_, lfk.sparsity_report)
    for call in calls:
        with pytest.raises(TypeError, match=r"expected an nn\.Module, got (type|list|NoneType): "):
            call(model)


def test_weights_that_were_loaded_after_a_parametrization():
    """The deprecated weight_norm shows those from before: it is refused."""
    source, lstm = nn.LSTM(5, 7), nn.LSTM(5, 7)
    for module in (source, lstm):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    lstm.load_state_dict(source.state_dict())
    fast = lfk.convert(lstm).state_dict()
    for name, value in lfk.convert(source).state_dict().items():
        assert torch.equal(fast[name], value), name
