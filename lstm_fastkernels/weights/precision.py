"""Precisions: in what numbers each matrix of an LSTM is stored and multiplied."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lstm_fastkernels.weights.formats import TABLES
from lstm_fastkernels.weights.names import find_by_name, matches_any
from lstm_fastkernels.weights.shape import LstmShape

Activations = Literal["int8", "int16", "mixed", "int4", "float32"]

# One word for the precisions of all matrices, by patterns of which the first that matches decides.
SHORT_FORMS: dict[str, dict[str, str]] = {
    "int8": {"*": "int8"},
    "int16": {"*": "int16"},
    "mixed": {"weight_ih_l0*": "int16", "*": "int8"},
    "int4": {"*": "int4"},
    "float32": {"*": "float32"},
}


@dataclass(frozen=True)
class PrecisionConfig:
    """In what numbers matrices are stored and multiplied.

    activations: one word for all matrices, None for the default. precision: what differs from it,
    "int8", "int16", "int4", "float32", "table" or "table_float16" by the names of matrices
    ("weight_hh_l1_reverse") or by patterns as in fnmatch ("weight_ih_*"); a name wins over
    patterns, of patterns the first that matches. Raises ValueError for a precision that maps
    nothing.
    """

    activations: Activations | None = None
    precision: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and not isinstance(self.precision, Mapping):
            raise ValueError(
                "precision must map names of matrices or patterns to precisions, "
                f"got {self.precision!r}"
            )

    def of(
        self, shape: LstmShape, words: Sequence[str], choices: Collection[str]
    ) -> dict[str, str]:
        """The precision of each matrix of an LSTM.

        words: what `activations` may be, the default first; choices: the precisions that there may
        be. Raises ValueError for others, for names and patterns that match no matrix, and for
        tables that are not all of the first layer's weight_ih.
        """
        word = words[0] if self.activations is None else self.activations
        if word not in words:
            raise ValueError(f"activations must be one of {list(words)}, got {word!r}")
        own = self.precision or {}
        for pattern, precision in own.items():
            if not matches_any(pattern, shape.matrices):
                raise ValueError(
                    f"precision has {pattern!r}, which matches none of the matrices "
                    f"{', '.join(shape.matrices)}"
                )
            if precision not in choices:
                raise ValueError(
                    f"precision of {pattern} must be one of {list(choices)}, got {precision!r}"
                )
        found = {name: find_by_name(name, own, SHORT_FORMS[word]) for name in shape.matrices}
        takes_ids(found)
        return found


def takes_ids(precision: Mapping[str, str]) -> bool:
    """Whether an LSTM with these precisions, by name, reads token ids.

    Raises ValueError where only one direction has a table for them, or another matrix is one.
    """
    tables = [name for name, found in precision.items() if found in TABLES]
    if not tables:
        return False
    first = [name for name in precision if name.startswith("weight_ih_l0")]
    if tables != first:
        raise ValueError(
            f"tables of token ids must be {' and '.join(first)} and no other matrix, "
            f"got {', '.join(tables)}"
        )
    return True


def word_for(precision: Mapping[str, str]) -> str:
    """The word that gives matrices, by name, these precisions; "custom" if none does."""
    for word, patterns in SHORT_FORMS.items():
        if all(find_by_name(name, patterns) == found for name, found in precision.items()):
            return word
    return "custom"


def describe(precision: Mapping[str, str]) -> str:
    """The word for them and, in brackets, which matrices differ from most others."""
    word, found = word_for(precision), list(precision.values())
    most = max(reversed(found), key=found.count)
    if set(found) == {most}:
        return word
    others = [f"{name}: {value}" for name, value in precision.items() if value != most]
    return f"{word} ({', '.join(others)}, all else {most})"
