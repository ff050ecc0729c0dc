"""One layer of a prepared LSTM: forward by the kernels, backward through time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lstm_fastkernels import ops, reference
from lstm_fastkernels.compression.qat.gradients import Direction, Product, backpropagate
from lstm_fastkernels.reference import RowKind, State
from lstm_fastkernels.weights.canonical import WeightSpec
from lstm_fastkernels.weights.packing import forget_with, pack
from lstm_fastkernels.weights.shape import LstmShape, gate_count


@dataclass(frozen=True, eq=False)
class Layer:
    """An LSTM of one layer.

    weights: float32, with their history, by the names of matrices and biases: a matrix, or its two
    factors, or a bias [4H]. tensors: the canonical ones of the same.
    """

    shape: LstmShape
    precision: Mapping[str, str]
    weights: Mapping[str, list[Tensor]]
    tensors: Mapping[str, Tensor]

    def __call__(self, x: Tensor, hx: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        """y [T, B, directions * P] and the last (h, c), from x [T, B, K] and hx, all float32, with
        gradients. lengths: int64 [B] on the CPU."""
        given = [weight for weights in self.weights.values() for weight in weights]
        y, h, c = _Run.apply(self, lengths, x, *hx, *given)
        return y, (h, c)

    def run(self, x: Tensor, hx: State, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The same without gradients, by the kernels; by their reference where there are none."""
        if not has_kernels(x.device):
            y, (h, c) = reference.lstm(
                self.tensors,
                x,
                hx,
                lengths,
                hidden_size=self.shape.hidden_size,
                bidirectional=self.shape.num_directions == 2,
                proj_size=self.shape.proj_size,
                precision=self.precision,  # type: ignore[arg-type]
            )
            return y, h, c
        spec = WeightSpec(self.shape, "bias_l0" in self.tensors, self.precision)
        packed = pack(spec.take(self.tensors))
        forget = forget_with(self, packed)
        try:
            return ops.lstm(x, *hx, lengths, packed.data, self.shape.sizes, False, packed.header)
        finally:
            forget()

    def gradients(
        self,
        saved: tuple[Tensor, ...],
        lengths: Tensor | None,
        dy: Tensor,
        d_last: State,
    ) -> list[Tensor]:
        """Those of what __call__ gives to autograd; saved: that, with y behind x."""
        x, y, h0, c0, *given = saved
        inside = None
        if lengths is not None:
            steps = torch.arange(len(x), device=x.device)[:, None, None]
            inside = steps < lengths.to(x.device)[:, None]
        remaining = iter(given)
        weights = {name: [next(remaining) for _ in own] for name, own in self.weights.items()}
        directions = self.shape.num_directions
        found = []
        by_name: dict[str, list[Tensor]] = {}
        for number, (suffix, own_y, own_dy) in enumerate(
            zip(self.shape.layers, y.chunk(directions, 2), dy.chunk(directions, 2), strict=True)
        ):
            own = backpropagate(
                self._direction(suffix, weights),
                x,
                own_y,
                (h0[number], c0[number]),
                inside,
                own_dy,
                (d_last[0][number], d_last[1][number]),
                reverse=bool(number),
            )
            found.append(own)
            by_name |= {kind + suffix: gradients for kind, gradients in own.weights.items()}
        dx = torch.stack([own.x for own in found]).sum(0)
        dh0, dc0 = torch.stack([own.h0 for own in found]), torch.stack([own.c0 for own in found])
        return [dx, dh0, dc0, *(g for name in self.weights for g in by_name[name])]

    def _direction(self, suffix: str, weights: Mapping[str, list[Tensor]]) -> Direction:
        def product(kind: str, rows: RowKind) -> Product:
            name = kind + suffix
            height, columns = self.shape.matrices[name]
            gates = gate_count(name)
            size = gates, height // gates, columns
            activations: Any = self.precision[name]
            matrix = reference.canonical_matrix(self.tensors, name, size, activations)
            return Product(matrix, weights[name], rows)

        projected = bool(self.shape.proj_size)
        return Direction(
            product("weight_ih", "any"),
            product("weight_hh", "any" if projected else "bounded"),
            product("weight_hr", "bounded") if projected else None,
            next(iter(weights.get(f"bias{suffix}", [])), None),
        )


def has_kernels(device: torch.device) -> bool:
    return device.type == "cpu" or (device.type == "cuda" and ops.cuda_built())


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layer: Layer,
        lengths: Tensor | None,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.layer, ctx.lengths = layer, lengths
        with torch.autocast(x.device.type, enabled=False):
            y, h, c = layer.run(x, (h0, c0), lengths)
        ctx.save_for_backward(x, y, h0, c0, *weights)
        return y, h, c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dy.device.type, enabled=False):
            found = ctx.layer.gradients(ctx.saved_tensors, ctx.lengths, dy, (dh, dc))
        return None, None, *found
