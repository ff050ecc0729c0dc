"""The reference's operations are what they say, and the kernels' outputs equal its own bit by bit
under every instruction set."""

import ctypes
import ctypes.util
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lstm_fastkernels as lfk
from calls import EPILOGUE, GRID, cases
from cases import AWKWARD, KINDS, Case, assert_by_contract, by_contract, drawn, flat
from lstm_fastkernels import reference

INF, NAN = float("inf"), float("nan")
CASE = Case(9, 31, 2, T=5, B=3)


# ---- operations ----


def floats(random, count, exponents=(0, 256), mantissa_bits=23):
    """Random bit patterns with biased exponents in a range and short or long mantissas."""
    sign, exponent = random.integers(0, 2, count), random.integers(*exponents, count)
    mantissa = random.integers(0, 2**mantissa_bits, count) << (23 - mantissa_bits)
    return (sign << 31 | exponent << 23 | mantissa).astype(np.uint32).view(np.float32)


SPECIAL = [0.0, 1.0, 1.5, 1 + 2**-23, 1 - 2**-24, 2**-149, 3 * 2**-149, 2**-126, 2**-75, 1e-30]
SPECIAL += [2.0**24, 2.0**127, float(np.finfo(np.float32).max), INF, NAN]
SPECIAL += [-value for value in SPECIAL]

FMA_OPERANDS = {
    "special": lambda random: np.array(list(product(SPECIAL, repeat=3)), np.float32).T,
    "any": lambda random: [floats(random, 10**6) for _ in range(3)],
    # Where the sum cancels, ties or ends just beside a tie.
    "near": lambda random: [floats(random, 300_000, (100, 154)) for _ in range(3)],
    "short": lambda random: [floats(random, 300_000, (115, 140), 3) for _ in range(3)],
    "beside ties": lambda random: [
        floats(random, 300_000, (127, 128), 12),
        floats(random, 300_000, (127, 128), 12),
        floats(random, 300_000, (70, 185), 2),
    ],
    "subnormal": lambda random: [
        floats(random, 300_000, (40, 70)),
        floats(random, 300_000, (40, 70)),
        floats(random, 300_000, (0, 4), 4),
    ],
    "overflow": lambda random: [
        floats(random, 100_000, (188, 192)),
        floats(random, 100_000, (188, 192)),
        floats(random, 100_000, (250, 255)),
    ],
}


@pytest.mark.parametrize("operands", FMA_OPERANDS)
def test_fma_is_that_of_c(operands):
    fmaf = ctypes.CDLL(ctypes.util.find_library("m")).fmaf
    fmaf.argtypes, fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
    a, b, c = FMA_OPERANDS[operands](np.random.default_rng(0))
    expected = np.array(list(map(fmaf, a.tolist(), b.tolist(), c.tolist())), np.float32)
    actual = reference.fma(*(torch.from_numpy(v.copy()) for v in (a, b, c))).numpy()
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(actual), nan)
    different = (actual.view(np.uint32) != expected.view(np.uint32)) & ~nan
    first = [float(v[different][0]).hex() for v in (a, b, c)] if different.any() else ""
    assert not different.any(), f"{different.sum()} differ, first fma({first})"


def test_tanh_and_sigmoid_are_near_those_of_float64():
    x = torch.cat((torch.linspace(-10, 10, 400_001), torch.logspace(-45, 38, 1001)))
    for approximate, exact, error in (
        (reference.tanh, torch.tanh, 3.2e-7),
        (reference.sigmoid, torch.sigmoid, 1.6e-7),
    ):
        assert approximate(x).dtype == torch.float32
        assert (approximate(x).double() - exact(x.double())).abs().max() < error
        assert approximate(torch.tensor([NAN, -NAN])).isnan().all()
    ends = torch.tensor([9, 20, 1e30, INF])
    assert torch.equal(reference.tanh(ends), torch.ones(4))
    assert torch.equal(reference.tanh(-ends), -torch.ones(4))
    assert torch.equal(reference.sigmoid(2 * ends), torch.ones(4))
    assert torch.equal(reference.sigmoid(-2 * ends), torch.zeros(4))
    assert reference.tanh(torch.tensor([0.0, -0.0])).signbit().tolist() == [False, True]


def test_update_cell_has_gates_in_the_order_of_nn_lstm():
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(3, 5)
    x, h, c = torch.randn(7, 3), torch.randn(7, 5), torch.randn(7, 5)
    with torch.no_grad():
        gates = x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
        expected = cell(x, (h, c))
    for actual, value in zip(reference.update_cell(gates, c), expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=0, atol=EPILOGUE)


