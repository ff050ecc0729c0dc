"""step: forward of one time step, with a state that is changed in place."""

from dataclasses import replace

import pytest
import torch

import lstm_fastkernels as lfk
from cases import FORMS, KINDS, Case
from isas import assert_same_bits, everywhere
from lstm_fastkernels.ops import eager

CASE = Case(9, 31, 2, T=7, B=3)
CASES = {name: replace(CASE, **change) for name, change in (FORMS | KINDS).items()}


def goes_short(fast, x, state, out=None):
    trial = lfk.State(*(tensor.clone() for tensor in state))
    return eager.step(fast, x, trial, out, None) is not None


def steps_of(case):
    """x by its steps, [B, I] each."""
    return list(case.x().transpose(0, 1) if case.batch_first else case.x())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("given_out", [False, True], ids=["new y", "out"])
def test_steps_are_forward(name, dtype, given_out):
    case = CASES[name]
    fast, state = case.fast(), lfk.State(*case.state())
    time = 1 if case.batch_first else 0

    def run():
        own, outputs, columns = state.copy(), [], (1 + case.bidirectional) * (case.proj_size or 31)
        for x in steps_of(case):
            out = torch.full((case.B, columns), 7.0, dtype=dtype) if given_out else None
            y = fast.step(x.to(dtype), own, out)
            assert (y is out) == given_out
            outputs.append(y)
        return torch.stack(outputs), own.h, own.c

    expected, before, outputs = [], state, []
    for x in steps_of(case):
        y, before = fast(x.to(dtype).unsqueeze(time), before)
        outputs.append(y.squeeze(time))
    expected = torch.stack(outputs), *before
    assert_same_bits(everywhere(run)(), expected)
    assert goes_short(fast, steps_of(case)[0].to(dtype), state)


def test_steps_of_one_sequence():
    fast = CASE.fast()
    state = fast.new_state()
    y, (h, c) = fast(CASE.x()[:, 0])
    assert_same_bits(torch.stack([fast.step(row, state) for row in CASE.x()[:, 0]]), y)
    assert_same_bits((state.h, state.c), (h, c))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_states_of_the_dtype_of_the_input(dtype):
    fast, x = CASE.fast(), CASE.x()[0].to(dtype)
    state = fast.new_state(3, dtype)
    y, after = fast(x[None], state)
    assert goes_short(fast, x, state)
    assert_same_bits(fast.step(x, state), y[0])
    assert_same_bits((state.h, state.c), after)


def test_a_state_is_the_pair_that_forward_takes():
    fast = CASE.fast()
    state = fast.new_state(3)
    assert isinstance(state, tuple)
    assert isinstance(state, lfk.State)
    h, c = state
    assert h is state.h
    assert c is state.c
    assert h.shape == c.shape == (2, 3, 31)
    assert_same_bits(fast(CASE.x(), state), fast(CASE.x()))


def test_rows_of_states():
    fast = CASE.fast()
    state, other = fast.new_state(3), lfk.State(*CASE.state())
    copied = other.copy()
    state.copy_row(2, other, 1)
    assert torch.equal(state.h[:, 2], other.h[:, 1])
    assert torch.equal(state.c[:, 2], other.c[:, 1])
    assert not state.h[:, :2].any()
    assert not state.c[:, :2].any()
    other.reset(row=1)
    assert not other.h[:, 1].any()
    assert torch.equal(other.h[:, ::2], copied.h[:, ::2])
    other.reset()
    assert not other.h.any()
    assert not other.c.any()
    assert copied.h.any()


def test_autograd_is_told_of_the_writes():
    """What was saved for a backward was changed: an error, not a wrong gradient."""
    fast, state = CASE.fast(), lfk.State(*CASE.state())
    out = torch.ones(3, 31)
    fast.step(CASE.x()[0], state)
    for tensor in (*state, out):
        weight = torch.ones(1, requires_grad=True)
        loss = (weight * tensor).sum()
        fast.step(CASE.x()[0], state, out)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_inference_mode():
    fast, x = CASE.fast(), CASE.x()[0]
    with torch.inference_mode():
        state = fast.new_state(3)
        fast.step(x, state)
        assert goes_short(fast, x, state)
        fast.step(x, state)
        outside = fast.new_state(3)
    with torch.no_grad(), pytest.raises(RuntimeError, match="inference tensor"):
        fast.step(x, outside)
    plain = fast.new_state(3)
    with torch.inference_mode():
        fast.step(x, plain)
    assert plain.h._version == 1


