"""Backpropagation through time of one direction of an LSTM layer, from what it has put out.

Nothing but x, y and the first state was kept of the forward pass: gates and cells are computed
anew, for all steps at once where they do not wait for each other, in float32. Rounding activations
counts as the identity; their ranges follow each row, so that none saturates.

Sizes: T steps, B rows, K inputs, H hidden units, P outputs; n = T * B.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lstm_fastkernels.compression.recurrence import cells, order, states_before
from lstm_fastkernels.reference import LowRank, Matrix, RowKind, State, take_activations


class Product:
    """Rows times a matrix, or times the two factors of one, as the kernels round the rows."""

    def __init__(self, matrix: Matrix | LowRank, weights: Sequence[Tensor], kind: RowKind) -> None:
        """weights: float32 [N, K], or U [N, r] and V [r, K], of the same values as the matrix."""
        factors = (matrix.u, matrix.v) if isinstance(matrix, LowRank) else (matrix,)
        # The first to be multiplied comes first; what it gives is any row for the next.
        self._chain = list(zip(factors, weights, strict=True))[::-1]
        self._kinds: list[RowKind] = [kind, "any"]
        self._rows: list[Tensor] = []

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, N] of rows [n, K], which are kept, as they were rounded, for the gradient."""
        self._rows = []
        for (matrix, weight), kind in zip(self._chain, self._kinds, strict=False):
            integers, scale = take_activations(matrix, rows, kind)
            self._rows.append(integers * scale)
            rows = self._rows[-1] @ weight.T
        return rows

    def back(self, gradient: Tensor) -> Tensor:
        """That of the rows [..., K], of the gradient of products [..., N]."""
        for _, weight in reversed(self._chain):
            gradient = gradient @ weight
        return gradient

    def weight_gradients(self, gradient: Tensor) -> list[Tensor]:
        """Those of the weights, for the gradient [n, N] of what the last rows gave."""
        found = []
        for (_, weight), rows in zip(reversed(self._chain), reversed(self._rows), strict=True):
            found.append(gradient.T @ rows)
            gradient = gradient @ weight
        return found


class Direction(NamedTuple):
    """The matrices of one direction of a layer; bias [4H] float32 or None."""

    ih: Product
    hh: Product
    hr: Product | None
    bias: Tensor | None


class Gradients(NamedTuple):
    """x [T, B, K], h0 [B, P], c0 [B, H]; by kind of matrix those of its factors, or of the bias."""

    x: Tensor
    h0: Tensor
    c0: Tensor
    weights: dict[str, list[Tensor]]


def backpropagate(
    direction: Direction,
    x: Tensor,
    y: Tensor,
    hx: State,
    inside: Tensor | None,
    dy: Tensor,
    d_last: State,
    reverse: bool,
) -> Gradients:
    """The gradients of one direction; float32 throughout.

    x [T, B, K]; y [T, B, P] that it gave; hx its first h [B, P] and c [B, H]; inside: bool
    [T, B, 1], which rows work at which step, None for all; dy [T, B, P] and d_last: the gradients
    of y and of the last state.
    """
    T, B, _ = x.shape
    before = states_before(y, hx[0], inside, reverse)
    gates = direction.ih(x.flatten(0, 1)) + direction.hh(before.flatten(0, 1))
    if direction.bias is not None:
        gates = gates + direction.bias
    i, f, g, o, c_before, tanh_c = cells(gates.unflatten(0, (T, B)), hx[1], inside, reverse)
    # What dc and the gradient of o tanh(c) are multiplied with: no step waits for this.
    by_c = torch.stack((g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)), dim=2)
    by_output, to_c = tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c)
    outside = None
    if inside is not None:
        outside = (~inside).to(x.dtype)
        by_c, by_output, to_c = by_c * inside[..., None], by_output * inside, to_c * inside
        f, dy = torch.where(inside, f, 1), dy * inside
    d_gates, d_outputs = gates.new_empty(T, B, 4, f.shape[2]), torch.empty_like(dy)
    dh, dc = d_last
    for t in reversed(order(T, reverse)):
        dh = dh + dy[t]
        d_outputs[t] = dh
        d_output = dh if direction.hr is None else direction.hr.back(dh)
        dc = torch.addcmul(dc, d_output, to_c[t])
        torch.mul(by_c[t], dc[:, None], out=d_gates[t, :, :3])
        torch.mul(by_output[t], d_output, out=d_gates[t, :, 3])
        dc = dc * f[t]
        passed = direction.hh.back(d_gates[t].flatten(1))
        dh = passed if outside is None else torch.addcmul(passed, dh, outside[t])
    flat = d_gates.flatten(0, 1).flatten(1)
    weights = {
        "weight_ih": direction.ih.weight_gradients(flat),
        "weight_hh": direction.hh.weight_gradients(flat),
    }
    if direction.hr is not None:
        direction.hr((o * tanh_c).flatten(0, 1))
        if inside is not None:
            d_outputs = d_outputs * inside
        weights["weight_hr"] = direction.hr.weight_gradients(d_outputs.flatten(0, 1))
    if direction.bias is not None:
        weights["bias"] = [flat.sum(0)]
    return Gradients(direction.ih.back(flat).view_as(x), dh, dc, weights)
