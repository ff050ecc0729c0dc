"""Weights from elsewhere, which may saturate a vpmaddubsw, run exactly all the same."""

import pytest
import torch

from cases import Case, assert_by_contract


def foreign(case, fill):
    """The module of a case with all int8 weights replaced; scales keep the gates near 1."""
    fast = case.fast()
    state = fast.state_dict()
    for name, tensor in state.items():
        if tensor.dtype == torch.int8:
            state[name] = fill(tensor.shape).to(torch.int8)
            scale = 1.0 / (127 * tensor.shape[1])
            state[name + "_scale"] = torch.full((tensor.shape[0],), scale)
    fast.load_state_dict(state)
    return fast


def one_pair(shape, first):
    """Zeros but for an unsafe pair in columns first, first + 1."""
    weight = torch.zeros(shape)
    weight[:, first : first + 2] = 127
    return weight


FILLS = {
    "127": lambda shape: torch.full(shape, 127),
    "-127": lambda shape: torch.full(shape, -127),
    "alternating": lambda shape: 127 - 254 * (torch.arange(shape[1]) % 2).expand(shape),
    "first pair": lambda shape: one_pair(shape, 0),
    "last pair": lambda shape: one_pair(shape, shape[1] // 2 * 2 - 2),
    "barely unsafe": lambda shape: torch.full(shape, 65),
    "barely safe": lambda shape: torch.full(shape, 64),
    "random": lambda shape: torch.randint(-127, 128, shape),
}
INPUTS = {
    "ones": lambda x: torch.ones_like(x),
    "minus ones": lambda x: -torch.ones_like(x),
    "signs": lambda x: x.sign(),
    "random": lambda x: x,
}


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [8, 31, 151])
def test_foreign_weights_run_exactly(size, fill, x, activations):
    torch.manual_seed(size)
    case = Case(size, size, T=1, B=3, activations=activations)
    fast = foreign(case, FILLS[fill])
    x, (h, c) = INPUTS[x](case.x()), case.state()
    h = INPUTS["signs"](h) if size == 31 else h
    assert_by_contract(fast, x, (h, c), message=str(case))


def test_safe_and_unsafe_matrices_side_by_side():
    """Each matrix picks its own kernel: only W_hh is unsafe here, then only W_ih."""
    case = Case(31, 31, T=1)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        fast = case.fast()
        state = fast.state_dict()
        state[name] = torch.full_like(state[name], 127)
        state[name + "_scale"] = torch.full_like(state[name + "_scale"], 1 / (127 * 31))
        fast.load_state_dict(state)
        assert_by_contract(fast, case.x(), case.state(), message=name)


@pytest.mark.parametrize("fill", ["127", "barely safe"])
def test_widest_sums_do_not_overflow(fill, activations):
    """Rows of one sign: int16 activations lower their range for them, and the sum of a row that
    corrects offset activations is beyond 16 bits."""
    case = Case(4096, 1, T=1, B=2, activations=activations)
    fast = foreign(case, FILLS[fill])
    x = torch.ones_like(case.x())
    x[:, 1] = -1
    assert_by_contract(fast, x, message=str(case))


def test_foreign_weights_in_a_stack(activations):
    torch.manual_seed(0)
    case = Case(129, 151, 2, proj_size=31, T=4, activations=activations)
    fast = foreign(case, FILLS["random"])
    assert_by_contract(fast, case.x(), case.state(), message=str(case))
