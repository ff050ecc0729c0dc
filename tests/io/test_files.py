"""save_file and load_file: what goes into a file comes out of it, bit by bit."""

import copy
import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_tensors
from torch import nn

import golden
import lstm_fastkernels as lfk
from cases import Case, assert_same
from io_cases import KEY, same_tensors
from isas import assert_same_bits, everywhere

CASE = Case(9, 31, 2, bidirectional=True, proj_size=13)


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def configuration_of(path):
    return json.loads(metadata_of(path)[KEY])


# One LSTM


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_an_lstm(path, bias, kind):
    case = replace(CASE, bias=bias, **kind)
    fast = case.fast()
    lfk.save_file(fast, path)
    assert load_tensors(path).keys() == fast.state_dict().keys()
    other = lfk.load_file(path)
    assert type(other) is type(fast)
    assert repr(other) == repr(fast)
    assert not other.training
    same_tensors(other.state_dict(), fast.state_dict())
    assert_same(everywhere(other)(case.x(), case.state()), fast(case.x(), case.state()))


def test_a_cell(path, kind):
    case = Case(**kind)
    cell, x = case.fast_cell(), torch.randn(3, 9)
    lfk.save_file(cell, path)
    other = lfk.load_file(path)
    assert type(other) is type(cell)
    assert repr(other) == repr(cell)
    same_tensors(other.state_dict(), cell.state_dict())
    assert_same_bits(everywhere(other)(x), cell(x))


