from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Module

State = tuple[Tensor, Tensor]
Asked = Callable[[], object]

def connect(
    functions: int,
    tensor_class: type[Tensor],
    listeners: tuple[Asked, ...],
    others: tuple[Asked, ...],
    forward_ad: dict[str, Any],
    inference_mode_enabled: Asked,
    increment_version: Callable[[tuple[Tensor, ...]], None],
) -> bool: ...
def lstm(module: Module, x: object, hx: State | None) -> tuple[Tensor, State] | None: ...
def cell(module: Module, x: object, hx: State | None) -> State | None: ...
def step(
    module: Module, x: Tensor, state: State, out: Tensor | None, state_rows: list[int] | None
) -> Tensor | None: ...
def current(module_dict: dict[str, Any]) -> Tensor | None: ...
def quiet() -> bool: ...
