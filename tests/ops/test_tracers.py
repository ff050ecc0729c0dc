"""The op under torch's tracers: opcheck, torch.compile, torch.export, inference mode."""

import io
import shutil
from dataclasses import replace

import pytest
import torch
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from cases import KINDS, Case, assert_same
from id_cases import STACKS, folded, ids_of
from isas import assert_same_bits, everywhere
from tracing import PACKED, Model, op_arguments

CASE = Case(9, 31, 2, T=5, B=3)


IDS = STACKS[1]


def id_arguments(ids=None, state=(None, None), lengths=None):
    """Of an LSTM that takes token ids."""
    fast = folded(IDS)
    ids = ids_of(IDS) if ids is None else ids
    return ids.unsqueeze(-1), *state, lengths, fast.packed, fast._sizes, False


OP_CALLS = {
    "ids": id_arguments(),
    "int32 ids": id_arguments(ids_of(IDS, torch.int32), IDS.state()),
    "ids, lengths": id_arguments(lengths=IDS.lengths()),
    "packed ids": id_arguments(torch.arange(9), IDS.state(), PACKED[1]),
    "no state": op_arguments(CASE),
    "state": op_arguments(CASE, state=CASE.state()),
    "lengths": op_arguments(CASE, lengths=CASE.lengths()),
    "packed sequence": op_arguments(CASE, PACKED[0], CASE.state(), PACKED[1]),
    "packed sequence, no state": op_arguments(CASE, PACKED[0], lengths=PACKED[1]),
    "bidirectional": op_arguments(replace(CASE, bidirectional=True, batch_first=True)),
    "projection": op_arguments(replace(CASE, proj_size=13)),
    **{name: op_arguments(replace(CASE, **kind)) for name, kind in KINDS.items()},
    "half": op_arguments(CASE, x=CASE.x().half()),
    "half with float32 state": op_arguments(CASE, x=CASE.x().half(), state=CASE.state()),
    "empty batch": op_arguments(CASE, x=torch.empty(5, 0, 9)),
    "strided": op_arguments(CASE, x=torch.randn(3, 5, 9).transpose(0, 1)),
}


@pytest.mark.parametrize("name", OP_CALLS)
def test_opcheck(name):
    """What it checks lies above the choice of the instruction set."""
    op = torch.ops.lstm_fastkernels.lstm.default
    torch.library.opcheck(op, OP_CALLS[name])
    everywhere(op)(*OP_CALLS[name])


# Without a state, a packed sequence's batch size is data, which a fake kernel cannot read.
@pytest.mark.parametrize("name", [n for n in OP_CALLS if n != "packed sequence, no state"])
def test_fake_outputs_have_the_strides_of_the_real_ones(name):
    op = torch.ops.lstm_fastkernels.lstm
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        arguments = [
            mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in OP_CALLS[name]
        ]
        fake = op(*arguments)
    for f, real in zip(fake, everywhere(op)(*OP_CALLS[name]), strict=True):
        assert (f.shape, f.dtype, f.stride()) == (real.shape, real.dtype, real.stride())


INDUCTOR = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler"),
    ],
)


@pytest.fixture
def compiled():
    """torch.compile(fullgraph=True), without what earlier tests left behind."""
    torch.compiler.reset()
    yield lambda module, backend: torch.compile(module, fullgraph=True, backend=backend)
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager", INDUCTOR])
@pytest.mark.parametrize("name", ["int8", "float32"])
def test_compiled_model(name, backend, compiled):
    model = Model(replace(CASE, **KINDS[name]).fast())
    fast = compiled(model, backend)
    with torch.no_grad():
        expected, state = model(CASE.x())
        actual, compiled_state = everywhere(fast)(CASE.x())
    torch.testing.assert_close(actual, expected)
    assert_same((actual, compiled_state), (actual, state))


