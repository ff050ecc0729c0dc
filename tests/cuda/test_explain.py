"""explain on a device: the profiler sees the kernels that it names."""

import re
from dataclasses import replace

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from cases import KINDS, Case, drawn, moved
from explanations import explained

pytestmark = pytest.mark.gpu

CASE = Case(9, 31, 2, T=5, B=3)


def kernels(call):
    """Names of the kernels that a call runs."""
    cuda = torch.profiler.ProfilerActivity.CUDA
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[cuda]) as profiler:
        call()
        torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    return [event.name for event in profiler.events() if event.device_type == on_device]


def check_promise(fast, *inputs, T):
    """What explain says of each layer; the kernels are those."""
    fast(*inputs)  # what is loaded on first use
    first, layers = explained(fast, *inputs)
    ran = kernels(lambda: fast(*inputs))
    assert first.startswith(f"{type(fast).__name__} on cuda:0, T={T}, ")
    how = list(layers.values())
    for part, promised in (
        ("::step_kernel", T * sum(text.startswith("launches each step: ") for text in how)),
        ("::single_step_kernel", sum(text.startswith("one launch: ") for text in how)),
        ("::persistent_kernel", sum(text.startswith("persistent: ") for text in how)),
        ("ClusterExchange", sum("persistent: in a cluster" in text for text in how)),
        ("GridExchange", sum("of the grid" in text for text in how)),
    ):
        assert sum(part in name for name in ran) == promised, f"{part}: {how}, but ran {ran}"
    return how


LARGE = Case(40, 512, T=20, B=1)
PROMISES = [
    (LARGE, "persistent: in a cluster of 16 blocks"),
    (replace(LARGE, num_layers=2, bidirectional=True), "persistent: "),
    (replace(LARGE, hidden_size=768, B=16), "persistent: on 48 blocks of the grid;"),
    (
        replace(LARGE, hidden_size=768, B=16, layout="block_sparse", density=0.05),
        "persistent: on 48 blocks of the grid;",
    ),
    (replace(LARGE, activations="int16"), "persistent: in a cluster of 16 blocks"),
    (replace(LARGE, activations="float32"), "launches each step: weight_hh is float32"),
    (
        replace(LARGE, precision=(("weight_ih_*", "float32"),)),
        "persistent: in a cluster of 16 blocks",
    ),
    (replace(LARGE, proj_size=64), "launches each step: there is a projection"),
    (replace(LARGE, T=1), "one launch: there is one time step"),
    (replace(LARGE, B=70), "persistent: on 32 blocks of the grid, 2 ranges of 40 rows"),
    (replace(LARGE, B=257), "launches each step: the batch is larger than 256"),
    (replace(LARGE, hidden_size=2100), "launches each step: the hidden size or the batch"),
]


@pytest.mark.parametrize(("case", "expected"), PROMISES, ids=lambda value: str(value)[:60])
def test_promises_are_kept(case, expected):
    found = check_promise(drawn(case).cuda(), case.x().cuda(), T=case.T)
    of_device = torch.cuda.get_device_properties(0)
    if of_device.multi_processor_count < 108:
        pytest.skip("the device is too small for the choices of large ones")
    if of_device.major < 9:
        expected = expected.replace("in a cluster of 16 blocks", "on 32 blocks of the grid")
    assert all(text.startswith(expected) for text in found)


def test_layers_side_by_side():
    """A launch for each chunk of 64 steps, and one more, for the second layer's last chunk."""
    case = replace(LARGE, hidden_size=256, num_layers=2, T=300)
    fast, x = drawn(case).cuda(), case.x().cuda()
    together = ["2 layers side by side" in text for text in explained(fast, x)[1].values()]
    ran = sum("persistent_kernel" in name for name in kernels(lambda: fast(x)))
    assert (together, ran) in (([True, True], 6), ([False, False], 2))


@pytest.mark.parametrize("name", KINDS)
def test_promises_of_small_modules(name):
    for B in (1, 16, 65, 300):
        case = replace(CASE, num_layers=3, T=7, B=B, **KINDS[name])
        check_promise(case.fast().cuda(), case.x().cuda(), T=7)


def test_shares_on_a_device(kind):
    """16x32 blocks: as many as there are with a weight in them."""
    case = Case(70, 100, 2, proj_size=50, T=3, **{**kind, "density": 0.05})
    fast = drawn(case)
    width = 4 if case.activations == "float32" else 32
    expected = {}
    for name in fast.layouts():
        gates = fast._matrix(name, fast._tensors()).chunk(1 if "_hr" in name else 4)
        blocks = [
            bool(part.any())
            for gate in gates
            for strip in gate.split(16)
            for part in strip.split(width, 1)
        ]
        expected[name] = 100 * sum(blocks) / len(blocks)
    _, layers = explained(fast.cuda(), case.x().cuda())
    found = {}
    for text in layers.values():
        assert "blocks kept: " in text
        assert set(re.findall(r"16x(\d+)", text)) == {str(width)}
        found |= dict(re.findall(r"(weight_\w+) ([\d.]+)%", text))
    assert found.keys() == expected.keys()
    for name, share in expected.items():
        assert abs(float(found[name]) - share) < 0.1, name


def test_forms_of_call_on_a_device():
    case = replace(CASE, T=7)
    fast, x, lengths = case.fast().cuda(), case.x().cuda(), case.lengths()
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    for inputs in ((x, moved(case.state(), "cuda")), (packed,), (x, None, lengths), (x[:, 0],)):
        check_promise(fast, *inputs, T=7)
    assert explained(fast, x[:, :0])[1] == {f"layer {n}": "nothing to run" for n in (0, 1)}
    cell = case.fast_cell().cuda()
    _, layers = explained(cell, x[0])
    assert "there is one time step" in layers["layer 0"]
    with pytest.raises(RuntimeError, match=r"input must be on cuda:0"):
        lfk.explain(fast, case.x())


def test_repr_on_a_device(kind):
    fast = replace(CASE, **kind).fast().cuda()
    x = CASE.x().cuda()
    fast(x)
    assert kernels(lambda: repr(fast)) == []
    text = repr(fast)
    for rows in (1, 16):
        for how in explained(fast, x[:2, :1].expand(2, rows, 9))[1].values():
            assert how.split(";")[0] in text.partition("steps: ")[2]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert repr(fast) == text
        fast(x)
    graph.replay()
    assert "steps" not in repr(fast.cpu())
