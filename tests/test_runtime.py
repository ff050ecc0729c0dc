"""The NumPy runtime does what the torch modules do, bit by bit, and without torch."""

import copy
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import nn

import golden
import lstm_fastkernels as lfk
from cases import Case, assert_same
from io_cases import refuse
from lstm_fastkernels.runtime import LSTM, State, get_isa, set_isa, supported_isas
from test_parity import GRID, call

CASE = Case(9, 31, 2, proj_size=13, T=7, B=5)
zeros = np.zeros


@pytest.fixture
def load(path):
    """The runtime's LSTM of a fast module."""

    def load(fast):
        lfk.save_file(fast, path)
        return LSTM.load(path)

    return load


def state_of(lstm, values):
    """A state with these h and c, [layers, B, size]."""
    h, c = values
    state = lstm.state(h.shape[1])
    state.h[...], state.c[...] = h, c
    return state


def result(y, state):
    """As the modules return it: (y, (h, c)) of tensors."""
    return tuple(map(torch.from_numpy, (y, state.h, state.c)))


def check(lstm, x, values, expected, message="", **options):
    state = state_of(lstm, values)
    y = lstm.forward(x, state, **options)
    y, h, c = result(y, state)
    assert_same((y, (h, c)), expected, message)


# The same bits as the modules


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
def test_grid(case, load, kind, isa):
    case = replace(case, **kind)
    fast = case.fast()
    lstm = load(fast)
    for form in ("padded", "lengths", "unbatched"):
        for with_state in (False, True):
            expected = call(fast, case, form, with_state)
            actual = run(lstm, case, form, with_state)
            assert_same(actual, expected, f"{case} {form} state={with_state}")


def test_what_it_says_of_itself(load):
    case = Case(7, 9, 2, bidirectional=True, proj_size=3, batch_first=True)
    lstm = load(case.fast())
    names = ["input_size", "hidden_size", "num_layers", "proj_size", "bidirectional", "batch_first"]
    for name in names:
        assert getattr(lstm, name) == getattr(case, name)
    assert lstm.packed_bytes == case.fast().packed.numel()


def test_half_precision(load, kind, isa):
    case = replace(CASE, **kind)
    fast, x = case.fast(), case.x().half()
    expected = fast(x, case.state())
    check(load(fast), x.numpy(), case.state(), expected)
    assert expected[0].dtype == torch.float16


def test_steps_and_chunks(load, kind, isa):
    case = replace(CASE, **kind)
    fast, x = case.fast(), case.x().numpy()
    lstm = load(fast)
    expected = fast(case.x(), case.state())
    for pieces in ([1] * 7, [3, 4], [2, 4, 1]):
        state, outputs, t = state_of(lstm, case.state()), [], 0
        for length in pieces:
            outputs.append(lstm.forward(x[t : t + length], state))
            t += length
        y, h, c = result(np.concatenate(outputs), state)
        assert_same((y, (h, c)), expected, str(pieces))
    state = state_of(lstm, case.state())
    y, h, c = result(np.stack([lstm.step(row, state) for row in x]), state)
    assert_same((y, (h, c)), expected)


