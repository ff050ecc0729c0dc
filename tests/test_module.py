"""The fast modules as PyTorch modules: state_dict, copies, dtype, convert, threads, processes."""

import copy
import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, assert_same

CASE = Case(9, 31, 2, bidirectional=True, proj_size=13)


def same_tensors(a, b):
    assert list(a) == list(b)
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert torch.equal(tensor, b[name]), name


# state_dict


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
def test_state_dict_round_trip(travel, bias, kind, isa):
    case = replace(CASE, bias=bias, **kind)
    fast, other = case.fast(), case.new()
    assert not torch.equal(other(case.x())[0], fast(case.x())[0])
    other.load_state_dict(travel(fast))
    assert_same(other(case.x()), fast(case.x()))


def whole_torch_save(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "travel",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), whole_torch_save],
    ids=["deepcopy", "pickle", "torch.save"],
)
@pytest.mark.parametrize("called_before", [False, True])
def test_copies(travel, called_before, kind, isa):
    case = replace(CASE, **kind)
    fast = case.fast()
    if called_before:
        fast(CASE.x())
    other = travel(fast)
    assert other is not fast
    assert_same(other(CASE.x()), fast(CASE.x()))
    same_tensors(other.state_dict(), fast.state_dict())
    cell, x = Case(**kind).fast_cell(), torch.randn(3, 9)
    for a, b in zip(travel(cell)(x), cell(x), strict=True):
        assert torch.equal(a, b)


def test_loading_replaces_what_was_packed(kind, isa):
    one, two = Case(seed=1, **kind).fast(), Case(seed=2, **kind).fast()
    x = Case().x()
    one(x)
    one.load_state_dict(two.state_dict())
    assert_same(one(x), two(x))


def test_packed_bytes_are_not_saved(kind):
    fast = replace(CASE, **kind).fast()
    fast(CASE.x())
    assert fast.packed_bytes() == fast.packed.numel()
    assert not [name for name in fast.state_dict() if "packed" in name]


def test_packed_bytes_stay_close_to_those_of_the_weights(activations):
    case = Case(256, 256, activations=activations)
    assert case.fast().packed_bytes() <= 1.05 * 2 * 4 * 256 * 256


MEMORY = """
import resource
import torch
import lstm_fastkernels as lfk

fast = lfk.FastQuantLSTM(64, 64, 2)
x = torch.zeros(100_000, 1, 64)
fast(x[:1000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y, _ = fast(x)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 - y.nbytes)
"""


def test_memory_beside_the_output_does_not_grow_with_time():
    """The gates of all time steps at once would take 100 MB."""
    process = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 10e6


# Ordinary module life


def test_moves_and_modes(kind, isa):
    fast = replace(CASE, **kind).fast()
    expected = fast(CASE.x())
    assert fast.to("cpu") is fast
    assert fast.eval() is fast
    assert_same(fast(CASE.x()), expected)
    assert_same(fast.train()(CASE.x()), expected)
    assert_same(fast.requires_grad_(False)(CASE.x()), expected)
    fast.flatten_parameters()
    assert_same(fast(CASE.x()), expected)


