"""Pruning the weights of nn.LSTM and nn.LSTMCell in place: at once, or step by step in training."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels import masking, patterns

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

    def _shares(self, name: str) -> list[float] | None:
        """The sparsity of each gate of a matrix, or None where it is not pruned."""
        if not isinstance(self.sparsity, Mapping):
            share = self.sparsity or 0.0
            return None if name.startswith("weight_hr") else [share] * patterns.gate_count(name)
        gates = [""] if name.startswith("weight_hr") else [f".{gate}" for gate in patterns.GATES]
        keys = [_keys(name, gate) for gate in gates]
        shares = [next((self.sparsity[k] for k in ks if k in self.sparsity), None) for ks in keys]
        return None if shares.count(None) == len(shares) else [share or 0.0 for share in shares]


def _keys(name: str, gate: str) -> list[str]:
    """The sparsity keys that mean a gate of a matrix, the most specific first."""
    kind = name[: len("weight_ih")]
    return [name + gate, name, kind + gate, kind]


class _Matrix:
    """A pruned matrix: its weight, its mask and the score of each weight so far."""

    def __init__(
        self, name: str, shares: list[float], pair: parametrize.ParametrizationList
    ) -> None:
        self.name = name
        self.shares = shares
        self.score: Tensor | None = None
        self._pair = pair

    @property
    def weight(self) -> Tensor:
        """The whole weight, masked or not."""
        return self._pair.original

    @property
    def mask(self) -> Tensor:
        return self._pair[0].mask  # type: ignore[return-value]

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        # In a tensor of its own, since autograd may still need the one before.
        self._pair[0].mask = mask.to(self.weight.device)


class Pruner:
    """Sets the masks of a model's pruned matrices; prune_ makes it.

    Call `step()` once a training step, after `optimizer.step()` and before `zero_grad()`.
    """

    def __init__(self, config: PruneConfig, matrices: dict[str, _Matrix]) -> None:
        self.config = config
        self._matrices = matrices
        self._steps = 0
        # Gradients are seen at the first step.
        self._first = 0 if config.importance == "magnitude" else 1
        if self._due():
            self._renew_masks()

    def __repr__(self) -> str:
        return (
            f"Pruner({len(self._matrices)} matrices, step {self._steps}, "
            f"sparsity {self.sparsity:.4f})"
        )

    @property
    def sparsity(self) -> float:
        """Share of the pruned matrices' weights that are masked."""
        masks = [matrix.mask for matrix in self._matrices.values()]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def step(self) -> None:
        """Takes in the gradients, if importance needs them, and renews the masks when it is time.

        With "taylor" and "movement" every step up to the last renewal adds to the scores, and a
        RuntimeError says where a gradient is missing; gradients that are not finite, as when an
        AMP scaler skips a step, add nothing. After the last renewal the masks stay.
        """
        last = self.config.schedule.end if self.config.schedule else self._first
        if self.config.importance != "magnitude" and self._steps < last:
            self._add_scores()
        self._steps += 1
        if self._due():
            self._renew_masks()

    def _due(self) -> bool:
        if self._steps < self._first:
            return False
        if self.config.schedule is None:
            return self._steps == self._first
        return self.config.schedule.updates_at(self._steps)

    @torch.no_grad()
    def _add_scores(self) -> None:
        products = {}
        for name, matrix in self._matrices.items():
            if matrix.weight.grad is None:
                raise RuntimeError(
                    f"{name} has no gradient, which importance {self.config.importance!r} needs: "
                    "call step() after backward() and before zero_grad()"
                )
            products[name] = matrix.weight.float() * matrix.weight.grad.float()
        if not all(product.isfinite().all() for product in products.values()):
            return
        for name, product in products.items():
            added = product.square() if self.config.importance == "taylor" else -product
            score = self._matrices[name].score
            self._matrices[name].score = added if score is None else score + added

    @torch.no_grad()
    def _renew_masks(self) -> None:
        matrices = list(self._matrices.values())
        config = self.config
        if config.n_m is not None:
            for matrix in matrices:
                elements = self._importance(matrix, (1, 1))
                matrix.mask = patterns.keep_n_of_m(elements, *config.n_m).flatten(0, 1)
            return
        factor = config.schedule(self._steps) if config.schedule else 1.0
        block = config.block_size or (1, 1)
        importances = [self._importance(matrix, block) for matrix in matrices]
        if config.threshold is not None:
            kept = [importance >= factor * config.threshold for importance in importances]
        else:
            kept = self._keep_by_sparsity(importances, block, factor)
        for matrix, blocks in zip(matrices, kept, strict=True):
            gates = patterns.split_gates(matrix.weight, matrix.name)
            mask = patterns.spread_blocks(blocks, block, gates.shape[1], gates.shape[2])
            matrix.mask = mask.flatten(0, 1)

    def _importance(self, matrix: _Matrix, block: tuple[int, int]) -> Tensor:
        """Of each block: [G, blocks down, blocks across]."""
        weights = patterns.split_gates(matrix.weight.float(), matrix.name)
        if self.config.importance == "magnitude":
            mean = patterns.block_sums(weights.square(), block) / patterns.block_sizes(
                weights, block
            )
            return mean.sqrt()
        if matrix.score is None:  # no finite gradient so far
            return torch.zeros_like(patterns.block_sums(weights, block))
        return patterns.block_sums(patterns.split_gates(matrix.score, matrix.name), block)

    def _keep_by_sparsity(
        self, importances: list[Tensor], block: tuple[int, int], factor: float
    ) -> list[Tensor]:
        """Which blocks to keep, each pool of the scope on its own, in the shapes of importances."""
        pools: list[tuple[Tensor, Tensor, float]] = []
        for matrix, importance in zip(self._matrices.values(), importances, strict=True):
            gates = patterns.split_gates(matrix.weight, matrix.name)
            sizes = patterns.block_sizes(gates, block)
            if self.config.scope == "gate":
                pools += zip(importance.flatten(1), sizes.flatten(1), matrix.shares, strict=True)
            else:
                pools.append((importance.flatten(), sizes.flatten(), matrix.shares[0]))
        if self.config.scope == "global":
            pools = [
                (
                    torch.cat([pool[0] for pool in pools]),
                    torch.cat([pool[1] for pool in pools]),
                    pools[0][2],
                )
            ]
        kept = torch.cat(
            [
                patterns.keep_most_important(importance, sizes, factor * share)
                for importance, sizes, share in pools
            ]
        )
        pieces = kept.split([importance.numel() for importance in importances])
        return [
            piece.view(importance.shape)
            for piece, importance in zip(pieces, importances, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """What resuming takes: the step, and mask, score and whole weight of each matrix.

        The model's own state_dict has zeros where the mask is, and not what is behind it.
        """
        return {
            "step": self._steps,
            "matrices": {
                name: {"mask": m.mask, "score": m.score, "weight": m.weight.detach()}
                for name, m in self._matrices.items()
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes up a state_dict, weights included: after the model has loaded its own.

        Raises ValueError, and changes nothing, unless matrices and their shapes are the same.
        """
        given = state_dict["matrices"]
        if given.keys() != self._matrices.keys():
            raise ValueError(f"state is of {sorted(given)}, not of {sorted(self._matrices)}")
        for name, matrix in self._matrices.items():
            if given[name]["mask"].shape != matrix.mask.shape:
                raise ValueError(
                    f"{name} is {tuple(matrix.mask.shape)}, in the state "
                    f"{tuple(given[name]['mask'].shape)}"
                )
        self._steps = state_dict["step"]
        for name, matrix in self._matrices.items():
            matrix.weight.copy_(given[name]["weight"])
            matrix.mask = given[name]["mask"].clone()
            score = given[name]["score"]
            matrix.score = None if score is None else score.to(matrix.weight.device, copy=True)


def prune_(
    model: nn.Module,
    config: PruneConfig,
    *,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> Pruner:
    """Puts masks on the nn.LSTMs and nn.LSTMCells of a model, in place; the Pruner sets them.

    filter_fn(module, name) picks the modules; name is the dotted name in the model. Subclasses of
    the two are left alone.

    Without a schedule magnitude masks are set at once, the others at the first `Pruner.step()`,
    with that step's gradients; with a schedule all are renewed at `step()` after `step()`. Masked
    weights are exactly zero in every forward, whatever an optimizer does to the values behind the
    masks: these stay, are pruned afresh at each renewal and may come back if they have become more
    important than others. "movement" also trains them, straight through the mask.

    Parameters stay the same objects, so an optimizer may be made before. `state_dict` and
    `load_state_dict` keep the float module's keys, with zeros where weights are masked.
    remove_pruning_ makes the masks permanent, which pickling the model takes.

    Raises ValueError, and changes nothing, if no matrix is found, if a key of config.sparsity means
    none, or if one to prune is already pruned or otherwise parametrized.
    """
    lstms = [
        (name, module)
        for name, module in masking.named_lstms(model)
        if filter_fn is None or filter_fn(module, name)
    ]
    found: list[tuple[str, nn.Module, dict[str, list[float]]]] = []
    for name, module in lstms:
        if masking.masked_names(module):
            raise ValueError(f"{name or 'the model'} is already being pruned")
        shares = {
            matrix: share
            for matrix in masking.matrix_names(module)
            if (share := config._shares(matrix)) is not None
        }
        for matrix in shares:
            if parametrize.is_parametrized(module, matrix):
                raise ValueError(f"{_join(name, matrix)} has another parametrization")
        if shares:
            found.append((name, module, shares))
    _check_keys(config, [matrix for _, lstm in lstms for matrix in masking.matrix_names(lstm)])
    if not found:
        raise ValueError("found no nn.LSTM or nn.LSTMCell to prune")
    matrices: dict[str, _Matrix] = {}
    for name, module, shares in found:
        masking.put_on(module, list(shares), straight_through=config.importance == "movement")
        for matrix, share in shares.items():
            pair = masking.weight_and_mask(module, matrix)
            matrices[_join(name, matrix)] = _Matrix(matrix, share, pair)
    return Pruner(config, matrices)


def _join(module: str, matrix: str) -> str:
    return f"{module}.{matrix}" if module else matrix


def _check_keys(config: PruneConfig, matrices: list[str]) -> None:
    if isinstance(config.sparsity, Mapping) and matrices:
        for key in config.sparsity:
            name = key.split(".")[0]
            if name not in matrices and name not in {m[: len("weight_ih")] for m in matrices}:
                raise ValueError(f"sparsity key {key!r} means no matrix of the model")


def remove_pruning_(model: nn.Module) -> None:
    """Makes the masks of prune_ permanent, in place: plain modules with zeros in their weights.

    Parameters stay the same objects; what was behind the masks is gone, and nothing keeps further
    training from moving the zeros. Raises ValueError if nothing in the model is being pruned.
    """
    pruned = [module for _, module in masking.named_lstms(model) if masking.masked_names(module)]
    if not pruned:
        raise ValueError("nothing in the model is being pruned")
    for module in pruned:
        masking.take_off(module)
