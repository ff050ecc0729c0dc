"""4-bit weights: groups, bytes, what comes back, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case, assert_by_contract, assert_same, drawn
from lstm_fastkernels.weights.int4 import GROUP_SIZES, pack_int4, unpack_int4

SIZES = [1, 2, 31, 32, 33, 64, 100, 129, 257]


def by_columns(scale, columns, group_size):
    return scale.repeat_interleave(group_size, 1)[:, :columns]


def squared_error(weight, packed, scale, group_size):
    """Of each group, float64 [N, G]."""
    found = unpack_int4(packed, weight.shape[1]) * by_columns(scale, weight.shape[1], group_size)
    squares = (weight.double() - found.double()).square()
    return torch.stack([part.sum(1) for part in squares.split(group_size, 1)], 1)


@pytest.mark.parametrize("columns", SIZES)
def test_bytes_hold_two_columns(columns):
    integers = torch.arange(3 * columns).view(3, columns).remainder(16).sub(8)
    packed = pack_int4(integers)
    assert (packed.dtype, packed.shape) == (torch.uint8, (3, (columns + 1) // 2))
    assert torch.equal(unpack_int4(packed, columns), integers.to(torch.int8))
    assert packed[0, 0] & 15 == 8  # -8 is 0b1000, in the low half
    if columns % 2:
        assert not (packed[:, -1] >> 4).any()


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("kind", ["normal", "uniform", "positive", "wide"])
def test_groups_are_as_good_as_a_dense_search(kind, columns, group_size):
    """No scale of a fine grid, with the integers nearest to it, does much better."""
    generator = torch.Generator().manual_seed(columns)
    weight = torch.randn(7, columns, generator=generator)
    weight = {
        "normal": weight,
        "uniform": torch.rand(7, columns, generator=generator) - 0.5,
        "positive": weight.abs(),
        "wide": weight * torch.logspace(-3, 0, columns),
    }[kind]
    packed, scale = lfk.quantize_groups(weight, group_size=group_size)
    assert scale.shape == (7, -(-columns // group_size))
    assert (scale >= 0).all()
    error = squared_error(weight, packed, scale, group_size)
    for group, part in enumerate(weight.double().split(group_size, 1)):
        largest = part.abs().amax(1, keepdim=True)
        steps = torch.linspace(0.05, 1, 1000, dtype=torch.float64)
        grid = (largest * steps)[:, None, :]  # [N, 1, steps]
        tried = (part[:, :, None] / grid).round().clamp(-8, 7) * grid
        best = (tried - part[:, :, None]).square().sum(1).amin(1)
        allowed = 1.03 if part.shape[1] > 30 and kind != "wide" else 1.3
        assert (error[:, group] <= allowed * best + 1e-5 * largest[:, 0].square()).all()


def test_groups_do_not_depend_on_others_nor_on_threads(threads):
    weight = torch.randn(300, 520, generator=torch.Generator().manual_seed(1))
    threads(1)
    packed, scale = lfk.quantize_groups(weight, group_size=128)
    for group in range(5):
        part = slice(128 * group, min(520, 128 * group + 128))
        alone, own = lfk.quantize_groups(weight[:, part], group_size=128)
        assert torch.equal(own[:, 0], scale[:, group])
        assert torch.equal(alone, packed[:, part.start // 2 : part.stop // 2])
    threads(3)
    again = lfk.quantize_groups(weight.bfloat16().float(), group_size=128)
    assert all(map(torch.equal, again, lfk.quantize_groups(weight.bfloat16(), group_size=128)))


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_what_is_quantized_comes_back(group_size):
    generator = torch.Generator().manual_seed(2)
    integers = torch.randint(-8, 8, (9, 150), generator=generator)
    integers[:, ::7] = torch.tensor([-8, 7, 5]).repeat_interleave(3)[:, None]
    integers[:, 1::7] = 1
    scale = torch.rand(9, -(-150 // group_size), generator=generator)
    weight = integers * by_columns(scale, 150, group_size)
    packed, found = lfk.quantize_groups(weight, group_size=group_size)
    assert torch.equal(unpack_int4(packed, 150) * by_columns(found, 150, group_size), weight)


def test_zeros_and_tiny_groups():
    weight = torch.zeros(2, 70)
    weight[1, 64:] = 1e-38
    packed, scale = lfk.quantize_groups(weight)
    assert not packed.any()
    assert not scale.any()


@pytest.mark.parametrize(
    ("weight", "group_size", "message"),
    [
        (torch.zeros(3), 64, "must be a matrix"),
        (torch.zeros(3, 0), 64, "not empty"),
        (torch.zeros(3, 4, dtype=torch.int8), 64, "floating point"),
        (torch.full((3, 4), torch.nan), 64, "finite"),
        (torch.full((3, 4), torch.inf), 64, "finite"),
        (torch.zeros(3, 4), 16, "32, 64 or 128 columns, got 16"),
        (torch.zeros(3, 4), 0, "got 0"),
    ],
)
def test_bad_matrices(weight, group_size, message):
    with pytest.raises(ValueError, match=message):
        lfk.quantize_groups(weight, group_size=group_size)


# Modules


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("hidden_size", [7, 33, 151])
def test_modules_follow_the_contract(hidden_size, group_size):
    case = Case(
        hidden_size + 3, hidden_size, 2, True, hidden_size // 2, activations="int4", B=7,
        group_size=group_size,
    )  # fmt: skip
    fast = drawn(case)
    assert_by_contract(fast, case.x(), case.state(), case.lengths())
    x = case.x()
    x[1, 2, 3] = torch.inf
    x[:, 4] = x[:, 4].abs()
    x[:, 5] = 0
    assert_by_contract(fast, x)


def test_any_matrix_may_be_4_bit():
    precision = {"weight_hh_l1": "int4", "weight_ih*reverse": "int4", "weight_hr_l0": "int4"}
    case = Case(40, 37, 2, True, 35, precision=tuple(precision.items()), activations="mixed")
    fast = case.fast()
    found = {name for name, own in fast.precision.items() if own == "int4"}
    assert found == {
        "weight_hh_l1", "weight_ih_l0_reverse", "weight_ih_l1_reverse", "weight_hr_l0",
    }  # fmt: skip
    assert_by_contract(fast, case.x(), case.state())
    assert fast.activations == "custom"


def test_the_word():
    fast = lfk.FastQuantLSTM(5, 4, activations="int4", group_size=128)
    assert (fast.activations, fast.group_size) == ("int4", 128)
    assert set(fast.precision.values()) == {"int4"}
    assert "activations=int4" in repr(fast)
    assert "group_size=128" in repr(fast)
    assert "group_size" not in repr(lfk.FastQuantLSTM(5, 4))


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_groups_of_another_size_are_taken_as_they_are(group_size):
    """group_size is for floats; tensors tell their own."""
    fast = Case(150, 9, activations="int4", group_size=group_size).fast()
    other = lfk.FastQuantLSTM(150, 9, activations="int4", group_size=64)
    other.load_state_dict(fast.state_dict())
    x = torch.randn(4, 2, 150)
    assert_same(other(x), fast(x))
    assert other.weight_ih_l0_scale.shape == (36, -(-150 // group_size))
    again = copy.deepcopy(other)
    again.load_state_dict(nn.LSTM(150, 9).state_dict())
    assert again.weight_ih_l0_scale.shape == (36, 3)


def test_floats_that_were_given_back_give_the_same_outputs():
    fast = Case(70, 33, 2, activations="int4").fast()
    again = lfk.FastQuantLSTM.from_float(fast.dequantize(), activations="int4")
    x = torch.randn(6, 3, 70)
    torch.testing.assert_close(again(x)[0], fast(x)[0], rtol=0, atol=1e-6)


def test_half_the_bytes():
    sizes = {
        activations: lfk.FastQuantLSTM(512, 512, activations=activations).packed_bytes()
        for activations in ("int8", "int4")
    }
    assert sizes["int4"] <= 0.57 * sizes["int8"]  # half a byte and a 16th for the scale


def test_no_blocks():
    lstm = nn.LSTM(9, 8)
    lstm.weight_hh_l0.data.zero_()
    fast = lfk.FastQuantLSTM.from_float(lstm, activations="int4")
    assert set(fast.layouts().values()) == {"dense"}
    with pytest.raises(ValueError, match="weight_ih_l0: 4-bit weights and tables have no blocks"):
        lfk.FastQuantLSTM.from_float(lstm, activations="int4", layout="block_sparse")
    mixed = {"weight_hh_l0": "int8"}
    fast = lfk.FastQuantLSTM.from_float(lstm, activations="int4", precision=mixed)
    assert fast.layouts() == {"weight_ih_l0": "dense", "weight_hh_l0": "8x4 blocks, 0.0%"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weight_ih_l0_scale", lambda t: t[:, :1], "a scale for each group of 32, 64 or 128"),
        ("weight_ih_l0_scale", lambda t: t.repeat(1, 2), "a scale for each group"),
        ("weight_ih_l0_scale", lambda t: -t, "not negative"),
        ("weight_ih_l0_scale", lambda t: t * 1e38 * 1e3, "finite"),
        ("weight_ih_l0_scale", lambda t: torch.full_like(t, 3e38), "scales are too large"),
        ("weight_ih_l0", lambda t: t | 128, "half byte behind the last column must be zero"),
        ("weight_ih_l0", lambda t: t.to(torch.int8), "'int4', got torch.int8 weights"),
        ("weight_ih_l0", lambda t: t[:, 1:], "size mismatch"),
    ],
)
def test_bad_checkpoints(name, change, message):
    case = Case(151, 9, activations="int4")
    fast, x = drawn(case), case.x()
    expected = fast(x)
    state = fast.state_dict()
    state[name] = change(state[name])
    with pytest.raises((RuntimeError, ValueError), match=message):
        fast.load_state_dict(state)
    assert_same(fast(x), expected)
