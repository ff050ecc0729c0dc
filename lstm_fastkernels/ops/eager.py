"""Eager calls past torch's dispatcher: compiled for one torch and one Python, without which the op
takes all."""

import warnings
from importlib.util import find_spec
from platform import python_version
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lstm_fastkernels.ops.library import built_for_torch, eager_functions
from lstm_fastkernels.paths import HOW_TO_BUILD

__all__ = ["call", "cell", "current", "lstm", "quiet", "shorten", "step"]

_built_for = built_for_torch()
if torch.__version__ == _built_for and find_spec("lstm_fastkernels._eager"):
    from lstm_fastkernels._eager import call, cell, connect, current, lstm, quiet, shorten, step

    connect(eager_functions(), vars(forward_ad))
else:
    warnings.warn(
        f"lstm_fastkernels was built with torch {_built_for}. With torch {torch.__version__} on "
        f"Python {python_version()} its calls on the CPU take some microseconds longer. "
        f"{HOW_TO_BUILD}",
        stacklevel=2,
    )

    def _nothing(*_: object) -> None:
        """No call goes the short way."""

    _not_here: Any = _nothing
    call = cell = lstm = step = shorten = _not_here

    def quiet() -> bool:
        """Whether it is known that nobody listens to torch's dispatcher."""
        return False

    def current(module_dict: dict[str, Any]) -> Tensor | None:
        """As `_eager.current`."""
        known, versions = module_dict["_made"]
        buffers = module_dict["_buffers"]
        held = (*module_dict["_parameters"].values(), *buffers.values())
        if len(held) != len(known) or any(a is not b for a, b in zip(held, known, strict=True)):
            return None
        changed = sum(tensor._version for tensor in held if tensor is not None) != versions
        return None if changed else buffers.get("packed")
