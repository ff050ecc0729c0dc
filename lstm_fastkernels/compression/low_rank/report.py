"""What factorize_ did."""

from collections.abc import Mapping
from dataclasses import dataclass

from lstm_fastkernels.compression.lstms import label_of
from lstm_fastkernels.compression.table import table


@dataclass(frozen=True)
class FactorizedMatrix:
    """A matrix [rows, columns] that was to be factorized, by its LSTM and nn.LSTM's name.

    rank: what was asked for, or needed for the energy asked for; energy: the share of the sum of
    squared singular values that is kept, 1 where the matrix is left as it is.
    """

    module: str
    matrix: str
    rows: int
    columns: int
    rank: int
    energy: float

    @property
    def factorized(self) -> bool:
        """False for a matrix that is left as it is, since factors would not be smaller."""
        return self.rank * (self.rows + self.columns) < self.rows * self.columns

    @property
    def parameters_before(self) -> int:
        return self.rows * self.columns

    @property
    def parameters(self) -> int:
        return self.rank * (self.rows + self.columns) if self.factorized else self.parameters_before


@dataclass(frozen=True)
class FactorizationReport:
    """A row for each matrix, and what the outputs of LSTMs reach on held-out batches [dB], by their
    names, where there are such batches; `str()` is a table."""

    matrices: list[FactorizedMatrix]
    sqnr: Mapping[str, float]

    @property
    def parameters_before(self) -> int:
        return sum(row.parameters_before for row in self.matrices)

    @property
    def parameters(self) -> int:
        """Of these matrices or their factors."""
        return sum(row.parameters for row in self.matrices)

    def __str__(self) -> str:
        cells = [["module", "matrix", "rows", "columns", "rank", "energy", "parameters", "before"]]
        for row in self.matrices:
            rank = str(row.rank) if row.factorized else f"left ({row.rank})"
            sizes, energy = [str(row.rows), str(row.columns)], f"{row.energy:.4f}"
            parameters = [str(row.parameters), str(row.parameters_before)]
            cells.append([row.module, row.matrix, *sizes, rank, energy, *parameters])
        cells.append(["total", *[""] * 5, str(self.parameters), str(self.parameters_before)])
        lines = [table(cells, names=2)]
        if any(not row.factorized for row in self.matrices):
            lines.append("left: as it is, since factors of that rank would not be smaller")
        for name, sqnr in self.sqnr.items():
            lines.append(f"{label_of(name)}: {sqnr:.1f} dB on held-out batches")
        return "\n".join(lines)
