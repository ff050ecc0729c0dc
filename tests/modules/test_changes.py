"""Whatever is done to a module, it runs the tensors that it has."""

import copy
import io
import pickle
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

import lstm_fastkernels as lfk
from bad_calls import check, error_of
from cases import KEPT_PACKED, KINDS, Case, assert_by_contract, assert_same, drawn, to_float
from lstm_fastkernels import runtime
from numpy_runtime import forward

CASE = Case(5, 9, 2, T=3, B=2)
REFUSED = (RuntimeError, ValueError, TypeError, AttributeError)
MODULES = KINDS | KEPT_PACKED


def other(fast, seed):
    """The tensors of a module laid out as this one, with other weights."""
    state = {}
    for name, tensor in fast.state_dict().items():
        indices = name.endswith("indices")
        state[name] = tensor.clone() if indices else tensor.detach().roll(1 + seed % 3, 0)
        if name.startswith("bias"):
            state[name] += seed
    return state


def other_kind(fast, seed):
    """The tensors of a module of the same sizes and precision, laid out in some way."""
    kinds = [KINDS[name] for name in sorted(KINDS) if name.startswith(fast.activations)]
    return drawn(replace(CASE, seed=seed, **kinds[seed % len(kinds)])).state_dict()


def some_name(fast, seed, dtype=None):
    names = [n for n, t in fast.state_dict().items() if dtype is None or t.dtype == dtype]
    return names[seed % len(names)] if names else next(iter(fast.state_dict()))


# What people do: (module, seed) -> the module to go on with.


def load(fast, seed):
    fast.load_state_dict(other_kind(fast, seed))
    return fast


def load_floats(fast, seed):
    fast.load_state_dict(replace(CASE, seed=seed % 50).lstm().state_dict())
    return fast


def load_assigned(fast, seed):
    fast.load_state_dict(other(fast, seed), assign=True)
    return fast


def load_in_place(fast, seed):
    new = other(fast, seed)
    for name, tensor in fast.state_dict().items():
        tensor.copy_(new[name])
    return fast


def load_by_another_library(fast, seed):
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        like = copy.deepcopy(fast)
        like.load_state_dict(other(fast, seed))
        save_model(like, file.name)
        load_model(fast, file.name)
    return fast


def load_in_inference_mode(fast, seed):
    with torch.inference_mode():
        return load(fast, seed)


def assign(fast, seed):
    new = other(fast, seed)
    for name, tensor in new.items():
        parameter = name in dict(fast.named_parameters())
        setattr(fast, name, nn.Parameter(tensor, requires_grad=False) if parameter else tensor)
    return fast


def assign_one(fast, seed):
    name = some_name(fast, seed, torch.int8)
    setattr(fast, name, other(fast, seed)[name])
    return fast


def assign_in_inference_mode(fast, seed):
    with torch.inference_mode():
        return assign_one(fast, seed)


def put_into_dict(fast, seed):
    name = some_name(fast, seed, torch.float32)
    held = fast._parameters if name in fast._parameters else fast._buffers
    new = other(fast, seed)[name]
    held[name] = nn.Parameter(new, requires_grad=False) if held is fast._parameters else new
    return fast


def assign_another_dtype(fast, seed):
    name = some_name(fast, seed)
    setattr(fast, name, getattr(fast, name).double())
    return fast


def assign_another_shape(fast, seed):
    name = some_name(fast, seed)
    setattr(fast, name, getattr(fast, name)[1:])
    return fast


def multiply(fast, seed):
    getattr(fast, some_name(fast, seed, torch.float32)).mul_(0.5)
    return fast


def zero(fast, seed):
    getattr(fast, some_name(fast, seed)).zero_()
    return fast


def write_nan(fast, seed):
    getattr(fast, some_name(fast, seed, torch.float32)).view(-1)[0] = float("nan")
    return fast


def call_with_others(fast, seed):
    """The call itself runs what it is given."""
    state = other(fast, seed)
    names = [some_name(fast, seed), some_name(fast, seed + 1)]
    y = torch.func.functional_call(fast, {name: state[name] for name in names}, (CASE.x(),))
    like = copy.deepcopy(fast)
    like.load_state_dict(fast.state_dict() | {name: state[name] for name in names})
    assert_same(y, like(CASE.x()))
    return fast


def to_halves(fast, seed):
    return [fast.half, fast.bfloat16, fast.float, fast.double, fast.cpu][seed % 5]()