@pytest.mark.parametrize("largest", [127, 32767, 5000])
def test_symmetric_rows_are_the_nearest_multiples(largest):
    torch.manual_seed(0)
    rows = torch.randn(100, 31) * torch.logspace(-29, 38, 100)[:, None]
    integers, scale = reference.quantize_rows_symmetric(rows, largest)
    assert (integers.dtype, scale.dtype, scale.shape) == (torch.int32, torch.float32, (100, 1))
    assert (integers.abs().amax(1) == largest).all()
    steps = rows.double() / scale.double()
    assert ((integers - steps).abs() <= 0.5 + largest * 2**-22).all()


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_unsigned_rows_are_the_nearest_multiples(shift):
    torch.manual_seed(0)
    rows = (torch.randn(100, 31) + shift) * torch.logspace(-27, 37, 100)[:, None]
    q, zero_point, scale = reference.quantize_rows_unsigned(rows)
    assert (q.dtype, zero_point.dtype, scale.dtype) == (torch.int32, torch.int32, torch.float32)
    assert (q.shape, zero_point.shape, scale.shape) == ((100, 31), (100, 1), (100, 1))
    assert q.min() >= 0
    assert ((q.amax(1) >= 254) | (q.amin(1) <= 1)).all()
    # The zero point is an integer too, which moves the whole row by half a step at most.
    steps = rows.double() / scale.double()
    assert ((q - zero_point - steps).abs() <= 1 + 255 * 2**-22).all()
    exact = zero_point == -(rows.amin(1, keepdim=True).clamp(max=0).double() / scale).round()
    assert exact.all()


def test_bounded_rows_go_by_way_of_16_bits():
    rows = torch.tensor([[0.5, -0.1, 1e-5], [2.0, 1.0, -2.0]])
    q, zero_point, scale = reference.quantize_rows_unsigned(rows, "bounded")
    grid = (rows[1] * (32767 / 2)).round()
    q16, zero16, scale16 = reference.quantize_rows_unsigned(grid[None])
    assert torch.equal(q[1:], q16)
    assert torch.equal(zero_point[1:], zero16)
    assert torch.equal(scale[1:], scale16 * (torch.tensor(2.0) / 32767))
    assert q[0, 2] == zero_point[0]  # 1e-5 is no step of 16 bits
    zeros = reference.quantize_rows_unsigned(torch.full((1, 3), 1e-5), "bounded")
    assert all((part == 0).all() for part in zeros)


def test_ties_go_to_even():
    """The scales are powers of two, so that these halves are halves."""
    row = torch.tensor([127, 0.5, 1.5, 2.5, 3.5, 63.5, -0.5, -1.5, -2.5, -64.5])
    integers, scale = reference.quantize_rows_symmetric(row / 128, 127)
    assert integers.tolist() == [127, 0, 2, 2, 4, 64, 0, -2, -2, -64]
    assert scale == 1 / 128
    row = torch.tensor([190.5, 0.5, 1.5, 2.5, 3.5, 63.5, -0.5, -1.5, -2.5, -64.5]) / 128
    q, zero_point, scale = reference.quantize_rows_unsigned(row)
    assert (q - zero_point).tolist() == [190, 0, 2, 2, 4, 64, 0, -2, -2, -64]
    assert (zero_point, scale) == (64, 1 / 128)
    fast = Case(10, 10, T=1, B=1).fast()
    assert_by_contract(fast, row[None, None], (2 * row[None, None], torch.zeros(1, 1, 10)))


def test_rows_that_have_no_scale():
    least = torch.tensor(1e-30)
    below = torch.nextafter(least, torch.tensor(0.0))
    rows = torch.stack((least, -least, below, torch.tensor(0.0)))[:, None] * torch.tensor([1, -1])
    integers, scale = reference.quantize_rows_symmetric(rows, 127)
    assert integers.tolist() == [[127, -127], [-127, 127], [0, 0], [0, 0]]
    assert torch.equal(scale[:, 0], torch.stack((least, least, least * 0, least * 0)) / 127)
    least = torch.tensor(255 * 2.0**-100)
    rows = torch.stack((least, -least, torch.nextafter(least, -least)))[:, None]
    q, zero_point, scale = reference.quantize_rows_unsigned(rows)
    assert (q - zero_point).tolist() == [[255], [-255], [0]]
    assert scale[:, 0].tolist() == [2.0**-100, 2.0**-100, 0]
    bad = torch.tensor([[1, NAN], [-INF, 1]])
    for integers, *_, scale in (
        reference.quantize_rows_symmetric(bad, 127),
        reference.quantize_rows_unsigned(bad),
    ):
        assert integers.tolist() == [[0, 0], [0, 0]]
        assert scale.isnan().all()


