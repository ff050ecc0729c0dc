"""Modules that hold packed weights alone: half the memory, the same tensors when asked for."""

import copy
import gc
import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import lstm_fastkernels as lfk
from bad_calls import check, error_of
from cases import KINDS, Case, assert_same, drawn, to_float
from kept_cases import (
    CASE,
    NAMES,
    assert_equal_tensors,
    assert_goes_back,
    assert_holds_packed_alone,
    assert_same_file,
    assert_stands_for,
    call,
    copies_of,
    kept,
    made,
)
from lstm_fastkernels import ops


@pytest.mark.parametrize("name", NAMES)
def test_tensors_come_back(name):
    fast = made(name)
    packed = kept(fast)
    assert packed.keep == "packed"
    assert_stands_for(packed, fast)
    assert_same(call(packed), call(fast))
    assert_goes_back(packed, fast)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_files(name, path):
    fast = made(name)
    packed = kept(fast)
    assert_same_file(packed, fast, path)
    for copied in (*copies_of(packed), lfk.load_file(path, keep="packed")):
        assert_holds_packed_alone(copied)
        assert_equal_tensors(copied.state_dict(), fast.state_dict())
        assert_same(call(copied), call(fast))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("ids")])
def test_checkpoints(name):
    fast = made(name)
    packed, other = kept(fast), kept(fast)
    floats = {n: torch.randn(t.shape) for n, t in to_float(fast).state_dict().items()}
    buffer = io.BytesIO()
    torch.save(packed.state_dict(), buffer)
    buffer.seek(0)
    for state in (fast.state_dict(), packed.state_dict(), torch.load(buffer)):
        for assign in (False, True):
            other.load_state_dict(floats)
            assert_holds_packed_alone(other)
            other.load_state_dict(state, assign=assign)
            assert_holds_packed_alone(other)
            assert_equal_tensors(other.state_dict(), fast.state_dict())
    fast.load_state_dict(floats)
    other.load_state_dict(floats)
    assert_equal_tensors(other.state_dict(), fast.state_dict())


def test_blocks_of_zeros_are_left_out():
    """They cost time and mean nothing; of large blocks, those stay that hold anything else."""
    tensors = drawn(replace(CASE, **KINDS["int8-sparse"])).state_dict()
    name = "weight_hh_l0"
    tensors[f"{name}_values"][1:3] = 0
    fast = CASE.new(keep="packed", layout="block_sparse")
    fast.load_state_dict(tensors)
    found = fast.state_dict()
    kept_blocks = [i for i in range(len(tensors[f"{name}_values"])) if i not in (1, 2)]
    for part in ("values", "col_indices"):
        assert torch.equal(found[f"{name}_{part}"], tensors[f"{name}_{part}"][kept_blocks])
    with_zeros = CASE.new(layout="block_sparse")
    with_zeros.load_state_dict(tensors)
    assert_same(fast(CASE.x()), with_zeros(CASE.x()))
    assert_equal_tensors(to_float(fast).state_dict(), to_float(with_zeros).state_dict())


def test_no_other_tensor_stays_in_memory():
    case = Case(67, 131, keep="packed")
    fast = case.new()
    fast.load_state_dict(case.lstm().state_dict())
    fast.bias_l0.zero_()
    fast(case.x())
    fast.state_dict(), fast.canonical(), fast.layouts(), repr(fast), copy.deepcopy(fast)
    gc.collect()
    large = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter) and 524 in o.shape]
    assert [tensor.shape for tensor in large] == [(524,)]
    int8_bytes = 4 * 131 * (67 + 131)
    assert sum(t.nbytes for t in (*fast.parameters(), *fast.buffers())) < 1.2 * int8_bytes


# Where the option goes.


def test_every_way_to_a_module_takes_the_option(path):
    lstm, cell = CASE.lstm(), CASE.cell()
    quantized = nn.Sequential(lstm)
    lfk.quantize_(quantized, lfk.Int8Config(keep="packed"))
    rounded = nn.Sequential(CASE.lstm())
    lfk.quantize_(rounded, lfk.Int4Config(keep="packed"), calibration=[CASE.x()])
    lfk.save_file(nn.Sequential(CASE.fast()), path)
    into = CASE.new(device="meta")
    made = [
        lfk.FastQuantLSTM(9, 31, keep="packed"),
        lfk.FastSparseLSTM(9, 31, keep="packed"),
        lfk.FastQuantLSTMCell(9, 31, keep="packed"),
        lfk.FastSparseLSTMCell(9, 31, keep="packed"),
        lfk.FastQuantLSTM.from_float(lstm, keep="packed"),
        lfk.FastQuantLSTMCell.from_float(cell, keep="packed"),
        lfk.convert(nn.Sequential(lstm), keep="packed")[0],
        lfk.convert(nn.Sequential(lstm), weights="float32", keep="packed")[0],
        quantized[0],
        rounded[0],
        lfk.fold_embedding(None, CASE.lstm(), keep="packed"),
        lfk.fold_embedding(None, kept(CASE.fast())),
        lfk.load_file(path, nn.Sequential(into), keep="packed")[0],
    ]
    for fast in made:
        assert_holds_packed_alone(fast)
    assert lfk.load_file(path, nn.Sequential(into))[0].keep == "canonical"


