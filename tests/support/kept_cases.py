"""Modules that hold packed weights alone, of everything that can be packed."""

import copy
import io
import itertools
import pickle
from dataclasses import replace

import torch

import lstm_fastkernels as lfk
from cases import KINDS, Case, drawn, to_float
from id_cases import OTHERS, STACKS, folded, ids_of

CASE = Case(9, 31, 2, bidirectional=True, T=5, B=3)

# Every precision, structure and shape that can be packed.
CASES = {
    **{name: replace(CASE, **kind) for name, kind in KINDS.items()},
    "not pair-safe": replace(CASE, seed=1),
    "mixed": replace(
        CASE, precision=(("weight_ih_l0*", "int16"), ("weight_hh_l1", "float32"), ("*l1", "int4"))
    ),
    "projection": replace(CASE, proj_size=13, activations="int4", group_size=128),
    "no bias": replace(CASE, bias=False),
    "no bias, float32": replace(CASE, bias=False, activations="float32"),
    "large blocks": replace(CASE, layout="block_sparse", block_size=(24, 8), density=0.3),
    "large blocks, float32": replace(
        CASE, activations="float32", layout="block_sparse", block_size=(16, 32), density=0.1
    ),
    "no blocks": replace(CASE, layout="block_sparse", density=0.0),
    **{
        f"H{size}": Case(size, size, activations=activations)
        for size, activations in zip(
            (1, 7, 8, 129, 151), itertools.cycle(("int8", "int4", "int16")), strict=False
        )
    },
}


def made(name):
    """A module that holds canonical tensors, by the name of a case or of what else there is."""
    if name == "not pair-safe":
        return drawn(CASES[name], largest=127)
    if name in CASES:
        return CASES[name].fast()
    if name == "low rank":
        lstm = CASE.lstm()
        lfk.factorize_(lstm, lfk.LowRankConfig(rank=5))
        return lfk.FastQuantLSTM.from_float(lstm, precision={"weight_hh_*": "int4"})
    if name == "cell":
        return CASE.fast_cell()
    return folded(STACKS[2], name.removeprefix("ids, "))


NAMES = [*CASES, "low rank", "cell", *(f"ids, {others}" for others in OTHERS)]


def kept(fast):
    """A copy that holds packed weights alone."""
    copied = copy.deepcopy(fast)
    copied.keep = "packed"
    return copied


def call(fast):
    """What it gives, where it is, for the same input each time."""
    if fast.takes_ids:
        return fast(ids_of(STACKS[2]))
    if hasattr(fast, "batch_first"):
        x = torch.randn(5, 3, fast.input_size, generator=torch.Generator().manual_seed(1))
        return fast(x.to(fast.packed.device))
    h, c = fast(torch.ones(3, fast.input_size, device=fast.packed.device))
    return h, (h, c)


def assert_stands_for(packed, fast):
    """A module of packed weights alone has the tensors, and all that is made of them, of `fast`."""
    assert_holds_packed_alone(packed)
    assert_equal_tensors(packed.state_dict(), fast.state_dict())
    assert_equal_tensors(packed.canonical().tensors, fast.canonical().tensors)
    assert_equal_tensors(to_float(packed).state_dict(), to_float(fast).state_dict())
    assert packed.layouts() == fast.layouts()
    assert repr(packed).replace(", keep=packed", "") == repr(fast)


def assert_goes_back(packed, fast):
    packed.keep = "canonical"
    assert_equal_tensors(dict(packed.named_parameters()), dict(fast.named_parameters()))
    assert_equal_tensors(dict(packed.named_buffers()), dict(fast.named_buffers()))


def copies_of(module):
    """By every way that gives a module of its kind."""
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    return copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded


def assert_same_file(module, other, path):
    lfk.save_file(other, path)
    expected = path.read_bytes()
    lfk.save_file(module, path)
    assert path.read_bytes() == expected


def assert_equal_tensors(found, expected):
    assert list(found) == sorted(expected, key=list(found).index)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def assert_holds_packed_alone(fast):
    held = {**dict(fast.named_parameters()), **dict(fast.named_buffers())}
    biases = {name for name in fast.state_dict() if name.startswith("bias")}
    assert held.keys() == {"packed"} | biases
    reached = [*held.values(), *fast._noted, *fast._floats, *fast._made[0]]
    assert {id(tensor) for tensor in reached} <= {id(tensor) for tensor in held.values()}
    bias_bytes = sum(fast.state_dict()[name].nbytes for name in biases)
    assert sum(tensor.nbytes for tensor in held.values()) == fast.packed_bytes() + bias_bytes
