"""explain says what a call runs and why: it follows what decides it."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from bad_calls import BAD_CALLS, error_of
from bad_calls import CASE as BAD_CASE
from cases import AWKWARD, Case, drawn
from explanations import explained
from isas import chosen
from lstm_fastkernels import ops
from lstm_fastkernels.modules import running
from lstm_fastkernels.weights.structures import block_density

CASE = Case(9, 31, 2, T=5, B=3)
WORTH = 1 << 25  # products of a call that pay for a second thread


def matrices(fast, x=None):
    x = torch.zeros(1, 1, fast.input_size, device=fast.packed.device) if x is None else x
    return {n: how for n, how in explained(fast, x)[1].items() if n.startswith("weight")}


# Matrices


def test_forms_follow_the_activations(kind):
    case = replace(CASE, bidirectional=True, **kind)
    forms = {
        "int8": "8-bit",
        "int16": "16-bit activations",
        "int4": "4-bit weights, 8-bit activations",
        "float32": "float32",
    }
    expected = forms[case.activations]
    fast = case.fast()
    found = matrices(fast)
    assert list(found) == list(fast.layouts())
    assert {how.split("; ")[1] for how in found.values()} == {expected}
    sparse = case.activations == "float32" or case.layout == "block_sparse"
    assert {how.split(",")[0] for how in found.values()} == {"block-sparse" if sparse else "dense"}


@pytest.mark.parametrize("layout", ["dense", "block_sparse"])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hr_l1", "weight_hh_l1_reverse"])
def test_one_pair_changes_the_form_of_its_matrix(name, layout):
    fast = drawn(Case(9, 31, 2, bidirectional=True, proj_size=13, layout=layout))
    before = matrices(fast)
    state = fast.state_dict()
    tensor = state[name if layout == "dense" else f"{name}_values"]
    tensor.view(-1, tensor.shape[-1])[0, :2] = torch.tensor([64, 65])
    fast.load_state_dict(state)
    after = matrices(fast)
    assert [n for n in after if after[n] != before[n]] == [name]
    assert "8-bit; on AVX2 by 16-bit operands, the weights are not pair-safe" in after[name]


@pytest.mark.parametrize("hidden_size", AWKWARD)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("layout", ["dense", "block_sparse"])
def test_shares_are_those_of_the_weights(layout, density, hidden_size, kind):
    if layout == "block_sparse" and kind["activations"] == "int4":
        pytest.skip("4-bit weights have no blocks")
    given = {**kind, "density": density, "layout": layout}
    case = Case(33, hidden_size, 2, proj_size=hidden_size // 2, **given)
    fast = drawn(case)
    weights = fast.canonical().to_float()
    for name, how in matrices(fast).items():
        expected = block_density(weights[name], name)
        kept, *read = (float(n) / 100 for n in re.findall(r"([\d.]+)%", how))
        assert abs(kept - expected) < 0.001, f"{name}: {how}"
        assert len(read) == (layout == "block_sparse")
        assert all(share >= kept for share in read)


# Instruction sets and threads


@pytest.mark.parametrize("isa", lfk.supported_isas())
def test_the_instruction_set(isa):
    with chosen(isa):
        found = explained(CASE.fast(), CASE.x())[1]["instruction set"]
    best = isa == lfk.supported_isas()[-1]
    assert found == f"{isa}: {'the highest allowed here' if best else 'chosen by set_isa'}"


# A step of a row is 4 * 128 * (40 + 128) = 86,016 products in each direction.
THREADS = [
    (Case(40, 128, T=390, B=1), 4, rf"1 of 4: 33546240 products, .* pays from {WORTH} on"),
    (Case(40, 128, T=391, B=1), 4, r"1 of 4: one direction, 1 rows in 1 part"),
    (Case(40, 128, T=130, B=3), 4, rf"1 of 4: 33546240 products, .* pays from {WORTH} on"),
    (Case(40, 128, T=131, B=3), 4, r"3 of 4: one direction, 3 rows in 3 parts"),
    (Case(40, 128, T=131, B=9), 4, r"4 of 4: one direction, 9 rows in 4 parts"),
    (Case(40, 128, T=131, B=9), 1, r"1: no more allowed"),
    (Case(40, 128, 1, True, T=400, B=1), 4, r"2 of 4: two directions, 1 rows in 1 part"),
    (Case(40, 128, 1, True, T=400, B=2), 3, r"2 of 3: two directions, 2 rows in 1 part"),
    (Case(40, 128, 1, True, T=400, B=9), 6, r"6 of 6: two directions, 9 rows in 3 parts"),
]


def processors(fast, x):
    """What this process may use, as explain says when many threads are asked for."""
    before = torch.get_num_threads()
    torch.set_num_threads(4096)
    try:
        found = explained(fast, x)[1]["threads"]
    finally:
        torch.set_num_threads(before)
    return int(re.search(r"4096 asked for, this process may use (\d+)", found)[1])


@pytest.mark.parametrize(("case", "allowed", "expected"), THREADS)
def test_threads(case, allowed, expected, threads):
    """The C++ tests have any number of processors."""
    fast, x = drawn(case), case.x()
    there = processors(fast, x)
    assert there <= len(os.sched_getaffinity(0))
    threads(allowed)
    found = explained(fast, x)[1]["threads"]
    if allowed <= there:
        assert re.fullmatch(expected, found)
    else:
        assert found.endswith(f"{allowed} asked for, this process may use {there}")


# Each case in a child: the pool starts threads when it first needs them, and keeps them.
SCRIPT = """
import os, sys, torch
import lstm_fastkernels as lfk
from cases import Case, drawn

