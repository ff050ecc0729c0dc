"""Arguments that another thread writes during a call: what is checked is what is used."""

import random
import threading
from contextlib import contextmanager

import torch

from bad_calls import REFUSED
from cases import Case, assert_same
from isas import assert_same_bits

CASE = Case(5, 9, T=400, B=2)
PACKED = CASE.fast().packed
ROWS = torch.full((CASE.T,), 1)


@contextmanager
def changing(tensor, values):
    """Another thread gives the tensor one of these values again and again."""
    done = threading.Event()

    def change():
        while not done.is_set():
            tensor.copy_(random.choice(values))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(x, counts):
    return torch.ops.lstm_fastkernels.lstm(x, None, None, counts, PACKED, CASE.shape(), False)


def test_batch_sizes_are_read_once():
    """Those of a shorter sequence fit x, those of a longer one do not."""
    short, long = ROWS.clone(), 2 * ROWS
    short[0] = 2
    x = CASE.random(int(short.sum()), 5)
    expected, counts, ran = run(x, short), short.clone(), 0
    with changing(counts, (short, long)):
        for _ in range(500):
            try:
                result = run(x, counts)
            except REFUSED:
                continue
            ran += 1
            assert_same_bits(result, expected)
    assert ran


def test_lengths_are_read_once():
    x = CASE.x()[:, :1]
    lengths = [torch.tensor([n]) for n in (1, CASE.T, -(2**40))]
    expected, counts = [run(x, given) for given in lengths[:2]], lengths[0].clone()
    with changing(counts, lengths):
        for _ in range(500):
            try:
                y, *state = run(x, counts)
            except REFUSED:
                continue
            one = expected[0 if torch.equal(y, expected[0][0]) else 1]
            assert_same((y, tuple(state)), (one[0], tuple(one[1:])))
