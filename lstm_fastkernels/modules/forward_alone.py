"""nn.Module's __call__, left out where it would call forward and do nothing else."""

from collections.abc import Callable
from sys import intern
from typing import Any, TypeVar

import torch
import torch.nn.modules.module as torch_modules
from torch import nn
from torch.compiler import is_dynamo_compiling

from lstm_fastkernels.ops import eager

_Class = TypeVar("_Class", bound=type[nn.Module])

# What nn.Module's __call__ asks for: dicts of hooks of a module and of all modules.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = tuple(intern(f"_global{name}") for name in _HOOKS)
_GLOBALS = vars(torch_modules)
_frames: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)


class ForwardAlone(nn.Module):
    """A module that goes from its call to the kernels at once.

    That is where `eager` takes the call, no hook is to run, torch.compile is not at work, and
    nobody has put something else in the place of forward or of what torch does at a call. All else
    goes through nn.Module's __call__.
    """

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if not options and not is_dynamo_compiling():
            done = eager.call(self, inputs)
            if done is not None:
                return done
        return super().__call__(*inputs, **options)


def _is_known() -> bool:
    """Whether nn.Module's __call__ is torch's, and asks for nothing else."""
    call: Any = nn.Module.__call__
    inner: Any = nn.Module._call_impl
    if not all(getattr(function, "__globals__", None) is _GLOBALS for function in (call, inner)):
        return False
    hooks = {name for name in inner.__code__.co_names if name.endswith("_hooks")}
    names = call.__code__.co_names
    return names == ("_compiled_call_impl", "_call_impl") and hooks == {*_HOOKS, *_GLOBAL_HOOKS}


def _is_skipped_by_torch_compile(code: Any) -> bool:
    """Lets torch.compile of a module begin below this frame, as it begins below nn.Module's
    __call__: so hooks may come and go."""
    try:
        skip, default = _frames._FrameAction.SKIP, _frames._FrameAction.DEFAULT
        _frames.set_code_exec_strategy(code, _frames._FrameExecStrategy(skip, default))
    except (AttributeError, TypeError):  # another torch
        return False
    return hasattr(_frames, "get_eval_frame_callback")


_SHORTENS = _is_known() and _is_skipped_by_torch_compile(ForwardAlone.__call__.__code__)
if not _SHORTENS:
    del ForwardAlone.__call__


def shorten_calls(*, is_cell: bool = False) -> Callable[[_Class], _Class]:
    """For a class of ForwardAlone, and for none derived from it; is_cell: see `eager.cell`."""

    def register(module_class: _Class) -> _Class:
        if _SHORTENS:
            asked = _HOOKS, _GLOBAL_HOOKS, _GLOBALS, _frames.get_eval_frame_callback
            eager.shorten(module_class, is_cell, nn.Module, *asked)
        return module_class

    return register
