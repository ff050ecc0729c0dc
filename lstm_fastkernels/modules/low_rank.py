"""Matrices of nn.LSTM and nn.LSTMCell as products of two thin ones."""

from typing import Any

from torch import Tensor, nn

from lstm_fastkernels.modules.float_lstm import as_lstm, matrix_names
from lstm_fastkernels.modules.parametrized import first_parametrization, parametrization_of


class LowRank(nn.Module):
    """U V for a matrix [N, K], as a parametrization of torch.nn.utils.parametrize.

    U [N, r] and V [r, K], of the matrix's dtype and device, become the parameters `original0` and
    `original1`. The matrix itself cannot be assigned to.
    """

    def __init__(self, u: Tensor, v: Tensor) -> None:
        super().__init__()
        self._initial: tuple[Tensor, Tensor] | None = (u, v)
        # What rounds U and V for training, once there is something.
        self.fakes: Any = nn.ModuleList()

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        if self.fakes:
            round_u, round_v = self.fakes
            u, v = round_u(u), round_v(v)
        return u @ v

    def fitted(self, *factors: Tensor) -> dict[str, Tensor]:
        """The entries in a state_dict of what rounds these factors."""
        return {
            f"fakes.{number}.{name}": entry
            for number, (fake, factor) in enumerate(zip(self.fakes, factors, strict=False))
            for name, entry in fake.fitted(factor).items()
        }

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The factors to begin with, which parametrize asks for when it is registered."""
        initial, self._initial = self._initial, None
        if initial is None:
            raise RuntimeError(
                "a factorized matrix cannot be assigned to: write to its factors, "
                "parametrizations.<name>.original0 and original1, or call remove_low_rank_ first"
            )
        return initial


def low_rank_names(module: nn.Module) -> list[str]:
    """Names of the matrices that are products of two, whatever else is on them."""
    return [
        name
        for name in matrix_names(module)
        if isinstance(first_parametrization(module, name), LowRank)
    ]


def low_rank_factors(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """U [N, r] and V [r, K] of each factorized matrix of an nn.LSTM or nn.LSTMCell.

    By nn.LSTM's names also for a cell; the module's own tensors, without their history. A matrix
    with another parametrization on top of its factors is not the product of them, and left out.
    """
    factors = {}
    for name in low_rank_names(module):
        pair: Any = parametrization_of(module, name)
        if len(pair) == 1:
            factors[name] = pair.original0.detach(), pair.original1.detach()
    return as_lstm(module, factors)
