"""The op on CUDA under torch's tracers: opcheck, torch.compile, torch.export, inference mode."""

import io
from dataclasses import replace

import pytest
import torch
from torch.export import Dim

from cases import KINDS, assert_same, moved
from on_cuda import CASE, both, check
from tracing import PACKED, Model, op_arguments

pytestmark = pytest.mark.gpu


def arguments_of(case, x=None, state=(None, None), lengths=None):
    fast = case.fast().cuda()
    x, h0, c0, lengths, _, *sizes = op_arguments(case, x, state, lengths)
    h0, c0 = (None if s is None else s.cuda() for s in (h0, c0))
    return x.cuda(), h0, c0, lengths, fast.packed, *sizes, fast._header


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
