"""nn.Module's __call__ is left out where it would call forward and do nothing else."""

import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.modules.module as torch_modules
from torch import nn
from torch.nn.utils import parametrize

import lstm_fastkernels as lfk
from cases import Case
from isas import assert_same_bits, everywhere
from lstm_fastkernels.modules import forward_alone
from lstm_fastkernels.ops import eager

CASE = Case(9, 31, T=5, B=3)
X = CASE.x()
MODULES = {
    "FastQuantLSTM": (CASE.fast, X),
    "FastSparseLSTM": (replace(CASE, activations="float32").fast, X),
    "FastQuantLSTMCell": (CASE.fast_cell, X[0]),
    "FastSparseLSTMCell": (replace(CASE, activations="float32").fast_cell, X[0]),
}


def is_alone(module, *inputs):
    return eager.call(module, inputs) is not None


@pytest.fixture
def fast():
    """A module whose call has gone the short way."""
    module = CASE.fast()
    module(X)
    assert is_alone(module, X)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_calls_are_those_of_nn_module(name):
    make, x = MODULES[name]
    module = make()
    _, state = module(X) if "Cell" not in name else (None, module(x))
    for inputs in ((x,), (x, None), (x, state)):
        assert is_alone(module, *inputs)
        assert_same_bits(everywhere(module)(*inputs), nn.Module.__call__(module, *inputs))


def test_other_arguments(fast):
    expected, state = fast(X), fast(X)[1]
    assert_same_bits(fast(input=X), expected)
    assert_same_bits(fast(X, hx=state), fast(X, state))
    assert_same_bits(fast(X, None, torch.tensor([5, 5, 5])), expected)
    for inputs, options in (((), {}), ((X, None, None, None), {}), ((X,), {"h": state})):
        with pytest.raises(TypeError, match="forward"):
            fast(*inputs, **options)


