"""Pruning the weights of nn.LSTM and nn.LSTMCell in place: at once, or step by step in training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.compression.lstms import FilterFn, find_lstms
from lstm_fastkernels.compression.pruning import masking, patterns
from lstm_fastkernels.compression.pruning.config import PruneConfig
from lstm_fastkernels.modules.float_lstm import matrix_names
from lstm_fastkernels.weights.structures import BlockSize, block_sums, split_gates


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
        # The step of the first masks: gradients, where they are needed, come with step 1.
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
        AMP scaler skips a step, make it one that does not count. After the last renewal the masks
        stay.
        """
        last = self.config.schedule.end if self.config.schedule else self._first
        if self._first and self._steps < last and not self._add_scores():
            return
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
    def _add_scores(self) -> bool:
        """False, and nothing added, if some gradient is not finite."""
        products = {}
        for name, matrix in self._matrices.items():
            if matrix.weight.grad is None:
                raise RuntimeError(
                    f"{name} has no gradient, which importance {self.config.importance!r} needs: "
                    "call step() after backward() and before zero_grad()"
                )
            products[name] = matrix.weight.float() * matrix.weight.grad.float()
        if not all(product.isfinite().all() for product in products.values()):
            return False
        for name, product in products.items():
            added = product.square() if self.config.importance == "taylor" else -product
            score = self._matrices[name].score
            self._matrices[name].score = added if score is None else score + added
        return True

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
            gates = split_gates(matrix.weight, matrix.name)
            mask = patterns.spread_blocks(blocks, block, gates.shape[1], gates.shape[2])
            matrix.mask = mask.flatten(0, 1)

    def _importance(self, matrix: _Matrix, block: BlockSize) -> Tensor:
        """Of each block: [G, blocks down, blocks across]."""
        weights = split_gates(matrix.weight.float(), matrix.name)
        if self.config.importance == "magnitude":
            sums = block_sums(weights.square(), block)
            return (sums / patterns.block_sizes(weights, block)).sqrt()
        assert matrix.score is not None  # every step that counts adds to it
        return block_sums(split_gates(matrix.score, matrix.name), block)

    def _keep_by_sparsity(
        self, importances: list[Tensor], block: BlockSize, factor: float
    ) -> list[Tensor]:
        """Which blocks to keep, each pool of the scope on its own, in the shapes of importances."""
        scope = self.config.scope
        matrices = self._matrices.values()

        def pool(blocks: list[Tensor]) -> list[Tensor]:
            if scope == "gate":
                return [gate for gates in blocks for gate in gates.flatten(1)]
            flat = [gates.flatten() for gates in blocks]
            return [torch.cat(flat)] if scope == "global" else flat

        sizes = [patterns.block_sizes(split_gates(m.weight, m.name), block) for m in matrices]
        # The gates of a matrix have one share unless the scope is "gate"; so has all if "global".
        shares = [s for m in matrices for s in (m.shares if scope == "gate" else m.shares[:1])]
        kept = torch.cat(
            [
                patterns.keep_most_important(importance, size, factor * share)
                for importance, size, share in zip(
                    pool(importances), pool(sizes), shares, strict=scope != "global"
                )
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
    filter_fn: FilterFn | None = None,
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
    lstms = list(find_lstms(model, filter_fn))
    found: list[tuple[str, nn.Module, dict[str, list[float]]]] = []
    for name, module in lstms:
        if masking.masked_names(module):
            raise ValueError(f"{name or 'the model'} is already being pruned")
        shares = {
            matrix: share
            for matrix in matrix_names(module)
            if (share := config.shares(matrix)) is not None
        }
        for matrix in shares:
            if parametrize.is_parametrized(module, matrix):
                raise ValueError(f"{_join(name, matrix)} has another parametrization")
        if shares:
            found.append((name, module, shares))
    _check_keys(config, [matrix for _, lstm in lstms for matrix in matrix_names(lstm)])
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
    pruned = [module for _, module in find_lstms(model) if masking.masked_names(module)]
    if not pruned:
        raise ValueError("nothing in the model is being pruned")
    for module in pruned:
        masking.take_off(module)
