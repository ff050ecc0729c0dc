"""Why a public name cannot be imported.

Where torch is missing, names that need it are no attributes of the package, as hasattr and help
expect. `from lstm_fastkernels import name` then looks for a submodule of that name: a finder behind
all others answers with the reason, which would be lost otherwise.
"""

import sys
from collections.abc import Callable, Container


class _Finder:
    def __init__(self, package: str, names: Container[str], load: Callable[[str], object]):
        self.package, self.names, self.load = package, names, load

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        package, _, name = fullname.rpartition(".")
        if package == self.package and name in self.names:
            self.load(name)


def explain_imports(package: str, names: Container[str], load: Callable[[str], object]) -> None:
    """From now on, importing one of the names from the package raises what load(name) raises."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder(package, names, load))
