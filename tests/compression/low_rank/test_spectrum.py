"""Factors of a matrix: no others of their rank have a smaller error, and they can be quantized."""

import pytest
import torch

from lstm_fastkernels.compression.calibration.moments import damped
from lstm_fastkernels.compression.low_rank.spectrum import Spectrum
from lstm_fastkernels.reference import Matrix, affine
from lstm_fastkernels.weights.quantize_rows import quantize_rows

SIZES = [(1, 1), (4, 1), (28, 7), (36, 151), (516, 129), (1024, 256)]


def matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def inputs(columns, count=400, seed=1):
    """Rows whose few strong directions are those of a matrix of their own."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    sizes = torch.logspace(1, -2, columns)
    return (torch.randn(count, columns, generator=generator) * sizes) @ directions


def ranks_of(rows, columns):
    least = min(rows, columns)
    return sorted({1, least // 2 or 1, least})


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_the_error_is_that_of_the_singular_values_left_out(rows, columns):
    weight = matrix(rows, columns)
    spectrum = Spectrum(weight)
    squares = torch.linalg.svdvals(weight.double()).square()
    for rank in ranks_of(rows, columns):
        u, v = spectrum.factors(rank)
        assert (u.shape, v.shape) == ((rows, rank), (rank, columns))
        error = (weight.double() - u @ v).square().sum()
        rounding = 1e-12 * float(squares.sum())
        torch.testing.assert_close(error, squares[rank:].sum(), rtol=1e-9, atol=rounding)
        assert spectrum.kept(rank) == pytest.approx(float(squares[:rank].sum() / squares.sum()))


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_weighted_factors_are_those_of_the_symmetric_root(rows, columns):
    """W S^(1/2) cut off by its SVD, times S^(-1/2): another root of S, the same product."""
    weight, x = matrix(rows, columns), inputs(columns).double()
    moment = x.T @ x / len(x)
    spectrum = Spectrum(weight, moment)
    values, vectors = torch.linalg.eigh(damped(moment))
    root = vectors * values.sqrt() @ vectors.T
    left, singular, right = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    for rank in ranks_of(rows, columns):
        u, v = spectrum.factors(rank)
        expected = left[:, :rank] * singular[:rank] @ right[:rank] @ torch.linalg.inv(root)
        torch.testing.assert_close(u @ v, expected, rtol=1e-8, atol=1e-8)
        share = float(singular[:rank].square().sum() / singular.square().sum())
        assert spectrum.kept(rank) == pytest.approx(share)
        assert float(u.norm()) == pytest.approx(float(v.norm()))


@pytest.mark.parametrize(("rows", "columns"), [(36, 151), (516, 129), (1024, 256)])
def test_data_helps_where_inputs_go_together(rows, columns):
    weight, x = matrix(rows, columns).double(), inputs(columns).double()
    exact = x @ weight.T
    for rank, gain in ((3, 1.1), (31, 4)):
        errors = []
        for spectrum in (Spectrum(weight), Spectrum(weight, x.T @ x / len(x))):
            u, v = spectrum.factors(rank)
            errors.append(float((x @ v.T @ u.T - exact).square().sum()))
        assert gain * errors[1] < errors[0], rank


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_full_rank_is_the_matrix(rows, columns):
    weight, x = matrix(rows, columns), inputs(columns).double()
    for spectrum in (Spectrum(weight), Spectrum(weight, x.T @ x / len(x))):
        u, v = (factor.float() for factor in spectrum.factors(min(rows, columns)))
        # Of the factors half a unit in the last place each, of a sum as many as it has terms.
        units = (2 + len(v)) * torch.finfo(torch.float32).eps / 2
        bound = units * (u.double().abs() @ v.double().abs())
        assert ((u @ v - weight).double().abs() <= bound).all()


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_energy_gives_the_least_rank(rows, columns):
    for spectrum in (
        Spectrum(matrix(rows, columns)),
        Spectrum(matrix(rows, 1) @ matrix(1, columns)),
    ):
        for energy in (1e-9, 0.3, 0.5, 0.9, 0.999, 1.0):
            rank = spectrum.rank_for(energy)
            assert 1 <= rank <= min(rows, columns)
            assert spectrum.kept(rank) >= energy
            assert rank == 1 or spectrum.kept(rank - 1) < energy


def test_a_matrix_of_low_rank_needs_no_more():
    weight = matrix(516, 5) @ matrix(5, 129)
    spectrum = Spectrum(weight)
    assert spectrum.rank_for(1 - 1e-9) == 5
    u, v = spectrum.factors(5)
    assert ((u @ v - weight).abs().max() / weight.abs().max()) < 1e-6


def test_zeros_and_inputs_that_are_never_there():
    spectrum = Spectrum(torch.zeros(12, 7), torch.zeros(7, 7, dtype=torch.float64))
    assert spectrum.rank_for(1.0) == 1
    u, v = spectrum.factors(2)
    assert not u.any()
    assert not v.any()
    weight = matrix(12, 7)
    u, v = Spectrum(weight, torch.zeros(7, 7, dtype=torch.float64)).factors(3)
    expected = torch.matmul(*Spectrum(weight).factors(3))
    torch.testing.assert_close(u @ v, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [31, 64])
def test_factors_lose_little_in_int8(rank):
    """Less than with all of the singular values on one side."""
    weight, x = matrix(516, 129).double(), inputs(129).double()
    moment = x.T @ x / len(x)
    spectrum = Spectrum(weight, moment)
    u, v = spectrum.factors(rank)
    exact = x @ (u @ v).T
    root = torch.linalg.cholesky(damped(moment))
    left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)

    def noise(u, v):
        inner, outer = (Matrix(*quantize_rows(factor.float()), "int8") for factor in (v, u))
        return float((affine(outer, affine(inner, x, 0.0), 0.0) - exact).square().sum())

    for share in (0, 1):
        other_u = left[:, :rank] * values[:rank] ** (1 - share)
        other_v = values[:rank, None] ** share * right[:rank] @ torch.linalg.inv(root)
        assert noise(u, v) < noise(other_u, other_v), share
