"""Whether the kernels run on this device at all: small forwards, compared with the CPU's bits.

python benchmarks/gpu_smoke.py device | plain | grid | cluster

Prints JSON Lines. `device` tells what device and versions these are and which kernels the
benchmark's calls would run; the others run a path, and fail where the bits differ.
"""

from __future__ import annotations

import copy
import json
import platform
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import gpu
import lstm_fastkernels as lfk

# Hidden sizes and batches that take each path on a device of 108 multiprocessors or more, and what
# `explain` then says; "plain" needs LSTM_FASTKERNELS_PERSISTENT=0.
PATHS = {
    "plain": ("launches each step", [(128, 1), (768, 16)]),
    "grid": ("of the grid", [(512, 16), (768, 16)]),
    "cluster": ("in a cluster", [(128, 1), (512, 1)]),
}
STEPS = 70
CALLS = 2  # the second raises where blocks of the first waited too long for each other


def device() -> Iterator[dict[str, Any]]:
    major, minor = torch.cuda.get_device_capability()
    yield gpu.about() | {"capability": f"{major}.{minor}", "python": platform.python_version()}
    for job in gpu.picked(gpu.FIRST):
        w = job.workload
        fast = gpu.quantized(w.float_lstm(), "dense").to(gpu.DEVICE)
        x = torch.empty(1 if w.streaming else w.steps, w.batch, w.input_size, device=gpu.DEVICE)
        yield {"job": job.name, "explain": lfk.explain(fast, x).splitlines()}


@torch.inference_mode()
def forwards(path: str) -> Iterator[dict[str, Any]]:
    expected_path, sizes = PATHS[path]
    for hidden, batch in sizes:
        torch.manual_seed(1)
        on_cpu = gpu.quantized(nn.LSTM(hidden, hidden), "dense")
        on_device = copy.deepcopy(on_cpu).to(gpu.DEVICE)
        x = torch.randn(STEPS, batch, hidden)
        expected = on_cpu(x)
        there = x.to(gpu.DEVICE)
        explained = lfk.explain(on_device, there).splitlines()[1:]
        wrong = [differences(on_device(there), expected) for _ in range(CALLS)]
        yield {
            **{"path": path, "hidden_size": hidden, "batch": batch, "steps": STEPS},
            **{"explain": explained, "takes_the_path": expected_path in explained[0]},
            **{"same_bits": not any(map(any, wrong)), "differences_of_y_h_c": wrong},
        }


def differences(result: Any, expected: Any) -> list[int]:
    """How many floats of y, h and c differ."""

    def bits(outputs: Any) -> list[Tensor]:
        y, (h, c) = outputs
        return [tensor.cpu().contiguous().view(torch.int32) for tensor in (y, h, c)]

    return [int((a != b).sum()) for a, b in zip(bits(result), bits(expected), strict=True)]


def main() -> None:
    (what,) = sys.argv[1:]
    right = True
    for answer in device() if what == "device" else forwards(what):
        print(json.dumps(answer), flush=True)
        right &= answer.get("same_bits", True)
    sys.exit(not right)


if __name__ == "__main__":
    main()
