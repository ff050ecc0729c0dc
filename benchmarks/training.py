"""Times a training step of an LSTM that is prepared for quantization, beside nn.LSTM's.

taskset -c 0 python benchmarks/training.py --json out.json --markdown out.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

import lstm_fastkernels as lfk
from measuring import limits_program, publish, surroundings
from report import number, table

T, B = 100, 32
SIZES = (128, 256, 512)  # of inputs and hidden units
CONFIGS = {
    "int8": lfk.Int8Config(),
    "int16": lfk.Int8Config(activations="int16"),
    "int4": lfk.Int4Config(),
}


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with limits_program() as measure_limits:
        cpu = measure_limits()["cpu"]
    rows = [measure(size, arguments.repeats) for size in tqdm(SIZES, "sizes")]
    about = {"cpu": cpu, **surroundings(), "threads": arguments.threads, "isa": lfk.get_isa()}
    report = about | {"steps": T, "rows": B, "sizes": rows}
    publish(arguments, report, markdown(report))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def measure(size: int, repeats: int) -> dict[str, Any]:
    """The report's part on LSTMs of one size: medians, and of the ratios in each turn."""
    steps = {"nn.LSTM": training_step(size, None)}
    steps |= {name: training_step(size, config) for name, config in CONFIGS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    base = seconds["nn.LSTM"]
    return {
        "size": size,
        "median_ms": {name: 1e3 * statistics.median(own) for name, own in seconds.items()},
        "times_float": {
            name: statistics.median(a / b for a, b in zip(own, base, strict=True))
            for name, own in seconds.items()
        },
    }


def training_step(size: int, config: lfk.Int8Config | lfk.Int4Config | None) -> Callable[[], None]:
    """Forward, backward and the optimizer's step of one LSTM layer."""
    torch.manual_seed(0)
    lstm = nn.LSTM(size, size)
    if config:
        lfk.quantize_(lstm, lfk.QATConfig(config, "prepare"))
    optimizer = torch.optim.SGD(lstm.parameters(), lr=1e-4)
    x = torch.randn(T, B, size)

    def step() -> None:
        loss = lstm(x)[0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def markdown(report: dict[str, Any]) -> str:
    head = ["H = I", "nn.LSTM, ms", *(f"{name}, times" for name in CONFIGS)]
    rows = [
        [
            str(row["size"]),
            number(row["median_ms"]["nn.LSTM"]),
            *(f"{row['times_float'][name]:.2f}" for name in CONFIGS),
        ]
        for row in report["sizes"]
    ]
    title = f"{report['cpu']}, {report['threads']} thread(s), {report['isa']}, {report['date']}"
    return f"{title}\n\n{table(head, rows)}\n"


if __name__ == "__main__":
    main()
