"""The fast modules in a model's life: copies, modes, dtypes, repr, memory."""

import copy
import io
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, assert_same
from io_cases import same_tensors
from isas import assert_same_bits, everywhere

CASE = Case(9, 31, 2, bidirectional=True, proj_size=13)


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
def test_copies(travel, called_before, kind):
    case = replace(CASE, **kind)
    fast = case.fast()
    if called_before:
        fast(CASE.x())
    other = travel(fast)
    assert other is not fast
    assert_same(everywhere(other)(CASE.x()), fast(CASE.x()))
    same_tensors(other.state_dict(), fast.state_dict())
    cell, x = Case(**kind).fast_cell(), torch.randn(3, 9)
    assert_same_bits(everywhere(travel(cell))(x), cell(x))


def test_loading_replaces_what_was_packed(kind):
    one, two = Case(seed=1, **kind).fast(), Case(seed=2, **kind).fast()
    x = Case().x()
    one(x)
    one.load_state_dict(two.state_dict())
    assert_same(everywhere(one)(x), two(x))


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


def test_moves_and_modes(kind):
    fast = replace(CASE, **kind).fast()
    run = everywhere(fast)
    expected = run(CASE.x())
    assert fast.to("cpu") is fast
    assert fast.eval() is fast
    assert_same(run(CASE.x()), expected)
    for change in (nn.Module.train, lambda module: module.requires_grad_(False)):
        assert change(fast) is fast
        assert_same(run(CASE.x()), expected)
    fast.flatten_parameters()
    assert_same(run(CASE.x()), expected)


@pytest.mark.parametrize("narrow", [nn.Module.half, nn.Module.bfloat16, nn.Module.float])
def test_dtypes_stay(narrow, kind):
    fast = replace(CASE, **kind).fast()
    before, expected = copy.deepcopy(fast.state_dict()), fast(CASE.x())
    narrow(fast)
    same_tensors(fast.state_dict(), before)
    assert_same(everywhere(fast)(CASE.x()), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_of_the_constructor_leaves_scales_float32(dtype):
    fast = lfk.FastQuantLSTM(9, 31, dtype=dtype)
    assert {t.dtype for t in fast.state_dict().values()} == {torch.int8, torch.float32}
    y, (h, c) = fast(torch.randn(3, 2, 9, dtype=dtype))
    assert {y.dtype, h.dtype, c.dtype} == {dtype}


def test_dropout_is_idle_in_training_mode():
    lstm = nn.LSTM(9, 31, 2, dropout=0.9)
    fast = lfk.FastQuantLSTM.from_float(lstm).train()
    assert fast.dropout == 0.9
    x, run = CASE.x(), everywhere(fast)
    expected = run(x)
    assert_same(run(x), expected)
    fast.eval()
    assert_same(run(x), expected)


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