def tasks():
    return len(os.listdir("/proc/self/task"))

def run(case, allowed):
    torch.set_num_threads(allowed)
    fast, x = drawn(case), case.x()
    with torch.no_grad():
        before = tasks()
        explanation = lfk.explain(fast, x)
        assert tasks() == before, "explain runs nothing"
        fast(x)
        print(1 + tasks() - before, *explanation.splitlines(), sep="|", flush=True)

for case, allowed in eval(sys.argv[1]):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        run(case, allowed)
        os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not list threads")
def test_so_many_threads_run():
    cases = [row[:2] for row in THREADS]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, repr(cases)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == 0, process.stderr
    for case, line in zip(cases, process.stdout.splitlines(), strict=True):
        started, *explanation = line.split("|")
        (found,) = (part for part in explanation if part.startswith("threads: "))
        assert re.match(rf"threads: {started}\b", found), case


# Inputs


def test_every_form_of_call(kind):
    case = replace(CASE, batch_first=True, **kind)
    fast, x, lengths = case.fast(), case.x(), case.lengths()
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    name = type(fast).__name__
    for inputs, sizes in (
        ((x,), "T=5, B=3"),
        ((x.half(), case.state()), "T=5, B=3"),
        ((x, None, lengths), "T=5, B=3"),
        ((packed, case.state()), "T=5, B=3"),
        ((x[0], tuple(s[:, 0] for s in case.state())), "T=5, B=1"),
        ((x.requires_grad_(),), "T=5, B=3"),
    ):
        first, lines = explained(fast, *inputs)
        assert first == f"{name} on cpu, {sizes}"
        assert len(lines) == 2 + 2 * case.num_layers
    cell, x = case.fast_cell(), torch.randn(4, 9)
    assert explained(cell, x)[0] == f"{name}Cell on cpu, T=1, B=4"
    assert explained(cell, x[0])[0] == f"{name}Cell on cpu, T=1, B=1"
    with pytest.raises(TypeError, match="a cell takes one step"):
        lfk.explain(cell, x, lengths=lengths)


def test_nothing_to_run():
    assert lfk.explain(CASE.fast(), torch.empty(5, 0, 9)).splitlines()[1:] == ["nothing to run"]


def test_nothing_runs():
    """A sequence that no memory holds."""
    first, _ = explained(CASE.fast(), torch.zeros(1).expand(10**12, 3, 9))
    assert "T=1000000000000" in first


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_raise_what_forward_raises(name):
    arguments = BAD_CALLS[name][0]
    expected = error_of(lambda: BAD_CASE.fast()(*arguments))
    error = error_of(lambda: lfk.explain(BAD_CASE.fast(), *arguments))
    assert type(error) is type(expected)
    if "meta" not in str(expected):
        assert str(error).splitlines()[0] == str(expected).splitlines()[0]


@pytest.mark.parametrize("lengths", [[5, 6, 5], [5, 0, 1], [5, 5]])
def test_bad_lengths(lengths):
    lengths = torch.tensor(lengths)
    expected = error_of(lambda: CASE.fast()(CASE.x(), lengths=lengths))
    error = error_of(lambda: lfk.explain(CASE.fast(), CASE.x(), lengths=lengths))
    assert str(error).splitlines()[0] == str(expected).splitlines()[0]


def test_other_modules():
    with pytest.raises(TypeError, match="fast LSTM or cell, got LSTM"):
        lfk.explain(nn.LSTM(9, 31), CASE.x())


def test_without_weights():
    fast, x = CASE.fast(), CASE.x()
    with pytest.raises(RuntimeError, match="meta and fake ones do not have"):
        lfk.explain(CASE.new(device="meta"), x.to("meta"))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(x)
        with pytest.raises(RuntimeError, match="meta and fake ones do not have"):
            lfk.explain(fast, fake)


# repr


def test_repr_off_cuda(kind):
    case = replace(CASE, **kind)
    assert "steps" not in repr(case.fast())
    assert "steps" not in repr(case.new(device="meta"))
    assert "steps" not in repr(case.fast_cell())


@pytest.fixture
def fake_cuda(monkeypatch):
    """A module of fake tensors that say that they are on CUDA."""
    monkeypatch.setattr(ops, "pack_lstm", lambda *_: (torch.empty(64, dtype=torch.uint8), [1]))
    monkeypatch.setattr(ops, "cuda_built", lambda: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield CASE.new(device="meta").to_empty(device="cuda")


def test_repr_does_not_raise(fake_cuda):
    assert fake_cuda.packed.device.type == "cuda"
    assert "steps" not in repr(fake_cuda)


@pytest.mark.parametrize(
    ("persistent", "expected"),
    [
        ([], "steps: launches each step: so)"),
        ([1], "steps: persistent: in a cluster (1 row), launches each step: so (16 rows))"),
    ],
)
def test_repr_says_how_steps_run(persistent, expected, fake_cuda, monkeypatch):
    def explain(x, *_, brief):
        T, B, columns = x.shape
        assert brief
        assert T > 1
        assert columns == 9
        return "persistent: in a cluster" if B in persistent else "launches each step: so"

    monkeypatch.setattr(ops, "explain_lstm", explain)
    monkeypatch.setattr(running, "is_fake", lambda packed: False)
    assert repr(fake_cuda).endswith(expected)