def to_meta_and_back(fast, seed):
    return fast.to("meta").to_empty(device="cpu")


def share(fast, seed):
    return fast.share_memory()


def deep_copy(fast, seed):
    return copy.deepcopy(fast)


def pickled(fast, seed):
    return pickle.loads(pickle.dumps(fast))


def saved_by_torch(fast, seed):
    buffer = io.BytesIO()
    torch.save(fast, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def saved(fast, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.safetensors")
        lfk.save_file(fast, path)
        return lfk.load_file(path)


def averaged(fast, seed):
    average = AveragedModel(fast)
    average.update_parameters(fast)
    return average.module


def converted(fast, seed):
    options = {"activations": fast.activations, "layout": fast.layout}
    return type(fast).from_float(to_float(fast), **options)


def set_options(fast, seed):
    name, value = [
        ("layout", "dense"),
        ("layout", "nowhere"),
        ("block_size", (16, 8)),
        ("activations", "int16"),
        ("hidden_size", 3),
    ][seed % 5]
    setattr(fast, name, value)
    return fast


def export(fast, seed):
    """Export gives the module other dicts of parameters and buffers."""
    strict = seed % 2 == 0
    torch.export.export(fast.repack_(), (CASE.x(),), strict=strict)
    return fast


def train_mode(fast, seed):
    return fast.train(seed % 2 == 0).requires_grad_(seed % 3 == 0)


OPERATIONS = [
    *(load, load_floats, load_assigned, load_in_place, load_by_another_library),
    *(load_in_inference_mode, assign, assign_one, assign_in_inference_mode, put_into_dict),
    *(assign_another_dtype, assign_another_shape, multiply, zero, write_nan, call_with_others),
    *(to_halves, to_meta_and_back, share, deep_copy, pickled, saved_by_torch, saved, averaged),
    *(converted, set_options, export, train_mode),
]


@torch.no_grad()
def assert_runs_its_tensors(fast, message):
    """Or refuses to, in every way alike."""
    x, state = CASE.x(), CASE.state()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.safetensors")
        ways = {
            "call": lambda: fast(x, state),
            "copy": lambda: copy.deepcopy(fast)(x, state),
            "file": lambda: (lfk.save_file(fast, path), lfk.load_file(path)(x, state))[1],
            "floats": lambda: to_float(fast),
        }
        try:
            fast(x, state)
        except ValueError:
            for way in ways.values():
                check(error_of(way), (RuntimeError, ValueError))
            return
        expected = assert_by_contract(fast, x, state, message=message)
        for name, way in ways.items():
            if name != "floats":
                assert_same(way(), expected, f"{message}: {name}")
        y, h, c = forward(runtime.LSTM.load(path), x.numpy(), tuple(s.numpy() for s in state))
        assert_same((y, (h, c)), expected, f"{message}: NumPy")
    fresh = type(fast)(5, 9, 2, activations=fast.activations)
    fresh.load_state_dict(fast.state_dict())
    for name, tensor in to_float(fresh).state_dict().items():
        assert torch.equal(tensor, to_float(fast).state_dict()[name]), f"{message}: {name}"


def check_sequence(kind, operations):
    """After each operation, done or refused."""
    fast, done = drawn(replace(CASE, **MODULES[kind])), []
    for operation, seed in operations:
        done.append(f"{operation.__name__}({seed})")
        try:
            with torch.no_grad():
                fast = operation(fast, seed)
        except REFUSED:
            done[-1] += " refused"
        assert_runs_its_tensors(fast, f"{kind}: {', '.join(done)}")


sequences = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 99)), min_size=1, max_size=8
)


@given(kind=st.sampled_from(sorted(MODULES)), operations=sequences)
@settings(max_examples=60)
def test_any_sequence(kind, operations):
    check_sequence(kind, operations)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize(
    "kind", ["int8", "int8-sparse", "float32", "int8, packed", "float32, packed"]
)
def test_each(kind, operation):
    check_sequence(kind, [(operation, seed) for seed in range(5)])


# What is refused, and how.


