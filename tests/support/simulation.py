"""The numeric contract of the kernels in float64 NumPy: exact integer products of quantized rows,
float64 everywhere else. Tests derive their tolerances from its error."""

import numpy as np

STATE_BOUND = 1.0  # |h| and |o * tanh(c)| stay below it, so their scale is a constant


class Matrix:
    """A quantized weight matrix that quantizes what it multiplies."""

    def __init__(self, tensors, name, columns, activations):
        self.weight = dense(tensors, name, columns).astype(np.float64)
        self.scale = tensors[name + "_scale"].astype(np.float64)
        self.limit = 127
        if activations == "int16":
            row_sum = max(1, int(np.abs(self.weight).sum(1).max(initial=0)))
            self.limit = min(32767, (2**31 - 1) // row_sum)

    def __call__(self, rows, bound=0.0):
        """rows [B, K] times the transposed weight; the scale covers at least `bound`."""
        q, scale = quantize(rows, self.limit, bound)
        return q @ self.weight.T * scale * self.scale


def dense(tensors, name, columns):
    """A weight matrix, its zeros written out where it is in blocks, each gate padded to blocks."""
    if name in tensors:
        return tensors[name]
    values, crow = tensors[name + "_values"], tensors[name + "_crow_indices"]
    _, height, width = values.shape
    grid = np.zeros((len(crow) - 1, height, -(-columns // width), width))
    for row in range(len(crow) - 1):
        for block in range(crow[row], crow[row + 1]):
            grid[row, :, tensors[name + "_col_indices"][block]] = values[block]
    rows = len(tensors[name + "_scale"])
    gates = grid.reshape(1 if name.startswith("weight_hr") else 4, -1, grid[0, 0].size)
    return gates[:, : rows // len(gates), :columns].reshape(rows, columns)


def quantize(rows, limit, bound=0.0):
    """One scale a row. In float32, as the kernels do it, so that ties fall to the same side."""
    rows = np.asarray(rows, np.float32)
    absmax = np.maximum(np.abs(rows).max(1, keepdims=True, initial=0), np.float32(bound))
    tiny = absmax < 1e-30
    absmax = np.where(tiny, np.float32(1), absmax)
    q = np.clip(np.rint(rows * (np.float32(limit) / absmax)), -limit, limit)
    scale = absmax / np.float32(limit)
    return np.where(tiny, 0, q).astype(np.float64), scale.astype(np.float64)


def sigmoid(v):
    return 0.5 + 0.5 * np.tanh(0.5 * v)


def simulate(module, x, state=None, lengths=None):
    """What a FastQuantLSTM gives for x [T, B, I]: (y, h, c) as float64 arrays."""
    x = np.asarray(x, np.float64)
    T, B, _ = x.shape
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    directions = 2 if module.bidirectional else 1
    if state is None:
        width = module.proj_size or module.hidden_size
        state = [
            np.zeros((module.num_layers * directions, B, size))
            for size in (width, module.hidden_size)
        ]
    h0, c0 = (np.asarray(s, np.float64) for s in state)

    h_n, c_n = np.empty_like(h0), np.empty_like(c0)
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            suffix = f"_l{layer}" + "_reverse" * direction
            y, h_n[index], c_n[index] = _run_layer(
                tensors, suffix, module.activations, x, h0[index], c0[index], lengths, layer > 0
            )
            outputs.append(y)
        x = np.concatenate(outputs, axis=2)
    return x, h_n, c_n


def _run_layer(tensors, suffix, activations, x, h, c, lengths, stacked):
    ih = Matrix(tensors, "weight_ih" + suffix, x.shape[2], activations)
    hh = Matrix(tensors, "weight_hh" + suffix, h.shape[1], activations)
    projected = f"weight_hr{suffix}_scale" in tensors
    hr = Matrix(tensors, "weight_hr" + suffix, c.shape[1], activations) if projected else None
    bias = tensors.get("bias" + suffix, np.zeros(1)).astype(np.float64)
    h_bound = 0.0 if projected else STATE_BOUND
    x_bound = h_bound if stacked else 0.0

    y = np.zeros((*x.shape[:2], h.shape[1]))
    steps = range(len(x))
    for t in reversed(steps) if suffix.endswith("_reverse") else steps:
        gates = bias + ih(x[t], x_bound) + hh(h, h_bound)
        i, f, g, o = np.split(gates, 4, axis=1)
        new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        new_h = sigmoid(o) * np.tanh(new_c)
        if projected:
            new_h = hr(new_h, STATE_BOUND)
        inside = (t < lengths)[:, None]
        c = np.where(inside, new_c, c)
        h = np.where(inside, new_h, h)
        y[t] = np.where(inside, h, 0)
    return y, h, c
