"""Which weights to keep: blocks and N:M groups of matrices given as gates [G, rows, columns]."""

import torch
from torch import Tensor
from torch.nn import functional as F

GATES = "ifgo"


def gate_count(name: str) -> int:
    """Gates stacked in nn.LSTM's matrix of that name: 4, or 1 for the projection."""
    return 1 if name.startswith("weight_hr") else len(GATES)


def split_gates(matrix: Tensor, name: str) -> Tensor:
    """[G * rows, columns] as [G, rows, columns]."""
    return matrix.unflatten(0, (gate_count(name), -1))


def block_sums(gates: Tensor, block: tuple[int, int]) -> Tensor:
    """Sums over blocks of [G, rows, columns], each gate cut from its own first row and column.

    Returns [G, ceil(rows / block rows), ceil(columns / block columns)]; blocks at the far edges sum
    what exists of them.
    """
    height, width = min(block[0], gates.shape[1]), min(block[1], gates.shape[2])
    padded = F.pad(gates, (0, -gates.shape[2] % width, 0, -gates.shape[1] % height))
    return padded.unflatten(2, (-1, width)).unflatten(1, (-1, height)).sum((2, 4))


def block_sizes(gates: Tensor, block: tuple[int, int]) -> Tensor:
    """Weights in each block, int64, in the shape of block_sums."""
    one_gate = torch.ones_like(gates[:1], dtype=torch.int64)
    return block_sums(one_gate, block).expand(len(gates), -1, -1)


def spread_blocks(blocks: Tensor, block: tuple[int, int], rows: int, columns: int) -> Tensor:
    """Each block's value at each of its weights: [G, rows, columns]."""
    tall = blocks.repeat_interleave(min(block[0], rows), 1)[:, :rows]
    return tall.repeat_interleave(min(block[1], columns), 2)[:, :, :columns]


def keep_most_important(importance: Tensor, sizes: Tensor, sparsity: float) -> Tensor:
    """Which groups to keep so that about `sparsity` of the weights go, the least important first.

    importance: [groups]; sizes: int64 [groups], weights in each. The number of groups pruned is the
    one whose weights come nearest to sparsity * all weights, the larger of two equally near ones.
    Of equally important groups the first goes first. Returns bool [groups].
    """
    order = importance.argsort(stable=True)
    pruned = sizes[order].cumsum(0)
    target = sparsity * int(pruned[-1])
    # `count` groups stay within the target; one more may come nearer to it.
    count = int((pruned <= target).sum())
    if count < len(order):
        below = int(pruned[count - 1]) if count else 0
        count += int(pruned[count]) - target <= target - below
    kept = torch.ones_like(importance, dtype=torch.bool)
    kept[order[:count]] = False
    return kept


def keep_n_of_m(importance: Tensor, n: int, m: int) -> Tensor:
    """The n most important of every m neighbouring columns, the first of equals: bool like it.

    A row's last columns, if fewer than m, keep n of them or all.
    """
    columns = importance.shape[2]
    padded = F.pad(importance, (0, -columns % m), value=-torch.inf).unflatten(2, (-1, m))
    best = padded.argsort(dim=3, descending=True, stable=True)[..., :n]
    kept = torch.zeros_like(padded, dtype=torch.bool).scatter_(3, best, True)
    return kept.flatten(2)[..., :columns]
