"""Models that a file does not fit into stay as they are; models that do not fit into a file."""

import copy

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case
from io_cases import KEY, refuse

FAST = Case(9, 9).fast()
CELL = Case(9, 9).fast_cell()
zeros = torch.zeros


# Into a model


def model_of(lstm, **others):
    model = nn.Module()
    model.encoder = lstm
    model.output = nn.Linear(3, 2)
    for name, other in others.items():
        setattr(model, name, nn.Buffer(other) if isinstance(other, torch.Tensor) else other)
    return model


SHARED = nn.LSTM(9, 9)

# name: the model that is saved (None: FAST and a Linear), the model it does not go into, the words
MISFITS = {
    "no such module": (None, nn.Linear(3, 2), "no module 'encoder'"),
    "another module": (None, model_of(nn.GRU(9, 9)), "'encoder'", "FastQuantLSTM", "GRU"),
    "a cell": (None, model_of(nn.LSTMCell(9, 9)), "'encoder'", "LSTMCell"),
    "an LSTM for a cell": (model_of(CELL), model_of(nn.LSTM(9, 9)), "FastQuantLSTMCell"),
    "a subclass": (None, model_of(type("Mine", (nn.LSTM,), {})(9, 9)), "'encoder'", "Mine"),
    "input_size": (None, model_of(nn.LSTM(8, 9)), "'encoder'", "input_size=9", "8"),
    "hidden_size": (None, model_of(lfk.FastQuantLSTM(9, 8)), "hidden_size=9", "8"),
    "num_layers": (None, model_of(nn.LSTM(9, 9, 2)), "num_layers=1", "2"),
    "bias": (None, model_of(nn.LSTM(9, 9, bias=False)), "bias=True", "False"),
    "batch_first": (None, model_of(nn.LSTM(9, 9, batch_first=True)), "batch_first=False", "True"),
    "bidirectional": (None, model_of(nn.LSTM(9, 9, bidirectional=True)), "bidirectional=False"),
    "proj_size": (None, model_of(nn.LSTM(9, 9, proj_size=2)), "proj_size=0", "2"),
    "two LSTMs for one": (
        nn.ModuleList([FAST, copy.deepcopy(FAST)]),
        nn.ModuleList([SHARED, SHARED]),
        "'1'",
        "another LSTM",
    ),
    "no place": (model_of(FAST, more=zeros(3)), model_of(nn.LSTM(9, 9)), "no place for more"),
    "a buffer missing": (None, model_of(nn.LSTM(9, 9), more=zeros(3)), "lacks", "more"),
    "an LSTM missing": (None, model_of(SHARED, rnn=nn.LSTM(5, 4)), "lacks", "rnn.weight_ih_l0"),
    "a fast one missing": (None, model_of(SHARED, rnn=lfk.FastQuantLSTM(5, 4)), "lacks", "rnn"),
    "shape": (model_of(FAST, x=zeros(3)), model_of(nn.LSTM(9, 9), x=zeros(1, 3)), "x: ", "(1, 3)"),
    "dtype": (
        model_of(FAST, x=zeros(3)),
        model_of(nn.LSTM(9, 9), x=zeros(3).half()),
        "x: ",
        "float16",
    ),
    "meta": (model_of(FAST, x=zeros(3)), model_of(nn.LSTM(9, 9), x=zeros(3, device="meta")), "x: "),
    "expanded": (
        model_of(FAST, x=zeros(3)),
        model_of(nn.LSTM(9, 9), x=zeros(1).expand(3)),
        "x: ",
        "share memory",
    ),
}
with torch.inference_mode():
    MISFITS["inference"] = (None, model_of(nn.LSTM(9, 9)), "output.", "inference")


@pytest.mark.parametrize("name", MISFITS)
def test_models_that_do_not_fit_stay_as_they_are(path, name):
    saved, model, *words = MISFITS[name]
    lfk.save_file(saved or model_of(FAST), path, other_tensors=True)
    modules, state = dict(model.named_modules()), model.state_dict()
    before = {n: t.clone() for n, t in state.items()}
    refuse(lambda: lfk.load_file(path, model), path, *words)
    assert dict(model.named_modules()) == modules
    for key, tensor in model.state_dict().items():
        assert tensor.is_meta or torch.equal(tensor, before[key]), key


