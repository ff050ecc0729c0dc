"""Calls on CUDA beside each other: streams, graphs, threads, devices."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from cases import Case, assert_same, moved
from on_cuda import CASE, STACKS, both, check

pytestmark = pytest.mark.gpu


def delayed():
    """Keeps the current stream busy for milliseconds."""
    torch.cuda._sleep(20_000_000)


@pytest.mark.parametrize("case", STACKS, ids=str)
def test_side_streams(case, kind):
    """Each call reads what its stream wrote before and has scratch memory of its own."""
    case = replace(case, **kind)
    fast = case.fast()
    inputs = [replace(case, seed=n).x() for n in range(4)]
    expected = [fast(x) for x in inputs]
    fast.cuda()
    results, kept = [], []  # the allocator does not know of other streams' use
    torch.cuda.synchronize()
    for x in inputs:
        late = torch.zeros_like(x, device="cuda")
        source = x.cuda()
        kept += [late, source]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            delayed()
            late.copy_(source)
            results.append(fast(late))
    torch.cuda.synchronize()
    for n, result in enumerate(results):
        assert_same(moved(result, "cpu"), expected[n], f"{case} stream {n}")


def test_calls_do_not_wait(kind):
    case = replace(CASE, bidirectional=True, proj_size=13, **kind)
    fast = case.fast().cuda()
    x, state = moved((case.x(), case.state()), "cuda")
    lengths = case.lengths()
    sequence = pack_padded_sequence(x, lengths.sort(descending=True).values)
    for _ in range(2):  # the first call may set something up
        delayed()
        event = torch.cuda.Event()
        event.record()
        torch.cuda.set_sync_debug_mode("error")
        try:
            fast(x, state)
            fast(x.half(), lengths=lengths)
            fast(sequence)
            waited = event.query()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not waited, "a call returned only after what was enqueued before it"


@pytest.mark.parametrize("lengths", [None, CASE.lengths()], ids=["padded", "lengths"])
@pytest.mark.parametrize("shape", [{"T": 1, "B": 1}, {"B": 3}, {"B": 3, "bidirectional": True}])
def test_graphs(shape, lengths, kind):
    case = replace(CASE, **shape, **kind)
    if case.B == 1:
        lengths = None
    fast = case.fast()
    inputs = [(replace(case, seed=n).x(), replace(case, seed=n).state()) for n in range(3)]
    expected = [fast(*arguments, lengths=lengths) for arguments in inputs]
    fast.cuda()
    x, state = moved(inputs[0], "cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        fast(x, state, lengths=lengths)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    kept = None if lengths is None else lengths.clone()
    with torch.cuda.graph(graph):
        result = fast(x, state, lengths=kept)
    if kept is not None:
        kept.fill_(1)  # the graph has the lengths of the capture
    for n in (1, 2, 0):
        for into, given in zip((x, *state), (inputs[n][0], *inputs[n][1]), strict=True):
            into.copy_(given)
        graph.replay()
        assert_same(moved(result, "cpu"), expected[n], f"{case} replay {n}")
        fast(x.flip(0), state)  # the allocator may not give it the graph's memory
        graph.replay()
        assert_same(moved(result, "cpu"), expected[n], f"{case} second replay {n}")


def test_streaming_graph_carries_its_state(kind):
    """One step, captured with its state written in place, replayed along a sequence."""
    case = replace(CASE, T=20, **kind)
    modules = both(case.fast())
    whole = check(modules, case.x(), case.state(), message=str(case))
    x, state = torch.zeros(1, case.B, 9, device="cuda"), moved(case.state(), "cuda")

    def step():
        y, new = modules[1](x, state)
        for old, tensor in zip(state, new, strict=True):
            old.copy_(tensor)
        return y

    before = [s.clone() for s in state]
    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = step()
    for s, kept in zip(state, before, strict=True):
        s.copy_(kept)
    outputs = []
    for given in case.x().cuda().split(1):
        x.copy_(given)
        graph.replay()
        outputs.append(y.clone())
    assert_same((torch.cat(outputs), state), whole, str(case))


def test_concurrent_calls_on_one_module(kind):
    case = Case(40, 128, T=24, B=8, **kind)
    fast = case.fast()
    inputs = [replace(case, seed=n).x() for n in range(8)]
    expected = [fast(x) for x in inputs]
    fast.cuda()

    def run(x):
        with torch.cuda.stream(torch.cuda.Stream()):
            return moved(fast(x.cuda()), "cpu")

    with ThreadPoolExecutor(4) as pool:
        for n, result in enumerate(pool.map(run, inputs)):
            assert_same(result, expected[n], f"input {n}")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second CUDA device")
def test_two_devices(kind):
    case = replace(CASE, **kind)
    fast, x = case.fast(), case.x()
    expected = fast(x)
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        fast.to(device)  # the current device stays cuda:0
        assert {str(tensor.device) for tensor in fast.buffers()} == {device}
        assert_same(moved(fast(x.to(device)), "cpu"), expected, device)
    with pytest.raises(RuntimeError, match=r"input must be on cuda:1.*got cuda:0"):
        fast(x.to("cuda:0"))
