"""A non-finite x, h0 or c0 makes its row NaN from that step on, in the direction of travel, in
that layer and those above. No other row changes by a bit."""

from dataclasses import replace

import pytest
import torch

from cases import Case
from isas import everywhere

ROW, STEP, UNIT = 1, 2, 7
BASE = Case(9, 31, T=5, B=3)


@pytest.fixture(params=[float("nan"), float("inf"), float("-inf")], ids=str)
def poison(request):
    return request.param


def check_others(actual, clean):
    """All rows but ROW are those of the clean run."""
    for a, e in zip((actual[0], *actual[1]), (clean[0], *clean[1]), strict=True):
        others = [n for n in range(BASE.B) if n != ROW]
        assert torch.equal(a[:, others], e[:, others])


def check_steps(actual, clean, spoiled):
    """y [T, units] of ROW: NaN at the steps of `spoiled`, clean elsewhere."""
    for t in range(len(actual)):
        if t in spoiled:
            assert actual[t].isnan().all(), f"step {t} is not all NaN"
        else:
            assert torch.equal(actual[t], clean[t]), f"step {t} changed"


@pytest.mark.parametrize("proj_size", [0, 13])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_x(num_layers, proj_size, poison, kind):
    case = replace(BASE, num_layers=num_layers, proj_size=proj_size, **kind)
    fast, x = everywhere(case.fast()), case.x()
    clean = fast(x)
    x[STEP, ROW, UNIT] = poison
    actual = fast(x)
    check_others(actual, clean)
    check_steps(actual[0][:, ROW], clean[0][:, ROW], range(STEP, case.T))
    for state in actual[1]:
        assert state[:, ROW].isnan().all()


@pytest.mark.parametrize("columns", [slice(4, 8), slice(None)], ids=["some", "all"])
def test_x_where_weights_are_pruned(columns, poison, kind):
    """UNIT's blocks are skipped, or the whole matrix; the row is NaN all the same."""
    case = replace(BASE, **kind)
    fast, lstm, x = case.fast(), case.lstm(), case.x()
    lstm.weight_ih_l0.data[:, columns] = 0
    fast.load_state_dict(lstm.state_dict())
    run = everywhere(fast)
    clean = run(x)
    x[STEP, ROW, UNIT] = poison
    actual = run(x)
    check_others(actual, clean)
    check_steps(actual[0][:, ROW], clean[0][:, ROW], range(STEP, case.T))


def test_x_bidirectional(poison, kind):
    case = replace(BASE, bidirectional=True, **kind)
    fast, x = everywhere(case.fast()), case.x()
    clean = fast(x)
    x[STEP, ROW, UNIT] = poison
    actual = fast(x)
    check_others(actual, clean)
    forward, backward = actual[0][:, ROW].split(case.hidden_size, dim=1)
    clean_forward, clean_backward = clean[0][:, ROW].split(case.hidden_size, dim=1)
    check_steps(forward, clean_forward, range(STEP, case.T))
    check_steps(backward, clean_backward, range(STEP + 1))


def test_x_bidirectional_stack(poison, kind):
    """Layer 1 meets a NaN at each step, from one side or the other."""
    case = replace(BASE, num_layers=2, bidirectional=True, **kind)
    fast, x = everywhere(case.fast()), case.x()
    clean = fast(x)
    x[STEP, ROW, UNIT] = poison
    actual = fast(x)
    check_others(actual, clean)
    assert actual[0][:, ROW].isnan().all()


@pytest.mark.parametrize("proj_size", [0, 13])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("which", [0, 1], ids=["h0", "c0"])
def test_state(which, layer, proj_size, poison, kind):
    case = replace(BASE, num_layers=2, proj_size=proj_size, **kind)
    fast, x, state = everywhere(case.fast()), case.x(), case.state()
    clean = fast(x, state)
    state[which][layer, ROW, UNIT] = poison
    actual = fast(x, state)
    check_others(actual, clean)
    assert actual[0][:, ROW].isnan().all()
    for final in actual[1]:
        assert final[layer:, ROW].isnan().all()


@pytest.mark.parametrize("which", [0, 1], ids=["h0", "c0"])
def test_state_of_the_backward_direction(which, poison, kind):
    case = replace(BASE, bidirectional=True, **kind)
    fast, x, state = everywhere(case.fast()), case.x(), case.state()
    clean = fast(x, state)
    state[which][1, ROW, UNIT] = poison
    actual = fast(x, state)
    check_others(actual, clean)
    forward, backward = actual[0][:, ROW].split(case.hidden_size, dim=1)
    assert torch.equal(forward, clean[0][:, ROW, : case.hidden_size])
    assert backward.isnan().all()


def test_lengths_shield_from_what_comes_after(poison, kind):
    fast, x = everywhere(replace(BASE, **kind).fast()), BASE.x()
    lengths = torch.tensor([5, STEP, 4])
    clean = fast(x, lengths=lengths)
    x[STEP, ROW] = poison
    for a, e in zip(fast(x, lengths=lengths)[1], clean[1], strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-31])
def test_tiny_rows_count_as_zero(size, activations):
    fast = everywhere(replace(BASE, activations=activations).fast())
    x = BASE.x()
    expected, _ = fast(torch.zeros_like(x))
    assert torch.equal(fast(x.clamp(-1, 1) * size)[0], expected)


@pytest.mark.parametrize("size", [1e-29, 1e20, 3e38])
def test_other_finite_rows_stay_finite(size, kind):
    case = replace(BASE, num_layers=2, **kind)
    y, (h, c) = everywhere(case.fast())(case.x().clamp(-1, 1) * size, case.state())
    assert all(output.isfinite().all() for output in (y, h, c))
