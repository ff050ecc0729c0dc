"""A module as a leaf of a symbolic trace, as nn.LSTM is one."""

import contextlib
from typing import Any

from torch.fx import Proxy


def call_as_leaf(module: Any, input: Proxy, *others: Any) -> Proxy:
    """A call of the module in the graph that torch.fx traces; RuntimeError for the root of it."""
    tracer: Any = input.tracer
    target = None
    with contextlib.suppress(NameError):
        target = tracer.path_of_module(module)
    if not target:
        raise RuntimeError(
            f"torch.fx cannot trace into a {type(module).__name__}, whose forward is one compiled "
            "op: trace the model that it is in, where it is one node"
        )
    node: Proxy = tracer.create_proxy("call_module", target, (input, *others), {})
    return node
