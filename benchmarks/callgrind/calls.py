"""The calls whose instructions are counted: counts.py runs this under callgrind."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import lstm_fastkernels as lfk
from lstm_fastkernels.ops import eager

WARM_UP_CALLS = 3
COUNTED_CALLS = 5  # one by one: memory is now and then less at hand


def module(inputs: int, units: int, **options: Any) -> torch.nn.Module:
    """An LSTM as `convert` makes it; 90% of the blocks of a block-sparse one are zero."""
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(inputs, units)
    if options.get("layout") == "block_sparse":
        lfk.prune_(lstm, lfk.PruneConfig(sparsity=0.9, block_size=(8, 4)))
        lfk.remove_pruning_(lstm)
    fast = lfk.convert(lstm.eval().requires_grad_(False), **options)
    fast(torch.zeros(1, 1, inputs))  # packs the weights
    return fast


def forward(lstm: Any, steps: int = 20, rows: int = 1) -> Callable[[], object]:
    x = torch.randn(steps, rows, lstm.input_size)
    return partial(eager.lstm, lstm, x, None)


def step(lstm: Any) -> Callable[[], object]:
    x, state = torch.randn(1, lstm.input_size), lstm.new_state(1)
    return partial(eager.step, lstm, x, state, None, None)


def call(lstm: Any) -> Callable[[], object]:
    return partial(eager.call, lstm, (torch.randn(1, 1, lstm.input_size),))


def calls() -> dict[str, Callable[[], object]]:
    """By name; sizes are inputs -> hidden units."""
    int8 = module(40, 128, pair_safe=True)
    return {
        "step, 3 -> 8": step(module(3, 8)),
        "step, 40 -> 128": step(int8),
        "call, beside forward": call(int8),
        "forward, 40 -> 128, 1 step": forward(int8, steps=1),
        "forward, 40 -> 128, 20 steps": forward(int8),
        "forward, 40 -> 128, 20 steps, 8 rows": forward(int8, rows=8),
        "forward, 65 -> 151, 20 steps, 3 rows": forward(module(65, 151, pair_safe=True), rows=3),
        **{
            f"forward, 40 -> 128, 20 steps, {name}": forward(module(40, 128, **options))
            for name, options in {
                "any int8 weights": {"pair_safe": False},
                "int16": {"activations": "int16"},
                "int4": {"activations": "int4"},
                "float32": {"weights": "float32", "layout": "dense"},
                "int8 block-sparse": {"layout": "block_sparse", "pair_safe": True},
            }.items()
        },
    }


def main() -> None:
    client = ctypes.CDLL(sys.argv[1])
    torch.set_num_threads(1)
    with torch.inference_mode():
        named = calls()
        for call in named.values():
            for _ in range(WARM_UP_CALLS):
                if call() is None:
                    raise RuntimeError("the call takes the long way, through torch's dispatcher")
        client.start()
        for name, call in named.items():
            call()
            for _ in range(COUNTED_CALLS):
                client.forget()
                call()
                client.write_counts(name.encode())


if __name__ == "__main__":
    main()
