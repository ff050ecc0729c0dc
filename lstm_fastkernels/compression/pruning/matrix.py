"""A matrix that is being pruned: what the Pruner sees of it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lstm_fastkernels.modules.float_lstm import tensor_fault
from lstm_fastkernels.modules.parametrized import parametrization_of
from lstm_fastkernels.weights.checks import Kind


class PrunedMatrix:
    """Its weight, its mask and the score of each weight so far.

    module, name: where the matrix is; shares: the sparsity wanted of each of its gates.
    """

    def __init__(self, module: nn.Module, name: str, shares: list[float]) -> None:
        self.module = module
        self.name = name
        self.shares = shares
        self.score: Tensor | None = None
        self._pair = parametrization_of(module, name)

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

    def is_masked(self) -> bool:
        """Whether the module still runs with this mask."""
        return (
            parametrize.is_parametrized(self.module, self.name)
            and parametrization_of(self.module, self.name) is self._pair
        )

    def fault(self) -> str | None:
        """What keeps its weights from being ranked, if anything."""
        return tensor_fault(self.weight, Kind(None, tuple(self.mask.shape)))

    def state(self) -> dict[str, Tensor | None]:
        return {"mask": self.mask, "score": self.score, "weight": self.weight.detach()}

    def state_fault(self, state: object, *, scored: bool) -> str | None:
        """Why a state cannot be loaded, if it cannot."""
        if not isinstance(state, Mapping) or state.keys() != self.state().keys():
            return f"expected {', '.join(self.state())}"
        shape = tuple(self.mask.shape)
        kinds = {"mask": Kind(torch.bool, shape), "weight": Kind(None, shape)}
        if scored:
            kinds["score"] = Kind(None, shape)
        elif state["score"] is not None:
            return "a score where none is expected"
        for name, kind in kinds.items():
            if fault := tensor_fault(state[name], kind):
                return f"{name}: {fault}"
        return "the model's weight is on the meta device" if self.weight.is_meta else None

    def load(self, state: Mapping[str, Tensor | None]) -> None:
        weight, mask, score = state["weight"], state["mask"], state["score"]
        assert weight is not None
        assert mask is not None
        self.weight.copy_(weight)
        self.mask = mask.clone()
        self.score = None if score is None else score.to(self.weight.device, copy=True)
