"""Tables of options by the names of matrices ("weight_hh_l1_reverse") or patterns ("weight_ih_*").

Patterns are those of fnmatch. A name wins over patterns, of patterns the first that matches.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

_T = TypeVar("_T")


def find_by_name(name: str, *tables: Mapping[str, _T]) -> _T:
    """What the first table that has the name, or a pattern for it, says. KeyError if none has."""
    for table in tables:
        if name in table:
            return table[name]
        for pattern, value in table.items():
            if fnmatchcase(name, pattern):
                return value
    raise KeyError(name)


def matches_any(pattern: object, names: Iterable[str]) -> bool:
    """Whether a name or pattern, or what a caller gave for one, means one of these."""
    return any(fnmatchcase(name, str(pattern)) for name in names)