def test_what_no_tensor_of_the_lstm_can_be():
    for name, value, words in (
        ("weight_hh_l0", torch.zeros(36, 9), ("weight_hh_l0", "int8", "float32")),
        ("weight_hh_l0", torch.zeros(36, 8, dtype=torch.int8), ("weight_hh_l0", "size", "36, 8")),
        ("weight_hh_l0_scale", torch.full((36,), -1.0), ("weight_hh_l0", "scale")),
        ("weight_hh_l0_scale", torch.full((36,), float("inf")), ("weight_hh_l0_scale", "finite")),
        ("weight_hh_l0", torch.zeros(36, 9, dtype=torch.int8).to_sparse(), ("hh_l0", "sparse_coo")),
        ("weight_hh_l0", None, ("weight_hh_l0", "lacks")),
        ("bias_l0", None, ("bias_l0", "lacks")),
        ("weight_hh_l0", torch.zeros(36, 9, dtype=torch.int8, device="meta"), ("one device",)),
    ):
        fast = drawn(CASE)
        setattr(fast, name, value)
        for use in (
            lambda fast=fast: fast(CASE.x()),
            lambda fast=fast: lfk.save_file(fast, "never.safetensors"),
            lambda fast=fast: fast.dequantize(),
            lambda fast=fast: lfk.explain(fast, CASE.x()),
            lambda fast=fast: fast.repack_(),
        ):
            check(error_of(use), ValueError, "FastQuantLSTM", *words)
        repr(fast)
    assert not Path("never.safetensors").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_none_of_its_tensors(kind):
    fast = drawn(replace(CASE, **KINDS[kind]))
    mine = set(fast.state_dict())
    for name in ("bias_ih_l0", "weight_hh_l0", "weight_hh_l0_values", "weight_hh_l1_scale"):
        if name not in mine:
            error = error_of(lambda name=name: setattr(fast, name, torch.zeros(36, 9)))
            check(error, AttributeError, name, "load_state_dict")
    fast.note = torch.zeros(3)
    assert_runs_its_tensors(fast, kind)


def test_the_state_dict_that_was_loaded_stays_its_owners(kind):
    case = replace(CASE, **kind)
    for state in (drawn(case).state_dict(), case.lstm().state_dict()):
        fast = case.new()
        fast.load_state_dict(state)
        before = fast(CASE.x())
        for tensor in state.values():
            tensor.zero_()
        assert_same(fast(CASE.x()), before)
        assert any(tensor.any() for tensor in fast.state_dict().values())


def test_changes_that_leave_no_trace():
    fast = drawn(CASE)
    fast.bias_l0.data.zero_()
    fast.weight_hh_l0.numpy()[:] = 0
    fast.repack_()
    assert_runs_its_tensors(fast, "repack_")
    fast.bias_l0.data = torch.ones(36)
    saved(fast, 0)  # looks at all tensors
    assert_runs_its_tensors(fast, "saved")
    fast.bias_l0.data = torch.ones(37)
    for use in (lambda: saved(fast, 0), fast.dequantize, fast.repack_):
        check(error_of(use), ValueError, "bias_l0", "(36,)", "(37,)")


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_made_in_any_mode(mode, kind):
    case = replace(CASE, **kind)
    with mode():
        made = [case.new(), drawn(case), copy.deepcopy(case.fast())]
        for fast in made:
            fast(CASE.x())
    for fast in made:
        assert not any(tensor.is_inference() for tensor in fast.state_dict().values())
        assert_runs_its_tensors(fast, str(mode))


def _call_together(fast, barrier):
    barrier.wait()
    return fast(CASE.x())


def test_threads_that_meet_a_change_together(kind):
    case = replace(CASE, **kind)
    fast, states = drawn(case), [drawn(replace(case, seed=s)).state_dict() for s in (1, 2)]
    expected = []
    for state in states:
        fast.load_state_dict(state)
        expected.append(fast(CASE.x()))
    with ThreadPoolExecutor(4) as pool:
        for n in range(40):
            for name, tensor in fast.state_dict().items():
                if tensor.shape == states[n % 2][name].shape:
                    tensor.copy_(states[n % 2][name])
                else:
                    fast._buffers[name] = states[n % 2][name].clone()
            barrier = threading.Barrier(4)
            results = [pool.submit(_call_together, fast, barrier) for _ in range(4)]
            for result in results:
                assert_same(result.result(), expected[n % 2])


def test_a_call_does_not_pack_again(monkeypatch):
    fast = drawn(CASE)
    packed = fast.packed
    for _ in range(3):
        fast(CASE.x())
        copy.deepcopy(fast)
        fast.half().requires_grad_(False).eval()
    assert fast.packed is packed