def test_a_step_of_one_row(load, isa):
    case = replace(CASE, B=1)
    lstm, x = load(case.fast()), case.x()[0, 0].numpy()
    one, other = lstm.state(), lstm.state()
    y = lstm.step(x, one)
    assert y.shape == (13,)
    assert np.array_equal(lstm.step(x[None], other), y[None])
    assert np.array_equal(one.h, other.h)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_threads(bidirectional, load, kind, isa):
    steps = 48 / kind.get("density", 1)
    case = Case(64, 256, 2, bidirectional, T=int(steps) // 8, B=8, **kind)
    fast = case.fast()
    expected = fast(case.x(), case.state())
    check(load(fast), case.x().numpy(), case.state(), expected, threads=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(value, load, kind, isa):
    case = replace(CASE, **kind)
    fast, x, (h, c) = case.fast(), case.x(), case.state()
    x[3, 1, 2] = h[0, 2, 3] = c[1, 4, 5] = value
    check(load(fast), x.numpy(), (h, c), fast(x, (h, c)))


def test_no_rows(load, isa):
    lstm = load(CASE.fast())
    state = lstm.state(0)
    assert lstm.forward(zeros((4, 0, 9), np.float32), state).shape == (4, 0, 13)
    assert lstm.step(zeros((0, 9), np.float32), state).shape == (0, 13)
    assert state.h.shape == (2, 0, 13)


# How x lies in memory


def misaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def record(x):
    """Elements five bytes apart in float32."""
    records = np.zeros(x.shape, [("value", x.dtype), ("more", np.int8)])
    records["value"] = x
    return records["value"]


def read_only(x):
    view = x.view()
    view.flags.writeable = False
    return view


VIEWS = {
    "read-only": read_only,
    "other order of dimensions": lambda x: x.transpose(1, 0, 2).copy().transpose(1, 0, 2),
    "columns of a wider one": lambda x: np.concatenate((x, x, x), 2)[..., 9:18],
    "every second step": lambda x: x.repeat(2, 0)[::2],
    "reversed steps": lambda x: x[::-1].copy()[::-1],
    "reversed rows": lambda x: x[:, ::-1].copy()[:, ::-1],
    "reversed columns": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every second column": lambda x: x.repeat(2, 2)[..., ::2],
    "Fortran": np.asfortranarray,
    "misaligned": misaligned,
    "record": record,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", VIEWS)
def test_views(name, dtype, load, isa):
    fast, x = CASE.fast(), CASE.x().numpy().astype(dtype)
    view = VIEWS[name](x)
    assert np.array_equal(view, x)
    check(load(fast), view, CASE.state(), fast(torch.from_numpy(x), CASE.state()))


def test_a_row_for_all_steps(load, isa):
    fast, x = CASE.fast(), CASE.x()[:1].expand(CASE.T, -1, -1)
    view = np.broadcast_to(x[0].numpy(), x.shape)
    check(load(fast), view, CASE.state(), fast(x, CASE.state()))


@pytest.mark.parametrize("which", ["h", "c"])
def test_x_in_the_state_itself(which, load, isa):
    """The kernels write the state while another direction still reads x."""
    case = Case(8, 8, bidirectional=True, T=2)
    lstm = load(case.fast())
    state = state_of(lstm, case.state())
    x = getattr(state, which)
    expected = lstm.forward(x.copy(), state.copy())
    assert np.array_equal(lstm.forward(x, state), expected)


@pytest.mark.parametrize(
    ("view", "copied"),
    [
        (lambda x: x, False),
        (lambda x: x[::-2, ::3], False),
        (lambda x: x.transpose(1, 0, 2), False),
        (lambda x: x[..., 1:], False),
        (lambda x: x[..., ::-1], True),
        (misaligned, True),
    ],
)
def test_copies_only_what_it_must(view, copied, load):
    x = view(zeros((20, 50, 1001), np.float32))
    lstm = load(lfk.FastQuantLSTM(x.shape[2], 1))
    lstm.forward(x)
    tracemalloc.start()
    lstm.forward(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (peak >= x.nbytes) == copied, f"{peak} bytes for x of {x.nbytes}"


# Files


def test_lstms_of_a_model(path, isa):
    model = nn.ModuleDict({"one": replace(CASE, seed=1).fast(), "two": Case(9, 5, seed=2).fast()})
    lfk.save_file(model, path, other_tensors=True)
    x = CASE.x()
    for name, fast in model.items():
        expected, _ = fast(x)
        assert np.array_equal(LSTM.load(path, name).forward(x.numpy()), expected.numpy())
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


# States


def test_h_and_c_are_views(load):
    lstm = load(CASE.fast())
    state = lstm.state(5)
    assert state.batch_size == 5
    h, c = state.h, state.c
    assert (h.shape, c.shape) == ((2, 5, 13), (2, 5, 31))
    assert h.dtype == c.dtype == np.float32
    assert h.flags.writeable
    lstm.forward(CASE.x().numpy(), state)
    assert h.any()
    assert c.any()
    h[1, 2, 3] = 4
    assert state.h[1, 2, 3] == 4
    before = h.copy(), c.copy()
    del state
    others = [lstm.state(5) for _ in range(9)]  # where the state was, had it been freed
    assert np.array_equal(h, before[0])
    assert np.array_equal(c, before[1])
    assert not others[0].h.any()


def same_state(a, b):
    return np.array_equal(a.h, b.h) and np.array_equal(a.c, b.c)


@pytest.mark.parametrize(
    "clone",
    [
        State.copy,
        copy.copy,
        copy.deepcopy,
        lambda state: State.restore(state.save()),
        lambda state: pickle.loads(pickle.dumps(state)),
    ],
    ids=["copy", "copy.copy", "deepcopy", "save", "pickle"],
)
def test_copies_of_states(clone, load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state = state_of(lstm, CASE.state())
    other = clone(state)
    assert same_state(state, other)
    y = lstm.forward(x, state)
    assert not same_state(state, other)
    assert np.array_equal(lstm.forward(x, other), y)
    assert same_state(state, other)


def test_reset(load):
    lstm = load(CASE.fast())
    h, c = (s.numpy().copy() for s in CASE.state())
    state = state_of(lstm, (h, c))
    state.reset(2)
    h[:, 2], c[:, 2] = 0, 0
    assert same_state(state, state_of(lstm, (h, c)))
    state.reset(row=0)
    assert state.h[:, 1].any()
    state.reset()
    assert same_state(state, lstm.state(5))


def test_copy_row(load):
    lstm = load(CASE.fast())
    source = state_of(lstm, CASE.state())
    state = lstm.state(2)
    state.copy_row(1, source, 3)
    assert not state.h[:, 0].any()
    for a, b in ((state.h, source.h), (state.c, source.c)):
        assert np.array_equal(a[:, 1], b[:, 3])
    state.copy_row(row=0, source=state, source_row=1)
    assert np.array_equal(state.h[:, 0], source.h[:, 3])


def test_bad_rows_and_sizes(load):
    lstm, other = load(CASE.fast()), load(Case().fast())
    state = state_of(lstm, CASE.state())
    before = state.copy()
    for row in (-1, 5):
        for wrong in (
            lambda row=row: state.reset(row),
            lambda row=row: state.copy_row(row, state, 0),
            lambda row=row: state.copy_row(0, state, row),
        ):
            refuse(wrong, None, "row must be in 0..4", f"got {row}")
    refuse(lambda: state.copy_row(0, other.state(), 0), None, "different LSTMs")
    for size in (-1, 2**31):
        refuse(lambda size=size: lstm.state(size), None, "batch_size must be in", f"got {size}")
    assert same_state(state, before)


def test_bytes_that_are_no_state(load):
    saved = load(CASE.fast()).state(2).save()
    for wrong, word in {
        b"": "at least 32 bytes",
        b"x" + saved[1:]: "mark",
        saved[:8] + b"\7" + saved[9:]: "version 1, got 7",
        saved[:-4]: "sizes",
        saved + b"\0": "sizes",
        saved[:12] + bytes(4) + saved[16:]: "sizes",
        saved[:24] + b"\xff" * 8 + saved[32:]: "sizes",
    }.items():
        refuse(lambda wrong=wrong: State.restore(wrong), None, "saved state", word)


# Threads


def elsewhere(function):
    """What it returns on another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_a_state_in_use_is_refused(load):
    """NumPy asks these lengths for their values while the call already has the state."""
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state, free, refused = lstm.state(5), lstm.state(5), []
    uses = [
        lambda: lstm.forward(x, state),
        lambda: lstm.step(x[0], state),
        state.copy,
        state.save,
        state.reset,
        lambda: state.copy_row(0, free, 0),
        lambda: free.copy_row(0, state, 0),
    ]

    class Lengths:
        def __array__(self, dtype=None, copy=None):
            for use in uses:
                with pytest.raises(ValueError, match="another thread is using it") as caught:
                    elsewhere(use)
                refused.append(caught)
            lstm.forward(x, free)
            return np.full(5, 7)

    y = lstm.forward(x, state, lengths=Lengths())
    assert len(refused) == len(uses)
    assert same_state(state, free)
    assert np.array_equal(y, lstm.forward(x))
    for use in uses:
        elsewhere(use)


def test_a_failed_call_frees_the_state(load):
    lstm, x = load(CASE.fast()), CASE.x().numpy()
    state = state_of(lstm, CASE.state())
    before = state.copy()
    refuse(lambda: lstm.forward(x, state, lengths=[0] * 5), None, "lengths")
    assert same_state(state, before)
    lstm.forward(x, state)


def test_threads_with_states_of_their_own(load, isa):
    lstm, x = load(CASE.fast()), CASE.x().numpy()

    def stream(seed):
        state = state_of(lstm, replace(CASE, seed=seed).state())
        return [lstm.step(x[n % 7], state) for n in range(300)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(stream, range(4)))
    for seed, outputs in enumerate(together):
        assert np.array_equal(outputs, stream(seed))


def test_other_threads_go_on_during_a_call(load):
    """With no forced switches, another thread gets its turn only where the call gives it up."""
    case = Case(64, 256, T=400, B=4)
    lstm, x = load(case.fast()), case.x().numpy()
    turns, done = 0, threading.Event()

    def take_turns():
        nonlocal turns
        while not done.wait(1e-4):
            turns += 1

    interval = sys.getswitchinterval()
    other = threading.Thread(target=take_turns)
    sys.setswitchinterval(1e6)
    try:
        other.start()
        for _ in range(100):  # calls, for a machine that is busy
            before = turns
            lstm.forward(x)
            if turns > before:
                return
        pytest.fail("no turn during 100 calls")
    finally:
        done.set()
        other.join()
        sys.setswitchinterval(interval)


# Errors


X = zeros((3, 2, 9), np.float32)


@pytest.mark.parametrize(
    "dtype", ["f8", "i4", "u1", "O", "?", "c8", ">f4", ">f2", "g", "S4", "V4", "M8[s]"]
)
def test_dtypes(dtype, load):
    lstm, x = load(Case().fast()), zeros(X.shape, dtype)
    for use in (lambda: lstm.forward(x), lambda: lstm.step(x[0], lstm.state(2))):
        refuse(use, None, "must be float32 or float16", str(x.dtype), kind=TypeError)


# name: x, the other arguments, what the message names
BAD_CALLS = {
    "columns": (zeros((3, 2, 8), np.float32), {}, "9 columns", "(3, 2, 8)"),
    "columns of one": (zeros((3, 8), np.float32), {}, "9 columns", "(3, 8)"),
    "0-D": (zeros((), np.float32), {}, "2 or 3 dimensions", "()"),
    "1-D": (X[0, 0], {}, "2 or 3 dimensions", "(9,)"),
    "4-D": (X[None], {}, "2 or 3 dimensions", "(1, 3, 2, 9)"),
    "no steps": (X[:0], {}, "time_steps", "at least 1", "0"),
    "fewer lengths": (X, {"lengths": [3]}, "each of the 2 rows", "(1,)"),
    "2-D lengths": (X, {"lengths": [[3, 3]]}, "each of the 2 rows", "(1, 2)"),
    "one number as lengths": (X, {"lengths": 3}, "each of the 2 rows", "()"),
    "length 0": (X, {"lengths": [3, 0]}, "1..3", "got 0 for row 1"),
    "length below 0": (X, {"lengths": [-2, 3]}, "1..3", "got -2 for row 0"),
    "length above T": (X, {"lengths": np.array([4, 1], np.uint8)}, "1..3", "got 4 for row 0"),
    "a huge length": (X, {"lengths": np.array([1, 2**64 - 1], np.uint64)}, "1..3", "row 1"),
    "no threads": (X, {"threads": 0}, "threads must be at least 1", "got 0"),
    "fewer threads": (X, {"threads": -1}, "threads must be at least 1", "got -1"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name, load):
    x, options, *words = BAD_CALLS[name]
    refuse(lambda: load(Case().fast()).forward(x, **options), None, *words)


@pytest.mark.parametrize("lengths", [[3.0, 2.0], [True, True], "ab", [[1], [1, 2]], [None, 3]])
def test_lengths_that_are_no_integers(lengths, load):
    lstm = load(Case().fast())
    refuse(lambda: lstm.forward(X, lengths=lengths), None, "lengths", "integers", kind=TypeError)


def test_bad_steps(load):
    lstm = load(Case().fast())
    state = lstm.state(2)
    refuse(lambda: lstm.step(X, state), None, "1 or 2 dimensions", "(3, 2, 9)")
    refuse(lambda: lstm.step(X[0, :, :4], state), None, "9 columns", "(2, 4)")
    refuse(lambda: lstm.step(X[0, 0], state), None, "state", "2 rows", "x has 1")


def test_states_that_do_not_fit(load):
    lstm = load(Case().fast())
    for other in (Case(hidden_size=32), Case(num_layers=2), Case(proj_size=5)):
        state = load(other.fast()).state(2)
        refuse(lambda state=state: lstm.forward(X, state), None, "state", "another LSTM")
    refuse(lambda: lstm.forward(X, lstm.state(3)), None, "state", "3 rows", "x has 2")


def test_other_types(load):
    lstm = load(Case().fast())
    for wrong in (
        lambda: lstm.forward([[1.0] * 9]),
        lambda: lstm.forward(X, (lstm.state(2).h, lstm.state(2).c)),
        lambda: lstm.forward(X, threads=1.5),
        lambda: lstm.step(X[0, 0], None),
        lambda: State.restore("text"),
        lambda: LSTM.load(3),
        LSTM,
        State,
    ):
        with pytest.raises(TypeError):
            wrong()


def test_files_that_cannot_be_read(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        LSTM.load(path)
    with pytest.raises(IsADirectoryError):
        LSTM.load(path.parent)


def test_broken_files(path):
    """The C++ tests have the rest: this is what Python makes of the errors."""
    lfk.save_file(Case().fast(), path)
    whole = path.read_bytes()
    for contents in (b"", b"abc", whole[:-1], whole + b"\0", b"\x80\x02}q\x00." * 20):
        path.write_bytes(contents)
        refuse(lambda: LSTM.load(path), path)
    for text in (b"{]", b'{"\xff\xfe":1}', b'{"a\0\x01'):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        refuse(lambda: LSTM.load(path), path, "JSON")
    save_tensors(load_tensors(whole), path)
    refuse(lambda: LSTM.load(path), path, "no LSTM ''")


def test_broken_tensors_are_named(path):
    sparse = replace(CASE, layout="block_sparse", density=0.4).fast()
    lfk.save_file(nn.ModuleDict({"encoder": sparse}), path)
    contents = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for name, element, value, words in (
        ("weight_hh_l1_scale", 3, np.nan, ["encoder.weight_hh_l1", "scale", "finite"]),
        ("weight_hr_l0_values", 0, -128, ["encoder.weight_hr_l0", "-128"]),
        ("weight_ih_l0_col_indices", 0, 99, ["encoder.weight_ih_l0", "99"]),
        ("bias_l1", 1, np.inf, ["encoder.bias_l1", "finite"]),
    ):
        tensors = load_tensors(contents)
        tensors[f"encoder.{name}"].flatten()[element] = value
        save_tensors(tensors, path, metadata)
        refuse(lambda: LSTM.load(path, "encoder"), path, *words)


def test_a_path_that_is_no_text(tmp_path):
    """File names are bytes: this one has one that is no UTF-8."""
    path = tmp_path / "\udcff.safetensors"
    lfk.save_file(Case().fast(), path)
    LSTM.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"\?\.safetensors: too short"):
        LSTM.load(path)


def test_instruction_sets(isa):
    assert get_isa() == isa
    assert supported_isas() == lfk.supported_isas()
    refuse(lambda: set_isa("avx9"), None, "avx9", *supported_isas())
    assert get_isa() == isa