def test_compiled_forms_of_call(compiled):
    fast = CASE.fast()
    run = everywhere(compiled(fast, "aot_eager"))
    for x in (CASE.x(), CASE.x()[0], CASE.x().bfloat16()):
        assert_same(run(x), fast(x))
    assert_same(run(CASE.x(), CASE.state()), fast(CASE.x(), CASE.state()))
    lengths = CASE.lengths()
    assert_same(run(CASE.x(), lengths=lengths), fast(CASE.x(), lengths=lengths))


def test_compiled_for_changing_sizes(compiled):
    fast = CASE.fast()
    run = everywhere(compiled(fast, "aot_eager"))
    for T, B in ((5, 3), (6, 4), (7, 2), (2, 9)):
        x = replace(CASE, T=T, B=B).x()
        assert_same(run(x), fast(x), f"T{T} B{B}")


def test_compiled_cell(kind, compiled):
    cell = replace(CASE, **kind).fast_cell()
    run, x = everywhere(compiled(cell, "aot_eager")), torch.randn(3, 9)
    state = cell(x)
    assert_same_bits(run(x, state), cell(x, state))


@pytest.mark.parametrize("name", ["int8", "float32"])
def test_compiles_where_the_input_requires_grad(name, compiled):
    fast = replace(CASE, **KINDS[name]).fast()
    x = CASE.x().requires_grad_()
    y, state = everywhere(compiled(fast, "aot_eager"))(x)
    assert_same((y.detach(), tuple(s.detach() for s in state)), fast(CASE.x()))
    with pytest.raises(RuntimeError, match=r"dequantize\(\) or to_dense\(\)"):
        y.sum().backward()


def test_inference_mode(kind):
    fast = everywhere(replace(CASE, **kind).fast())
    expected = fast(CASE.x(), CASE.state())
    with torch.inference_mode():
        y, state = fast(CASE.x(), CASE.state())
        y, state = fast(CASE.x(), CASE.state())
        assert y.is_inference()
    assert_same((y, state), expected)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["int8", "float32"])
def test_export_with_dynamic_batch_and_time(name, batch_first):
    case = replace(CASE, batch_first=batch_first, bidirectional=True, **KINDS[name])
    fast = case.fast()
    time, batch = Dim("time", min=1, max=1000), Dim("batch", min=1, max=1000)
    sizes = {0: batch, 1: time} if batch_first else {0: time, 1: batch}
    program = torch.export.export(fast, (case.x(),), dynamic_shapes=(sizes,))

    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer)
    for exported in (program, loaded):
        for T, B in ((5, 3), (1, 1), (17, 6), (2, 40)):
            x = replace(case, T=T, B=B).x()
            assert_same(everywhere(exported.module())(x), fast(x), f"T{T} B{B}")


def test_export_with_state_and_lengths():
    fast = CASE.fast()
    time, batch = Dim("time", min=1, max=1000), Dim("batch", min=1, max=1000)
    program = torch.export.export(
        fast,
        (CASE.x(), CASE.state(), CASE.lengths()),
        dynamic_shapes=({0: time, 1: batch}, ({1: batch}, {1: batch}), {0: batch}),
    )
    other = replace(CASE, T=8, B=5)
    arguments = other.x(), other.state(), other.lengths()
    assert_same(everywhere(program.module())(*arguments), fast(*arguments))


def test_exported_graph_has_one_node_for_the_stack(kind):
    program = torch.export.export(replace(CASE, **kind).fast(), (CASE.x(),))
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert calls.count(torch.ops.lstm_fastkernels.lstm.default) == 1


@pytest.mark.parametrize("tracer", ["make_fx", "jit"])
def test_a_module_that_dies_while_others_trace_leaves_nothing_in_their_graph(tracer):
    dying = [CASE.fast()]
    dying[0](CASE.x())

    def function(x):
        dying.clear()
        return x * 2

    if tracer == "make_fx":
        names = [str(node.target) for node in make_fx(function)(CASE.x()).graph.nodes]
    else:
        traced = torch.jit.trace(function, CASE.x(), check_trace=False)
        names = [node.kind() for node in traced.graph.nodes()]
    assert not dying
    assert not [name for name in names if "lstm_fastkernels" in name]
