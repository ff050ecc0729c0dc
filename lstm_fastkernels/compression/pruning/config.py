"""What to prune, how much of it, and when."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal, get_args

from lstm_fastkernels.weights.shape import GATES, gate_count

Importance = Literal["magnitude", "taylor", "movement"]
Scope = Literal["gate", "tensor", "global"]

_KEY = re.compile(r"weight_(hr|(ih|hh))(_l\d+(_reverse)?)?(?(2)(\.[ifgo])?)")


@dataclass(frozen=True)
class CubicSchedule:
    """How much of the final sparsity is wanted at a step: Zhu & Gupta 2017, equation 1.

    From `initial` at step `begin` up to 1 at `end`, fast at first, in stairs of `frequency` steps;
    0 before `begin`. Raises ValueError unless 0 <= begin < end, frequency >= 1 and
    0 <= initial <= 1.
    """

    begin: int
    end: int
    frequency: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise ValueError(
                f"expected 0 <= begin < end, got begin {self.begin} and end {self.end}"
            )
        if self.frequency < 1:
            raise ValueError(f"frequency must be at least 1, got {self.frequency}")
        if not 0 <= self.initial <= 1:
            raise ValueError(f"initial must be in [0, 1], got {self.initial}")

    def __call__(self, step: int) -> float:
        if step < self.begin:
            return 0.0
        if step >= self.end:
            return 1.0
        since = step - self.begin
        left = 1 - (since - since % self.frequency) / (self.end - self.begin)
        return 1 - (1 - self.initial) * left**3

    def updates_at(self, step: int) -> bool:
        """Whether masks are renewed at a step: every `frequency` steps from begin, and at end."""
        if step == self.end:
            return True
        return self.begin <= step < self.end and (step - self.begin) % self.frequency == 0


@dataclass(frozen=True)
class PruneConfig:
    """What to prune. Exactly one of sparsity, threshold and n_m says how much.

    sparsity: share of the weights to set to zero, in [0, 1]. A number is for every weight_ih and
        weight_hh; a mapping gives shares to matrices and gates: "weight_hr", "weight_hh.g" (gates
        i, f, g, o; with scope "gate"), "weight_hh_l1", "weight_hh_l0_reverse.o". A key with a layer
        goes before one without, then one with a gate before one without; what has no key is not
        pruned.
    threshold: prune every group of less importance, of each weight_ih and weight_hh.
    n_m: (n, m): keep the n most important of every m neighbouring columns in a row of each
        weight_ih and weight_hh. With block_size None and without a schedule.
    block_size: (rows, columns) of the groups that are kept or pruned as one; None for single
        weights. Blocks are cut per gate, so that none straddles two, and are smaller at the far
        edges. weight_hr counts as one gate.
    importance: of a group: "magnitude", the root mean square of its weights; "taylor", the sum of
        (weight * gradient)^2 over its weights and the steps so far (Molchanov et al. 2019, first
        order); "movement", the sum of -weight * gradient over both (Sanh et al. 2020).
    scope: the least important groups are looked for within each gate ("gate"), each matrix
        ("tensor") or all matrices of the model ("global", with a number as sparsity).
    schedule: prune gradually, the sparsity or threshold times schedule(step); None prunes at once.

    Sparsity counts weights, not groups: as many groups go as bring the zeros nearest to the wanted
    number, the larger number of two equally near. Of equally important groups the first goes first.
    Raises ValueError for whatever does not fit together.
    """

    sparsity: float | Mapping[str, float] | None = None
    threshold: float | None = None
    block_size: tuple[int, int] | None = (8, 4)
    n_m: tuple[int, int] | None = None
    importance: Importance = "magnitude"
    scope: Scope = "gate"
    schedule: CubicSchedule | None = None

    def __post_init__(self) -> None:
        if self.importance not in get_args(Importance):
            raise ValueError(
                f"importance must be one of {list(get_args(Importance))}, got {self.importance!r}"
            )
        if self.scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {list(get_args(Scope))}, got {self.scope!r}")
        if [self.sparsity, self.threshold, self.n_m].count(None) != 2:
            raise ValueError("expected exactly one of sparsity, threshold and n_m")
        if self.block_size is not None and (len(self.block_size) != 2 or min(self.block_size) < 1):
            raise ValueError(
                f"block_size must be two numbers of at least 1, or None, got {self.block_size}"
            )
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be finite, got {self.threshold}")
        if self.n_m is not None:
            self._check_n_m(self.n_m)
        if isinstance(self.sparsity, Mapping):
            self._check_mapping(self.sparsity)
        elif self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity must be in [0, 1], got {self.sparsity}")

    def _check_n_m(self, n_m: tuple[int, int]) -> None:
        if len(n_m) != 2 or not 1 <= n_m[0] < n_m[1]:
            raise ValueError(f"n_m must be (n, m) with 1 <= n < m, got {n_m}")
        if self.block_size is not None:
            raise ValueError("n_m needs block_size None")
        if self.schedule is not None:
            raise ValueError("n_m goes without a schedule")

    def _check_mapping(self, sparsity: Mapping[str, float]) -> None:
        if not sparsity:
            raise ValueError("sparsity is an empty mapping")
        if self.scope == "global":
            raise ValueError("scope 'global' needs a number as sparsity, not a mapping")
        for key, share in sparsity.items():
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"unknown sparsity key {key!r}: expected weight_ih, weight_hh or weight_hr, a "
                    "layer's suffix as in weight_hh_l0_reverse if wanted, and a gate as in "
                    "weight_hh.g (i, f, g or o; weight_hr has none)"
                )
            if "." in key and self.scope != "gate":
                raise ValueError(f"sparsity key {key!r} names a gate, which needs scope 'gate'")
            if not 0 <= share <= 1:
                raise ValueError(f"sparsity of {key!r} must be in [0, 1], got {share}")

    def state(self) -> dict[str, Any]:
        """The fields in plain numbers, strings, lists and dicts, as a saved state has them."""
        sparsity = self.sparsity
        if isinstance(sparsity, Mapping):
            sparsity = {key: float(share) for key, share in sparsity.items()}
        return {
            "sparsity": float(sparsity) if isinstance(sparsity, Real) else sparsity,
            "threshold": None if self.threshold is None else float(self.threshold),
            "block_size": None if self.block_size is None else [int(n) for n in self.block_size],
            "n_m": None if self.n_m is None else [int(n) for n in self.n_m],
            "importance": self.importance,
            "scope": self.scope,
            "schedule": None if self.schedule is None else asdict(self.schedule),
        }

    def shares(self, name: str) -> list[float] | None:
        """The sparsity of each gate of a matrix, or None where it is not pruned."""
        if not isinstance(self.sparsity, Mapping):
            share = self.sparsity or 0.0
            return None if name.startswith("weight_hr") else [share] * gate_count(name)
        gates = [""] if name.startswith("weight_hr") else [f".{gate}" for gate in GATES]
        keys = [_keys(name, gate) for gate in gates]
        shares = [next((self.sparsity[k] for k in ks if k in self.sparsity), None) for ks in keys]
        return None if shares.count(None) == len(shares) else [share or 0.0 for share in shares]


def check_untrained(config: PruneConfig, what: str) -> None:
    """Raises ValueError, saying `what` it is, for one that needs training steps to prune."""
    if config.importance != "magnitude" or config.schedule is not None:
        raise ValueError(
            f"{what} needs training, for its importance or schedule: prune by magnitude at once"
        )


def _keys(name: str, gate: str) -> list[str]:
    """The sparsity keys that mean a gate of a matrix, the most specific first."""
    kind = name[: len("weight_ih")]
    return [name + gate, name, kind + gate, kind]
