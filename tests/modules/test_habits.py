"""What people and libraries do with an nn.LSTM, done with a fast one."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

import lstm_fastkernels as lfk
from bad_calls import check, error_of
from cases import KINDS, Case, assert_same, drawn
from tracing import Model

CASE = Case(5, 9, 2, T=3, B=2)


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_say_device_and_dtype(bias, kind):
    for fast in (replace(CASE, bias=bias, **kind).fast(), Case(bias=bias, **kind).fast_cell()):
        first = next(fast.parameters())
        assert (first.dtype, first.device.type) == (torch.float32, "cpu")
        assert not any(parameter.requires_grad for parameter in fast.parameters())
        assert {name for name, _ in fast.named_buffers()} >= {"packed"}
        on_meta = fast.to("meta")
        assert next(on_meta.parameters()).is_meta


def test_a_loop_that_initializes_parameters():
    """As many models have it, for classes they do not know."""
    fast = CASE.new()
    for name, parameter in fast.named_parameters():
        if "weight" in name:
            nn.init.xavier_uniform_(parameter)
        elif "bias" in name:
            nn.init.zeros_(parameter)
    assert not fast.bias_l0.any()
    like = CASE.new()
    like.load_state_dict(fast.state_dict())
    assert_same(fast(CASE.x()), like(CASE.x()))


def test_training_around_it():
    """A frozen encoder in a model that is trained."""
    model = nn.Sequential(CASE.fast(), _First(), nn.Linear(9, 3))
    before = model[0](CASE.x())
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(CASE.x()).square().sum().backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert_same(model[0](CASE.x()), before)
    assert parameters_to_vector(model.parameters()).dtype == torch.float32


def test_a_subclass_with_parameters_of_its_own_is_trained():
    class Scaled(lfk.FastQuantLSTM):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.gain = nn.Parameter(torch.ones(()))
            self.register_buffer("offset", torch.zeros(9))

        def forward(self, x):
            return super().forward(x)[0] * self.gain + self.offset

    lstm = Scaled(5, 9)
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.1)
    packed = lstm.packed
    lstm(CASE.x()).square().sum().backward()
    assert lstm.gain.grad is not None
    optimizer.step()
    like = lfk.FastQuantLSTM(5, 9)
    like.take_canonical(lstm.canonical().tensors)
    assert torch.equal(lstm(CASE.x()), like(CASE.x())[0] * lstm.gain)
    assert packed.numel() == lstm.packed.numel()


class _First(nn.Module):
    def forward(self, result):
        return result[0]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("proj_size", [0, 4])
def test_new_state(bidirectional, proj_size, kind):
    case = replace(CASE, bidirectional=bidirectional, proj_size=proj_size, **kind)
    fast, x = case.fast(), case.x()
    assert_same(fast(x, fast.new_state(2)), fast(x))
    assert_same(fast(x[:, 0], fast.new_state()), fast(x[:, 0]))
    assert_same(fast(x.half(), fast.new_state(2, torch.float16)), fast(x.half()))
    assert fast.to("meta").new_state(2)[0].is_meta


def test_new_state_of_a_cell(kind):
    cell, x = replace(CASE, **kind).fast_cell(), CASE.x()[0]
    for state, given in ((cell.new_state(2), x), (cell.new_state(), x[0])):
        for a, b in zip(cell(given, state), cell(given), strict=True):
            assert torch.equal(a, b)


def test_a_state_in_the_type_of_the_weights():
    fast = CASE.fast()
    state = tuple(fast.weight_hh_l0.new_zeros(2, 2, 9) for _ in "hc")
    check(error_of(lambda: fast(CASE.x(), state)), TypeError, "h0", "int8", "new_state")


def test_symbolic_trace(kind):
    """A leaf, as nn.LSTM is one."""
    model = Model(replace(CASE, **kind).fast())
    graph = torch.fx.symbolic_trace(model)
    assert "lstm" in [node.target for node in graph.graph.nodes if node.op == "call_module"]
    y, state = graph(CASE.x())
    assert torch.equal(y, model(CASE.x())[0])
    assert_same((y, state), (y, model(CASE.x())[1]))

    class Cells(nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, x, h, c):
            return self.cell(x, (h, c))

    cells = Cells(CASE.fast_cell())
    given = CASE.x()[0], *(s[0] for s in CASE.state())
    for a, b in zip(torch.fx.symbolic_trace(cells)(*given), cells(*given), strict=True):
        assert torch.equal(a, b)


def test_what_tracers_cannot_do():
    fast = CASE.fast()
    check(error_of(lambda: torch.fx.symbolic_trace(fast)), RuntimeError, "torch.fx", "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in (fast, Model(fast), CASE.fast_cell()):
            error = error_of(lambda module=module: torch.jit.script(module))
            check(error, RuntimeError, "torch.jit.script", "torch.export")


@pytest.mark.parametrize("kind", KINDS)
def test_tracing_after_a_change(kind):
    """Traced with the weights that are there, or refused; never with those of before."""
    for change in (lambda m: m.bias_l1.add_(1), lambda m: setattr(m, "bias_l1", _one_more(m))):
        fast = drawn(replace(CASE, **KINDS[kind]))
        fast(CASE.x())
        change(fast)
        for export in (
            lambda m: torch.export.export(m, (CASE.x(),)),
            lambda m: torch.jit.trace(m, CASE.x()),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                check(error_of(lambda m=fast, e=export: e(m)), RuntimeError, "repack_()")
        strictly = torch.export.export(fast, (CASE.x(),), strict=True).module()
        assert_same(strictly(CASE.x()), fast(CASE.x()))
        change(fast)
        torch.compiler.reset()
        run = torch.compile(fast, fullgraph=True, backend="aot_eager")
        assert_same(run(CASE.x()), fast(CASE.x()))
        change(fast)
        program = torch.export.export(fast.repack_(), (CASE.x(),)).module()
        assert_same(program(CASE.x()), fast(CASE.x()))


def _one_more(fast):
    return nn.Parameter(fast.bias_l1 + 1, requires_grad=False)


def test_other_float_types():
    for fast in (CASE.fast(), CASE.fast_cell()):
        before = dict(fast.state_dict())
        check(error_of(fast.double), TypeError, "float64", ".float()")
        check(error_of(lambda f=fast: f.to(torch.float64)), TypeError, "float64", ".float()")
        check(error_of(lambda f=fast: f.to(torch.complex64)), TypeError, "complex64")
        for narrow in (fast.half, fast.bfloat16, fast.float):
            assert {t.dtype for t in narrow().state_dict().values()} == {torch.int8, torch.float32}
        for name, tensor in fast.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_a_module_on_the_meta_device_that_is_filled_tensor_by_tensor(kind):
    """As accelerate does it: written into the dicts of a module, which is then moved."""
    case = replace(CASE, **kind)
    source = drawn(replace(case, layout="dense", density=1.0))
    fast = case.new(device="meta", layout="dense")
    for name, tensor in source.state_dict().items():
        if name in fast._parameters:
            fast._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        else:
            fast._buffers[name] = tensor
        if name != list(source.state_dict())[-1]:
            check(error_of(lambda: fast(CASE.x())), (ValueError, RuntimeError), "meta")
    assert_same(fast.to("cpu")(CASE.x()), source(CASE.x()))
    assert_same(fast(CASE.x()), source(CASE.x()))


def test_fake_tensors():
    fast = CASE.fast()
    expected = fast(CASE.x())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = fast(mode.from_tensor(CASE.x()))
        fresh = CASE.new()
        assert fresh(mode.from_tensor(CASE.x()))[0].shape == expected[0].shape
    assert fake[0].shape == expected[0].shape
    assert_same(fast(CASE.x()), expected)


def test_a_whole_model_back_to_floats(kind):
    case = replace(CASE, num_layers=1, **kind)
    shared = case.fast()
    model = nn.ModuleDict({"a": shared, "b": shared, "cell": case.fast_cell(), "c": case.fast()})
    floats = lfk.dequantize(model)
    assert [type(m) for m in floats.values()] == [nn.LSTM, nn.LSTM, nn.LSTMCell, nn.LSTM]
    assert floats["a"] is floats["b"]
    assert model["a"] is shared
    for name, tensor in shared.to_float().state_dict().items():
        assert torch.equal(floats["a"].state_dict()[name], tensor)
    some = lfk.dequantize(model, filter_fn=lambda module, name: name == "c", inplace=True)
    assert some is model
    assert model["a"] is shared
    assert type(model["c"]) is nn.LSTM
    assert type(lfk.dequantize(shared)) is nn.LSTM


def test_dequantizing_changes_nothing_where_it_cannot():
    model = nn.ModuleDict({"good": CASE.fast(), "bad": CASE.fast()})
    model["bad"].weight_hh_l0 = torch.zeros(3)
    check(error_of(lambda: lfk.dequantize(model, inplace=True)), ValueError, "weight_hh_l0")
    assert isinstance(model["good"], lfk.FastQuantLSTM)


def test_explaining_a_whole_model():
    model = nn.ModuleDict({"lstm": CASE.fast(), "cell": CASE.fast_cell(), "head": nn.Linear(2, 3)})
    text = lfk.explain(model)
    assert "lstm: FastQuantLSTM on cpu, T=1, B=1" in text
    assert "cell: FastQuantLSTMCell on cpu, T=1, B=1" in text
    assert text.count("weight_hh_l1") == 1
    assert lfk.explain(model["lstm"]) in text
    check(error_of(lambda: lfk.explain(nn.Linear(2, 3))), TypeError, "Linear")


NOT_TENSORS = {
    "array": lambda t: t.numpy(),
    "list": lambda t: t.tolist(),
    "sparse": lambda t: t.to_sparse(),
    "mkldnn": lambda t: t.to_mkldnn(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("name", NOT_TENSORS)
@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_what_is_no_dense_tensor(name, unbatched, grad):
    change, fast = NOT_TENSORS[name], CASE.fast()
    x, (h, c) = (
        (CASE.x()[:, 0], (s[:, 0] for s in CASE.state()))
        if unbatched
        else (
            CASE.x(),
            CASE.state(),
        )
    )
    with torch.set_grad_enabled(grad):
        check(error_of(lambda: fast(change(x))), TypeError, "input")
        check(error_of(lambda: fast(x, (change(h), c))), TypeError, "h0")
        check(error_of(lambda: fast(x, (h, change(c)))), TypeError, "c0")
        cell, (x, h, c) = CASE.fast_cell(), (x[0], h[0], c[0])
        check(error_of(lambda: cell(change(x))), TypeError, "input")
        check(error_of(lambda: cell(x, (change(h), c))), TypeError, "h")


@pytest.mark.parametrize("change", [lambda t: t.tolist(), lambda t: t.numpy(), tuple])
def test_lengths_that_are_no_tensor(change):
    lengths = change(CASE.lengths())
    check(error_of(lambda: CASE.fast()(CASE.x(), None, lengths)), TypeError, "lengths", "int64")
