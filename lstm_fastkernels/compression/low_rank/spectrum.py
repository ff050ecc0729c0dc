"""The best factors of a matrix for what it multiplies.

Eckart & Young, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936:
the largest singular values and their vectors. For LSTMs: Xue, Li & Gong, Interspeech 2013; Winata
et al., arXiv 1908.09982. Weighted by the inputs: DRONE, Chen et al., NeurIPS 2021; by the Cholesky
factor of their second moment: SVD-LLM, Wang et al., arXiv 2403.07378.
"""

import torch
from torch import Tensor

from lstm_fastkernels.compression.calibration.moments import damped


class Spectrum:
    """The singular values of a matrix W [N, K], and its factors of any rank, float64 on the CPU.

    For inputs x of a second moment S [K, K], damped, S = L L', they are the singular values of W L:
    the expected squared error of U V x is the sum of the squares of those left out, the least that
    factors of a rank can have. Without, S = I.
    """

    def __init__(self, weight: Tensor, second_moment: Tensor | None = None) -> None:
        weighted = weight.detach().cpu().double()
        self._root = None
        if second_moment is not None:
            self._root = torch.linalg.cholesky(damped(second_moment))
            weighted = weighted @ self._root
        self._left, self._values, self._right = torch.linalg.svd(weighted, full_matrices=False)
        squares = self._values.square().cumsum(0)
        # The share of the sum of squares that each rank keeps, from rank 1 on.
        self._kept = squares / squares[-1] if squares[-1] > 0 else torch.ones_like(squares)

    def kept(self, rank: int) -> float:
        """The share of the sum of squared singular values that a rank keeps."""
        return float(self._kept[rank - 1])

    def rank_for(self, energy: float) -> int:
        """The least rank that keeps this share."""
        return 1 + int(torch.searchsorted(self._kept, energy))

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """U [N, rank] and V [rank, K], made to be quantized and trained.

        In integers, the components of V x share one scale, and so do the weights in a row of U;
        rows of V have scales of their own. Half of each singular value goes to either side: as far
        as ranges go by mean squares, the errors of both are least then, by the Cauchy-Schwarz
        inequality. U and V get the same norm, since optimizers take steps of one size in both.
        """
        halves = self._values[:rank].sqrt()
        u, v = self._left[:, :rank] * halves, halves[:, None] * self._right[:rank]
        if self._root is not None:
            v = torch.linalg.solve_triangular(self._root, v, upper=False, left=False)
        scale = (v.norm() / u.norm()).sqrt() if u.any() else 1.0
        return u * scale, v / scale
