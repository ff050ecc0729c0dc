"""Modules move between devices and are packed for the one they are on, however they got there."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import lstm_fastkernels as lfk
from cases import KEPT_PACKED, KINDS, Case, assert_same, moved
from lstm_fastkernels import ops

CASE = Case(9, 31, 2, bidirectional=True, proj_size=13)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def loaded(module, case, device="cpu"):
    """The module with the case's weights, from a checkpoint on that device."""
    state = case.fast().state_dict()
    module.load_state_dict({name: tensor.to(device) for name, tensor in state.items()})
    return module


def saved(module, **options):
    """Through torch.save and torch.load."""
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False, **options)


# How a module of the case comes to a device.
WAYS = {
    "to": lambda case, device: case.fast().to(device),
    "to a torch.device": lambda case, device: case.fast().to(torch.device(device)),
    "without waiting": lambda case, device: case.fast().to(device, non_blocking=True),
    "with a dtype": lambda case, device: case.fast().to(device, torch.float16),
    "in its model": lambda case, device: nn.Sequential(nn.Identity(), case.fast()).to(device)[1],
    "its method": lambda case, device: getattr(case.fast(), device)(),
    "there and back": lambda case, device: case.fast().to(device).cpu().to(device),
    "back without waiting": lambda case, device: (
        case.fast().to(device).to("cpu", non_blocking=True).to(device)
    ),
    "constructed": lambda case, device: loaded(case.new(device=device), case),
    "checkpoint from there": lambda case, device: loaded(case.new(), case, device).to(device),
    "meta": lambda case, device: loaded(case.new(device="meta"), case, device),
    "meta, to_empty": lambda case, device: loaded(
        case.new(device="meta").to_empty(device=device), case
    ),
    "to_empty": lambda case, device: loaded(case.fast().to_empty(device=device), case, device),
    "to_empty in its model": lambda case, device: loaded(
        nn.Sequential(case.fast()).to_empty(device=device)[0], case
    ),
    "moved to meta": lambda case, device: loaded(case.fast().to("meta"), case, device),
    "deepcopy": lambda case, device: copy.deepcopy(case.fast().to(device)),
    "pickle": lambda case, device: pickle.loads(pickle.dumps(case.fast().to(device))),
    "torch.save": lambda case, device: saved(case.fast().to(device)),
    "map_location": lambda case, device: saved(case.fast(), map_location=device),
    "map_location back": lambda case, device: saved(case.fast().to(device), map_location="cpu").to(
        device
    ),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS | KEPT_PACKED)
def test_ways_to_a_device(way, device, kind):
    case = Case(9, 31, 2, bidirectional=True, **(KINDS | KEPT_PACKED)[kind])
    fast = WAYS[way](case, device)
    assert {tensor.device.type for tensor in fast.buffers()} == {device}
    assert fast.packed_bytes() == fast.packed.numel() > 0
    expected = case.fast()
    assert fast.state_dict().keys() == expected.state_dict().keys()
    x, state = case.x(), case.state()
    result = fast(x.to(device), moved(state, device))
    assert {tensor.device.type for tensor in (result[0], *result[1])} == {device}
    assert_same(moved(result, "cpu"), expected(x, state), way)
    assert_same(fast.cpu()(x, state), expected(x, state), f"{way}, then cpu")


@pytest.mark.parametrize("device", DEVICES)
def test_cells_move(device, kind):
    case = Case(**kind)
    cell, x = case.fast_cell(), torch.randn(3, 9)
    expected = cell(x)
    for module in (cell.to(device), copy.deepcopy(cell), saved(cell)):
        for a, e in zip(module(x.to(device)), expected, strict=True):
            assert torch.equal(a.cpu(), e)