# Ways to have a hook on a module or on all; each gives its handle.
HOOKS = {
    "forward_pre": lambda module, hook: module.register_forward_pre_hook(hook),
    "forward_pre with options": lambda module, hook: module.register_forward_pre_hook(
        hook, with_kwargs=True
    ),
    "forward": lambda module, hook: module.register_forward_hook(hook),
    "forward always": lambda module, hook: module.register_forward_hook(hook, always_call=True),
    "backward": lambda module, hook: module.register_full_backward_hook(hook),
    "backward_pre": lambda module, hook: module.register_full_backward_pre_hook(hook),
    "global forward_pre": lambda _, hook: torch_modules.register_module_forward_pre_hook(hook),
    "global forward": lambda _, hook: torch_modules.register_module_forward_hook(hook),
    "global backward": lambda _, hook: torch_modules.register_module_full_backward_hook(hook),
    "global backward_pre": lambda _, hook: torch_modules.register_module_full_backward_pre_hook(
        hook
    ),
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_run_from_when_they_are_there(name, fast):
    calls = []
    handle = HOOKS[name](fast, lambda *arguments: calls.append(arguments))
    try:
        assert not is_alone(fast, X)
        fast(X)
        assert [arguments[0] for arguments in calls] == [fast] * ("backward" not in name)
    finally:
        handle.remove()
    assert is_alone(fast, X)


def test_hooks_change_inputs_and_outputs(fast):
    expected = fast(2 * X)[0] + 1
    fast.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    fast.register_forward_hook(lambda module, inputs, result: result[0] + 1)
    assert torch.equal(fast(X), expected)


def test_hooks_that_always_run(fast):
    calls = []
    fast.register_forward_hook(lambda *_: calls.append("called"), always_call=True)
    with pytest.raises(RuntimeError):
        fast(X[..., 1:])
    assert calls == ["called"]


def test_a_module_without_a_dict_of_hooks(fast):
    """As old pickles are: nn.Module says what it says."""
    del fast.__dict__["_backward_pre_hooks"]
    assert not is_alone(fast, X)
    with pytest.raises(AttributeError, match="_backward_pre_hooks"):
        fast(X)


@pytest.mark.parametrize("name", ["forward", "_call_impl", "_compiled_call_impl"])
def test_what_a_module_has_of_its_own_is_called(name, fast):
    setattr(fast, name, lambda x: ("own", x))
    assert not is_alone(fast, X)
    assert fast(X)[0] == "own"
    delattr(fast, name)
    assert is_alone(fast, X)


# The holders of what somebody may have put something else in the place of.
PATCHED = {
    "forward of the class": (lfk.FastQuantLSTM, "forward"),
    "forward of its base": (lfk.FastQuantLSTM.__mro__[1], "forward"),
    "call": (nn.Module, "__call__"),
    "call_impl": (nn.Module, "_call_impl"),
    "call_impl of the class": (lfk.FastQuantLSTM, "_call_impl"),
}


@pytest.mark.parametrize("name", PATCHED)
def test_what_classes_are_given_later_is_called(name, fast, monkeypatch):
    with monkeypatch.context() as patch:
        holder, attribute = PATCHED[name]
        patch.setattr(holder, attribute, lambda self, *inputs: ("patched", self), raising=False)
        assert not is_alone(fast, X)
        assert fast(X) == ("patched", fast)
    assert is_alone(fast, X)


def test_a_compiled_module_is_called(fast):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    expected = fast(X)
    fast.compile(backend=backend, fullgraph=True)
    assert not is_alone(fast, X)
    assert_same_bits(fast(X), expected)
    assert len(graphs) == 1
    torch.compiler.reset()


@pytest.mark.parametrize("fullgraph", [False, True])
def test_hooks_where_torch_compiles(fast, fullgraph):
    """They come and go: a graph is of forward alone, or of a hook."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    expected = fast(X)
    run = torch.compile(fast, backend=backend, fullgraph=fullgraph)
    for _ in range(2):
        assert_same_bits(run(X), expected)
        handle = fast.register_forward_hook(lambda module, inputs, result: result[0] + 1)
        assert torch.equal(run(X), expected[0] + 1)
        handle.remove()
    assert len(graphs) == 2
    assert is_alone(fast, X)
    torch.compiler.reset()


class Doubled(lfk.FastQuantLSTM):
    def forward(self, input, hx=None, lengths=None):
        y, state = super().forward(input, hx, lengths)
        return 2 * y, state


class Called(lfk.FastQuantLSTM):
    def __call__(self, *inputs):
        y, state = super().__call__(*inputs)
        return 2 * y, state


class Doubling(nn.Module):
    def __call__(self, *inputs):
        y, state = super().__call__(*inputs)
        return 2 * y, state


class Beside(lfk.FastQuantLSTM, Doubling):
    pass


@pytest.mark.parametrize("derived", [Doubled, Called, Beside])
def test_derived_classes_are_called_their_way(derived, fast):
    module = derived(9, 31)
    module.load_state_dict(fast.state_dict())
    y, state = fast(X)
    assert_same_bits(module(X), (2 * y, state))
    assert not is_alone(module, X)


def test_parametrized_modules(fast):
    """Of a tensor: refused. Their class is a derived one."""
    parametrize.register_parametrization(fast, "bias_l0", nn.Identity())
    assert not is_alone(fast, X)
    with pytest.raises(ValueError, match="lacks bias_l0"):
        fast(X)
    parametrize.remove_parametrizations(fast, "bias_l0")
    assert_same_bits(fast(X), CASE.fast()(X))
    assert is_alone(fast, X)


class OfZeros(nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, x):
        return x + self.lstm(torch.zeros(1, 1, 9))[0]


class WithLeaves(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, lfk.FastQuantLSTM)


def test_fx_sees_calls_with_constants(fast):
    graph = WithLeaves().trace(OfZeros(fast))
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["lstm"]


def test_jit_traces_name_the_module(fast):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(OfZeros(fast), torch.zeros(1, 1, 31), check_trace=False)
    assert "lstm_fastkernels::lstm" in str(traced.inlined_graph)
    assert "lstm" in dict(traced.named_children())


def test_profilers_see_the_module(fast):
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], with_modules=True, with_stack=True
    ) as profile:
        fast(X)
    assert any("nn.Module: FastQuantLSTM_0" in event.name for event in profile.events())


def test_tensors_in_the_place_of_parameters(fast):
    bias = fast.bias_l0 + 1
    y, _ = torch.func.functional_call(fast, {"bias_l0": bias}, (X,))
    with torch.no_grad():
        fast.bias_l0.add_(1)
    assert torch.equal(fast(X)[0], y)


def test_a_call_of_torch_that_is_not_known_is_not_left_out(monkeypatch):
    assert forward_alone._is_known()
    for name in ("__call__", "_call_impl"):
        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, name, lambda self, *inputs: None)
            assert not forward_alone._is_known()
    with monkeypatch.context() as patch:
        patch.setattr(forward_alone, "_HOOKS", forward_alone._HOOKS[1:])
        assert not forward_alone._is_known()

    class Unknown(lfk.FastQuantLSTM):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(forward_alone, "_SHORTENS", False)
        forward_alone.shorten_calls()(Unknown)
    module = Unknown(9, 31)
    module(X)
    assert not is_alone(module, X)
    forward_alone.shorten_calls()(Unknown)
    assert is_alone(module, X)


def test_misuse_of_the_binding(fast):
    assert eager.call(fast, [X]) is None
    assert eager.call(nn.Identity(), (X,)) is None
    assert eager.call(3, (X,)) is None
    with pytest.raises(TypeError, match="arguments"):
        eager.call(fast)
