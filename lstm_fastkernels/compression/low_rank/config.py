"""Which matrices to factorize, and how far."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real

from lstm_fastkernels.weights.names import find_by_name, matches_any

DEFAULT_MATRICES = ("weight_ih*", "weight_hh*")


@dataclass(frozen=True)
class LowRankConfig:
    """Ranks of matrices, or the share of each that is to be kept: exactly one of the two.

    rank: r of the factors [N, r] and [r, K], at most min(N, K).
    energy: in (0, 1]: take the least rank that keeps this share of the sum of squared singular
        values, which is 1 - the share of the squared error. With calibration, errors are those of
        what the matrix gives for its inputs, without, those of its weights.
    matrices: names ("weight_hh_l1_reverse") or patterns as in fnmatch ("weight_ih_*") of what to
        factorize, a cell's matrices being those of an LSTM of one layer, `_l0`. By default every
        weight_ih and weight_hh; a weight_hr is there to make weight_hh thinner already.

    In the place of a number, rank or energy may be a mapping from such names and patterns to
    numbers; it says which matrices there are then, and `matrices` goes without. A name wins over
    patterns, of patterns the first that matches. Raises ValueError for what does not fit.
    """

    rank: int | Mapping[str, int] | None = None
    energy: float | Mapping[str, float] | None = None
    matrices: Collection[str] | None = None

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.energy is None):
            raise ValueError("expected exactly one of rank and energy")
        if isinstance(self.matrices, str):
            raise ValueError(f"matrices must be a list of names or patterns, got {self.matrices!r}")
        if isinstance(self._amount, Mapping) and self.matrices is not None:
            raise ValueError("matrices goes without a mapping, which names its matrices itself")
        if not self.amounts:
            raise ValueError("expected a matrix to factorize, got an empty mapping or list")
        for pattern, value in self.amounts.items():
            if not isinstance(pattern, str):
                raise ValueError(f"expected names of matrices or patterns, got {pattern!r}")
            if fault := _rank_fault(value) if self.energy is None else _energy_fault(value):
                raise ValueError(f"{fault}, got {value!r} for {pattern}")

    @property
    def _amount(self) -> float | Mapping[str, int] | Mapping[str, float] | None:
        return self.rank if self.energy is None else self.energy

    @property
    def amounts(self) -> dict[str, int | float]:
        """The rank or energy by names and patterns."""
        amount = self._amount
        if isinstance(amount, Mapping):
            return dict(amount)
        assert amount is not None
        return dict.fromkeys(DEFAULT_MATRICES if self.matrices is None else self.matrices, amount)

    def of(self, names: Iterable[str]) -> dict[str, int | float]:
        """The rank or energy of those of these matrices that are to be factorized."""
        rest: dict[str, int | float | None] = {"*": None}
        found = {name: find_by_name(name, self.amounts, rest) for name in names}
        return {name: amount for name, amount in found.items() if amount is not None}

    def check_matches(self, names: Collection[str]) -> None:
        """Raises ValueError for a name or pattern that means none of a model's matrices."""
        for pattern in self.amounts:
            if not matches_any(pattern, names):
                raise ValueError(
                    f"{pattern!r} matches none of the matrices {', '.join(sorted(names))}"
                )


def _rank_fault(rank: object) -> str | None:
    if isinstance(rank, Integral) and not isinstance(rank, bool) and int(rank) >= 1:
        return None
    return "rank must be an integer of at least 1"


def _energy_fault(energy: object) -> str | None:
    if isinstance(energy, Real) and not isinstance(energy, bool) and 0 < float(energy) <= 1:
        return None
    return "energy must be in (0, 1]"
