"""On CUDA: the outputs are those of the CPU kernels, bit by bit, in every form of call."""

from dataclasses import replace

import pytest
import torch

import lstm_fastkernels as lfk
from calls import FORMS, GRID, call
from cases import AWKWARD, KINDS, Case, assert_same, drawn, moved
from on_cuda import CASE, STACKS, both, check

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", GRID, ids=str)
def test_grid(case, kind):
    case = replace(case, **kind)
    on_cpu, fast = both(case.fast())
    for form in FORMS:
        for with_state in (False, True):
            result = moved(call(fast, case, form, with_state), "cpu")
            expected = call(on_cpu, case, form, with_state)
            assert_same(result, expected, f"{case} {form} state={with_state}")


PRECISIONS = {
    "mixed": {"weight_ih_l0*": "int16"},
    "first-layer-float": {"weight_*_l0*": "float32"},
    "inputs-float": {"weight_ih_*": "float32"},
    "upper-layer-int16": {"weight_h*_l1": "int16"},
    "one-direction": {"weight_ih_l1_reverse": "float32", "weight_hh_l0_reverse": "int16"},
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision_for_each_matrix(name):
    for proj_size in (0, 13):
        bidirectional = name == "one-direction"
        case = Case(40, 100, 2, bidirectional, proj_size, T=70, B=9, activations="int8")
        case = replace(case, precision=tuple(PRECISIONS[name].items()))
        modules = both(drawn(case))
        check(modules, case.x(), case.state(), lengths=case.lengths(), message=str(case))
        x, state = case.x()[:1], case.state()
        check(modules, x, state, message=f"{case}, one step")


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


@pytest.mark.parametrize(("largest", "fill"), [(64, None), (127, None), (127, 127), (127, -128)])
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


def test_many_streams():
    on_cpu, fast = both(CASE.fast())
    batches = [lfk.StreamBatch(module, 4) for module in (on_cpu, fast)]
    ticks = [[0, 1, 2], [2, 0], [1], [2, 1, 0]]
    for batch in batches:
        for _ in range(3):
            batch.join()
    for streams in ticks:
        x = CASE.random(len(streams), 9)
        expected, y = (batch.tick(streams, x.to(batch.lstm.packed.device)) for batch in batches)
        assert torch.equal(y.cpu(), expected)
        for batch in batches:
            batch.reorder([0, 1], [1, 0])
            batch.leave(batch.fork(2))
    for stream in range(3):
        expected, state = (batch.get_state(stream) for batch in batches)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(state, expected, strict=True))
