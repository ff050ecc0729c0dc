"""Times one streaming step through C++, NumPy and torch beside what the machine allows.

taskset -c 0 python benchmarks/streaming.py --json out.json
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lstm_fastkernels as lfk
from measuring import (
    HERE,
    about,
    argument_parser,
    compiled,
    instruction_sets,
    limits_program,
    parse_arguments,
    publish,
    switch_to,
)
from peers import run_module
from peers.ours import numpy_steps, step_in_place
from report import heading, number, table
from workloads import SIZES, Workload, floor_seconds, streaming

WORKLOADS = {workload.name: workload for workload in (streaming(*sizes) for sizes in SIZES[:4])}
SLOT_SECONDS = 0.02
PERCENTILES = (50, 99, 99.9)  # of single steps in C++


def main() -> None:
    parser = argument_parser(__doc__, ["*"])
    parser.add_argument(
        "--steps", type=int, default=100_000, help="in C++, timed one by one: for percentiles"
    )
    arguments = parse_arguments(parser, WORKLOADS)
    torch.set_num_threads(1)
    results, all_limits = [], []
    with (
        limits_program() as measure_limits,
        compiled(HERE / "streaming.cpp") as step_in_cpp,
    ):
        for workload in arguments.workloads:
            print(workload.name, file=sys.stderr, flush=True)
            limits = measure_limits()
            all_limits.append(limits)
            for isa in instruction_sets(arguments.isa):
                floor = floor_seconds(workload, limits)[f"int8 {isa}"] * 1e6
                times = time_steps(workload, isa, step_in_cpp, arguments)
                results.append({"name": workload.name, "isa": isa, "floor_us": floor, **times})
    report = about(arguments, all_limits) | {"steps": results}
    publish(arguments, report, markdown(report))


@torch.inference_mode()
def time_steps(
    workload: Workload, isa: str, step_in_cpp: Callable[..., Any], arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """The median over the rounds, in which all take turns, of microseconds for a step; and
    percentiles of single steps in C++ over all rounds."""
    switch_to(isa)
    rounds = arguments.repeats
    each: list[float] = []
    lstm = workload.float_lstm()
    fast = lfk.FastQuantLSTM.from_float(lstm)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.safetensors")
        lfk.save_file(fast, path)
        environment = {"LSTM_FASTKERNELS_ISA": isa}

        def in_cpp() -> float:
            steps = math.ceil(arguments.steps / rounds)
            found = step_in_cpp(path, SLOT_SECONDS, steps, environment=environment)
            each.extend(found["each_us"])
            return found["median_us"]

        ways = {
            "C++": in_cpp,
            "NumPy": timed(numpy_steps(workload, path), workload.steps),
            "step": timed(step_in_place(workload, fast), workload.steps),
            "forward": timed(run_module(workload, fast), workload.steps),
            "nn.LSTM": timed(run_module(workload, lstm), workload.steps),
        }
        times = [[way() for way in ways.values()] for _ in range(rounds)]
    percentiles = np.percentile(each, PERCENTILES).tolist()
    return {
        "median_us": dict(zip(ways, np.median(times, axis=0).tolist(), strict=True)),
        "each_us": {f"p{p:g}": us for p, us in zip(PERCENTILES, percentiles, strict=True)},
    }


def timed(run: Callable[[], Any], steps: int) -> Callable[[], float]:
    """What is given times `run` for about SLOT_SECONDS: microseconds for one of its steps."""

    def time() -> float:
        once = timeit.timeit(run, number=1)  # brings the weights back into the caches, too
        calls = max(1, round(SLOT_SECONDS / once))
        return timeit.timeit(run, number=calls) / calls / steps * 1e6

    return time


def markdown(report: dict[str, Any]) -> str:
    rows, single = [], []
    for result in report["steps"]:
        times, floor = result["median_us"], result["floor_us"]
        labels = [result["name"], result["isa"]]
        figures = [floor, *times.values(), times["C++"] / floor, 1.3 * floor + 0.2]
        rows.append([*labels, *map(number, figures)])
        single.append([*labels, *map(number, result["each_us"].values())])
    labels = ["workload", "instruction set"]
    ways, percentiles = report["steps"][0]["median_us"], report["steps"][0]["each_us"]
    header = [*labels, "floor", *ways, "C++ / floor", "1.3 floors + 0.2 us"]
    sections = [
        heading(report),
        "### Microseconds for a streaming step, batch 1",
        table(header, rows, labels=2),
        "### Percentiles of single steps in C++, microseconds",
        table([*labels, *percentiles], single, labels=2),
    ]
    return "\n\n".join(sections)


if __name__ == "__main__":
    main()