@pytest.mark.parametrize("narrow", [nn.Module.half, nn.Module.bfloat16, nn.Module.float])
def test_dtypes_stay(narrow, kind, isa):
    fast = replace(CASE, **kind).fast()
    before, expected = copy.deepcopy(fast.state_dict()), fast(CASE.x())
    narrow(fast)
    same_tensors(fast.state_dict(), before)
    assert_same(fast(CASE.x()), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_of_the_constructor_leaves_scales_float32(dtype):
    fast = lfk.FastQuantLSTM(9, 31, dtype=dtype)
    assert {t.dtype for t in fast.state_dict().values()} == {torch.int8, torch.float32}
    y, (h, c) = fast(torch.randn(3, 2, 9, dtype=dtype))
    assert {y.dtype, h.dtype, c.dtype} == {dtype}


def test_dropout_is_idle_in_training_mode(isa):
    lstm = nn.LSTM(9, 31, 2, dropout=0.9)
    fast = lfk.FastQuantLSTM.from_float(lstm).train()
    assert fast.dropout == 0.9
    x = CASE.x()
    assert_same(fast(x), fast(x))
    assert_same(fast(x), fast.eval()(x))


def test_repr_says_what_nn_lstm_says_and_that_it_is_quantized():
    fast = lfk.FastQuantLSTM(5, 4, 2, batch_first=True, activations="int16")
    text = repr(fast)
    assert text.startswith("FastQuantLSTM(5, 4, num_layers=2, batch_first=True")
    assert "int16" in text
    assert repr(lfk.FastQuantLSTMCell(5, 4)).startswith("FastQuantLSTMCell(5, 4")


def test_new_modules_have_random_weights():
    torch.manual_seed(0)
    a, b = lfk.FastQuantLSTM(5, 4), lfk.FastQuantLSTM(5, 4)
    assert not torch.equal(a.state_dict()["weight_ih_l0"], b.state_dict()["weight_ih_l0"])


# Cells


@pytest.mark.parametrize("bias", [True, False])
def test_cell_checkpoints(bias, kind, isa):
    """A cell loads nn.LSTMCell's, its own, and that of a module of one layer."""
    case = Case(bias=bias, **kind)
    cell, fast, module = case.cell(), case.fast_cell(), case.new()
    module.load_state_dict(fast.state_dict())
    same_tensors(module.state_dict(), case.fast().state_dict())
    x = torch.randn(3, 9)
    for state in (cell.state_dict(), fast.state_dict(), module.state_dict()):
        other = case.new_cell()
        other.load_state_dict(state)
        for a, b in zip(other(x), fast(x), strict=True):
            assert torch.equal(a, b)


def test_cell_dequantizes():
    cell = nn.LSTMCell(9, 31)
    fast = lfk.FastQuantLSTMCell.from_float(cell)
    back = fast.dequantize()
    assert type(back) is nn.LSTMCell
    q, scale = lfk.quantize_rows(cell.weight_hh.detach())
    assert torch.equal(back.weight_hh.data, q * scale[:, None])
    assert fast.packed_bytes() == fast.packed.numel()


# convert


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


def test_convert_replaces_all_and_leaves_the_original(activations, isa):
    model, x = Model(), torch.randn(2, 5, 9)
    fast = lfk.convert(model, activations=activations)
    assert type(model.encoder) is nn.LSTM
    assert type(fast.encoder) is lfk.FastQuantLSTM
    assert fast.encoder is fast.decoder["rnn"], "shared modules stay shared"
    assert type(fast.decoder["cell"]) is lfk.FastQuantLSTMCell
    assert fast.encoder.activations == fast.decoder["cell"].activations == activations
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), atol=0.02, rtol=0)


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


# Threads and processes

# 38 million products: large enough for a call to be worth several threads.
LARGE = Case(64, 128, bidirectional=True, T=24, B=8)


def test_concurrent_calls_on_one_module(isa, threads):
    threads(2)
    fast = LARGE.fast()
    inputs = [replace(LARGE, seed=n).x() for n in range(8)]
    expected = [fast(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for n, result in enumerate(pool.map(fast, inputs)):
                assert_same(result, expected[n], f"input {n}")


def test_first_calls_at_once(isa):
    """Packing on first use is safe from several threads."""
    for seed in range(10):
        fast = Case(seed=seed).fast()
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(fast, [Case().x()] * 4))
        for result in results:
            assert_same(result, results[0], f"seed {seed}")


def test_fork_after_threads_were_used(isa, threads):
    """torch's own OpenMP threads do not survive fork: the child compares bytes, not tensors."""
    threads(2)
    fast, x = LARGE.fast(), LARGE.x()
    expected = fast(x)[0].numpy().tobytes()
    child = os.fork()
    if child == 0:
        os._exit(fast(x)[0].numpy().tobytes() != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert fast(x)[0].numpy().tobytes() == expected


class Outputs(torch.utils.data.Dataset):
    """Runs the module inside DataLoader workers."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 6

    def __getitem__(self, n):
        return self.module(LARGE.x() + n)[0].detach()


def test_dataloader_workers(isa, threads):
    threads(2)
    outputs = Outputs(LARGE.fast())
    expected = [outputs[n] for n in range(len(outputs))]
    loader = torch.utils.data.DataLoader(
        outputs, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for n, y in enumerate(loader):
        assert torch.equal(y, expected[n]), f"item {n}"
