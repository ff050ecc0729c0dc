"""The fast modules on several threads and in several processes."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from cases import Case, assert_same
from isas import everywhere

# 38 million products: large enough for a call to be worth several threads.
LARGE = Case(64, 128, bidirectional=True, T=24, B=8)


def test_concurrent_calls_on_one_module(threads):
    threads(2)
    fast = LARGE.fast()
    inputs = [replace(LARGE, seed=n).x() for n in range(8)]
    expected = [fast(x) for x in inputs]

    def at_once():
        with ThreadPoolExecutor(4) as pool:
            return tuple(pool.map(fast, inputs))

    for results in (everywhere(at_once)(), at_once(), at_once()):
        for n, result in enumerate(results):
            assert_same(result, expected[n], f"input {n}")


def test_first_calls_at_once():
    """Packing on first use is safe from several threads."""

    def at_once(seed):
        fast = Case(seed=seed).fast()
        with ThreadPoolExecutor(4) as pool:
            return tuple(pool.map(fast, [Case().x()] * 4))

    for seed in range(10):
        results = everywhere(at_once)(seed)
        for result in results:
            assert_same(result, results[0], f"seed {seed}")


def test_fork_after_threads_were_used(threads):
    """torch's own OpenMP threads do not survive fork: the child compares bytes, not tensors."""
    threads(2)
    fast, x = LARGE.fast(), LARGE.x()
    expected = fast(x)[0].numpy().tobytes()

    def differs():
        return fast(x)[0].numpy().tobytes() != expected

    def differs_in_a_child():
        assert not differs()
        child = os.fork()
        if child == 0:
            os._exit(differs())
        return os.waitpid(child, 0)[1]

    assert everywhere(differs_in_a_child)() == 0
    assert not differs()


class Outputs(torch.utils.data.Dataset):
    """Runs the module inside DataLoader workers."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 6

    def __getitem__(self, n):
        return self.module(LARGE.x() + n)[0].detach()


def test_dataloader_workers(threads):
    threads(2)
    outputs = Outputs(LARGE.fast())
    expected = [outputs[n] for n in range(len(outputs))]
    loader = torch.utils.data.DataLoader(
        outputs, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for n, y in enumerate(everywhere(lambda: tuple(loader))()):
        assert torch.equal(y, expected[n]), f"item {n}"
