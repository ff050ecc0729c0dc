"""How sparse a model's LSTMs are."""

from dataclasses import dataclass

import torch
from torch import nn

from lstm_fastkernels.compression.lstms import find_lstms, label_of
from lstm_fastkernels.compression.table import table
from lstm_fastkernels.modules.float_lstm import matrix_names, missing_fault
from lstm_fastkernels.weights.shape import GATES
from lstm_fastkernels.weights.structures import KERNEL_BLOCK, block_sums, split_gates


@dataclass(frozen=True)
class SparsityRow:
    """One gate of one matrix. weight_hr has no gates: its `gate` is empty."""

    module: str
    matrix: str
    gate: str
    weights: int
    zeros: int
    blocks: int
    nonzero_blocks: int

    @property
    def sparsity(self) -> float:
        return self.zeros / self.weights

    @property
    def block_density(self) -> float:
        """Share of the 8x4 blocks, cut per gate, that have a weight other than zero."""
        return self.nonzero_blocks / self.blocks


@dataclass(frozen=True)
class SparsityReport:
    """A row for each gate of each matrix; `str()` is a table with the total below."""

    rows: list[SparsityRow]

    @property
    def total(self) -> SparsityRow:
        return SparsityRow(
            "total",
            "",
            "",
            sum(row.weights for row in self.rows),
            sum(row.zeros for row in self.rows),
            sum(row.blocks for row in self.rows),
            sum(row.nonzero_blocks for row in self.rows),
        )

    @property
    def sparsity(self) -> float:
        """Share of all weights that are zero."""
        return self.total.sparsity

    def __str__(self) -> str:
        head = ("module", "matrix", "gate", "weights", "zeros", "sparsity", "8x4 density")
        cells = [head] + [
            (
                row.module,
                row.matrix,
                row.gate,
                str(row.weights),
                str(row.zeros),
                f"{row.sparsity:.4f}",
                f"{row.block_density:.4f}",
            )
            for row in (*self.rows, self.total)
        ]
        return table(cells, names=3)


@torch.no_grad()
def sparsity_report(model: nn.Module) -> SparsityReport:
    """Counts the zeros in every nn.LSTM and nn.LSTMCell of a model, pruned or not.

    Raises ValueError if there is none, and for one whose weights are not its parameters.
    """
    rows = []
    for name, module in find_lstms(model):
        if fault := missing_fault(module):
            raise ValueError(f"{label_of(name)}: {fault}")
        for matrix in matrix_names(module):
            gates = split_gates(getattr(module, matrix) != 0, matrix)
            letters = GATES if len(gates) > 1 else [""]
            for letter, nonzero in zip(letters, gates, strict=True):
                blocks = block_sums(nonzero[None].int(), KERNEL_BLOCK)
                zeros = nonzero.numel() - int(nonzero.sum())
                rows.append(
                    SparsityRow(
                        name,
                        matrix,
                        letter,
                        nonzero.numel(),
                        zeros,
                        blocks.numel(),
                        int(blocks.count_nonzero()),
                    )
                )
    if not rows:
        raise ValueError("found no nn.LSTM or nn.LSTMCell in the model")
    return SparsityReport(rows)