def test_another_word_is_refused(path):
    lfk.save_file(CASE.fast(), path)
    fast = CASE.fast()
    for refused in (
        lambda: CASE.new(keep="nothing"),
        lambda: lfk.Int8Config(keep="nothing"),
        lambda: lfk.load_file(path, keep="nothing"),
        lambda: setattr(fast, "keep", "nothing"),
    ):
        check(error_of(refused), ValueError, "keep", "'canonical'", "'packed'", "'nothing'")
    assert fast.keep == "canonical"


# Writes: to what the module holds they count, to what it does not hold they raise.


@pytest.mark.parametrize("bias", ["in place", "another", "another parameter", "in its dict"])
def test_biases_can_be_changed(bias):
    fast, packed = CASE.fast(), kept(CASE.fast())
    new = torch.linspace(-1, 1, 4 * 31)
    for module in (fast, packed):
        module(CASE.x())
        if bias == "in place":
            module.bias_l0.copy_(new)
        elif bias == "in its dict":
            module._parameters["bias_l0"] = nn.Parameter(new, requires_grad=False)
        else:
            module.bias_l0 = nn.Parameter(new, requires_grad=False)
    assert_same(packed(CASE.x()), fast(CASE.x()))
    assert_equal_tensors(packed.state_dict(), fast.state_dict())
    assert_holds_packed_alone(packed)


def test_functional_call_with_other_biases():
    fast, packed = CASE.fast(), kept(CASE.fast())
    before, biases = fast(CASE.x()), {"bias_l1": torch.linspace(-1, 1, 4 * 31)}
    expected = functional_call(fast, biases, (CASE.x(),))
    assert_same(functional_call(packed, biases, (CASE.x(),)), expected)
    assert_same(packed(CASE.x()), before)


def test_tensors_that_it_does_not_hold():
    packed = kept(CASE.fast())
    expected = packed(CASE.x())
    name = "weight_hh_l0"
    check(error_of(lambda: packed.weight_hh_l0), AttributeError, name, "packed", "state_dict()")
    assert not hasattr(packed, name)
    assert not hasattr(packed, "no_such_thing")
    for value in (torch.zeros(124, 31, dtype=torch.int8), None):
        error = error_of(lambda value=value: setattr(packed, name, value))
        check(error, AttributeError, name, "packed", "load_state_dict")
    others = CASE.fast().state_dict()
    error = error_of(lambda: functional_call(packed, others, (CASE.x(),)))
    check(error, AttributeError, "load_state_dict")
    for tensors in (packed.state_dict(), packed.canonical().tensors):
        for own, tensor in tensors.items():
            if not own.startswith("bias"):
                check(error_of(tensor.zero_), RuntimeError, "inference tensor", "clone")
    assert_same(packed(CASE.x()), expected)


def test_packed_weights_that_are_replaced():
    """They are checked, and taken as weights."""
    packed, other = kept(CASE.fast()), kept(drawn(replace(CASE, seed=5)))
    same_size = kept(drawn(replace(CASE, seed=6)))
    packed(CASE.x())
    packed.packed.copy_(same_size.packed)
    assert_equal_tensors(
        {n: t for n, t in packed.state_dict().items() if n.startswith("weight")},
        {n: t for n, t in same_size.state_dict().items() if n.startswith("weight")},
    )
    packed.packed = other.packed.clone()
    for name, tensor in other.named_parameters():
        setattr(packed, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))
    assert_same(packed(CASE.x()), other(CASE.x()))
    for wrong, words in (
        (kept(Case(9, 31).fast()).packed, ("other sizes",)),
        (torch.zeros(9, dtype=torch.uint8), ("packed weights",)),
        (other.packed[:-64].clone(), ("packed weights",)),
        (torch.zeros(9), ("packed weights", "uint8")),
        (None, ("packed",)),
    ):
        packed = kept(CASE.fast())
        packed.packed = wrong
        for use in (lambda p=packed: p(CASE.x()), lambda p=packed: p.canonical()):
            check(error_of(use), ValueError, "FastQuantLSTM", "load_state_dict", *words)
        check(error_of(packed.state_dict), RuntimeError, *words)
        repr(packed)
        if wrong is not None:
            packed.load_state_dict(CASE.fast().state_dict())
            assert_same(packed(CASE.x()), CASE.fast()(CASE.x()))