def test_memory_that_overlaps():
    """x, out and states that share memory: as if each had its own, written one after another."""
    case = replace(CASE, input_size=31, num_layers=1)
    fast, (h, c) = case.fast(), case.state()
    y, (h1, c1) = fast(h.clone(), (h, c))

    state = lfk.State(h.clone(), c.clone())
    assert_same_bits(fast.step(state.h[0], state), y[0])
    assert_same_bits((state.h, state.c), (h1, c1))

    state = lfk.State(h.clone(), c.clone())
    fast.step(h[0].clone(), state, state.c[0])
    assert_same_bits(state.c, y)
    assert_same_bits(state.h, h1)

    x = h[0].clone()
    assert_same_bits(fast.step(x, lfk.State(h.clone(), c.clone()), x), y[0])

    memory = torch.cat((h, c[:, :1]), 1)
    state = lfk.State(memory[:, :3], memory[:, 1:])
    _, after = fast(h.clone(), (memory[:, :3].clone(), memory[:, 1:].clone()))
    fast.step(h[0].clone(), state)
    assert_same_bits(state.c, after[1])


def test_states_and_outputs_with_gaps():
    fast, (h, c) = CASE.fast(), CASE.state()
    wide = torch.zeros(2, 3, 2, 31, 2)
    state = lfk.State(wide[..., 0, :, 0], wide[..., 1, :, 1])
    state.h.copy_(h)
    state.c.copy_(c)
    out = torch.zeros(3, 40)[:, 3:34]
    y, after = fast(CASE.x()[:1], (h, c))
    assert_same_bits(fast.step(CASE.x()[0], state, out), y[0])
    assert_same_bits((state.h.contiguous(), state.c.contiguous()), after)


MISUSES = {
    "dimensions": lambda x, s, out: (x[None], s, out),
    "no tensor": lambda x, s, out: (x.numpy(), s, out),
    "columns": lambda x, s, out: (x[:, 1:], s, out),
    "float64": lambda x, s, out: (x.double(), s, out),
    "rows": lambda x, s, out: (x[1:], s, out),
    "no state": lambda x, s, out: (x, None, out),
    "one state": lambda x, s, out: (x, (s.h,), out),
    "three states": lambda x, s, out: (x, (*s, s.h), out),
    "integer state": lambda x, s, out: (x, (s.h.long(), s.c.long()), out),
    "one row's state": lambda x, s, out: (x, (s.h[:, 0], s.c[:, 0]), out),
    "columns of out": lambda x, s, out: (x, s, out[:, 1:]),
    "rows of out": lambda x, s, out: (x, s, out[1:]),
    "dtype of out": lambda x, s, out: (x, s, out.half()),
    "no tensor for out": lambda x, s, out: (x, s, out.numpy()),
    "expanded out": lambda x, s, out: (x, s, out[:1].expand(3, 31)),
    "expanded state": lambda x, s, out: (x, (s.h[:, :1].expand(2, 3, 31), s.c), out),
    "leaf": lambda x, s, out: (x, (s.h.clone().requires_grad_(), s.c), out),
    "leaf for out": lambda x, s, out: (x, s, out.clone().requires_grad_()),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_and_changes_nothing(name):
    fast, (h, c) = CASE.fast(), CASE.state()
    state, out = lfk.State(h.clone(), c.clone()), torch.full((3, 31), 7.0)
    fast.step(CASE.x()[0], state.copy(), out.clone())
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        fast.step(*MISUSES[name](CASE.x()[0], state, out))
    assert torch.equal(state.h, h)
    assert torch.equal(state.c, c)
    assert out.eq(7).all()


def test_compiled():
    fast = CASE.fast()
    run = torch.compile(fast.step, fullgraph=True, backend="aot_eager")
    state, own = fast.new_state(3), fast.new_state(3)
    with torch.no_grad():
        for x in CASE.x():
            assert_same_bits(run(x, own), fast.step(x, state))
    assert_same_bits((own.h, own.c), (state.h, state.c))
