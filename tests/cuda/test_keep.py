"""Modules that hold packed weights alone, packed for CUDA."""

import copy
import gc
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call

import kept_cases
import lstm_fastkernels as lfk
from bad_calls import check, error_of
from cases import Case, assert_same, drawn, moved
from kept_cases import (
    CASE,
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

NAMES = [name for name in kept_cases.NAMES if not name.startswith("ids")]  # of the CPU alone
needs_kernels = pytest.mark.skipif(not lfk.cuda_built(), reason="this build has no CUDA kernels")
BIAS = torch.linspace(-1, 1, 4 * 31)


@pytest.fixture
def packs_for_cuda(monkeypatch):
    """Modules on the CPU are packed for CUDA: without a device, they can do all but run."""
    pack = ops.pack_lstm
    monkeypatch.setattr(ops, "pack_lstm", lambda *arguments: pack(*arguments[:-1], True))


def by_name(tensors, device):
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def only(kind, fast):
    """A module's tensors whose names begin so."""
    return {name: tensor for name, tensor in fast.state_dict().items() if name.startswith(kind)}


# On the host.


@needs_kernels
@pytest.mark.usefixtures("packs_for_cuda")
@pytest.mark.parametrize("name", NAMES)
def test_tensors_come_back(name):
    fast = made(name)
    packed = kept(fast)
    assert packed._header
    assert_stands_for(packed, fast)
    assert_goes_back(packed, fast)


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_what_is_packed_for_both_is_the_same(name, monkeypatch):
    """From one device's packed form to the other's and back, without the canonical tensors."""
    packed = kept(made(name))
    before, pack = packed.packed.clone(), ops.pack_lstm
    for for_cuda in (True, False):
        monkeypatch.setattr(ops, "pack_lstm", lambda *a, to=for_cuda: pack(*a[:-1], to))
        packed._apply(torch.clone)
        assert (packed._header is not None) == for_cuda
        assert_holds_packed_alone(packed)
    assert torch.equal(packed.packed, before)
    assert_same(call(packed), call(made(name)))


@needs_kernels
@pytest.mark.usefixtures("packs_for_cuda")
@pytest.mark.parametrize("name", NAMES)
def test_copies_and_files(name, path):
    fast = made(name)
    packed = kept(fast)
    assert_same_file(packed, fast, path)
    for copied in (*copies_of(packed), lfk.load_file(path, keep="packed")):
        assert copied._header == packed._header
        assert torch.equal(copied.packed, packed.packed)
        assert_holds_packed_alone(copied)
    on_meta = packed.to("meta")
    assert list(on_meta.state_dict()) == list(fast.state_dict())
    assert all(tensor.is_meta for tensor in on_meta.state_dict().values())


@needs_kernels
@pytest.mark.usefixtures("packs_for_cuda")
def test_changes():
    fast, packed, other = CASE.fast(), kept(CASE.fast()), kept(drawn(replace(CASE, seed=5)))
    for module in (fast, packed):
        module.bias_l0.copy_(BIAS)
        module.bias_l1 = nn.Parameter(BIAS, requires_grad=False)
    assert_equal_tensors(packed.canonical().tensors, fast.canonical().tensors)
    before = packed._header
    packed.load_state_dict(other.state_dict())
    assert_equal_tensors(packed.state_dict(), other.state_dict())
    packed.packed = kept(CASE.fast()).packed.clone()
    packed.repack_()
    assert_equal_tensors(only("weight", packed), only("weight", CASE.fast()))
    assert packed._header == before
    assert_holds_packed_alone(packed)


@needs_kernels
@pytest.mark.usefixtures("packs_for_cuda")
def test_what_is_no_packed_form_is_refused():
    good = kept(CASE.fast()).packed
    for wrong, words in (
        (kept(Case(9, 31).fast()).packed, ("other sizes",)),
        (torch.zeros(99, dtype=torch.uint8), ("bad magic number",)),
        (good[:40].clone(), ("at least 64 bytes",)),
        (good[:-64].clone(), ("packed weights", "bytes for these sizes")),
        (torch.cat((good[:8], good[:8], good[16:])), ("version",)),
        (torch.zeros(9), ("packed weights", "uint8")),
        (torch.cat((good[:1], good))[1:], ("aligned to 16 bytes",)),
        (None, ("packed",)),
    ):
        packed = kept(CASE.fast())
        packed.packed = wrong
        check(error_of(packed.canonical), ValueError, "FastQuantLSTM", "load_state_dict", *words)
        check(error_of(packed.state_dict), RuntimeError, *words)
        repr(packed)


@needs_kernels
@pytest.mark.usefixtures("packs_for_cuda")
@pytest.mark.parametrize("name", ["int8", "int8-sparse", "int4", "projection"])
def test_changed_headers(name):
    """Whatever stands in the header and the records, they are refused or harmless."""
    packed = kept(made(name)).packed
    refused = 0
    for at in range(0, 64 + 4 * 256, 4):
        word = packed[at : at + 4].clone()
        for change in (0xFF, 0x01):
            packed[at : at + 4] ^= change
            try:
                ops.unpack_lstm(packed, CASE.shape())
            except RuntimeError:
                refused += 1
            packed[at : at + 4] = word
    assert refused > 100


@needs_kernels
def test_tables_are_for_the_cpu_alone(monkeypatch):
    """Where it cannot run, the module holds canonical tensors."""
    fast = made("ids, int8")
    packed, pack = kept(fast), ops.pack_lstm
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(ops, "pack_lstm", lambda *a: pack(*a[:-1], True))
        packed._apply(torch.clone)
        assert packed.packed.numel() == 0
        assert "weight_hh_l0" in dict(packed.named_buffers())
        assert_equal_tensors(packed.state_dict(), fast.state_dict())
    packed._apply(torch.clone)
    assert_holds_packed_alone(packed)
    assert_same(call(packed), call(fast))


# On a device.


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_a_device(name):
    fast = made(name)
    packed, twin = kept(fast).cuda(), copy.deepcopy(fast).cuda()
    assert {tensor.device.type for tensor in packed.state_dict().values()} == {"cuda"}
    assert_stands_for(packed, twin)
    assert_equal_tensors(by_name(packed.state_dict(), "cpu"), fast.state_dict())
    assert_same(moved(call(packed), "cpu"), call(fast))
    assert_holds_packed_alone(packed)
    assert_goes_back(packed, twin)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_moves(name):
    fast = made(name)
    packed = kept(fast)
    before = packed.packed
    for device in ("cuda", "cpu", "cuda", "cpu"):
        packed.to(device)
        assert {t.device.type for t in (*packed.parameters(), *packed.buffers())} == {device}
        assert_holds_packed_alone(packed)
        assert_same(moved(call(packed), "cpu"), call(fast))
    assert torch.equal(packed.packed, before)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_copies_on_a_device(name, path):
    fast = made(name)
    packed = kept(fast).cuda()
    assert_same_file(packed, fast, path)
    for copied in copies_of(packed):
        assert copied.packed.device.type == "cuda"
        assert_holds_packed_alone(copied)
        assert_same(moved(call(copied), "cpu"), call(fast))


@pytest.mark.gpu
def test_changes_on_a_device():
    fast, packed, x = CASE.fast(), kept(CASE.fast()).cuda(), CASE.x()

    def check_calls():
        assert_same(moved(packed(x.cuda()), "cpu"), fast(x))

    for module in (fast, packed):
        module.bias_l0.copy_(BIAS)
        module.bias_l1 = nn.Parameter(BIAS.to(module.packed.device), requires_grad=False)
    check_calls()
    biases = {"bias_l1": torch.zeros(4 * 31)}
    expected = functional_call(fast, biases, (x,))
    found = functional_call(packed, by_name(biases, "cuda"), (x.cuda(),))
    assert_same(moved(found, "cpu"), expected)
    check_calls()
    other = drawn(replace(CASE, seed=5)).state_dict()
    for module in (fast, packed):
        module.load_state_dict(other)
    check_calls()
    fast = CASE.fast()
    packed.packed = kept(fast).cuda().packed
    packed.load_state_dict(packed.state_dict() | by_name(only("bias", fast), "cuda"))
    check_calls()
    assert_holds_packed_alone(packed)


@pytest.mark.gpu
def test_calls_do_not_unpack(monkeypatch):
    packed = kept(CASE.fast()).cuda()
    before = packed.packed
    monkeypatch.setattr(ops, "unpack_lstm", None)
    monkeypatch.setattr(ops, "pack_lstm", None)
    packed.half().float().eval().to("cuda").requires_grad_(False)
    packed(CASE.x().cuda())
    assert packed.packed is before


@pytest.mark.gpu
def test_compiled(kind):
    torch.compiler.reset()
    case = replace(CASE, **kind)
    packed, x = kept(case.fast()).cuda(), case.x().cuda()
    run = torch.compile(packed, fullgraph=True, backend="aot_eager")
    assert_same(run(x), packed(x))
    torch.compiler.reset()


@pytest.mark.gpu
def test_memory():
    def allocated():
        gc.collect()
        return torch.cuda.memory_allocated()

    case, before = Case(256, 512), allocated()
    int8_bytes = 4 * 512 * (256 + 512)
    fast = kept(drawn(case)).cuda()
    fast(case.x().cuda())
    fast.state_dict(), fast.canonical(), fast.layouts(), repr(fast), copy.deepcopy(fast)
    assert allocated() - before < 1.2 * int8_bytes
    fast.keep = "canonical"
    assert allocated() - before > 2 * int8_bytes
