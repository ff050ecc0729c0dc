"""The compiled ops: finding and loading them."""

import ctypes
from pathlib import Path

import torch

from lstm_fastkernels.paths import HOW_TO_BUILD

_FOUND = sorted(Path(__file__).parents[1].glob("_ops*.so"))
if not _FOUND:
    raise ImportError(
        f"lstm_fastkernels was not built: its compiled ops are missing. {HOW_TO_BUILD}"
    )
torch.ops.load_library(str(_FOUND[0]))

compiled = torch.ops.lstm_fastkernels
_functions = ctypes.CDLL(str(_FOUND[0]))


def forget_packed(address: int) -> None:
    """Packed weights at that address will not be run any more.

    Not an op: it is called when a module dies, which may be while someone traces ops.
    """
    _functions.lfk_forget_packed(ctypes.c_void_p(address))


def built_for_torch() -> str:
    """The `torch.__version__` that the package was built with."""
    _functions.lfk_built_for_torch.restype = ctypes.c_char_p
    return str(_functions.lfk_built_for_torch().decode())


def eager_functions() -> int:
    """The address of what an eager call needs of the ops."""
    _functions.lfk_eager_functions.restype = ctypes.c_void_p
    return int(_functions.lfk_eager_functions())
