from collections.abc import Callable
from typing import Any

from torch import Tensor

def current(module_dict: dict[str, Any]) -> Tensor | None: ...
def quiet(listeners: tuple[Callable[[], object], ...]) -> bool: ...
