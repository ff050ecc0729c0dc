"""factorize_: the weights of a model's LSTMs as products of two thin matrices, in place."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.compression.calibration.moments import FloatLayers
from lstm_fastkernels.compression.calibration.observe import Observations, observe
from lstm_fastkernels.compression.calibration.sqnr import noise_of, signal_of, to_db
from lstm_fastkernels.compression.low_rank.config import LowRankConfig
from lstm_fastkernels.compression.low_rank.report import FactorizationReport, FactorizedMatrix
from lstm_fastkernels.compression.low_rank.spectrum import Spectrum
from lstm_fastkernels.compression.lstms import (
    FilterFn,
    check_matrices,
    check_outermost,
    check_unwrapped,
    find_lstms,
    join,
    label_of,
    parameter_owners,
)
from lstm_fastkernels.modules.float_lstm import (
    life_fault,
    matrix_names,
    own_names,
    shape_of,
    weights_as_lstm,
)
from lstm_fastkernels.modules.low_rank import LowRank, low_rank_names
from lstm_fastkernels.modules.parametrized import changing_parametrizations, parametrization_of
from lstm_fastkernels.weights.structures import Factors

Amounts = Mapping[str, int | float]


def factorize_(
    model: nn.Module,
    config: LowRankConfig,
    filter_fn: FilterFn | None = None,
    *,
    calibration: Iterable[Any] | None = None,
) -> FactorizationReport:
    """Replaces matrices W [N, K] of every nn.LSTM and nn.LSTMCell by U V, U [N, r] and V [r, K], in
    place: parametrizations, with U and V as the parameters that training changes.

    calibration: batches of real input, as for quantize_. Factors are then the best ones for what
    each matrix is multiplied with instead of for all inputs alike, and the report says what the
    outputs of each LSTM reach on held-out batches, given its float inputs.

    filter_fn(module, name) picks the modules. Subclasses of the two are left alone, as are matrices
    whose factors would not be smaller, r (N + K) >= N K: the report names them.

    Modules stay the same objects and compute as nn.LSTM does. U and V are new parameters:
    optimizers and DistributedDataParallel come afterwards. In the state_dict they have
    parametrize's names, parametrizations.weight_hh_l0.original0 and original1; all else keeps its
    own. It is loaded into a model that was factorized to the same ranks. remove_low_rank_
    multiplies the factors out.

    Raises ValueError, and changes nothing, if no LSTM is found, for names and patterns that match
    none of its matrices and ranks beyond the least of a matrix's sizes; for a matrix that is
    parametrized already, pruned ones included, shared with another, on the meta device or not
    finite; for LSTMs inside DistributedDataParallel or FSDP; with calibration also for LSTMs that
    may compute something else than their class, as convert does, or that get no input.
    """
    if not isinstance(config, LowRankConfig):
        raise TypeError(f"factorize_ expects a LowRankConfig, got {type(config).__name__}")
    lstms = {module: name for name, module in find_lstms(model, filter_fn)}
    asked = _asked(model, lstms, config)
    names = {lstm: lstms[lstm] for lstm in asked}
    weights = {lstm: _weights(lstm, name, calibration is not None) for lstm, name in names.items()}
    seen = observe(model, names, calibration)
    rows: list[FactorizedMatrix] = []
    factors: dict[nn.Module, dict[str, tuple[Tensor, Tensor]]] = {}
    sqnr = {}
    for lstm, name in names.items():
        factors[lstm] = {}
        for matrix, amount in asked[lstm].items():
            weight = weights[lstm][matrix]
            second_moment = seen[lstm].moments[matrix].second if lstm in seen else None
            spectrum = Spectrum(weight, second_moment)
            rank = int(amount) if config.energy is None else spectrum.rank_for(amount)
            height, width = weight.shape
            row = FactorizedMatrix(name, matrix, height, width, rank, spectrum.kept(rank))
            if row.factorized:
                u, v = spectrum.factors(rank)
                factors[lstm][matrix] = u.to(weight).contiguous(), v.to(weight).contiguous()
            rows.append(row if row.factorized else replace(row, energy=1.0))
        if lstm in seen and seen[lstm].held_out:
            sqnr[name] = _sqnr(seen[lstm], factors[lstm])
    for lstm in names:
        _put_on(lstm, factors[lstm])
    return FactorizationReport(rows, sqnr)


def remove_low_rank_(model: nn.Module) -> None:
    """Multiplies the factors of factorize_ out, in place: plain modules with weights U V.

    The weights are new parameters, under the float module's names. Raises ValueError, and changes
    nothing, if nothing in the model is factorized or if a factorized matrix has another
    parametrization on top.
    """
    lstms = {module: name for name, module in find_lstms(model) if low_rank_names(module)}
    if not lstms:
        raise ValueError("nothing in the model is factorized")
    for lstm, name in lstms.items():
        check_outermost(lstm, name, low_rank_names(lstm), "factors")
    for lstm in lstms:
        with changing_parametrizations(lstm):
            for matrix in low_rank_names(lstm):
                _multiply_out(lstm, matrix)


def _multiply_out(lstm: nn.Module, matrix: str) -> None:
    factors: Any = parametrization_of(lstm, matrix)
    trained = factors.original0.requires_grad
    # parametrize makes a buffer of a weight that needs no gradient.
    factors.requires_grad_()
    with torch.enable_grad():
        parametrize.remove_parametrizations(lstm, matrix)
    lstm.get_parameter(matrix).requires_grad_(trained)


def _asked(
    model: nn.Module, lstms: Mapping[nn.Module, str], config: LowRankConfig
) -> dict[nn.Module, Amounts]:
    """The rank or energy of matrices by nn.LSTM's names, of LSTMs that have any to factorize."""
    if not lstms:
        raise ValueError("found no nn.LSTM or nn.LSTMCell to factorize")
    config.check_matches({name for lstm in lstms for name in shape_of(lstm).matrices})
    check_unwrapped(model, lstms)
    owners = parameter_owners(model)
    found: dict[nn.Module, Amounts] = {}
    for lstm, name in lstms.items():
        if not (amounts := config.of(shape_of(lstm).matrices)):
            continue
        own = own_names(lstm, matrix_names(lstm))
        check_matrices(lstm, name, [own[matrix] for matrix in amounts], owners)
        for matrix, amount in amounts.items():
            size = shape_of(lstm).matrices[matrix]
            if config.energy is None and amount > min(size):
                raise ValueError(
                    f"{join(name, matrix)}: rank {amount} is beyond {min(size)}, the lesser of its "
                    f"sizes {size}: give it a rank of its own, or factorize others by `matrices`"
                )
        found[lstm] = amounts
    return found


def _weights(lstm: nn.Module, name: str, observed: bool) -> dict[str, Tensor]:
    """By nn.LSTM's names, of an LSTM that computes what its class does if it is to be observed."""
    if observed and (fault := life_fault(lstm)):
        raise ValueError(f"{label_of(name)}: {fault}")
    try:
        return weights_as_lstm(lstm)
    except ValueError as error:
        raise ValueError(f"{label_of(name)}: {error}") from error


def _sqnr(seen: Observations, factors: Factors) -> float:
    """What the outputs reach on held-out calls, in dB."""
    products = {matrix: u @ v for matrix, (u, v) in factors.items()}
    layers = FloatLayers(seen.shape, {**seen.floats, **products})
    return to_db(signal_of(seen.held_out), noise_of(layers.output, seen.held_out))


def _put_on(lstm: nn.Module, factors: Factors) -> None:
    own = own_names(lstm, matrix_names(lstm))
    with changing_parametrizations(lstm):
        for matrix, (u, v) in factors.items():
            parametrize.register_parametrization(lstm, own[matrix], LowRank(u, v))