def test_a_bounded_row_has_the_scale_of_1_at_least():
    rows = torch.tensor([[0.5, -0.1], [2, 1]])
    integers, scale = reference.quantize_rows_symmetric(rows, 127, "bounded")
    assert integers.tolist() == [[64, -13], [127, 64]]
    assert torch.equal(scale, torch.tensor([[1.0], [2.0]]) / 127)


@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize("columns", [1, 9, 151, 65_535])
def test_integer_products_are_exact(columns, activations):
    torch.manual_seed(columns)
    weight = torch.randint(-128, 128, (5, columns), dtype=torch.int8)
    weight[0], weight[1], weight[2] = 127, -128, 0
    matrix = reference.Matrix(weight, torch.ones(5), activations)
    largest = matrix.activation_max if activations == "int16" else 255
    rows = torch.randint(-largest, largest + 1, (4, columns), dtype=torch.int32)
    rows[0], rows[1] = largest, -largest
    sums = reference.products(rows, weight)
    assert sums.dtype == torch.int32
    assert torch.equal(sums.long(), rows.long() @ weight.long().T)


def test_float_products_are_summed_in_the_order_of_columns():
    weight = torch.tensor([[1e30, 1.0, -1e30], [1e30, -1e30, 1.0]])
    rows = torch.ones(1, 3)
    assert reference.products(rows, weight).tolist() == [[0.0, 1.0]]


# ---- the kernels ----


@pytest.mark.parametrize("input_size", AWKWARD)
@pytest.mark.parametrize("hidden_size", AWKWARD)
def test_sizes(hidden_size, input_size, kind):
    """One step, which float64 differs from by what the floats are rounded. Ahead of a second
    product that may tip a value to the next integer, seldom in int8."""
    for num_layers, proj_size in ((1, 0), (1, 5), (2, 0), (2, 5)):
        proj_size = min(proj_size, hidden_size - 1)
        case = Case(input_size, hidden_size, num_layers, proj_size=proj_size, T=1, seed=3, **kind)
        fast, x, state = drawn(case), case.x(), case.state()
        results = assert_by_contract(fast, x, state, message=str(case))
        wide = by_contract(fast, x.double(), tuple(s.double() for s in state))
        two_products = num_layers > 1 or proj_size
        for actual, exact in zip(flat(results), flat(wide), strict=True):
            by_row = (actual - exact).abs().amax((0, 2)).numpy()
            distance = np.median(by_row) if two_products else np.max(by_row)
            tipped = 2 / 32767 if two_products and case.activations == "int16" else 0
            assert distance <= EPILOGUE + tipped, f"{case}: {distance:.2e}"


@pytest.mark.parametrize("case", GRID, ids=str)
def test_grid(case, kind):
    case = replace(case, **kind)
    fast, x = case.fast(), case.x()
    for hx, lengths in ((None, None), (case.state(), None), (case.state(), case.lengths())):
        assert_by_contract(fast, x, hx, lengths, str(case))


@pytest.mark.parametrize(("T", "B"), [(70, 3), (12, 33)])
def test_several_chunks(T, B, kind):
    """The kernels form the input products of at most 192 rows at a time."""
    case = Case(num_layers=2, bidirectional=True, T=T, B=B, **kind)
    assert_by_contract(case.fast(), case.x(), case.state(), case.lengths(), str(case))


@pytest.mark.parametrize("block_size", [(8, 4), (16, 8), (24, 32)])
@pytest.mark.parametrize("name", ["int8-sparse", "int16-sparse", "float32"])
def test_blocks(name, block_size):
    case = replace(CASE, hidden_size=35, proj_size=13, block_size=block_size, **KINDS[name])
    case = replace(case, layout="block_sparse")
    assert_by_contract(case.fast(), case.x(), case.state(), message=str(case))


