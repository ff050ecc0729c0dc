"""Outputs do not depend on the instruction set, the batch, padding, chunks, threads or strides:
equal bit by bit, for every kind of kernel."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_fastkernels as lfk
from cases import AWKWARD, Case, assert_same
from isas import chosen, everywhere

# T=70 takes several of the chunks in which the kernels form the input products.
STACKS = [
    Case(num_layers=2, T=7, B=6),
    Case(num_layers=2, T=70, B=6, proj_size=13),
    Case(num_layers=2, T=70, B=6, bidirectional=True),
    Case(num_layers=2, T=7, B=6, bidirectional=True, proj_size=8, batch_first=True, bias=False),
]


@pytest.fixture(params=STACKS, ids=str)
def case(request, kind):
    return replace(request.param, **kind)


def sample(case, n):
    """Row n of the batch alone: (x, state)."""
    rows = slice(n, n + 1)
    x = case.x()[rows] if case.batch_first else case.x()[:, rows]
    return x, tuple(s[:, rows] for s in case.state())


def part(case, result, n, T):
    """Row n of a result, cut to T steps, time-major: (y, (h, c))."""
    y, (h, c) = result
    y = y.transpose(0, 1) if case.batch_first else y
    return y[:T, n : n + 1], (h[:, n : n + 1], c[:, n : n + 1])


@pytest.mark.parametrize("proj_size", [0, 5])
@pytest.mark.parametrize("hidden_size", AWKWARD)
@pytest.mark.parametrize("input_size", AWKWARD)
def test_instruction_sets(input_size, hidden_size, proj_size, kind):
    proj_size = min(proj_size, hidden_size - 1)
    for B in (1, 3, 8):
        case = Case(input_size, hidden_size, proj_size=proj_size, T=4, B=B, **kind)
        everywhere(case.fast())(case.x(), case.state())


def test_packed_weights_fit_every_instruction_set(case):
    """An exported program may travel: what one instruction set packed, another runs."""
    fast = case.fast()
    everywhere(fast)(case.x())
    for name in lfk.supported_isas():
        with chosen(name):
            again = case.new(device="meta")
            again.load_state_dict(fast.state_dict())
        assert torch.equal(again.packed, fast.packed), name


def test_row_alone(case):
    fast = everywhere(case.fast())
    together = fast(case.x(), case.state())
    for n in range(case.B):
        x, state = sample(case, n)
        alone = fast(x, state)
        expected = part(case, together, n, case.T)
        assert_same(part(case, alone, 0, case.T), expected, f"{case} row {n}")


@pytest.mark.parametrize("B", [2, 3, 5, 9, 17, 40])
def test_batch_sizes(B, kind):
    case = Case(hidden_size=129, T=3, B=B, **kind)
    fast = everywhere(case.fast())
    together = fast(case.x(), case.state())
    for n in (0, B // 2, B - 1):
        expected = part(case, together, n, case.T)
        assert_same(fast(*sample(case, n)), expected, f"{case} row {n}")


def test_padding(case):
    fast, lengths = everywhere(case.fast()), case.lengths()
    together = fast(case.x(), case.state(), lengths=lengths)
    for n, length in enumerate(lengths.tolist()):
        x, state = sample(case, n)
        alone = fast(x.narrow(1 if case.batch_first else 0, 0, length), state)
        expected = part(case, together, n, length)
        assert_same(part(case, alone, 0, length), expected, f"{case} row {n} of {length}")
        y = together[0].transpose(0, 1) if case.batch_first else together[0]
        assert not y[length:, n].any(), f"{case} row {n}: padding is not zero after {length}"


def test_what_stands_in_the_padding(case):
    fast, lengths = everywhere(case.fast()), case.lengths()
    x = case.x()
    clean = fast(x, case.state(), lengths=lengths)
    by_row = x if case.batch_first else x.transpose(0, 1)
    for n, length in enumerate(lengths.tolist()):
        by_row[n, length:] = float("nan")
    assert_same(fast(x, case.state(), lengths=lengths), clean, f"{case} {lengths.tolist()}")


def test_packed_sequence(case):
    fast, lengths = everywhere(case.fast()), case.lengths()
    packed = pack_padded_sequence(case.x(), lengths, case.batch_first, enforce_sorted=False)
    y, state = fast(packed, case.state())
    padded, _ = pad_packed_sequence(y, case.batch_first)
    for n, length in enumerate(lengths.tolist()):
        x, alone_state = sample(case, n)
        alone = fast(x.narrow(1 if case.batch_first else 0, 0, length), alone_state)
        expected = part(case, (padded, state), n, length)
        assert_same(part(case, alone, 0, length), expected, f"{case} row {n} of {length}")


@pytest.mark.parametrize("chunk", [1, 2, 3, 50])
@pytest.mark.parametrize("proj_size", [0, 13])
def test_chunks_with_the_state_carried(proj_size, chunk, kind):
    case = Case(num_layers=2, proj_size=proj_size, T=101, B=2, **kind)
    fast = everywhere(case.fast())
    state, outputs = case.state(), []
    for x in case.x().split(chunk):
        y, state = fast(x, state)
        outputs.append(y)
    whole = fast(case.x(), case.state())
    assert_same((torch.cat(outputs), state), whole, f"{case} by {chunk}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_chunks_in_half_precision_with_float32_state(dtype, kind):
    case = Case(T=8, **kind)
    fast, x = everywhere(case.fast()), case.x().to(dtype)
    first, state = fast(x[:3], case.state())
    second, state = fast(x[3:], state)
    assert_same((torch.cat((first, second)), state), fast(x, case.state()), str(case))


def test_no_state_is_zero_state(case):
    fast = everywhere(case.fast())
    zeros = tuple(torch.zeros_like(s) for s in case.state())
    assert_same(fast(case.x()), fast(case.x(), zeros), str(case))


@pytest.mark.parametrize("B", [1, 8])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_threads(bidirectional, B, kind, threads):
    # 41 million products and more that are not with zeros: worth several threads.
    steps = 48 / kind.get("density", 1)
    case = Case(64, 256, 2, bidirectional, T=int(steps) // B, B=B, **kind)
    fast = case.fast()
    threads(1)
    expected = fast(case.x(), case.state())
    for number in (2, 3, 7):
        threads(number)
        # The C++ tests have every number of threads on every instruction set.
        run = everywhere(fast) if number == 2 else fast
        assert_same(run(case.x(), case.state()), expected, f"{case} on {number} threads")


def test_threads_take_over_the_rounding_of_small_numbers(threads):
    """Workers flush denormals when their caller does."""
    case = Case(64, 256, bidirectional=True, T=8, B=8)
    fast, (h, c) = everywhere(case.fast()), case.state()
    state = h * 1e-39, c * 1e-39
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("this CPU cannot flush denormals")
        threads(1)
        expected = fast(case.x(), state)
        threads(2)
        assert_same(fast(case.x(), state), expected, str(case))
    finally:
        torch.set_flush_denormal(False)


def test_strides(case):
    fast = everywhere(case.fast())
    x, (h, c) = case.x(), case.state()
    expected = fast(x, (h, c))

    def spread(tensor):
        """The same numbers, every third element of a larger tensor."""
        wide = torch.full((*tensor.shape, 3), float("nan"))
        wide[..., 1] = tensor
        return wide[..., 1]

    views = [
        x.transpose(0, 1).contiguous().transpose(0, 1),
        spread(x),
        torch.cat((x.new_zeros(1), x.flatten()))[1:].view_as(x),
    ]
    for n, view in enumerate(views):
        assert_same(fast(view, (spread(h), spread(c))), expected, f"{case} view {n}")
    repeated = x[:1].expand_as(x)
    assert_same(fast(repeated), fast(repeated.contiguous()), f"{case} expanded")


def test_batch_first_is_only_a_transposition(case):
    fast = everywhere(case.fast())
    other = everywhere(replace(case, batch_first=not case.batch_first).fast())
    y, state = other(case.x().transpose(0, 1), case.state())
    assert_same((y.transpose(0, 1), state), fast(case.x(), case.state()), str(case))


def test_inputs_are_left_alone(case):
    x, (h, c) = case.x(), case.state()
    everywhere(case.fast())(x, (h, c))
    assert torch.equal(x, case.x())
    assert_same((x, (h, c)), (x, case.state()), str(case))
