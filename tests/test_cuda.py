"""On CUDA: the outputs are those of the CPU kernels, bit by bit, in every form of call."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.export import Dim
from torch.nn.utils.rnn import pack_padded_sequence

from cases import AWKWARD, KINDS, Case, assert_same, drawn, moved
from test_export import PACKED, Model, op_arguments
from test_parity import FORMS, GRID, call

pytestmark = pytest.mark.gpu

CASE = Case(9, 31, 2, T=5, B=3)
STACKS = [
    CASE,
    replace(CASE, proj_size=13, T=70, B=6),
    replace(CASE, bidirectional=True, batch_first=True, T=70, B=6, bias=False),
]


def both(fast):
    """A module on the CPU and its twin on CUDA."""
    return fast, copy.deepcopy(fast).cuda()


def check(modules, *arguments, lengths=None, message=""):
    """The twin on CUDA gives what the module on the CPU gives; returns it."""
    on_cpu, fast = modules
    expected = on_cpu(*arguments, lengths=lengths)
    result = fast(*(moved(a, "cuda") for a in arguments), lengths=lengths)
    assert {tensor.device.type for tensor in (result[0], *result[1])} == {"cuda"}
    assert_same(moved(result, "cpu"), expected, message)
    return result


# Outputs


@pytest.mark.parametrize("case", GRID, ids=str)
def test_grid(case, kind):
    case = replace(case, **kind)
    on_cpu, fast = both(case.fast())
    for form in FORMS:
        for with_state in (False, True):
            result = moved(call(fast, case, form, with_state), "cpu")
            expected = call(on_cpu, case, form, with_state)
            assert_same(result, expected, f"{case} {form} state={with_state}")


@pytest.mark.parametrize("input_size", AWKWARD)
@pytest.mark.parametrize("hidden_size", AWKWARD)
def test_sizes(input_size, hidden_size, kind):
    for proj_size in (0, hidden_size // 2):
        case = Case(input_size, hidden_size, 2, proj_size=proj_size, T=3, B=2, **kind)
        check(both(drawn(case)), case.x(), case.state(), message=str(case))


@pytest.mark.parametrize("hidden_size", [31, 256])
def test_batches(hidden_size, kind):
    """Any batch gives its rows what the largest one gives them."""
    case = Case(40, hidden_size, T=4, B=270, **kind)
    x, (h, c) = case.x(), case.state()
    modules = both(drawn(case))
    y, (h_n, c_n) = check(modules, x, (h, c), message=str(case))
    x, h, c = x.cuda(), h.cuda(), c.cuda()
    for B in [*range(1, 66), 128, 129, 200, 256, 257]:
        expected = y[:, -B:], (h_n[:, -B:], c_n[:, -B:])
        result = modules[1](x[:, -B:], (h[:, -B:], c[:, -B:]))
        assert_same(result, expected, f"{case} of which {B}")


@pytest.mark.parametrize(("hidden_size", "B"), [(151, 3), (768, 16)])
def test_without_persistent_kernels(hidden_size, B, monkeypatch):
    monkeypatch.setenv("LSTM_FASTKERNELS_PERSISTENT", "0")
    case = Case(129, hidden_size, 2, T=20, B=B)
    check(both(drawn(case)), case.x(), case.state(), message=str(case))


@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (1, True), (3, False)])
@pytest.mark.parametrize(("hidden_size", "B"), [(512, 1), (768, 16), (1024, 64), (2048, 32)])
def test_many_steps(hidden_size, B, num_layers, bidirectional):
    """Blocks wait for each other at each step. Twice, since a race comes and goes."""
    case = Case(129, hidden_size, num_layers, bidirectional, T=200, B=B)
    modules = both(drawn(case))
    expected = check(modules, case.x(), case.state(), message=str(case))
    assert_same(modules[1](*moved((case.x(), case.state()), "cuda")), expected, str(case))


@pytest.mark.parametrize("hidden_size", [151, 256, 512, 768, 1024, 1500])
def test_large_layers(hidden_size, kind):
    case = Case(129, hidden_size, T=50, B=3, **kind)
    modules, x, (h, c) = both(drawn(case)), case.x(), case.state()
    for T in (1, 2, 50):
        for B in (1, 3):
            check(modules, x[:T, :B], (h[:, :B], c[:, :B]), message=f"{case}, {T} steps of {B}")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_large_batches(bidirectional, kind):
    case = Case(129, 256, 2, bidirectional, T=20, B=200, **kind)
    modules = both(drawn(case))
    check(modules, case.x(), case.state(), lengths=case.lengths(), message=str(case))


@pytest.mark.parametrize("form", FORMS)
def test_long_sequences(form, kind):
    case = Case(num_layers=2, bidirectional=True, T=300, B=5, **kind)
    fast = case.fast()
    expected = call(fast, case, form, True)
    assert_same(moved(call(fast.cuda(), case, form, True), "cpu"), expected, str(case))


@pytest.mark.parametrize("name", ["int8", "int8-sparse", "float32"])
@pytest.mark.parametrize("block_size", [(8, 4), (16, 32), (24, 8)])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.7])
def test_blocks(density, block_size, name):
    kind = {**KINDS[name], "layout": "block_sparse", "density": density}
    case = Case(33, 136, 2, True, T=7, block_size=block_size, **kind)
    check(both(drawn(case)), case.x(), case.state(), message=str(case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, kind):
    case = replace(CASE, proj_size=7, **kind)
    modules, x, state = both(case.fast()), case.x().to(dtype), case.state()
    narrow = tuple(s.to(dtype) for s in state)
    for arguments in ((x,), (x, narrow), (x, state)):
        y, (h, c) = check(modules, *arguments, message=str(case))
        assert y.dtype == dtype
        assert h.dtype == c.dtype == (arguments[1][0].dtype if len(arguments) > 1 else dtype)
    x = x.cuda()
    shifted = torch.cat((x.new_zeros(1), x.flatten()))[1:].view_as(x)
    assert_same(modules[1](shifted), modules[1](x), f"{case} at an odd address")


@pytest.mark.parametrize(("largest", "fill"), [(64, None), (127, None), (127, 127), (127, -127)])
def test_weights_at_their_limits(largest, fill, activations):
    """Integer sums at theirs; beyond 64 weights are not pair-safe."""
    case = Case(513, 512, T=3, activations=activations)
    fast = drawn(case, largest)
    if fill:
        state = fast.state_dict()
        for name in ("weight_ih_l0", "weight_hh_l0"):
            state[name].fill_(fill)
            state[f"{name}_scale"].fill_(1e-4)
        fast.load_state_dict(state)
    modules, x, (h, c) = both(fast), case.x(), case.state()
    check(modules, x, (h, c), message=str(case))
    check(modules, x.sign(), (h.sign(), c), message=str(case))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_non_finite(case, poison, kind):
    case = replace(case, **kind)
    modules = both(case.fast())
    for which in range(3):
        x, state = case.x(), case.state()
        spoiled = (x, *state)[which]
        spoiled[(1, 2, 7) if which == 0 else (1, 1, 7)] = poison
        check(modules, x, state, message=f"{case} tensor {which}")


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-31, 1e-29, 1e20, 3e38])
def test_sizes_of_numbers(size, kind):
    """Also those that flushing to zero or another rounding of subnormals would change."""
    case = replace(CASE, **kind)
    x, (h, c) = case.x().clamp(-1, 1) * size, case.state()
    modules = both(case.fast())
    check(modules, x, (h, c), message=str(case))
    check(modules, x, (h.clamp(-1, 1) * size, c.clamp(-1, 1) * size), message=str(case))


@pytest.mark.parametrize("case", STACKS, ids=str)
def test_strides(case, kind):
    case = replace(case, **kind)
    fast = case.fast().cuda()
    x, (h, c) = moved((case.x(), case.state()), "cuda")
    expected = fast(x, (h, c))

    def spread(tensor):
        """The same numbers, every third element of a larger tensor."""
        return torch.stack((tensor, tensor + 1, tensor - 1), -1)[..., 0]

    for view in (
        x.transpose(0, 1).contiguous().transpose(0, 1),
        spread(x),
        torch.cat((x.new_zeros(1), x.flatten()))[1:].view_as(x),
        torch.cat((x, x), -1)[..., : x.shape[-1]],
    ):
        assert_same(fast(view, (spread(h), spread(c))), expected, f"{case} {view.stride()}")
    assert_same(fast(x[:1].expand_as(x)), fast(x[:1].repeat(len(x), 1, 1)), str(case))
    assert_same((x, (h, c)), moved((case.x(), case.state()), "cuda"), "inputs are left alone")


@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("proj_size", [0, 13])
def test_chunks_with_the_state_carried(proj_size, chunk, kind):
    case = Case(num_layers=2, proj_size=proj_size, T=101, B=2, **kind)
    modules = both(case.fast())
    whole = check(modules, case.x(), case.state(), message=str(case))
    state, outputs = moved(case.state(), "cuda"), []
    for x in case.x().cuda().split(chunk):
        y, state = modules[1](x, state)
        outputs.append(y)
    assert_same((torch.cat(outputs), state), whole, f"{case} by {chunk}")


def test_empty_batch(kind):
    case = replace(CASE, bidirectional=True, proj_size=4, **kind)
    empty = torch.empty(5, 0, case.input_size)
    modules = both(case.fast())
    check(modules, empty)
    check(modules, empty, (torch.empty(4, 0, 4), torch.empty(4, 0, 31)))
    check(modules, empty, lengths=torch.empty(0, dtype=torch.long))


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@pytest.mark.parametrize("hidden_size", AWKWARD)
def test_cell(hidden_size, batched, kind):
    case = Case(9, hidden_size, T=1, **kind)
    cell = case.fast_cell()
    x, state = case.x()[0], tuple(s[0] for s in case.state())
    if not batched:
        x, state = x[0], tuple(s[0] for s in state)
    calls = (x,), (x, state), (x.half(), state)
    expected = [cell(*arguments) for arguments in calls]
    cell.cuda()
    for arguments, (h, c) in zip(calls, expected, strict=True):
        result = moved(cell(*moved(arguments, "cuda")), "cpu")
        assert_same((result[0], result), (h, (h, c)), str(case))


def test_repeated_calls_agree(kind):
    """Blocks that do not wait for each other would tell apart some of these."""
    case = Case(129, 512, 2, T=50, B=4, **kind)
    modules = both(drawn(case))
    expected = check(modules, case.x(), case.state(), message=str(case))
    x, state = moved((case.x(), case.state()), "cuda")
    for n in range(20):
        assert_same(modules[1](x, state), expected, f"{case} call {n}")


# Streams, graphs, threads, devices


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


# Tracers


def arguments_of(case, x=None, state=(None, None), lengths=None):
    fast = case.fast().cuda()
    x, h0, c0, lengths, _, *sizes = op_arguments(case, x, state, lengths)
    h0, c0 = (None if s is None else s.cuda() for s in (h0, c0))
    return x.cuda(), h0, c0, lengths, fast.packed, *sizes, fast._head


OP_CASES = {
    "no state": lambda: arguments_of(CASE),
    "state": lambda: arguments_of(CASE, state=CASE.state()),
    "lengths": lambda: arguments_of(CASE, lengths=CASE.lengths()),
    "packed sequence": lambda: arguments_of(CASE, PACKED[0], CASE.state(), PACKED[1]),
    "packed sequence, no state": lambda: arguments_of(CASE, PACKED[0], lengths=PACKED[1]),
    "bidirectional": lambda: arguments_of(replace(CASE, bidirectional=True, batch_first=True)),
    "half with float32 state": lambda: arguments_of(CASE, CASE.x().half(), CASE.state()),
    "empty batch": lambda: arguments_of(CASE, torch.empty(5, 0, 9)),
    "strided": lambda: arguments_of(CASE, torch.randn(3, 5, 9).transpose(0, 1)),
    **{name: lambda k=kind: arguments_of(replace(CASE, **k)) for name, kind in KINDS.items()},
}


@pytest.mark.parametrize("name", OP_CASES)
def test_opcheck(name):
    torch.library.opcheck(torch.ops.lstm_fastkernels.lstm.default, OP_CASES[name]())


@pytest.mark.parametrize("mode", ["eager", "aot_eager", "inductor", "reduce-overhead"])
@pytest.mark.parametrize("name", ["int8", "float32"])
def test_compiled_model(name, mode):
    if mode in ("inductor", "reduce-overhead"):
        pytest.importorskip("triton", reason="inductor needs it for CUDA")
    torch.compiler.reset()
    model = Model(replace(CASE, **KINDS[name]).fast()).cuda()
    how = {"mode": mode} if mode == "reduce-overhead" else {"backend": mode}
    fast = torch.compile(model, fullgraph=True, **how)
    with torch.no_grad():
        for seed in range(4):
            x = replace(CASE, seed=seed).x().cuda()
            expected, state = model(x)
            torch.compiler.cudagraph_mark_step_begin()
            actual, compiled_state = fast(x)
            torch.testing.assert_close(actual, expected)
            assert_same((actual, compiled_state), (actual, state), f"seed {seed}")
    torch.compiler.reset()


def test_compiled_forms_of_call():
    torch.compiler.reset()
    fast = CASE.fast().cuda()
    run = torch.compile(fast, fullgraph=True, backend="aot_eager")
    x, state = moved((CASE.x(), CASE.state()), "cuda")
    for form in (x, x[0], x.bfloat16()):
        assert_same(run(form), fast(form))
    assert_same(run(x, state), fast(x, state))
    lengths = CASE.lengths()
    assert_same(run(x, lengths=lengths), fast(x, lengths=lengths))
    for T, B in ((6, 4), (7, 2), (2, 9)):
        x = replace(CASE, T=T, B=B).x().cuda()
        assert_same(run(x), fast(x), f"T{T} B{B}")
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["int8", "float32"])
def test_export(name):
    case = replace(CASE, bidirectional=True, **KINDS[name])
    fast = case.fast().cuda()
    sizes = {0: Dim("time", min=1, max=1000), 1: Dim("batch", min=1, max=1000)}
    program = torch.export.export(fast, (case.x().cuda(),), dynamic_shapes=(sizes,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    for exported in (program, torch.export.load(buffer)):
        for T, B in ((5, 3), (1, 1), (17, 6)):
            x = replace(case, T=T, B=B).x().cuda()
            assert_same(exported.module()(x), fast(x), f"T{T} B{B}")


def test_inference_mode(kind):
    fast = replace(CASE, **kind).fast()
    with torch.inference_mode():
        check(both(fast), CASE.x(), CASE.state())


# What is refused


def test_backward_says_what_to_use_instead(kind):
    fast = replace(CASE, **kind).fast().cuda()
    y, _ = fast(CASE.x().cuda().requires_grad_())
    with pytest.raises(RuntimeError, match=r"dequantize\(\) or to_dense\(\)"):
        y.sum().backward()


def refused(call, *words):
    """RuntimeError or ValueError with these words; the device works on."""
    with pytest.raises((RuntimeError, ValueError)) as raised:
        call()
    for word in words:
        assert word in str(raised.value), f"{word!r} is not in: {raised.value}"
    torch.cuda.synchronize()


def test_devices_may_not_mix():
    fast, x, state = CASE.fast().cuda(), CASE.x(), CASE.state()
    on_gpu, state_there, lengths = x.cuda(), moved(state, "cuda"), CASE.lengths()
    refused(lambda: fast(x), "input", "cuda:0", "cpu")
    refused(lambda: fast(on_gpu, state), "h0", "cuda:0", "cpu")
    refused(lambda: fast(on_gpu, (state_there[0], state[1])), "c0", "cuda:0", "cpu")
    refused(lambda: fast(on_gpu, lengths=lengths.cuda()), "lengths", "CPU", "cuda:0")
    fast.cpu()
    refused(lambda: fast(on_gpu), "input", "cpu", "cuda:0")
    refused(lambda: fast(x, state_there), "h0", "cpu", "cuda:0")
    refused(lambda: fast(x, lengths=lengths.cuda()), "lengths", "CPU", "cuda:0")


def test_bad_calls():
    fast, x = CASE.fast().cuda(), CASE.x().cuda()
    h, c = moved(CASE.state(), "cuda")
    refused(lambda: fast(x.double()), "float64", ".float()")
    refused(lambda: fast(x[:0]), "sequence length")
    refused(lambda: fast(x[..., :5]), "9", "5")
    refused(lambda: fast(x, (h[:1], c[:1])), "hidden[0]")
    refused(lambda: fast(x, (h, c.half())), "one dtype")
    for lengths in ([5, 6, 5], [5, 0, 1], [5, -1, 1], [5, 5]):
        refused(lambda n=lengths: fast(x, lengths=torch.tensor(n)))
    for batch_sizes in ([2, 4, 3], [0, 9], [3, 7, -1], [9, 0]):
        sizes = torch.tensor(batch_sizes)
        data = torch.zeros(9, 9, device="cuda")
        refused(lambda d=data, n=sizes: fast(torch.nn.utils.rnn.PackedSequence(d, n)))
    assert_same(moved(fast(x), "cpu"), CASE.fast()(CASE.x()))


def test_packed_for_another_device():
    on_cpu, fast = CASE.fast(), CASE.fast().cuda()
    op, x = torch.ops.lstm_fastkernels.lstm, CASE.x()
    sizes = (9, 31, 0, 2, False, False)
    none = (None, None, None)
    refused(lambda: op(x.cuda(), *none, on_cpu.packed.cuda(), *sizes), "packed for the CPU")
    refused(lambda: op(x, *none, fast.packed.cpu(), *sizes, fast._head), "packed for CUDA")
    refused(lambda: op(x, *none, fast.packed.cpu(), *sizes))
    refused(lambda: op(x.cuda(), *none, fast.packed[:-16], *sizes, fast._head))
    refused(lambda: op(x.cuda(), *none, fast.packed, 9, 30, 0, 2, False, False, fast._head), "31")
    shifted = torch.cat((fast.packed.new_zeros(1), fast.packed))[1:]
    refused(lambda: op(x.cuda(), *none, shifted, *sizes, fast._head), "aligned")


@pytest.mark.parametrize("name", ["int8", "int8-sparse", "float32"])
def test_tampered_heads(name):
    """Whatever stands in the host's copy of the head, a call is refused or harmless."""
    case = replace(CASE, **KINDS[name])
    fast, x = case.fast().cuda(), CASE.x().cuda()
    expected, head = fast(x), list(fast._head)
    count = 0
    for n in range(len(head)):
        for value in (0, -1, 1, head[n] + 1, head[n] - 1, head[n] ^ (1 << 33), 2**63 - 1):
            fast._head = [*head[:n], value, *head[n + 1 :]]
            if fast._head == head or not -(2**63) <= value < 2**63:
                continue
            try:
                fast(x)
            except (RuntimeError, ValueError):
                count += 1
            torch.cuda.synchronize()
    for fast._head in ([], head[:-1], [*head, 0]):
        refused(lambda: fast(x))
    fast._head = head
    assert count >= 5, "magic, version and sizes are checked"
    assert_same(fast(x), expected)