@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
@settings(max_examples=60)
def test_any(case, dtype):
    x, state = case.x().to(dtype), case.state()
    assert_by_contract(case.fast(), x, state, case.lengths(), f"{case} {dtype}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("proj_size", [0, 13])
def test_half_precision(proj_size, dtype, kind):
    case = replace(CASE, proj_size=proj_size, bidirectional=True, **kind)
    fast, x, state = case.fast(), case.x().to(dtype), case.state()
    for hx in (None, state, tuple(s.to(dtype) for s in state)):
        assert_by_contract(fast, x, hx, case.lengths(), str(case))


@pytest.mark.parametrize("proj_size", [0, 13])
@pytest.mark.parametrize("where", ["x", "h0", "c0", "padding"])
def test_non_finite_values(where, proj_size, kind):
    case = replace(CASE, proj_size=proj_size, bidirectional=True, **kind)
    fast, lengths = case.fast(), torch.tensor([5, 2, 4])
    for poison in (NAN, INF, -INF):
        x, (h0, c0) = case.x(), case.state()
        place = {"x": x[1, 1], "h0": h0[1, 1], "c0": c0[2, 1], "padding": x[2, 1]}[where]
        place[7] = poison
        results = assert_by_contract(fast, x, (h0, c0), lengths, f"{case} {poison}")
        assert results[0].isnan().any() == (where != "padding")


@pytest.mark.parametrize("proj_size", [0, 13])
def test_rows_and_states_of_all_magnitudes(proj_size, kind):
    case = replace(CASE, B=33, proj_size=proj_size, **kind)
    sizes = torch.logspace(-46, 38, case.B)[:, None]
    x, (h0, c0) = case.x().clamp(-1, 1) * sizes, case.state()
    h0, c0 = h0.clamp(-1, 1) * sizes, c0.clamp(-1, 1) * sizes.flip(0)
    x[2], h0[:, 3], c0[:, 4] = 0, 0, 0
    x[3, 5] = 1e-30
    assert_by_contract(case.fast(), x, (h0, c0), message=str(case))


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "weight_hr", "bias"])
@pytest.mark.parametrize("activations", ["int8", "int16"])
def test_scales_of_all_magnitudes(activations, name):
    """Gates and h underflow and overflow. An infinite h makes the next step NaN."""
    torch.manual_seed(0)
    case = Case(9, 40, proj_size=24, T=2, B=5, activations=activations)
    fast = drawn(case, largest=127)
    state = fast.state_dict()
    for key, tensor in state.items():
        if key.startswith(name) and tensor.dtype == torch.float32:
            magnitudes = torch.logspace(-46, 38, len(tensor))[torch.randperm(len(tensor))]
            state[key] = tensor.sign() * magnitudes
    fast.load_state_dict(state)
    y, _ = assert_by_contract(fast, case.x(), case.state(), message=str(case))
    assert not y[0].isnan().any()
    assert y[1].isnan().all() == (name == "weight_hr")


@pytest.mark.parametrize("activations", ["int8", "int16"])
def test_gates_of_infinity_minus_infinity(activations):
    """An x part of infinity meets an infinite product of scales."""
    case = Case(9, 31, T=1, activations=activations)
    fast = drawn(case)
    state = fast.state_dict()
    for name in ("weight_ih_l0_scale", "weight_hh_l0_scale"):
        state[name].fill_(3e38)
    fast.load_state_dict(state)
    h0, c0 = case.state()
    y, _ = assert_by_contract(fast, case.x(), (h0 * 1e6, c0), message=str(case))
    assert y.isnan().any()
    assert not y.isnan().all()


def test_float_weights_of_all_magnitudes():
    """Sums overflow and underflow."""
    torch.manual_seed(0)
    case = replace(CASE, hidden_size=40, proj_size=24, activations="float32")
    fast = drawn(case)
    state = fast.state_dict()
    for tensor in state.values():
        magnitudes = torch.logspace(-40, 38, tensor.numel())[torch.randperm(tensor.numel())]
        tensor *= magnitudes.view_as(tensor)
    fast.load_state_dict(state)
    assert_by_contract(fast, case.x(), case.state(), message=str(case))


def test_the_sign_of_a_sum_that_underflowed_is_open():
    """Rows 0..7 of W_hr have one block; what the others have decides whether the kernels add zeros
    to a sum of -0."""
    for others in (0.0, 1.0):
        fast = lfk.FastSparseLSTM(4, 24, proj_size=16)
        state = {name: torch.zeros_like(v) for name, v in fast.to_dense().state_dict().items()}
        state["bias_ih_l0"] += 1
        state["weight_hr_l0"][:8, 4:8] = -1e-45
        state["weight_hr_l0"][8:, 8:] = others
        fast.load_state_dict(state)
        x = torch.zeros(1, 1, 4)
        for actual, expected in zip(flat(fast(x)), flat(by_contract(fast, x)), strict=True):
            assert torch.equal(actual, expected)


def test_empty_batch(kind):
    case = replace(CASE, bidirectional=True, proj_size=4, **kind)
    assert_by_contract(case.fast(), torch.empty(5, 0, case.input_size))
