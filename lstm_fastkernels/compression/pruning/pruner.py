"""The Pruner: which weights are masked, and when the masks change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lstm_fastkernels.compression.pruning import patterns
from lstm_fastkernels.compression.pruning.config import PruneConfig
from lstm_fastkernels.compression.pruning.matrix import PrunedMatrix
from lstm_fastkernels.weights.structures import BlockSize, block_sums, split_gates


class Pruner:
    """Sets the masks of a model's pruned matrices; prune_ makes it.

    Call `step()` once a training step, after `optimizer.step()` and before `zero_grad()`.
    """

    def __init__(
        self, model: nn.Module, config: PruneConfig, matrices: dict[str, PrunedMatrix]
    ) -> None:
        self.config = config
        self._model = model
        self._matrices = matrices
        self._steps = 0
        # The step of the first masks: gradients, where they are needed, come with step 1.
        self._first = 0 if config.importance == "magnitude" else 1
        if self._due(0):
            self._renew_masks(0)

    def __repr__(self) -> str:
        if self._ended():
            return f"Pruner({len(self._matrices)} matrices, step {self._steps}, ended)"
        return (
            f"Pruner({len(self._matrices)} matrices, step {self._steps}, "
            f"sparsity {self.sparsity:.4f})"
        )

    @property
    def sparsity(self) -> float:
        """Share of the pruned matrices' weights that are masked. RuntimeError as of step()."""
        self._check_masked()
        masks = [matrix.mask for matrix in self._matrices.values()]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def step(self) -> None:
        """Takes in the gradients, if importance needs them, and renews the masks when it is time.

        With "taylor" and "movement" every step up to the last renewal adds to the scores, and a
        RuntimeError says where a gradient is missing; gradients that are not finite, as when an
        AMP scaler skips a step, make it one that does not count. After the last renewal the masks
        stay.

        Raises, and changes nothing: ValueError that names the matrix if its weights are needed and
        are not finite or on the meta device; RuntimeError once a mask is no longer in the model,
        because remove_pruning_ has made it permanent or convert has replaced its LSTM.
        """
        self._check_masked()
        step = self._steps + 1
        last = self.config.schedule.end if self.config.schedule else self._first
        scoring = bool(self._first) and step <= last
        if scoring or self._due(step):
            for name, matrix in self._matrices.items():
                if fault := matrix.fault():
                    raise ValueError(f"{name}: {fault}")
        if scoring and not self._add_scores():
            return
        self._steps = step
        if self._due(step):
            self._renew_masks(step)

    def _ended(self) -> str | None:
        """The first matrix whose mask the model no longer runs with."""
        modules = set(self._model.modules())
        for name, matrix in self._matrices.items():
            if matrix.module not in modules or not matrix.is_masked():
                return name
        return None

    def _check_masked(self) -> None:
        if name := self._ended():
            raise RuntimeError(
                f"{name} is no longer being pruned by this Pruner: its mask was made permanent or "
                "its module replaced. Call prune_ for a new Pruner"
            )

    def _due(self, step: int) -> bool:
        """Whether the masks are renewed at a step."""
        if step < self._first:
            return False
        if self.config.schedule is None:
            return step == self._first
        return self.config.schedule.updates_at(step)

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
            products[name] = matrix.weight.double() * matrix.weight.grad.double()
        if not all(product.isfinite().all() for product in products.values()):
            return False
        for name, product in products.items():
            added = product.square() if self.config.importance == "taylor" else -product
            score = self._matrices[name].score
            # A model may have moved since.
            self._matrices[name].score = added if score is None else score.to(added) + added
        return True

    @torch.no_grad()
    def _renew_masks(self, step: int) -> None:
        matrices = list(self._matrices.values())
        config = self.config
        if config.n_m is not None:
            for matrix in matrices:
                elements = self._importance(matrix, (1, 1))
                matrix.mask = patterns.keep_n_of_m(elements, *config.n_m).flatten(0, 1)
            return
        factor = config.schedule(step) if config.schedule else 1.0
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

    def _importance(self, matrix: PrunedMatrix, block: BlockSize) -> Tensor:
        """Of each block: [G, blocks down, blocks across]."""
        weights = split_gates(matrix.weight.double(), matrix.name)
        if self.config.importance == "magnitude":
            sums = block_sums(weights.square(), block)
            return (sums / patterns.block_sizes(weights, block)).sqrt()
        assert matrix.score is not None  # every step that counts adds to it
        return block_sums(split_gates(matrix.score.to(weights.device), matrix.name), block)

    def _keep_by_sparsity(
        self, importances: list[Tensor], block: BlockSize, factor: float
    ) -> list[Tensor]:
        """Which blocks to keep, each pool of the scope on its own, in the shapes of importances."""
        scope = self.config.scope
        matrices = self._matrices.values()

        def pool(blocks: list[Tensor]) -> list[Tensor]:
            blocks = [gates.to(blocks[0].device) for gates in blocks]
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
        """What resuming takes: the step, the config, and mask, score and whole weight of each
        matrix.

        The model's own state_dict has zeros where the mask is, and not what is behind it.
        RuntimeError as of step().
        """
        self._check_masked()
        return {
            "step": self._steps,
            "config": self.config.state(),
            "matrices": {name: matrix.state() for name, matrix in self._matrices.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes up a state_dict, weights included: after the model has loaded its own.

        Raises ValueError that names the difference, and changes nothing, unless the state is of the
        same config and of matrices of the same names and shapes; RuntimeError as of step().
        """
        self._check_masked()
        _check_state(state_dict, self.config, self._matrices)
        self._steps = state_dict["step"]
        for name, matrix in self._matrices.items():
            matrix.load(state_dict["matrices"][name])


def _check_state(
    state: Mapping[str, Any], config: PruneConfig, matrices: Mapping[str, PrunedMatrix]
) -> None:
    """Raises ValueError unless the state is one of a Pruner with this config and these matrices."""
    if missing := {"step", "config", "matrices"} - state.keys():
        raise ValueError(f"a Pruner's state has {', '.join(sorted(missing))}, this has not")
    step, given = state["step"], state["matrices"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step must be an int of at least 0, in the state it is {step!r}")
    for field, value in config.state().items():
        if (theirs := state["config"].get(field)) != value:
            raise ValueError(
                f"the state is of a Pruner with {field}={theirs!r}, this one has {value!r}"
            )
    if given.keys() != matrices.keys():
        raise ValueError(f"state is of {sorted(given)}, not of {sorted(matrices)}")
    scored = config.importance != "magnitude" and step > 0
    for name, matrix in matrices.items():
        if fault := matrix.state_fault(given[name], scored=scored):
            raise ValueError(f"{name} in the state: {fault}")