OPTIONS = {
    "batch_first": True,
    "dropout": 0.25,
    "num_layers": 3,
    "bidirectional": True,
    "proj_size": 2,
    "bias": False,
    "activations": "int16",
    "precision": {"weight_ih_l0": "float32", "weight_hh_l1": "int16"},
    "pair_safe": False,
    "group_size": 128,
    "layout": "dense",
    "block_size": (16, 8),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options(path, option):
    options = {"num_layers": 2, option: OPTIONS[option]}
    fast = lfk.FastQuantLSTM(5, 8, **options)
    assert getattr(lfk.FastQuantLSTM(5, 8), option) != OPTIONS[option]
    lfk.save_file(fast, path)
    other = lfk.load_file(path)
    for name in ("input_size", "hidden_size", *OPTIONS):
        assert getattr(other, name) == getattr(fast, name), name
        assert type(getattr(other, name)) is type(getattr(fast, name)), name


@pytest.mark.parametrize("layout", ["auto", "dense", "block_sparse"])
def test_tensors_are_taken_as_they_are_stored(path, layout):
    """A matrix in blocks of its own size beside a dense one, and zeros that are stored."""
    case = Case(9, 31, density=0.4, pruned="weight_hh", block_size=(16, 8))
    fast = case.fast()
    assert list(fast.layouts().values()) == ["dense", "16x8 blocks, 87.5%"]
    fast.weight_hh_l0_values[0] = 0
    fast.load_state_dict(fast.state_dict())
    fast.layout, fast.block_size = layout, (8, 4)
    lfk.save_file(fast, path)
    other = lfk.load_file(path)
    assert (other.layout, other.block_size) == (layout, (8, 4))
    same_tensors(other.state_dict(), fast.state_dict())
    assert_same(everywhere(other)(case.x()), fast(case.x()))


def test_a_matrix_of_zeros(path):
    fast = lfk.FastQuantLSTM(5, 8)
    fast.load_state_dict({n: t * 0 for n, t in nn.LSTM(5, 8).state_dict().items()})
    assert fast.state_dict()["weight_hh_l0_values"].shape == (0, 8, 4)
    lfk.save_file(fast, path)
    other = lfk.load_file(path)
    same_tensors(other.state_dict(), fast.state_dict())
    x = torch.randn(3, 2, 5)
    assert_same(everywhere(other)(x), fast(x))


def test_what_was_loaded_does_not_hang_on_the_file(path):
    case = Case()
    lfk.save_file(case.fast(), path)
    other = lfk.load_file(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    same_tensors(other.state_dict(), case.fast().state_dict())


def test_a_flag_given_as_an_integer_becomes_a_flag(path):
    lfk.save_file(lfk.FastQuantLSTM(5, 4, bidirectional=1), path)
    assert lfk.load_file(path).bidirectional is True


def test_the_configuration(path):
    """As docs/file_format.md has it, for a cell too."""
    cell = lfk.FastSparseLSTMCell(5, 4)
    lfk.save_file(nn.ModuleDict({"rnn": cell}), path, metadata={"note": "mine"})
    assert metadata_of(path).keys() == {"note", KEY}
    assert metadata_of(path)["note"] == "mine"
    expected = {
        "class": "FastSparseLSTMCell",
        "input_size": 5,
        "hidden_size": 4,
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
        "precision": {"weight_ih_l0": "float32", "weight_hh_l0": "float32"},
        "pair_safe": "auto",
        "group_size": 64,
        "layout": "auto",
        "block_size": [8, 4],
    }
    versions = {"format_version": 2, "numeric_contract": 2}
    assert configuration_of(path) == {**versions, "lstms": {"rnn": expected}}


# Models


class Model(nn.Module):
    """An LSTM used twice, a cell, tied weights, a transposed buffer and many types."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 9)
        self.encoder = nn.LSTM(9, 9, batch_first=True)
        self.decoder = nn.ModuleDict({"rnn": self.encoder, "cell": nn.LSTMCell(9, 31)})
        self.output = nn.Linear(9, 9, dtype=torch.bfloat16)
        self.tied = nn.Linear(9, 9)
        self.tied.weight = self.embed.weight
        self.register_buffer("transposed", torch.randn(3, 2).t())
        self.register_buffer("row", torch.randn(3).as_strided((1, 3), (0, 1)))
        self.register_buffer("steps", torch.randint(2**40, ()))
        self.register_buffer("mask", torch.rand(5) < 0.5)
        self.register_buffer("conjugate", torch.randn(3, dtype=torch.complex64).conj())
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("scratch", torch.randn(3), persistent=False)


LSTM_NAMES = {"encoder", "decoder.cell"}


@pytest.mark.parametrize("into", ["float", "fast", "other fast"])
def test_a_model(path, into):
    torch.manual_seed(0)
    fast = lfk.convert(Model())
    lfk.save_file(fast, path, other_tensors=True)
    assert configuration_of(path)["lstms"].keys() == LSTM_NAMES
    aliases = {name for name in fast.state_dict() if name.startswith("decoder.rnn.")}
    assert load_tensors(path).keys() == fast.state_dict().keys() - aliases
    model = Model()
    if into != "float":
        model = lfk.convert(model, weights="int8" if into == "fast" else "float32")
    scratch = model.scratch.clone()
    embedding = model.embed.weight
    assert lfk.load_file(path, model) is model
    assert type(model.encoder) is lfk.FastQuantLSTM
    assert model.decoder["rnn"] is model.encoder
    same_tensors(model.state_dict(), fast.state_dict())
    assert model.embed.weight is model.tied.weight is embedding
    assert model.embed.weight.requires_grad
    assert torch.equal(model.scratch, scratch)
    x = torch.randn(2, 5, 9)
    assert_same(everywhere(model.encoder)(x), fast.encoder(x))


def test_lstms_alone_leave_the_rest_of_a_model(path):
    fast = lfk.convert(Model())
    lfk.save_file(fast, path)
    assert {name.rpartition(".")[0] for name in load_tensors(path)} == LSTM_NAMES
    model = Model()
    model.more = nn.LSTM(5, 4)
    before = copy.deepcopy(model)
    lfk.load_file(path, model)
    same_tensors(model.encoder.state_dict(), fast.encoder.state_dict())
    same_tensors(model.decoder["cell"].state_dict(), fast.decoder["cell"].state_dict())
    assert type(model.more) is nn.LSTM
    for name in ("more", "embed", "output"):
        same_tensors(getattr(model, name).state_dict(), getattr(before, name).state_dict())


def test_an_lstm_that_stays_float_is_among_the_others(path):
    def is_cell(module, name):
        return isinstance(module, nn.LSTMCell)

    fast = lfk.convert(Model(), filter_fn=is_cell)
    lfk.save_file(fast, path, other_tensors=True)
    model = lfk.load_file(path, Model())
    assert type(model.encoder) is nn.LSTM
    same_tensors(model.state_dict(), fast.state_dict())


def test_a_module_may_be_found_by_any_of_its_names(path):
    lfk.save_file(nn.ModuleDict({"two": lfk.FastQuantLSTM(5, 4)}), path)
    lstm = nn.LSTM(5, 4)
    model = lfk.load_file(path, nn.ModuleDict({"one": lstm, "two": lstm}))
    assert type(model["one"]) is lfk.FastQuantLSTM
    assert model["one"] is model["two"]


@pytest.mark.parametrize("target", [nn.LSTM, lfk.FastQuantLSTM, lfk.FastSparseLSTM])
def test_a_model_that_is_an_lstm_is_replaced(path, target):
    fast, lstm = Case().fast(), target(9, 31)
    before = copy.deepcopy(lstm.state_dict())
    lfk.save_file(fast, path)
    other = lfk.load_file(path, lstm)
    assert other is not lstm
    same_tensors(other.state_dict(), fast.state_dict())
    same_tensors(lstm.state_dict(), before)


def test_dropout_may_differ(path):
    """It is idle; the file's is taken."""
    lfk.save_file(lfk.FastQuantLSTM(5, 4, 2, dropout=0.25), path)
    assert lfk.load_file(path, nn.LSTM(5, 4, 2)).dropout == 0.25


def test_modes_are_the_models(path):
    fast = nn.ModuleDict({"a": lfk.FastQuantLSTM(5, 4), "b": lfk.FastQuantLSTM(5, 4)})
    lfk.save_file(fast, path)
    model = nn.ModuleDict({"a": nn.LSTM(5, 4), "b": nn.LSTM(5, 4).eval()})
    lfk.load_file(path, model)
    assert model["a"].training
    assert not model["b"].training


def test_lstms_without_memory_are_loaded_onto_the_cpu(path):
    fast = Case().fast()
    lfk.save_file(nn.Sequential(fast), path)
    model = lfk.load_file(path, nn.Sequential(nn.LSTM(9, 31, device="meta")))
    same_tensors(model[0].state_dict(), fast.state_dict())


def test_under_another_default_device(path):
    fast = Case().fast()
    with torch.device("meta"):
        lfk.save_file(fast, path)
        other = lfk.load_file(path)
    same_tensors(other.state_dict(), fast.state_dict())


def test_a_parametrized_lstm_is_replaced(path):
    fast = Case().fast()
    lfk.save_file(nn.Sequential(fast), path)
    model = nn.Sequential(nn.LSTM(9, 31))
    lfk.prune_(model, lfk.PruneConfig(0.5))
    lfk.load_file(path, model)
    same_tensors(model[0].state_dict(), fast.state_dict())


def test_modules_learn_that_they_were_loaded(path):
    model = nn.ModuleDict({"rnn": lfk.FastQuantLSTM(5, 4), "output": nn.Linear(4, 3)})
    lfk.save_file(model, path, other_tensors=True)
    seen = []
    model["output"].register_load_state_dict_post_hook(lambda module, _: seen.append(module))
    lfk.load_file(path, model)
    assert seen == [model["output"]]


# The file of another day


def test_golden_file():
    recorded = load_tensors(golden.PATH)
    assert golden.PATH.stat().st_size < 100_000
    model = golden.make(seed=1)
    assert not torch.equal(model.dense_y, recorded["dense_y"])
    assert lfk.load_file(golden.PATH, model) is model
    state = model.state_dict()
    assert state.keys() == recorded.keys()
    same_tensors({name: state[name] for name in recorded}, recorded)
    for name, case in golden.CASES.items():
        lstm = model.get_submodule(name)
        made = golden.module_of(name, case)
        assert type(lstm) is type(made), name
        for option in ("precision", "layout", "block_size"):
            assert getattr(lstm, option) == getattr(made, option), name
        x, h0, c0, *expected = (recorded[f"{name}_{end}"] for end in ("x", "h0", "c0", *"yhc"))
        found = everywhere(golden.run)(lstm, x, h0, c0)
        assert_same_bits(found, tuple(expected), name)


def test_golden_file_has_what_it_should():
    """Dense and in blocks, int8 and float32, LSTMs and a cell; types that LSTMs do not have."""
    tensors = load_tensors(golden.PATH)
    lstms = configuration_of(golden.PATH)["lstms"]
    assert lstms.keys() == golden.CASES.keys()
    precisions = {name for lstm in lstms.values() for name in lstm["precision"].values()}
    assert precisions == {"int8", "int16", "int4", "float32"}
    assert lstms["cell"]["class"] == "FastQuantLSTMCell"
    assert tensors["projected.weight_hh_l0_values"].shape[1:] == (16, 8)
    assert "projected.weight_hr_l0" in tensors
    assert "dense.weight_hh_l1_reverse" in tensors
    assert "encoder.wide.bias_l0" not in tensors
    assert tensors["encoder.sparse.weight_hh_l1_values"].dtype == torch.float32
    assert (tensors["halves"].dtype, tensors["count"].dtype) == (torch.float16, torch.int64)


def test_the_example_in_the_docs(path):
    """A reader that follows docs/file_format.md finds there what this one does."""
    text = (Path(__file__).parents[2] / "docs" / "file_format.md").read_text()
    header, data = (
        re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("json", "hex")
    )
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes.fromhex(data))
    lstm = lfk.load_file(path).dequantize()
    assert lstm.weight_ih_l0.tolist() == [[1, -1, 0.5]] * 8
    assert lstm.weight_hh_l0[2:4].tolist() == [[0.5, 0.25], [0, -1]]
    assert not lstm.weight_hh_l0[[0, 1, 4, 5, 6, 7]].any()
    assert lstm.bias_ih_l0.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


# Without the packages


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_missing_package_is_named(package):
    code = f"import sys; sys.modules[{package!r}] = None; import lstm_fastkernels as lfk; "
    process = subprocess.run(
        [sys.executable, "-c", code + "lfk.save_file"], capture_output=True, text=True
    )
    name = {"torch": "PyTorch", "safetensors": "safetensors"}[package]
    assert f"needs {name}: pip install lstm_fastkernels[torch]" in process.stderr


def test_without_safetensors_the_rest_works():
    code = "import sys; sys.modules['safetensors'] = None; import lstm_fastkernels as lfk; "
    subprocess.run([sys.executable, "-c", code + "lfk.FastQuantLSTM(5, 4)"], check=True)
