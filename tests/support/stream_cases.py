"""Many streams at once, and each alone: random schedules for every kind of StreamBatch."""

import random
from dataclasses import replace

import torch

import lstm_fastkernels as lfk
from cases import KINDS, Case
from id_cases import folded
from isas import assert_same_bits, everywhere

CASE = Case(9, 31, 2)
CASES = {
    "plain": CASE,
    "one layer": replace(CASE, num_layers=1),
    "projection": replace(CASE, proj_size=13),
    "batch_first": replace(CASE, batch_first=True),
    **{name: replace(CASE, **kind) for name, kind in KINDS.items()},
}


def low_rank():
    """A fast module of factors."""
    lstm = CASE.lstm()
    lfk.factorize_(lstm, lfk.LowRankConfig(5))
    return lfk.FastQuantLSTM.from_float(lstm)


# That are run with x of one dtype.
OTHERS = {"low rank": low_rank, "token ids": lambda: folded(CASE)}


def random_input(fast, count, dtype=torch.float32, generator=None):
    """x of a tick: of this dtype, or of ids."""
    if fast.takes_ids:
        kind = torch.int64 if count % 2 else torch.int32
        return torch.randint(fast.input_size, (count,), generator=generator, dtype=kind)
    return torch.randn(count, fast.input_size, generator=generator).to(dtype)


class Schedule:
    """A batch and, beside it, each of its streams alone, by `step` of the module.

    The batch has the methods of lfk.StreamBatch, on torch's tensors. dtype: that of x, where the
    module takes no ids.
    """

    def __init__(self, fast, batch, dtype, seed):
        self.fast, self.batch, self.dtype = fast, batch, dtype
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.alone = {}
        self.outputs = []

    def run(self, actions):
        """The bits of all that came out."""
        for _ in range(actions):
            name = self.random.choice(["join", "fork", "leave", "reset", "reorder", "swap", *TICKS])
            if name == "join" or not self.alone:
                self.join()
            else:
                getattr(self, name)()
            assert self.batch.streams == sorted(self.alone)
            assert len(self.batch) == len(self.alone)
        for stream, state in self.alone.items():
            assert_same_bits(tuple(self.batch.get_state(stream)), tuple(state), f"stream {stream}")
        return tuple(self.outputs)

    def any(self):
        return self.random.choice(list(self.alone))

    def some(self):
        return self.random.sample(list(self.alone), self.random.randint(0, len(self.alone)))

    @property
    def full(self):
        return len(self.alone) == self.batch.capacity

    def join(self):
        if not self.full:
            self.alone[self.batch.join()] = self.fast.new_state(1)

    def fork(self):
        if not self.full:
            stream = self.any()
            self.alone[self.batch.fork(stream)] = self.alone[stream].copy()

    def leave(self):
        stream = self.any()
        self.batch.leave(stream)
        del self.alone[stream]

    def reset(self):
        stream = self.any()
        self.batch.reset(stream)
        self.alone[stream].reset()

    def reorder(self):
        streams = self.some()
        sources = [self.any() for _ in streams]
        self.batch.reorder(streams, sources)
        before = {stream: state.copy() for stream, state in self.alone.items()}
        for stream, source in zip(streams, sources, strict=True):
            self.alone[stream] = before[source].copy()

    def swap(self):
        """A snapshot of one stream for another."""
        stream, other = self.any(), self.any()
        self.batch.set_state(stream, self.batch.get_state(other))
        self.alone[stream] = self.alone[other].copy()

    def tick(self):
        streams = self.some()
        x = random_input(self.fast, len(streams), self.dtype, self.generator)
        y = self.batch.tick(streams, x)
        assert y.dtype == (torch.float32 if self.fast.takes_ids else self.dtype)
        for i, stream in enumerate(streams):
            expected = self.fast.step(x[i : i + 1], self.alone[stream])
            assert_same_bits(y[i : i + 1], expected, f"stream {stream}")
        self.outputs.append(y)


TICKS = ["tick"] * 6


def check_schedules(fast, make, dtype=torch.float32):
    """`make(capacity)` is a StreamBatch of the module."""
    for capacity in (1, 2, 9):
        everywhere(lambda n=capacity: Schedule(fast, make(n), dtype, n).run(50))()