def test_calls_do_not_unpack(monkeypatch):
    packed = kept(CASE.fast())
    before = packed.packed
    monkeypatch.setattr(ops, "unpack_lstm", None)
    monkeypatch.setattr(ops, "pack_lstm", None)
    packed.half().float().eval().to("cpu").requires_grad_(False)
    packed(CASE.x())
    packed.share_memory()
    packed(CASE.x())
    assert packed.packed is before


# Devices and tracers.


@pytest.mark.parametrize("bias", [True, False])
def test_without_values_tensors_are_held(bias):
    """There is nothing packed on the meta device."""
    case = replace(CASE, bias=bias)
    fast = case.new(device="meta", keep="packed")
    names = list(fast.state_dict())
    assert set(names) <= {n for n, _ in (*fast.named_parameters(), *fast.named_buffers())}
    assert next(fast.parameters()).is_meta
    fast = fast.to_empty(device="cpu")
    fast.load_state_dict(case.fast().state_dict())
    assert_holds_packed_alone(fast)
    on_meta = copy.deepcopy(fast).to("meta")
    assert list(on_meta.state_dict()) == list(case.new(device="meta").state_dict())
    assert all(tensor.is_meta for tensor in on_meta.state_dict().values())
    parameters = [name for name, _ in case.new(device="meta").named_parameters()]
    assert [name for name, _ in on_meta.named_parameters()] == parameters
    assert_same(fast(case.x()), case.fast()(case.x()))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_in_any_mode(mode, kind):
    case = replace(CASE, **kind)
    fast = case.fast()
    expected = fast(case.x())
    with mode():
        packed = kept(fast)
        packed.load_state_dict(fast.state_dict())
        copied = copy.deepcopy(packed)
        assert_same(packed(case.x()), expected)
        state = packed.state_dict()
    for module in (packed, copied):
        module.bias_l0.add_(0)
        assert_same(module(case.x()), expected)
        assert_holds_packed_alone(module)
    assert_equal_tensors(state, fast.state_dict())


@pytest.fixture
def compiled():
    torch.compiler.reset()
    yield lambda module: torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.compiler.reset()


def test_compiled(kind, compiled):
    case = replace(CASE, **kind)
    packed = kept(case.fast())
    run = compiled(packed)
    assert_same(run(case.x()), case.fast()(case.x()))
    cell = kept(replace(case, num_layers=1, bidirectional=False).fast_cell())
    x = torch.randn(3, 9)
    for found, expected in zip(compiled(cell)(x), cell(x), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("strict", [True, False])
def test_exported(strict):
    packed = kept(CASE.fast())
    program = torch.export.export(packed, (CASE.x(),), strict=strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    for exported in (program, torch.export.load(buffer)):
        assert_same(exported.module()(CASE.x()), packed(CASE.x()))
    assert_holds_packed_alone(packed)


def test_traced():
    packed = kept(CASE.fast())
    traced = torch.jit.trace(packed, CASE.x())
    assert_same(traced(CASE.x()), packed(CASE.x()))
    model = nn.Sequential(packed)
    assert_same(torch.fx.symbolic_trace(model)(CASE.x()), packed(CASE.x()))


def test_fake_tensors():
    names = list(CASE.fast().state_dict())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fast = CASE.new(keep="packed")
        assert fast(mode.from_tensor(CASE.x()))[0].shape == (5, 3, 62)
        assert list(fast.state_dict()) == names
    packed = kept(CASE.fast())
    with FakeTensorMode() as mode:
        fakes = {name: mode.from_tensor(t) for name, t in packed.named_buffers()}
        fakes |= {name: mode.from_tensor(t) for name, t in packed.named_parameters()}
        y, _ = functional_call(packed, fakes, (mode.from_tensor(CASE.x()),))
        assert y.shape == (5, 3, 62)
    assert_same(packed(CASE.x()), CASE.fast()(CASE.x()))


def test_what_looks_at_it():
    fast, lstm = CASE.fast(), CASE.lstm()
    packed = kept(fast)
    assert lfk.explain(packed, CASE.x()) == lfk.explain(fast, CASE.x())
    tables = [str(lfk.check(module, lstm, [CASE.x()])) for module in (packed, fast)]
    assert tables[0] == tables[1]


def test_streams():
    packed, fast = kept(Case(9, 31).fast()), Case(9, 31).fast()
    results = []
    for lstm in (packed, fast):
        batch = lfk.StreamBatch(lstm, 3)
        streams = [batch.join() for _ in range(2)]
        results.append([batch.tick(streams, x[:2]) for x in CASE.x()])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
