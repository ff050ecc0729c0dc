"""LSTMs of all shapes and the inputs for them, named so that a failure can be repeated."""

import copy
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

import lstm_fastkernels as lfk

AWKWARD = [1, 7, 8, 9, 31, 129, 151]


@dataclass(frozen=True)
class Case:
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

    def __str__(self):
        """Reads as a test id: I9-H31-L1-D1-P0-T5-B3-seed0-int8."""
        sizes = f"I{self.input_size}-H{self.hidden_size}-L{self.num_layers}"
        shape = f"D{1 + self.bidirectional}-P{self.proj_size}-T{self.T}-B{self.B}"
        flags = "" if self.bias else "-nobias"
        flags += "-bf" if self.batch_first else ""
        return f"{sizes}-{shape}-seed{self.seed}-{self.activations}{flags}"

    def lstm(self):
        torch.manual_seed(self.seed)
        return nn.LSTM(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            bias=self.bias,
            batch_first=self.batch_first,
            bidirectional=self.bidirectional,
            proj_size=self.proj_size,
        ).eval()

    def fast(self):
        """A module of its own each time; equal weights are quantized once."""
        return copy.deepcopy(_quantized(replace(self, T=1, B=1)))

    def random(self, *shape):
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(*shape, generator=generator)

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


@cache
def _quantized(case):
    return lfk.FastQuantLSTM.from_float(case.lstm(), activations=case.activations)


def flat(result):
    """(y, (h, c)) as (y, h, c); y may be a PackedSequence."""
    y, state = result
    return (getattr(y, "data", y), *state)


def assert_same(actual, expected, message=""):
    """Equal bit by bit, signs of zeros included; a NaN equals any other."""
    for name, a, e in zip(("y", "h", "c"), flat(actual), flat(expected), strict=True):
        assert a.dtype == e.dtype, f"{message}: {name} is {a.dtype}, not {e.dtype}"
        assert a.shape == e.shape, f"{message}: {name} has shape {a.shape}, not {e.shape}"
        equal = (a == e) & (a.signbit() == e.signbit())
        different = ~(equal | (a.isnan() & e.isnan()))
        assert not different.any(), (
            f"{message}: {name} differs in {int(different.sum())} of {different.numel()} elements,"
            f" first at {different.nonzero()[0].tolist()}"
        )
