"""Files that must not load, and what is said of each: one table for Python, C++ and the fuzzer.

Each is a file of tests/data/good with one thing changed. Both readers refuse it, each in its own
words. `python -m malformed FOLDER` writes them for C++, with index.txt: on each line a file's name,
a tab, and how the C++ message begins.
"""

from malformed.configurations import configurations
from malformed.containers import containers
from malformed.parts import GOOD, Malformed
from malformed.states import states
from malformed.tensors import tensors

__all__ = ["GOOD", "Malformed", "files", "states"]


def files() -> list[Malformed]:
    """All but saved states."""
    return [*containers(), *configurations(), *tensors()]
