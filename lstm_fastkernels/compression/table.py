"""Reports as text."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, names: int) -> str:
    """Rows of cells, the first `names` columns flush left and the others, numbers, flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
