"""LSTMs of all shapes and the inputs for them, named so that a failure can be repeated."""

import copy
import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

import lstm_fastkernels as lfk
from isas import assert_same_bits, chosen
from lstm_fastkernels import reference
from lstm_fastkernels.weights.int4 import pack_int4
from lstm_fastkernels.weights.shape import LstmShape

AWKWARD = [1, 7, 8, 9, 31, 129, 151]

# What to replace in a case so that it goes through each kind of kernel.
KINDS = {
    "int8": {"activations": "int8"},
    "int16": {"activations": "int16"},
    "int8-sparse": {"activations": "int8", "layout": "block_sparse", "density": 0.4},
    "int16-sparse": {"activations": "int16", "layout": "block_sparse", "density": 0.4},
    "int4": {"activations": "int4", "group_size": 32},
    "float32": {"activations": "float32", "density": 0.4},
}

# The same for modules that hold packed weights alone.
KEPT_PACKED = {f"{name}, packed": {**kind, "keep": "packed"} for name, kind in KINDS.items()}

# What to replace in a case for each way of laying out a call and its LSTM.
FORMS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "projection": {"proj_size": 13},
    "one row": {"B": 1},
}


@dataclass(frozen=True)
class Case:
    """An LSTM, the fast module made of it, and inputs.

    `density` is the share of 8x4 blocks, cut per gate, that are not zero in the matrices whose
    names begin with `pruned`; activations "float32" make a FastSparseLSTM. `precision` is the
    option's mapping, in pairs.
    """

    input_size: int = 9
    hidden_size: int = 31
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    bias: bool = True
    batch_first: bool = False
    T: int = 5
    B: int = 3
    seed: int = 0
    activations: str = "int8"
    precision: tuple[tuple[str, str], ...] = ()
    group_size: int = 64
    layout: str = "auto"
    block_size: tuple[int, int] = (8, 4)
    keep: str = "canonical"
    density: float = 1.0
    pruned: str = "weight"

    def __str__(self):
        """Reads as a test id: I9-H31-L1-D1-P0-T5-B3-seed0-int8."""
        sizes = f"I{self.input_size}-H{self.hidden_size}-L{self.num_layers}"
        shape = f"D{1 + self.bidirectional}-P{self.proj_size}-T{self.T}-B{self.B}"
        flags = "".join(f"-{name}:{precision}" for name, precision in self.precision)
        flags += f"-g{self.group_size}" if self.group_size != 64 else ""
        flags += "" if self.bias else "-nobias"
        flags += "-bf" if self.batch_first else ""
        if self.layout != "auto":
            flags += f"-{self.layout}-{self.block_size[0]}x{self.block_size[1]}"
        if self.density < 1:
            flags += f"-{self.density:.0%} of {self.pruned}"
        flags += f"-{self.keep}" if self.keep != "canonical" else ""
        return f"{sizes}-{shape}-seed{self.seed}-{self.activations}{flags}"

    def lstm(self):
        torch.manual_seed(self.seed)
        lstm = nn.LSTM(**self._shape()).eval()
        if self.density < 1:
            generator = torch.Generator().manual_seed(self.seed + 3)
            for name, parameter in lstm.named_parameters():
                if name.startswith(self.pruned):
                    prune_blocks_(parameter.data, name, self.density, generator)
        return lstm

    def _shape(self):
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first"]
        return {n: getattr(self, n) for n in [*names, "bidirectional", "proj_size"]}

    def new(self, **options):
        """A fast module with weights of its own."""
        return _fast_class(self)(**{**self._shape(), **self.options(), **options})

    def fast(self):
        """A module of its own each time; equal weights are compressed once."""
        return copy.deepcopy(_compressed(replace(self, T=1, B=1)))

    def cell(self):
        """An nn.LSTMCell with the weights of layer 0."""
        cell = nn.LSTMCell(self.input_size, self.hidden_size, bias=self.bias)
        state = self.lstm().state_dict()
        cell.load_state_dict({name: state[f"{name}_l0"] for name in cell.state_dict()})
        return cell

    def fast_cell(self):
        return _fast_cell_class(self).from_float(self.cell(), **self.options())

    def new_cell(self):
        """A fast cell with weights of its own."""
        sizes = self.input_size, self.hidden_size, self.bias
        return _fast_cell_class(self)(*sizes, **self.options())

    def options(self):
        """Those of from_float."""
        return {
            "activations": self.activations,
            "precision": dict(self.precision),
            "group_size": self.group_size,
            "layout": self.layout,
            "block_size": self.block_size,
            "keep": self.keep,
        }

    def shape(self):
        """As the ops take it."""
        directions = 1 + self.bidirectional
        return [self.input_size, self.hidden_size, self.proj_size, self.num_layers, directions]

    def random(self, *shape):
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(*shape, generator=generator)

    def matrices(self):
        """Rows and columns by name."""
        return LstmShape(*self.shape()).matrices

    def x(self):
        first = (self.B, self.T) if self.batch_first else (self.T, self.B)
        return self.random(*first, self.input_size)

    def state(self):
        """h0 goes beyond 1, which the kernels must scale for, in every other row of the batch."""
        rows = (self.num_layers * (1 + self.bidirectional), self.B)
        h0 = self.random(*rows, self.proj_size or self.hidden_size)
        h0[:, 1::2].tanh_()
        return h0, self.random(*rows, self.hidden_size)

    def lengths(self):
        """One for each row, in no order, the longest T."""
        generator = torch.Generator().manual_seed(self.seed + 2)
        lengths = torch.randint(1, self.T + 1, (self.B,), generator=generator)
        lengths[self.seed % self.B] = self.T
        return lengths


