"""Asking for a derivative raises, whichever way a call comes: none is silently zero."""

import warnings
from dataclasses import replace

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from bad_calls import check, error_of
from cases import Case, assert_same
from isas import everywhere
from tracing import Model, op_arguments

CASE = Case(5, 9, 2, T=3, B=2)
X, (H, C) = CASE.x(), CASE.state()


def by_op(fast):
    arguments = fast.packed, CASE.shape(), False, fast._header
    return lambda x, h, c: torch.ops.lstm_fastkernels.lstm(x, h, c, None, *arguments)[0]


def by_module(fast):
    return lambda x, h, c: fast(x, (h, c))[0]


def by_cell(fast):
    cell = CASE.fast_cell()
    return lambda x, h, c: cell(x[0], (h[0], c[0]))[0]


def exported(fast):
    program = torch.export.export(fast, (X, (H, C))).module()
    return lambda x, h, c: program(x, (h, c))[0]


def exported_strictly(fast):
    program = torch.export.export(fast, (X, (H, C)), strict=True).module()
    return lambda x, h, c: program(x, (h, c))[0]


def traced(fast):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.trace(fast, (X, (H, C)))
    return lambda x, h, c: program(x, (h, c))[0]


def compiled(fast):
    torch.compiler.reset()
    return torch.compile(by_module(fast), fullgraph=True, backend="aot_eager")


WAYS = [by_op, by_module, by_cell, exported, exported_strictly, traced]


def backward_of(position):
    def ask(run):
        inputs = [X, H, C]
        inputs[position] = inputs[position].clone().requires_grad_()
        run(*inputs).sum().backward()

    return ask


def forward_of(position):
    def ask(run):
        with forward_ad.dual_level():
            inputs = [X, H, C]
            inputs[position] = forward_ad.make_dual(inputs[position], inputs[position])
            run(*inputs)

    return ask


def of_x(run):
    return lambda x: run(x, H, C).sum()


ASKED = {
    **{f"backward of {name}": backward_of(n) for n, name in enumerate("xhc")},
    **{f"forward mode of {name}": forward_of(n) for n, name in enumerate("xhc")},
    "grad": lambda run: grad(of_x(run))(X),
    "vjp": lambda run: vjp(of_x(run), X)[1](torch.ones(())),
    "jvp": lambda run: jvp(of_x(run), (X,), (X,)),
    "jacrev": lambda run: jacrev(of_x(run))(X),
    "jacfwd": lambda run: jacfwd(of_x(run))(X),
    "grad of vmap": lambda run: grad(lambda x: vmap(of_x(run))(torch.stack((x, x))).sum())(X),
    "vmap of grad": lambda run: vmap(grad(of_x(run)))(torch.stack((X, X))),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("asked", ASKED)
def test_asking_raises(asked, way):
    run = way(CASE.fast())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # vmap is slow on the op
        check(error_of(lambda: ASKED[asked](run)), RuntimeError, "for inference", "dequantize")


@pytest.mark.parametrize("position", range(3))
def test_asking_a_compiled_graph_raises(position):
    check(error_of(lambda: backward_of(position)(compiled(CASE.fast()))), RuntimeError, "inference")


OWN = {
    "bias": lambda fast: fast.bias_l0.requires_grad_(),
    "all": lambda fast: fast.requires_grad_(),
    "scale": lambda fast: setattr(fast, "bias_l0", torch.nn.Parameter(torch.zeros(36))),
}


@pytest.mark.parametrize("activations", ["int8", "int16", "float32"])
@pytest.mark.parametrize("name", OWN)
def test_derivatives_of_the_tensors_of_a_module(name, activations):
    for compile_first in (False, True):
        fast = replace(CASE, activations=activations).fast()
        OWN[name](fast)
        run = compiled(fast) if compile_first else by_module(fast)
        y = run(X, H, C)
        assert y.requires_grad
        check(error_of(y.sum().backward), RuntimeError, "for inference")
        with torch.no_grad():
            assert not run(X, H, C).requires_grad


def test_derivatives_of_what_functional_call_puts_in():
    for activations, name in (("float32", "weight_hh_l0"), ("int8", "weight_ih_l1_scale")):
        fast = replace(CASE, activations=activations).fast()
        value = fast.state_dict()[name].clone()

        def run(value, fast=fast, name=name):
            return functional_call(fast, {name: value}, (X,))[0].sum()

        assert_same(functional_call(fast, {name: value}, (X,)), fast(X))
        for asked in (
            lambda run=run, value=value: run(value.clone().requires_grad_()).backward(),
            lambda run=run, value=value: grad(run)(value),
            lambda run=run, value=value: jvp(run, (value,), (value,)),
        ):
            check(error_of(asked), RuntimeError, "for inference")
        check(error_of(lambda run=run, v=value: vmap(run)(torch.stack((v, v)))), RuntimeError)


@pytest.mark.parametrize("way", [*WAYS, compiled], ids=lambda way: way.__name__)
def test_nobody_asks(way):
    """Grad mode, a dual level and transforms alone are no reason to raise."""
    fast = CASE.fast()
    run, expected = everywhere(way(fast)), way(fast)(X, H, C)
    assert torch.equal(run(X, H, C), expected)
    assert not run(X, H, C).requires_grad
    with torch.no_grad():
        assert torch.equal(run(X.clone().requires_grad_(), H, C), expected)
    if way is not compiled:
        with forward_ad.dual_level():
            assert torch.equal(run(X, H, C), expected)
        assert torch.equal(jvp(lambda z: (run(X, H, C), z), (X,), (X,))[0][0], expected)


@pytest.mark.parametrize("way", [by_op, by_module, exported], ids=lambda way: way.__name__)
def test_vmap_without_derivatives(way):
    fast = CASE.fast()
    run, many = way(fast), torch.stack((X, 2 * X, -X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = vmap(run, in_dims=(0, None, None))(many, H, C)
    assert torch.equal(found, torch.stack([run(x, H, C) for x in many]))


def test_modes_see_one_op():
    """A mode of somebody sees the op that has its guards."""
    seen = []

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op, types, arguments=(), options=None):
            seen.append(op)
            return op(*arguments, **(options or {}))

    model = Model(CASE.fast())
    with torch.no_grad(), Mode():
        model(X)
    assert torch.ops.lstm_fastkernels.lstm.default in seen
    assert torch.ops.lstm_fastkernels.lstm.plain not in seen


def test_plain_overload_is_the_op():
    arguments = op_arguments(CASE, state=(H, C))
    plain, op = torch.ops.lstm_fastkernels.lstm.plain, torch.ops.lstm_fastkernels.lstm.default
    for a, b in zip(plain(*arguments), op(*arguments), strict=True):
        assert torch.equal(a, b)
