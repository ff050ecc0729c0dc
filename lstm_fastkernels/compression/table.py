"""Reports as tables in plain text."""

from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[str]], names: int) -> str:
    """Lines of cells, the head first; the first `names` columns stand to the left, others to the
    right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