def prune_blocks_(matrix, name, density, generator=None):
    """Zeros all but that share of the 8x4 blocks of each gate of nn.LSTM's matrix of that name."""
    for gate in matrix.chunk(1 if name.startswith("weight_hr") else 4):
        blocks = [math.ceil(size / length) for size, length in zip(gate.shape, (8, 4), strict=True)]
        kept = torch.rand(blocks, generator=generator) < density
        spread = kept.repeat_interleave(8, 0).repeat_interleave(4, 1)
        gate[~spread[: gate.shape[0], : gate.shape[1]]] = 0


def _fast_class(case):
    return lfk.FastSparseLSTM if case.activations == "float32" else lfk.FastQuantLSTM


def _fast_cell_class(case):
    return lfk.FastSparseLSTMCell if case.activations == "float32" else lfk.FastQuantLSTMCell


@cache
def _compressed(case):
    return _fast_class(case).from_float(case.lstm(), **case.options())


def to_float(fast):
    """The nn.LSTM or nn.LSTMCell of the weights that a fast module has."""
    return fast.to_dense() if hasattr(fast, "to_dense") else fast.dequantize()


def flat(result):
    """(y, (h, c)) as (y, h, c); y may be a PackedSequence."""
    y, state = result
    return (getattr(y, "data", y), *state)


def moved(value, device):
    """A tensor, or tuples of them, on a device."""
    return value.to(device) if hasattr(value, "to") else tuple(moved(v, device) for v in value)


def drawn(case, largest=64):
    """A module of random weights, integers up to `largest`; without the search for scales, which
    takes long for many weights. Up to 64, integers are pair-safe."""
    fast = case.new(device="meta")
    generator = torch.Generator().manual_seed(case.seed)
    state = {}
    for name, tensor in fast.state_dict().items():
        shape, most = case.matrices().get(name, tensor.shape), largest
        values = torch.randn(shape, generator=generator) / math.sqrt(case.hidden_size)
        if tensor.dtype in (torch.int8, torch.uint8):
            most = min(largest, 7) if tensor.dtype == torch.uint8 else largest
            values = torch.randint(-most, most + 1, shape, generator=generator).char()
        elif name.endswith("_scale"):
            values = values.abs() / largest
        if name in case.matrices() and case.density < 1:
            prune_blocks_(values, name, case.density, generator)
        state[name] = pack_int4(values) if tensor.dtype == torch.uint8 else values
    fast.load_state_dict(state)
    return fast


def assert_same(actual, expected, message=""):
    """(y, (h, c)) of two calls, bit by bit."""
    for name, a, e in zip(("y", "h", "c"), flat(actual), flat(expected), strict=True):
        assert_same_bits(a, e, f"{message}: {name}")


def by_contract(fast, x, hx=None, lengths=None):
    """What the numeric contract gives for a call of `fast`; float64 x: see reference.lstm."""
    names = ["hidden_size", "num_layers", "bidirectional", "proj_size", "precision"]
    shape = {name: getattr(fast, name) for name in names}
    time_major = x.transpose(0, 1) if fast.batch_first else x
    y, state = reference.lstm(fast.state_dict(), time_major, hx, lengths, **shape)
    return (y.transpose(0, 1) if fast.batch_first else y), state


def assert_by_contract(fast, x, hx=None, lengths=None, message=""):
    """Under every instruction set `fast` gives what the contract does, which is returned."""
    expected = by_contract(fast, x, hx, lengths)
    for isa in lfk.supported_isas():
        with chosen(isa):
            assert_same(fast(x, hx, lengths), expected, f"{isa}: {message}")
    return expected
