"""How x lies in memory."""

import tracemalloc

import numpy as np
import pytest
import torch

import lstm_fastkernels as lfk
from cases import Case
from isas import assert_same_bits, everywhere
from numpy_runtime import CASE, check, state_of

zeros = np.zeros


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
def test_views(name, dtype, load):
    fast, x = CASE.fast(), CASE.x().numpy().astype(dtype)
    view = VIEWS[name](x)
    assert np.array_equal(view, x)
    check(load(fast), view, CASE.state(), fast(torch.from_numpy(x), CASE.state()))


def test_a_row_for_all_steps(load):
    fast, x = CASE.fast(), CASE.x()[:1].expand(CASE.T, -1, -1)
    view = np.broadcast_to(x[0].numpy(), x.shape)
    check(load(fast), view, CASE.state(), fast(x, CASE.state()))


@pytest.mark.parametrize("which", ["h", "c"])
def test_x_in_the_state_itself(which, load):
    """The kernels write the state while another direction still reads x."""
    case = Case(8, 8, bidirectional=True, T=2)
    lstm = load(case.fast())

    def forward(copied):
        state = state_of(lstm, case.state())
        x = getattr(state, which)
        return lstm.forward(x.copy() if copied else x, state)

    assert_same_bits(everywhere(forward)(False), everywhere(forward)(True))


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
