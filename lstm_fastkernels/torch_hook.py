"""Loads the ops once torch is imported: exported programs need them and name no module of ours."""

import contextlib
import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def load_ops_with_torch() -> None:
    """Loads the ops now if torch is imported, otherwise as soon as it is. Imports no torch."""
    if sys.modules.get("torch"):
        _load_ops()
    elif not any(isinstance(finder, _TorchFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchFinder())


class _TorchFinder:
    """Finds torch as the finders behind it do, to load the ops when it has been executed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "torch" or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            if find and (spec := find(fullname, path, target)):
                # A loader that refuses leaves the ops to what first needs them.
                with contextlib.suppress(AttributeError):
                    self._extend(spec.loader)
                return spec
        return None

    def _extend(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if module.__name__ == "torch" and self in sys.meta_path:
                sys.meta_path.remove(self)
                _load_ops()

        loader.exec_module = exec_module


def _load_ops() -> None:
    try:
        importlib.import_module("lstm_fastkernels.ops")
    except ImportError:
        pass  # not built: what needs them says so
    except Exception as error:
        warnings.warn(f"the ops of lstm_fastkernels cannot be loaded: {error}", stacklevel=2)
