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
def shorten(
    module_class: type[Module],
    is_cell: bool,
    base: type[Module],
    hooks: tuple[str, ...],
    global_hooks: tuple[str, ...],
    globals: dict[str, Any],
    compiler: Asked,
) -> None: ...
def lstm(module: Module, x: object, hx: State | None) -> tuple[Tensor, State] | None: ...
def cell(module: Module, x: object, hx: State | None) -> State | None: ...
def call(module: Module, inputs: tuple[Any, ...]) -> Any: ...
def step(
    module: Module, x: Tensor, state: State, out: Tensor | None, state_rows: list[int] | None
) -> Tensor | None: ...
def current(module_dict: dict[str, Any]) -> Tensor | None: ...
def quiet() -> bool: ...
