"""The numeric contract (docs/numerics.md) in plain torch: the outputs of the kernels, bit by bit.

Batched over rows and units; depends on torch alone. float64 inputs are for measuring: integers are
those of the contract, all else is float64 with torch's tanh, so that the difference is what float32
and the polynomial cost.

Sizes: T steps, B rows, I inputs, H hidden units, P outputs (proj_size, or H); a matrix is [N, K].
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Activations = Literal["int8", "int16", "int4", "float32"]
RowKind = Literal["any", "bounded"]
State = tuple[Tensor, Tensor]

# tanh(x) ~ x P(x^2) / Q(x^2) on [-9, 9], lowest coefficient first.
TANH_LIMIT = 9.0
TANH_P = (
    float.fromhex("0x1.fffffep-1"),
    float.fromhex("0x1.126cecp-3"),
    float.fromhex("0x1.cd1dbep-9"),
    float.fromhex("0x1.602d1cp-16"),
    float.fromhex("0x1.de0652p-27"),
)
TANH_Q = (
    1.0,
    float.fromhex("0x1.de8bbap-2"),
    float.fromhex("0x1.a95af2p-6"),
    float.fromhex("0x1.5c6df2p-12"),
    float.fromhex("0x1.ad6c6ap-21"),
)

# Rows whose largest magnitude, for 16 bits, or scale, for 8, is below this quantize to zero.
SMALLEST_ABSMAX = 1e-30
SMALLEST_SCALE = 2.0**-100
UNSIGNED_MAX = 255  # of 8-bit activations
GRID_MAX = 32767  # of the 16 bits by way of which bounded rows get there
# Added in the place of a bias: changes nothing, not even the sign of a zero.
NO_BIAS = -0.0


@dataclass(frozen=True)
class Matrix:
    """A weight matrix, its scales and the type of its activations.

    weight: int8 or float32 [N, K]; scale: float32 [N], ones for float32 weights; of 4-bit weights,
    int8 [N, K] in [-8, 7], [N, G]: one for each group of columns. `activations` are "float32" if,
    and only if, the weights are.
    """

    weight: Tensor
    scale: Tensor
    activations: Activations

    @cached_property
    def activation_max(self) -> int:
        """A: 16-bit activations are in [-A, A], so that no sum of products can leave int32."""
        largest_sum = int(self.weight.long().abs().sum(1).max())
        return min(32767, (2**31 - 1) // max(1, largest_sum))


@dataclass(frozen=True)
class LowRank:
    """The product of U [N, r] and V [r, K], which are multiplied one after the other."""

    u: Matrix
    v: Matrix


@dataclass(frozen=True)
class Table:
    """Rows [V, 4H], float32 or float16, of which token ids choose theirs."""

    rows: Tensor


@dataclass(frozen=True)
class Layer:
    """One direction of a layer: weight_ih, weight_hh, weight_hr or None, bias [4H] or NO_BIAS."""

    ih: Matrix | LowRank | Table
    hh: Matrix | LowRank
    hr: Matrix | LowRank | None
    bias: Tensor | float


# ---- floats ----


def fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """a * b + c of float32, rounded once as IEEE 754 has it; plain a * b + c where a is float64.

    Broadcasts; Python numbers must be exact in float32. The product of two float32 is exact in
    float64, and Knuth's TwoSum gives the sum and its error. Rounding that sum to odd keeps what the
    last rounding needs: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    """
    if a.dtype == torch.float64:
        return a * b + c
    x, y, z = (torch.as_tensor(v, dtype=torch.float64, device=a.device) for v in (a, b, c))
    product = x * y
    total = product + z
    added = total - product
    error = (product - (total - added)) + (z - added)
    # Of the two float64 around the exact sum, take the one whose last bit is 1.
    bits = total.view(torch.int64)
    inexact_even = (error != 0) & (bits & 1 == 0) & total.isfinite()
    away_from_zero = (error > 0) == (total > 0)
    odd = bits + torch.where(away_from_zero, 1, -1)
    return torch.where(inexact_even, odd, bits).view(torch.float64).float()


def _horner(coefficients: tuple[float, ...], z: Tensor) -> Tensor:
    value = torch.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = fma(value, z, coefficient)
    return value


def tanh(x: Tensor) -> Tensor:
    """clamp(x P(x^2) / Q(x^2), -1, 1) of float32 x clamped to [-9, 9]; NaN stays NaN."""
    if x.dtype == torch.float64:
        return x.tanh()
    x = x.clamp(-TANH_LIMIT, TANH_LIMIT)
    z = x * x
    return (x * _horner(TANH_P, z) / _horner(TANH_Q, z)).clamp(-1, 1)


def sigmoid(x: Tensor) -> Tensor:
    """fma(0.5, tanh(0.5 x), 0.5), float32."""
    return fma(tanh(0.5 * x), 0.5, 0.5)


def update_cell(gates: Tensor, c: Tensor) -> State:
    """(o tanh(c'), c') float32 [..., H], c' = fma(f, c, i * g).

    gates: [..., 4H] before their sigmoid or tanh, in the order i, f, g, o; c: [..., H].
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    c = fma(sigmoid(f), c, sigmoid(i) * tanh(g))
    return sigmoid(o) * tanh(c), c


# ---- products ----


def quantize_rows_symmetric(
    rows: Tensor, largest: int, kind: RowKind = "any"
) -> tuple[Tensor, Tensor]:
    """Rows [..., K] as (int32 [..., K], scale float32 [..., 1]): rows ~ integers * scale.

    With A = `largest` and m = max |v| of a row, of a bounded one max(1, max |v|): scale = m / A and
    integers = clamp(rint(v * (A / m)), -A, A), ties to even. A row with m < 1e-30 gives zeros and
    scale 0, a row with a non-finite value zeros and scale NaN.
    """
    rows = rows.float()
    m = rows.abs().amax(-1, keepdim=True).clamp(min=1.0 if kind == "bounded" else 0.0)
    finite, tiny = m.isfinite(), m < torch.full_like(m, SMALLEST_ABSMAX)
    # A tensor: torch divides a number by way of a reciprocal, which rounds twice.
    limit = torch.full_like(m, largest)
    scale = (m / limit).masked_fill(tiny, 0).masked_fill(~finite, math.nan)
    integers = (rows * (limit / m).masked_fill(tiny, 0)).round().clamp(-largest, largest)
    return integers.masked_fill(~finite, 0).int(), scale


def quantize_rows_unsigned(rows: Tensor, kind: RowKind = "any") -> tuple[Tensor, Tensor, Tensor]:
    """Rows [..., K] as (q int32 [..., K], zero point int32 [..., 1], scale float32 [..., 1]).

    rows ~ (q - zero point) * scale, q in 0..255. With lo = min(0, min v) and hi = max(0, max v) of
    a row: s = hi / 255 - lo / 255, r = 1 / s, zero point = rint(-lo * r), q = clamp(rint(v * r) +
    zero point, 0, 255) and scale = s, ties to even. Of a bounded row the integers rint(v * (32767 /
    b)) are quantized so, b = max(1, max |v|), and scale = s * (b / 32767). A row with s < 2^-100
    gives zeros and scale 0, a row with a non-finite value zeros and scale NaN.
    """
    rows = rows.float()
    finite = rows.isfinite().all(-1, keepdim=True)
    rows = rows.masked_fill(~finite, 0)
    # Tensors: torch divides a number by way of a reciprocal, which rounds twice.
    largest = torch.full_like(rows[..., :1], UNSIGNED_MAX)
    unit = torch.ones_like(largest)
    if kind == "bounded":
        bound = rows.abs().amax(-1, keepdim=True).clamp(min=1.0)
        grid = torch.full_like(bound, GRID_MAX)
        rows, unit = (rows * (grid / bound)).round(), bound / grid
    lo, hi = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    s = hi / largest - lo / largest
    tiny = s < SMALLEST_SCALE
    r = (torch.ones_like(s) / s).masked_fill(tiny, 0)
    zero_point = (-lo * r).round()
    q = ((rows * r).round() + zero_point).clamp(0, UNSIGNED_MAX)
    scale = (s * unit).masked_fill(tiny, 0).masked_fill(~finite, math.nan)
    return q.int(), zero_point.int(), scale


def take_activations(matrix: Matrix, rows: Tensor, kind: RowKind = "any") -> tuple[Tensor, Tensor]:
    """Rows [..., K] as (what the matrix multiplies [..., K], scale float32 [..., 1]).

    8-bit activations are without their zero point: what is left of a sum once the zero point's part
    is subtracted. float32 activations are the rows themselves, with scale 1; a row with a
    non-finite value counts as zeros with scale NaN.
    """
    if matrix.activations in ("int8", "int4"):
        q, zero_point, scale = quantize_rows_unsigned(rows, kind)
        return q - zero_point, scale
    if matrix.activations == "int16":
        return quantize_rows_symmetric(rows, matrix.activation_max, kind)
    finite = rows.isfinite().all(-1, keepdim=True)
    scale = torch.ones_like(finite, dtype=torch.float32).masked_fill(~finite, math.nan)
    return rows.masked_fill(~finite, 0), scale


def products(activations: Tensor, weight: Tensor) -> Tensor:
    """activations [..., K] times the transpose of weight [N, K]: sums [..., N].

    int32 activations and int8 weights give exact int32 sums. float32 sums start at +0 and take
    their products in the order of the columns, each by fma. The kernels skip blocks of zeros, which
    at most changes the sign of a sum that underflowed to -0: the contract leaves it open.
    """
    if not activations.is_floating_point():
        return (activations.double() @ weight.double().T).int()  # exact below 2^53
    if activations.dtype == torch.float64:
        return activations @ weight.double().T
    sums = activations.new_zeros(*activations.shape[:-1], len(weight))
    for k in range(weight.shape[1]):
        sums = fma(activations[..., k : k + 1], weight[:, k], sums)
    return sums


def int4_affine(matrix: Matrix, rows: Tensor, addend: Tensor | float, kind: RowKind) -> Tensor:
    """fma(value, row's scale, addend) [..., N] of rows [..., K] and 4-bit weights.

    With q and the zero point z of a row, value starts as -z * w, w the sums of each group's weights
    times their scale, added by fma; then each group's exact sum of q times weights is converted and
    added by fma(sum, scale, value), groups in ascending order.
    """
    q, zero_point, scale = quantize_rows_unsigned(rows, kind)
    size = group_size_of(matrix.weight.shape[1], matrix.scale.shape[1])
    weights = matrix.weight.split(size, 1)
    weight_sums = torch.zeros_like(matrix.scale[:, 0])
    for group, weight in enumerate(weights):
        weight_sums = fma(weight.sum(1).float(), matrix.scale[:, group], weight_sums)
    value = -zero_point.to(rows.dtype) * weight_sums
    for group, part in enumerate(q.split(size, -1)):
        sums = products(part, weights[group]).to(rows.dtype)
        value = fma(sums, matrix.scale[:, group], value)
    return fma(value, scale.to(rows.dtype), addend)


def affine(
    matrix: Matrix | LowRank, rows: Tensor, addend: Tensor | float, kind: RowKind = "any"
) -> Tensor:
    """fma(sum, row's scale * scale, addend) [..., N] of rows [..., K]; `addend` broadcasts.

    Of a low-rank matrix: what V gives, without addend, is a row of kind "any" for U.
    """
    if isinstance(matrix, LowRank):
        return affine(matrix.u, affine(matrix.v, rows, NO_BIAS, kind), addend)
    if matrix.activations == "int4":
        return int4_affine(matrix, rows, addend, kind)
    activations, scale = take_activations(matrix, rows, kind)
    sums = products(activations, matrix.weight).to(rows.dtype)
    return fma(sums, scale.to(rows.dtype) * matrix.scale, addend)


def look_up(table: Table, ids: Tensor, bias: Tensor | float) -> Tensor:
    """Their rows, widened to float32, + bias, [..., 4H]; without a bias + 0."""
    return table.rows[ids.long()].float() + (bias if isinstance(bias, Tensor) else 0.0)


# ---- canonical tensors ----


def expand_blocks(
    values: Tensor, crow_indices: Tensor, col_indices: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """The dense matrix [gates * rows, columns] of one in blocks; shape = (gates, rows, columns).

    values [blocks, height, width], crow_indices int32 [block rows + 1] and col_indices int32
    [blocks] are torch's BSR, each gate padded to whole blocks.
    """
    gates, rows, columns = shape
    _, height, width = values.shape
    block_rows = len(crow_indices) - 1
    grid = values.new_zeros(block_rows, math.ceil(columns / width), height, width)
    counts = crow_indices.diff().long()
    block_row = torch.arange(block_rows, device=values.device).repeat_interleave(counts)
    grid[block_row, col_indices.long()] = values
    padded = grid.transpose(1, 2).reshape(gates, block_rows // gates * height, -1)
    return padded[:, :rows, :columns].flatten(0, 1)


def unpack_int4(packed: Tensor, columns: int) -> Tensor:
    """int8 [N, columns] of uint8 [N, ceil(columns / 2)]: two columns a byte, the even one in the
    low half, two's complement."""
    halves = torch.stack((packed & 15, packed >> 4), 2).flatten(1)[:, :columns].to(torch.int8)
    return torch.where(halves < 8, halves, halves - 16)


def group_size_of(columns: int, groups: int) -> int:
    """How many columns share a scale where a row of so many has so many groups: the least size."""
    return next(size for size in (32, 64, 128) if math.ceil(columns / size) == groups)


def canonical_matrix(
    tensors: Mapping[str, Tensor],
    name: str,
    shape: tuple[int, int, int],
    activations: Activations,
) -> Matrix | LowRank:
    """The matrix of that name, dense, in blocks or low-rank; shape = (gates, rows, columns).

    `activations` are those of int8 weights, or "int4"; float32 weights have float32 ones.
    """
    if f"{name}_v" in tensors:
        gates, rows, columns = shape
        rank = len(tensors[f"{name}_v"])
        factors = (
            canonical_matrix(tensors, f"{name}_{factor}", of, activations)
            for factor, of in (("u", (gates, rows, rank)), ("v", (1, rank, columns)))
        )
        return LowRank(*factors)  # type: ignore[arg-type]
    if name in tensors:
        weight = tensors[name]
    else:
        weight = expand_blocks(
            tensors[f"{name}_values"],
            tensors[f"{name}_crow_indices"],
            tensors[f"{name}_col_indices"],
            shape,
        )
    if weight.is_floating_point():
        return Matrix(weight, weight.new_ones(len(weight)), "float32")
    if activations == "int4":
        weight = unpack_int4(weight, shape[2])
    return Matrix(weight, tensors[f"{name}_scale"], activations)


# ---- the LSTM ----


def lstm(
    tensors: Mapping[str, Tensor],
    x: Tensor,
    hx: State | None = None,
    lengths: Tensor | None = None,
    *,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    proj_size: int = 0,
    precision: Mapping[str, Activations] | None = None,
) -> tuple[Tensor, State]:
    """y [T, B, directions * P] and (h_n, c_n), as FastQuantLSTM and FastSparseLSTM give them.

    tensors: the module's state_dict. x: [T, B, I], float32, float16, bfloat16, or float64 (see
    above); with a table, token ids [T, B], and y is float32. hx: (h0 [layers * directions, B, P],
    c0 [layers * directions, B, H]), float32 or of x's dtype; h_n and c_n have its dtype, or y's
    without it. lengths: int64 [B], each in 1..T: y is zero past a row's length and h_n, c_n are
    the states there. precision: of each matrix, by its name; "int8" for those it does not name.
    Nothing is checked.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    directions = ("", "_reverse") if bidirectional else ("",)
    output_size = proj_size or hidden_size
    y_dtype = x.dtype if x.is_floating_point() else dtype
    T, B = x.shape[:2]
    if hx is None:
        zeros = x.new_zeros(num_layers * len(directions), B, hidden_size, dtype=y_dtype)
        hx = zeros[..., :output_size], zeros
    if lengths is None:
        lengths = torch.full((B,), T)
    inside = torch.arange(T, device=lengths.device)[:, None, None] < lengths[:, None]
    inside = inside.to(x.device)

    def layer_of(suffix: str, columns: int) -> Layer:
        def read(name: str, *shape: int) -> Matrix | LowRank:
            gates, rows, columns = shape
            name += suffix
            activations = (precision or {}).get(name, "int8")
            return canonical_matrix(tensors, name, (gates, rows, columns), activations)

        table = tensors.get(f"weight_ih{suffix}_table")
        return Layer(
            read("weight_ih", 4, hidden_size, columns) if table is None else Table(table),
            read("weight_hh", 4, hidden_size, output_size),
            read("weight_hr", 1, proj_size, hidden_size) if proj_size else None,
            tensors.get(f"bias{suffix}", NO_BIAS),
        )

    y, finals = x.to(dtype) if x.is_floating_point() else x, list[State]()
    for depth in range(num_layers):
        outputs = []
        for direction in directions:
            layer = layer_of(f"_l{depth}{direction}", y.shape[-1])
            h, c = (state[len(finals)].to(dtype) for state in hx)
            output, final = run_layer(layer, y, (h, c), inside, bool(direction))
            outputs.append(output)
            finals.append(final)
        y = torch.cat(outputs, dim=2)
    h_n, c_n = (torch.stack(states).to(hx[0].dtype) for states in zip(*finals, strict=True))
    return y.to(y_dtype), (h_n, c_n)


def run_layer(
    layer: Layer, x: Tensor, hx: State, inside: Tensor, reverse: bool
) -> tuple[Tensor, State]:
    """y [T, B, P] and the last (h, c) of one direction, from hx of that direction and x [T, B, K],
    or ids [T, B] for a table.

    inside: bool [T, B, 1], which rows work at which step.
    """
    h, c = hx
    h_kind: RowKind = "bounded" if layer.hr is None else "any"
    if isinstance(layer.ih, Table):
        x_gates = look_up(layer.ih, x, layer.bias)
    else:
        x_gates = affine(layer.ih, x, layer.bias)
    # A non-finite c0 makes its row NaN as a non-finite h0 does.
    h = h.masked_fill(~c.isfinite().all(-1, keepdim=True), math.nan)
    y = [h] * len(x)
    steps = range(len(x))
    for t in reversed(steps) if reverse else steps:
        new_h, new_c = update_cell(affine(layer.hh, h, x_gates[t], h_kind), c)
        if layer.hr is not None:
            new_h = affine(layer.hr, new_h, NO_BIAS, "bounded")
        h, c = torch.where(inside[t], new_h, h), torch.where(inside[t], new_c, c)
        y[t] = torch.where(inside[t], h, 0)
    return torch.stack(y), (h, c)
