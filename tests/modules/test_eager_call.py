"""Eager calls go past torch's dispatcher where nothing listens there, and nowhere else."""

import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import lstm_fastkernels as lfk
from cases import FORMS, Case, assert_same
from isas import assert_same_bits, everywhere
from lstm_fastkernels import ops
from lstm_fastkernels.ops import eager

CASE = Case(9, 31, 2, T=5, B=3)


def goes_short(module, x, hx=None):
    call = eager.cell if isinstance(module, lfk.FastQuantLSTMCell) else eager.lstm
    return call(module, x, hx) is not None


def by_op(module, x, hx=None):
    """What the op gives for x [T, B, I], or [B, T, I] where the module has that."""
    return module._run(x, hx, None, module.batch_first)


CASES = {
    **{name: replace(CASE, **form) for name, form in FORMS.items()},
    "one step": replace(CASE, T=1),
    "float32": replace(CASE, activations="float32"),
    "int4": replace(CASE, activations="int4", group_size=32),
    "wide": replace(CASE, input_size=129, hidden_size=8, num_layers=1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_short_calls_are_the_op(name, dtype):
    case = CASES[name]
    fast, x, state = case.fast(), case.x().to(dtype), case.state()
    low = tuple(s.to(dtype) for s in state)
    fast(x)  # the op meets the weights first
    for hx in (None, state, low):
        assert goes_short(fast, x, hx)
        assert_same(everywhere(fast)(x, hx), by_op(fast, x, hx))
    y, (h, c) = fast(x, low)
    assert y.dtype == h.dtype == c.dtype == dtype
    row = x.select(0 if case.batch_first else 1, 0)
    one = tuple(s[:, 0].contiguous() for s in state)
    assert goes_short(fast, row, one)
    alone = by_op(fast, row.unsqueeze(0 if case.batch_first else 1), tuple(s[:, None] for s in one))
    y, (h, c) = fast(row, one)
    assert torch.equal(y, alone[0].squeeze(0 if case.batch_first else 1))
    assert torch.equal(h, alone[1][0].squeeze(1))
    assert torch.equal(c, alone[1][1].squeeze(1))


def test_short_calls_of_strided_input():
    fast = CASE.fast()
    fast(CASE.x())
    wide = torch.randn(2 * CASE.T, CASE.B + 2, CASE.input_size + 5)
    for x in (
        wide[::2, 1:-1, 3 : 3 + CASE.input_size],
        wide.transpose(0, 1)[:3, ::3, : CASE.input_size],
        torch.randn(1, 1, CASE.input_size).expand(5, 3, -1),
    ):
        assert goes_short(fast, x)
        assert_same(fast(x), fast(x.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_short_calls_of_a_cell(dtype):
    cell, float_cell = CASE.fast_cell(), CASE.cell()
    x = torch.randn(3, CASE.input_size).to(dtype)
    state = tuple(torch.randn(3, CASE.hidden_size).to(dtype) for _ in range(2))
    cell(x)
    for given, hx in ((x, None), (x, state), (x[0], None), (x[0], tuple(s[0] for s in state))):
        assert goes_short(cell, given, hx)
        expected = super(lfk.FastQuantLSTMCell.__mro__[1], cell).forward(given, hx)
        assert_same_bits(everywhere(cell)(given, hx), expected)
        close = float_cell(given.float(), None if hx is None else tuple(s.float() for s in hx))
        torch.testing.assert_close(cell(given, hx)[0].float(), close[0], atol=0.05, rtol=0.05)


def test_outputs_are_tensors_like_any():
    fast = CASE.fast()
    fast(CASE.x())
    assert goes_short(fast, CASE.x())
    y, (h, c) = fast(CASE.x())
    for tensor in (y, h, c):
        assert type(tensor) is torch.Tensor
        assert tensor.is_contiguous()
        assert tensor.is_leaf
        assert not tensor.requires_grad
        assert tensor._version == 0
        assert tensor._base is None
        before = tensor.clone()
        tensor.add_(1)
        assert tensor._version == 1
        assert torch.equal(tensor, before + 1)
        assert torch.equal(torch.from_numpy(tensor.numpy()), tensor)
    weight = torch.ones(2, requires_grad=True)
    (y.sum() * weight.sum()).backward()
    with torch.inference_mode():
        assert goes_short(fast, CASE.x())
        assert all(t.is_inference() for t in (fast(CASE.x())[0], *fast(CASE.x())[1]))


class Subclass(torch.Tensor):
    pass


class SeeingFunctions(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), options=None):
        return function(*arguments, **(options or {}))


class SeeingOps(TorchDispatchMode):
    def __torch_dispatch__(self, op, types, arguments=(), options=None):
        return op(*arguments, **(options or {}))


def zeros(x):
    return torch._efficientzerotensor(x.shape)


def conjugate_part(x):
    return torch.complex(torch.zeros_like(x), -x).conj().imag


# Tensors that are not what their memory says, or not torch.Tensor alone.
TENSORS = {
    "subclass": lambda x: x.as_subclass(Subclass),
    "parameter": lambda x: nn.Parameter(x, requires_grad=False),
    "negated": lambda x: torch._neg_view(-x),
    "conjugate": conjugate_part,
    "zeros": zeros,
    "rows with gaps": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "columns first": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("place", ["x", "h", "c"])
def test_tensors_that_are_not_plain_take_the_op(name, place):
    fast, (h, c) = CASE.fast(), CASE.state()
    given = {"x": CASE.x(), "h": h, "c": c}
    fast(CASE.x())
    if name == "zeros":
        given[place] = torch.zeros_like(given[place])
    special = {**given, place: TENSORS[name](given[place])}
    assert goes_short(fast, given["x"], (given["h"], given["c"]))
    assert not goes_short(fast, special["x"], (special["h"], special["c"]))
    y, states = fast(given["x"], (given["h"], given["c"]))
    found, its_states = everywhere(fast)(special["x"], (special["h"], special["c"]))
    for tensor, expected in zip((found, *its_states), (y, *states), strict=True):
        assert_same_bits(tensor.as_subclass(torch.Tensor), expected)


def test_states_that_share_memory_until_they_are_written():
    fast, x, state = CASE.fast(), CASE.x(), lfk.State(*CASE.state())
    copies = lfk.State(*map(torch._lazy_clone, state))
    y, after = fast(x[:1], state)
    assert goes_short(fast, x[:1], copies)
    assert_same((fast.step(x[0], copies)[None], tuple(copies)), (y, after))
    assert_same(fast(x[:1], state), (y, after))


def test_a_negated_number_takes_the_op():
    """A row of one column has no gaps, whatever its stride."""
    case = replace(CASE, input_size=1)
    fast = case.fast()
    x = conjugate_part(case.x())
    assert x.is_neg()
    assert not goes_short(fast, x)
    assert_same(fast(x), fast(case.x()))


@contextlib.contextmanager
def profiled():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield
    assert any("lstm_fastkernels::lstm" in event.name for event in profile.events())


@contextlib.contextmanager
def observed():
    """A callback of every thread's, as execution traces have one."""
    with tempfile.TemporaryDirectory() as folder:
        observer = torch.profiler.ExecutionTraceObserver()
        observer.register_callback(str(Path(folder, "trace.json")))
        observer.start()
        try:
            yield
        finally:
            observer.stop()
            observer.unregister_callback()


@contextlib.contextmanager
def functionalized():
    torch._enable_functionalization(reapply_views=True)
    try:
        yield
    finally:
        torch._disable_functionalization()


LISTENERS = {
    "function mode": SeeingFunctions,
    "functionalization": functionalized,
    "observer": observed,
    "dispatch mode": SeeingOps,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "dual level": forward_ad.dual_level,
    "profiler": profiled,
}


@pytest.mark.parametrize("name", LISTENERS)
@pytest.mark.parametrize("kind", ["lstm", "cell"])
def test_where_someone_listens_the_op_is_taken(name, kind):
    module = CASE.fast() if kind == "lstm" else CASE.fast_cell()
    x = CASE.x() if kind == "lstm" else CASE.x()[0]
    module(x)
    assert goes_short(module, x)
    with torch.no_grad(), LISTENERS[name]():
        assert not goes_short(module, x)
        module(x)
    assert goes_short(module, x)


def test_tracers_and_transforms_take_the_op():
    fast, x, seen = CASE.fast(), CASE.x(), []
    fast(x)

    def run(x):
        seen.append(goes_short(fast, x))
        return fast(x)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(run, x, check_trace=False)
        torch.func.vmap(run)(torch.stack((x, x)))
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        run(mode.from_tensor(x))
    torch.fx.experimental.proxy_tensor.make_fx(run)(x)
    assert seen == [False] * 4


def test_where_a_derivative_is_asked_for_the_op_is_taken():
    fast, x, (h, c) = CASE.fast(), CASE.x(), CASE.state()
    fast(x)
    for place in range(3):
        asked = [x.clone(), h.clone(), c.clone()]
        asked[place].requires_grad_()
        assert not goes_short(fast, asked[0], tuple(asked[1:]))
        with pytest.raises(RuntimeError, match="for inference"):
            fast(asked[0], tuple(asked[1:]))[0].sum().backward()
        with torch.no_grad():
            assert goes_short(fast, asked[0], tuple(asked[1:]))
    fast.bias_l0.requires_grad_()
    assert not goes_short(fast, x)
    with pytest.raises(RuntimeError, match="for inference"):
        fast(x)[0].sum().backward()
    with torch.no_grad():
        assert goes_short(fast, x)


MISUSES = {
    "float64": lambda x, h, c: (x.double(), (h, c)),
    "integers": lambda x, h, c: (x.long(), (h, c)),
    "no tensor": lambda x, h, c: (x.numpy(), (h, c)),
    "meta": lambda x, h, c: (x.to("meta"), (h, c)),
    "sparse": lambda x, h, c: (x.to_sparse(), (h, c)),
    "mkldnn": lambda x, h, c: (x.to_mkldnn(), (h, c)),
    "columns": lambda x, h, c: (x[..., 1:], (h, c)),
    "no steps": lambda x, h, c: (x[:0], (h, c)),
    "dimensions": lambda x, h, c: (x[None], (h, c)),
    "rows of h": lambda x, h, c: (x, (h[:, 1:], c)),
    "columns of c": lambda x, h, c: (x, (h, c[..., 1:])),
    "dtype of c": lambda x, h, c: (x, (h, c.half())),
    "dtype of both": lambda x, h, c: (x, (h.half(), c.half())),
    "one state": lambda x, h, c: (x, (h,)),
    "a state": lambda x, h, c: (x, h),
    "no state at all": lambda x, h, c: (x, 3),
    "two-dimensional state": lambda x, h, c: (x, (h[:, 0], c[:, 0])),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_as_by_the_op(name):
    fast, (h, c) = CASE.fast(), CASE.state()
    fast(CASE.x())
    x, hx = MISUSES[name](CASE.x(), h, c)
    assert not goes_short(fast, x, hx)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        fast(x, hx)


def test_changed_weights_are_packed_anew():
    fast, x = CASE.fast(), CASE.x()
    before = fast(x)
    assert goes_short(fast, x)
    with torch.no_grad():
        fast.bias_l0.add_(0.5)
    assert not goes_short(fast, x)
    after = fast(x)
    assert goes_short(fast, x)
    assert not torch.equal(after[0], before[0])
    assert_same(fast(x), by_op(fast, x))


def test_packed_weights_that_moved_are_met_anew():
    fast, x = CASE.fast(), CASE.x()
    expected = fast(x)
    fast.share_memory()
    assert_same(fast(x), expected)
    assert_same(fast(x), expected)


def test_empty_batches_take_the_op():
    fast = CASE.fast()
    y, (h, c) = fast(torch.empty(5, 0, 9))
    assert y.shape == (5, 0, 31)
    assert h.shape == c.shape == (2, 0, 31)


ANOTHER_TORCH = """
import sys
import warnings
import torch
from torch import nn
torch.__version__ = "9.8.7"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import lstm_fastkernels as lfk
    from lstm_fastkernels.ops import eager
[warning] = [str(w.message) for w in caught if "lstm_fastkernels" in str(w.message)]
assert "With torch 9.8.7" in warning and "pip install" in warning, warning
fast, x = lfk.FastQuantLSTM(9, 31), torch.randn(5, 3, 9)
for module, given in (fast, x), (lfk.FastQuantLSTMCell(9, 31), x[0]):
    before = module(given)[0]
    assert eager.lstm(module, given, None) is eager.call(module, (given,)) is None
    assert eager.current(module.__dict__) is module.packed
    for name, tensor in module.state_dict().items():
        if name in ("weight_ih", "weight_ih_l0", "bias", "bias_l0"):
            tensor.zero_()
            assert eager.current(module.__dict__) is None, name
            after = module(given)[0]
            assert not torch.equal(after, before), name
            before = after
    module.bias_added = nn.Buffer(torch.zeros(1))
    assert eager.current(module.__dict__) is None
    module(given)
    assert eager.current(module.__dict__) is module.packed
y, state = fast(x)
new, streams = fast.new_state(3), lfk.StreamBatch(fast, 3)
joined = [streams.join() for _ in range(3)]
for row, expected in zip(x, y):
    assert torch.equal(fast.step(row, new), expected)
    assert torch.equal(streams.tick(joined, row), expected)
assert torch.equal(new.h, state[0]) and torch.equal(new.c, state[1])
assert "lstm_fastkernels._eager" not in sys.modules
"""


def test_another_torch_than_the_one_built_for_takes_the_op():
    subprocess.run([sys.executable, "-c", ANOTHER_TORCH], check=True, env=dict(os.environ))


def test_the_kernels_run_without_the_gil():
    """Another thread gets on while a call takes long."""
    import threading
    import time

    fast, x = lfk.FastQuantLSTM(512, 1024), torch.randn(400, 1, 512)
    fast(x)
    assert goes_short(fast, x[:1])
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    fast(x)
    end = time.perf_counter()
    done.set()
    thread.join()
    assert sum(begin < at < end for at in ticks) >= 3


@pytest.mark.parametrize("name", LISTENERS)
def test_who_listens_is_asked_each_time(name):
    """Function modes and profilers are told of torch's functions, not by its dispatcher."""
    fast = CASE.fast()
    fast(CASE.x())
    assert eager.quiet()
    with LISTENERS[name]():
        assert eager.quiet() == (name in ("function mode", "profiler", "observer"))
        fast(CASE.x())
    assert eager.quiet()
    assert ops.least_lstm() is ops.plain_lstm


def test_a_torch_that_keeps_its_level_elsewhere(monkeypatch):
    fast, x = CASE.fast(), CASE.x()
    fast(x)
    monkeypatch.delattr(forward_ad, "_current_level")
    assert not eager.quiet()
    assert not goes_short(fast, x)


def test_misuse_of_the_binding():
    with pytest.raises(TypeError, match="PackedLSTM"):
        eager.current({})
    with pytest.raises(TypeError, match="arguments"):
        eager.connect(0)
    with pytest.raises(TypeError, match="integer"):
        eager.connect("functions", {})


@pytest.mark.parametrize("hidden_size", [1, 7, 129, 300])
def test_outputs_are_aligned_as_those_of_torch(hidden_size):
    fast, x = lfk.FastQuantLSTM(9, hidden_size), CASE.x()
    fast(x)
    kept = []
    for _ in range(5):
        assert goes_short(fast, x)
        y, (h, c) = fast(x)
        kept.append((y, h, c))
        assert all(tensor.data_ptr() % 64 == 0 for tensor in (y, h, c))
    first = kept[0]
    assert all(torch.equal(a, b) for later in kept for a, b in zip(later, first, strict=True))


def test_weights_that_another_thread_packs_anew_during_a_call():
    """A call holds those that it began with, wherever the module's have gone."""
    import threading

    fast, x = lfk.FastQuantLSTM(64, 256), torch.randn(100, 1, 64)
    expected, done = fast(x), threading.Event()

    def pack_anew():
        while not done.is_set():
            fast.repack_()
            ops.release_memory()

    thread = threading.Thread(target=pack_anew)
    thread.start()
    try:
        for _ in range(50):
            assert_same(fast(x), expected)
    finally:
        done.set()
        thread.join()