@pytest.mark.parametrize("device", DEVICES)
def test_float_models_are_compressed_where_they_are(device, activations):
    """Random weights, from_float, convert, a float checkpoint; and the way back."""
    lstm = CASE.lstm().to(device)
    modules = [
        lfk.FastQuantLSTM(9, 31, device=device, activations=activations),
        lfk.FastQuantLSTM.from_float(lstm, activations=activations),
        lfk.convert(nn.Sequential(lstm), activations=activations)[0],
        lfk.FastQuantLSTM.from_float(lstm.cpu(), activations=activations).to(device),
    ]
    modules[0].load_state_dict(nn.LSTM(9, 31).state_dict())
    on_device, on_cpu = modules[1].state_dict(), modules[3].state_dict()
    assert all(torch.equal(tensor, on_cpu[name]) for name, tensor in on_device.items())
    for fast in modules:
        assert {tensor.device.type for tensor in fast.buffers()} == {device}
        back = fast.dequantize()
        assert {tensor.device.type for tensor in back.parameters()} == {device}
        x = CASE.x().to(device)
        result = fast(x)
        torch.testing.assert_close(result[0], back(x)[0], atol=0.05, rtol=0)
        assert_same(moved(result, "cpu"), fast.cpu()(CASE.x()))


@pytest.mark.parametrize("device", DEVICES)
def test_files_load_to_where_the_model_is(device, kind, path):
    case = Case(**kind)
    lfk.save_file(nn.Sequential(case.fast().to(device)), path)
    for module, place in ((case.lstm(), device), (case.new(), device), (case.lstm(), "cpu")):
        fast = lfk.load_file(path, nn.Sequential(module).to(place))[0]
        assert {tensor.device.type for tensor in fast.buffers()} == {place}
        assert_same(moved(fast(case.x().to(place)), "cpu"), case.fast()(case.x()))


@pytest.mark.parametrize("device", ["meta", *DEVICES])
def test_the_default_device(device):
    lstm = CASE.lstm()
    with torch.device(device):
        fast = lfk.FastQuantLSTM(9, 31)
        compressed = lfk.FastQuantLSTM.from_float(lstm)
        copied = copy.deepcopy(compressed)
    assert fast.packed.device.type == device
    for module in (compressed, copied):
        assert_same(module(CASE.x()), CASE.fast()(CASE.x()))


@pytest.mark.parametrize("narrow", [nn.Module.half, nn.Module.float, nn.Module.share_memory])
def test_packed_again_only_after_a_move(narrow, kind, monkeypatch):
    fast = Case(**kind).fast()
    packed = fast.packed
    monkeypatch.setattr(ops, "pack_lstm", None)
    assert narrow(fast).packed is packed
    assert narrow(nn.Sequential(fast))[0].packed is packed
    assert packed.is_shared() == (narrow is nn.Module.share_memory)


@pytest.mark.parametrize("device", DEVICES)
def test_without_weights(device, kind):
    """to_empty leaves whatever is in memory: moving it raises nothing, a call says what to do."""
    case = Case(**kind)
    junk = {torch.int8: -128, torch.uint8: 255, torch.int32: -1, torch.float32: torch.nan}
    for module in (case.new(device="meta"), case.fast()):
        fast = module.to_empty(device=device)
        for tensor in fast.state_dict().values():
            tensor.fill_(junk[tensor.dtype])
        fast._apply(torch.clone)
        with pytest.raises(ValueError, match="load_state_dict"):
            fast(case.x().to(device))
        loaded(fast, case)
        assert_same(moved(fast(case.x().to(device)), "cpu"), case.fast()(case.x()))


def test_meta_modules_give_shapes():
    fast = CASE.fast().to("meta")
    assert fast.packed.is_meta
    for x in (CASE.x(), CASE.x()[:, 0]):
        for lengths in [None] if x.dim() == 2 else [None, CASE.lengths()]:
            result, expected = fast(x.to("meta"), lengths=lengths), CASE.fast()(x)
            for a, e in zip((result[0], *result[1]), (expected[0], *expected[1]), strict=True):
                assert (a.shape, a.device.type) == (e.shape, "meta")


def test_a_failed_move_changes_nothing():
    fast = CASE.fast()

    def fail(tensor):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fast._apply(fail)
    assert_same(fast(CASE.x()), CASE.fast()(CASE.x()))


# Without a GPU: fake tensors say that they are on one.


