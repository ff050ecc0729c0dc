"""Weights and inputs to round them for, and error feedback written plainly."""

import torch
from torch.nn import functional as F

from lstm_fastkernels.compression.calibration.moments import DAMPING


def inputs(columns, seed=0):
    """Second moment of inputs whose columns go together and differ in size."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    rows = torch.randn(4 * columns + 8, columns, generator=generator, dtype=torch.float64) @ mixing
    rows *= torch.logspace(-1, 1, columns, dtype=torch.float64)
    return rows.T @ rows / len(rows)


def weights(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def with_damping(moment):
    added = DAMPING * moment.diagonal().mean()
    return moment + added * torch.eye(len(moment), dtype=torch.float64)


def expected_error(weight, rounded, moment):
    """The expected squared error of the matrix's products."""
    e = weight.double() - rounded
    return float(((e @ moment) * e).sum())


def plain_feedback(weight, moment, scale, least, most, pair_safe=False):
    """The columns one by one, each taken out of the inverse: GPTQ before the Cholesky factor.

    scale: [N, 1] or [N, K]. Returns integers in [least, most], float64 [N, K].
    """
    sizes = moment.diagonal()
    if pair_safe:
        pairs = F.pad(sizes, (0, len(sizes) % 2)).view(-1, 2).sum(1)
        order = [2 * pair + i for pair in pairs.argsort(descending=True).tolist() for i in (0, 1)]
    else:
        order = sizes.argsort(descending=True).tolist()
    inverse = torch.linalg.inv(with_damping(moment))
    scale = scale.double().expand(weight.shape)
    left, integers = weight.double(), torch.zeros(weight.shape).double()
    for k in filter(lambda k: k < len(sizes), order):
        integers[:, k] = (left[:, k] / scale[:, k]).round().clamp(least, most)
        if pair_safe and k % 2:
            first = integers[:, k - 1]
            integers[:, k] = integers[:, k].clamp(-128 - first, 128 - first)
        spread = (left[:, k] - integers[:, k] * scale[:, k]) / inverse[k, k]
        left = left - spread[:, None] * inverse[k]
        inverse = inverse - torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return integers
