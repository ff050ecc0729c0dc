"""Which weights to keep: blocks and N:M groups of matrices given as gates [G, rows, columns]."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lstm_fastkernels.weights.structures import BlockSize, block_sums


def block_sizes(gates: Tensor, block: BlockSize) -> Tensor:
    """Weights in each block, int64, in the shape of block_sums."""
    one_gate = torch.ones_like(gates[:1], dtype=torch.int64)
    return block_sums(one_gate, block).expand(len(gates), -1, -1)


def spread_blocks(blocks: Tensor, block: BlockSize, rows: int, columns: int) -> Tensor:
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