@pytest.fixture
def fake_cuda(monkeypatch):
    """Fake tensors and packing; gives the list of what was packed, True for CUDA."""
    packed = []

    def pack(tensors, *arguments):
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        packed.append(arguments[-1])
        return torch.empty(64, dtype=torch.uint8), [1, 2] if packed[-1] else None

    monkeypatch.setattr(ops, "pack_lstm", pack)
    monkeypatch.setattr(ops, "cuda_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield packed


def test_moving_packs_once_for_the_new_device(fake_cuda):
    fast = CASE.new(device="meta")
    steps = [
        (lambda: fast.to_empty(device="cuda"), [True], "cuda:0"),
        (lambda: fast.half(), [], "cuda:0"),
        (lambda: fast.to("cuda:0"), [], "cuda:0"),
        (lambda: nn.Sequential(fast).to_empty(device="cuda:1"), [True], "cuda:1"),
        (lambda: fast.__setstate__(fast.__getstate__()), [True], "cuda:1"),
        (lambda: nn.Sequential(fast).to("cpu", torch.float16), [False], "cpu"),
        (lambda: fast.cpu(), [], "cpu"),
        (lambda: fast.to_empty(device="cpu"), [False], "cpu"),
        (lambda: fast.to_empty(device="cuda"), [True], "cuda:0"),
        (lambda: fast.to("meta"), [], "meta"),
    ]
    for step, packed, device in steps:
        step()
        assert fake_cuda == packed
        fake_cuda.clear()
        assert {str(tensor.device) for tensor in fast.buffers()} == {device}
        assert fast._header == ([1, 2] if "cuda" in device else None)
        assert "_header" not in fast.__getstate__()


def test_fake_kernel_on_cuda(fake_cuda):
    def on(device, *tensors):
        return tuple(torch.empty_like(tensor, device=device) for tensor in tensors)

    fast = CASE.new(device="meta").to_empty(device="cuda")
    x, alone = on("cuda", CASE.x(), CASE.x()[:, 0])
    state, lengths = on("cuda", *CASE.state()), torch.full((3,), 5)
    for form in ((x,), (x, state), (x, state, lengths), (alone,)):
        y, (h, c) = fast(*form)
        assert {y.device, h.device, c.device} == {x.device}
    for form, name in (
        (on("cpu", x), "input"),
        (on("cuda:1", x), "input"),
        ((x, on("cpu", *state)), "h0"),
        ((x, (state[0], *on("cuda:1", state[1]))), "c0"),
        ((x, state, *on("cuda", lengths)), "lengths"),
    ):
        with pytest.raises(RuntimeError, match=f"{name} must be on"):
            fast(*form)


def test_headers_are_constants_of_a_graph():
    """Also those of modules that are compiled one after another."""
    for header in ([1, 2**40], [2, 2**62]):
        fast = CASE.fast()
        fast._header = header
        program = torch.export.export(fast, (CASE.x(),))
        op = torch.ops.lstm_fastkernels.lstm.default
        (call,) = (node for node in program.graph.nodes if node.target is op)
        assert call.args[-1] == header
        with pytest.raises(RuntimeError, match="packed for CUDA"):
            torch.compile(fast, fullgraph=True, backend="aot_eager")(CASE.x())


@pytest.mark.skipif(lfk.cuda_built(), reason="this build has CUDA kernels")
def test_packing_for_cuda_without_kernels():
    tensors = CASE.fast().canonical().tensors
    with pytest.raises(RuntimeError, match="built without CUDA kernels"):
        ops.pack_lstm(*pack_arguments(tensors), True)
    packed = CASE.fast().packed.clone()
    packed[12] = 2  # as if it were for CUDA
    with pytest.raises(RuntimeError, match="built without CUDA kernels"):
        ops.unpack_lstm(packed, CASE.shape())


def pack_arguments(tensors):
    return [*tensors.values()], [*tensors], CASE.shape(), ["int8"] * 12


def test_packing_tensors_elsewhere():
    canonical = CASE.fast().canonical().tensors
    tensors = {name: tensor.to("meta") for name, tensor in canonical.items()}
    with pytest.raises(RuntimeError, match="weight_ih_l0 must be on the CPU"):
        ops.pack_lstm(*pack_arguments(tensors))