def test_a_fast_lstm_is_no_target_for_a_float_ones_tensors(path):
    """Of the same names and types without bias; they would go past what the kernels read."""
    saved, model = (model_of(lfk.FastQuantLSTM(9, 9)) for _ in range(2))
    saved.rnn = nn.LSTM(5, 4, bias=False)
    model.rnn = lfk.FastSparseLSTM(5, 4, bias=False)
    assert saved.rnn.state_dict().keys() == model.rnn.state_dict().keys()
    lfk.save_file(saved, path, other_tensors=True)
    refuse(lambda: lfk.load_file(path, model), path, "no place for rnn.weight_hh_l0")


def test_a_models_file_without_the_model(path):
    lfk.save_file(model_of(FAST), path)
    refuse(lambda: lfk.load_file(path), path, "encoder", "give the model")


def test_a_bare_lstms_file_and_a_model(path):
    lfk.save_file(FAST, path)
    refuse(lambda: lfk.load_file(path, model_of(FAST)), path, "''", "FastQuantLSTM", "Module")


def test_a_broken_file_changes_no_model(path):
    model = model_of(FAST)
    lfk.save_file(model, path, other_tensors=True)
    target = model_of(nn.LSTM(9, 9))
    before = copy.deepcopy(target.state_dict())
    path.write_bytes(path.read_bytes()[:-1])
    refuse(lambda: lfk.load_file(path, target), path)
    for key, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[key]), key


# Saving


class Mine(lfk.FastQuantLSTM):
    pass


class Stateful(nn.Module):
    def get_extra_state(self):
        return {"step": 3}

    def set_extra_state(self, state):
        pass


def with_buffer_inside():
    fast = copy.deepcopy(FAST)
    fast.register_buffer("mine", zeros(3))
    return model_of(fast)


def with_module_inside():
    fast = copy.deepcopy(FAST)
    fast.add_module("inner", copy.deepcopy(FAST))
    return model_of(fast)


def with_extra_state():
    model = model_of(FAST)
    model.more = Stateful()
    return model


# name: what is saved, the kind of error and what the message says
UNSAVABLE = {
    "no LSTM": (nn.Linear(3, 2), ValueError, "convert()"),
    "a float LSTM": (nn.LSTM(3, 2), ValueError, "convert()"),
    "a subclass": (model_of(Mine(9, 9)), TypeError, "encoder", "Mine"),
    "meta": (model_of(lfk.FastQuantLSTM(9, 9, device="meta")), ValueError, "encoder.", "meta"),
    "meta beside": (model_of(FAST, x=zeros(3, device="meta")), ValueError, "x ", "meta"),
    "a buffer inside": (with_buffer_inside(), ValueError, "encoder.mine"),
    "an LSTM inside": (with_module_inside(), ValueError, "encoder.inner."),
    "no tensor": (with_extra_state(), ValueError, "more._extra_state", "dict"),
    "complex128": (model_of(FAST, x=zeros(3) * (1j + zeros(1).double())), ValueError, "complex128"),
    "sparse": (model_of(FAST, x=zeros(3, 3).to_sparse()), ValueError, "hold x"),
    "name": (model_of(FAST, __metadata__=zeros(3)), ValueError, "hold __metadata__"),
}


@pytest.mark.parametrize("name", UNSAVABLE)
def test_models_that_cannot_be_saved(path, name):
    model, kind, *words = UNSAVABLE[name]
    path.write_bytes(b"old")
    refuse(lambda: lfk.save_file(model, path, other_tensors=True), None, *words, kind=kind)
    assert path.read_bytes() == b"old"
    assert len(list(path.parent.iterdir())) == 1


def test_metadata_is_the_callers_but_for_one_key(path):
    refuse(lambda: lfk.save_file(FAST, path, metadata={KEY: "{}"}), None, KEY)
    refuse(lambda: lfk.save_file(FAST, path, metadata={"epoch": 3}), None, "int", kind=TypeError)
    assert not path.exists()
