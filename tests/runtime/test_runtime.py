"""The NumPy runtime does what the torch modules do, bit by bit, and without torch."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import golden
import lstm_fastkernels as lfk
from calls import GRID, call
from cases import Case, assert_same
from io_cases import refuse
from isas import assert_same_bits, chosen, everywhere
from lstm_fastkernels.runtime import LSTM, get_isa, set_isa, supported_isas
from numpy_runtime import CASE, check, result, state_of

zeros = np.zeros


def run(lstm, case, form, with_state):
    """What test_parity.call does with a module, on NumPy arrays: time-major (y, (h, c))."""
    x, values = case.x().numpy(), case.state()
    batch, time = (0, 1) if case.batch_first else (1, 0)
    if form == "unbatched":
        x, values = x.take(0, batch), tuple(s[:, :1] for s in values)
    state = state_of(lstm, values) if with_state else lstm.state(values[0].shape[1])
    lengths = case.lengths().numpy() if form == "lengths" else None
    y = lstm.forward(x, state, lengths=lengths)
    if not with_state:
        assert y.tobytes() == lstm.forward(x, lengths=lengths).tobytes()
    y, h, c = result(y, state)
    return (y.unsqueeze(1) if form == "unbatched" else y.movedim(time, 0)), (h, c)


@pytest.mark.parametrize("case", GRID, ids=str)
def test_grid(case, load, kind):
    case = replace(case, **kind)
    fast = case.fast()
    lstm = load(fast)
    for form in ("padded", "lengths", "unbatched"):
        for with_state in (False, True):
            expected = call(fast, case, form, with_state)
            actual = everywhere(run)(lstm, case, form, with_state)
            assert_same(actual, expected, f"{case} {form} state={with_state}")


def test_what_it_says_of_itself(load):
    case = Case(7, 9, 2, bidirectional=True, proj_size=3, batch_first=True)
    lstm = load(case.fast())
    names = ["input_size", "hidden_size", "num_layers", "proj_size", "bidirectional", "batch_first"]
    for name in names:
        assert getattr(lstm, name) == getattr(case, name)
    assert lstm.packed_bytes == case.fast().packed.numel()


def test_half_precision(load, kind):
    case = replace(CASE, **kind)
    fast, x = case.fast(), case.x().half()
    expected = fast(x, case.state())
    check(load(fast), x.numpy(), case.state(), expected)
    assert expected[0].dtype == torch.float16


def test_steps_and_chunks(load, kind):
    case = replace(CASE, **kind)
    fast, x = case.fast(), case.x().numpy()
    lstm = load(fast)
    expected = fast(case.x(), case.state())

    def in_pieces(lengths):
        state, ends = state_of(lstm, case.state()), np.cumsum(lengths)
        outputs = [lstm.forward(piece, state) for piece in np.split(x, ends[:-1])]
        return result(np.concatenate(outputs), state)

    def by_steps():
        state = state_of(lstm, case.state())
        return result(np.stack([lstm.step(row, state) for row in x]), state)

    for lengths in ([1] * 7, [3, 4], [2, 4, 1]):
        y, h, c = everywhere(in_pieces)(lengths)
        assert_same((y, (h, c)), expected, str(lengths))
    y, h, c = everywhere(by_steps)()
    assert_same((y, (h, c)), expected)


def test_a_step_of_one_row(load):
    case = replace(CASE, B=1)
    lstm, x = load(case.fast()), case.x()[0, 0].numpy()

    def step(x):
        state = lstm.state()
        return lstm.step(x, state), state.h.copy()

    y, h = everywhere(step)(x)
    assert y.shape == (13,)
    assert_same_bits(everywhere(step)(x[None]), (y[None], h))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_threads(bidirectional, load, kind):
    steps = 48 / kind.get("density", 1)
    case = Case(64, 256, 2, bidirectional, T=int(steps) // 8, B=8, **kind)
    fast = case.fast()
    expected = fast(case.x(), case.state())
    check(load(fast), case.x().numpy(), case.state(), expected, threads=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(value, load, kind):
    case = replace(CASE, **kind)
    fast, x, (h, c) = case.fast(), case.x(), case.state()
    x[3, 1, 2] = h[0, 2, 3] = c[1, 4, 5] = value
    check(load(fast), x.numpy(), (h, c), fast(x, (h, c)))


def test_no_rows(load):
    lstm = load(CASE.fast())
    state = lstm.state(0)
    forward, step = everywhere(lstm.forward), everywhere(lstm.step)
    assert forward(zeros((4, 0, 9), np.float32), state).shape == (4, 0, 13)
    assert step(zeros((0, 9), np.float32), state).shape == (0, 13)
    assert state.h.shape == (2, 0, 13)


def test_lstms_of_a_model(path):
    model = nn.ModuleDict({"one": replace(CASE, seed=1).fast(), "two": Case(9, 5, seed=2).fast()})
    lfk.save_file(model, path, other_tensors=True)
    x = CASE.x()
    for name, fast in model.items():
        expected, _ = fast(x)
        assert_same_bits(everywhere(LSTM.load(path, name).forward)(x.numpy()), expected.numpy())
    refuse(lambda: LSTM.load(path), path, "no LSTM ''", "'one', 'two'")
    refuse(lambda: LSTM.load(str(path), name="three"), path, "no LSTM 'three'")


WITHOUT_TORCH = """
import sys
{before}
import numpy as np
from safetensors.numpy import load_file
from lstm_fastkernels import get_library_dir, runtime

path, names = sys.argv[1], sys.argv[2:]
tensors = load_file(path)
assert runtime.get_isa() == runtime.supported_isas()[-1]
for name in names:
    lstm = runtime.LSTM.load(path, name)
    x = tensors[name + "_x"]
    state = lstm.state(x.shape[1])
    state.h[...], state.c[...] = tensors[name + "_h0"], tensors[name + "_c0"]
    y = lstm.forward(x, state)
    for key, values in dict(y=y, h=state.h, c=state.c).items():
        assert values.tobytes() == tensors[f"{{name}}_{{key}}"].tobytes(), (name, key)
{after}
print(runtime.get_isa())
"""


@pytest.mark.parametrize("isa", supported_isas())
@pytest.mark.parametrize(
    ("before", "after"),
    [('sys.modules["torch"] = None', ""), ("", 'assert "torch" not in sys.modules')],
    ids=["no torch", "torch not imported"],
)
def test_golden_file_without_torch(before, after, isa, monkeypatch):
    monkeypatch.setenv("LSTM_FASTKERNELS_ISA", isa)
    script = WITHOUT_TORCH.format(before=before, after=after)
    command = [sys.executable, "-c", script, golden.PATH, *golden.CASES]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.stdout.strip() == isa, process.stderr


@pytest.mark.parametrize("isa", supported_isas())
def test_instruction_sets(isa):
    with chosen(isa):
        assert get_isa() == isa
        assert supported_isas() == lfk.supported_isas()
        refuse(lambda: set_isa("avx9"), None, "avx9", *supported_isas())
        assert get_isa() == isa
