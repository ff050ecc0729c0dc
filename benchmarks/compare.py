"""Times FastQuantLSTM beside its peers and this machine's limits: see README.md for the method.

taskset -c 0 python benchmarks/compare.py --workloads 'Q_*' 'S_*' --json out.json
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import lstm_fastkernels as lfk
from peers import Peer, Run, as_array, available_peers
from report import markdown
from workloads import WORKLOADS, Workload, floor_seconds

MIN_SECONDS = 0.01  # of a timed slot, unless one run takes longer


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    peers, notes = available_peers(instruction_sets(arguments.isa))
    results, all_limits = [], []
    with limits_program() as measure_limits:
        for workload in arguments.workloads:
            print(workload.name, file=sys.stderr, flush=True)
            # Anew each time: clock rates drift within minutes.
            limits = measure_limits()
            all_limits.append(limits)
            results.append(compare(workload, peers, limits, arguments.threads, arguments.repeats))
    report = {
        "cpu": limits["cpu"],
        "date": datetime.date.today().isoformat(),
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "versions": versions(),
        "notes": notes,
        "limits": {kind: medians(all_limits, kind) for kind in ("bandwidth_gbs", "gmacs")},
        "workloads": results,
    }
    text = markdown(report)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--isa", choices=instruction_sets(), help="the best that ours may use")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    patterns = arguments.workloads
    arguments.workloads = [
        workload
        for name, workload in WORKLOADS.items()
        if any(fnmatch(name, pattern) for pattern in patterns)
    ]
    if not instruction_sets():
        parser.error("there is nothing to compare: no kernels but the scalar ones can run here")
    if not arguments.workloads:
        parser.error(f"no workload matches {patterns}; there are {', '.join(WORKLOADS)}")
    return arguments


def instruction_sets(best: str | None = None) -> list[str]:
    """What ours is timed with, best first: the scalar code is the reference, not a contestant."""
    isas = [isa for isa in reversed(lfk.supported_isas()) if isa != "scalar"]
    return isas[isas.index(best) :] if best else isas


@contextlib.contextmanager
def limits_program() -> Iterator[Callable[[], dict[str, Any]]]:
    """Compiles limits.cpp; what is given runs it and returns what it prints."""
    source = Path(__file__).with_name("limits.cpp")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "limits")
        compiler = os.environ.get("CXX", "g++")
        subprocess.run([compiler, "-O3", "-std=c++17", source, "-o", program], check=True)
        yield lambda: json.loads(
            subprocess.run([program], check=True, stdout=subprocess.PIPE).stdout
        )


def medians(all_limits: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """The median of each figure of one kind over all measurements of the limits."""
    return {
        name: float(np.median([limits[kind][name] for limits in all_limits]))
        for name in all_limits[0][kind]
    }


def versions() -> dict[str, str]:
    """The versions of whatever is installed of the things that are compared."""
    installed = {"python": platform.python_version(), "torch": torch.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed["onnxruntime"] = importlib.metadata.version("onnxruntime")
    return installed


def compare(
    workload: Workload, peers: list[Peer], limits: dict[str, Any], threads: int, repeats: int
) -> dict[str, Any]:
    """The report's part on one workload; the times are for one step of the whole batch."""
    lstm = workload.float_lstm()
    runs = {peer: run for peer in peers if (run := peer.make(workload, lstm, threads))}
    snr = check(runs, reference(workload, lstm))
    times = {
        peer: np.array(seconds) * 1e6 / workload.steps
        for peer, seconds in time_in_turns(runs, threads, repeats).items()
    }
    floors = {key: seconds * 1e6 for key, seconds in floor_seconds(workload, limits).items()}

    def result(peer: Peer) -> dict[str, Any]:
        median = float(np.median(times[peer]))
        floor = floors[peer.floor] if peer.floor else min(floors.values())
        return {
            "peer": peer.name,
            "median_us": median,
            "min_us": float(times[peer].min()),
            "gmacs": workload.weights() * workload.batch / median * 1e-3,
            # Turn by turn, so that a drift of the clock rate cancels out.
            "ratio_to_ours": float(np.median(times[peer] / times[peers[0]])),
            "ratio_to_floor": median / floor,
            "snr_db": snr[peer],
        }

    return {
        "name": workload.name,
        "int8_bytes": workload.weights(),
        "packed_bytes": lfk.FastQuantLSTM.from_float(lstm).packed_bytes(),
        "floors_us": floors,
        "results": [result(peer) for peer in runs],
    }


@torch.inference_mode()
def reference(workload: Workload, lstm: nn.LSTM) -> np.ndarray:
    """The outputs of nn.LSTM in float64."""
    return copy.deepcopy(lstm).double()(workload.inputs().double())[0].numpy()


@torch.inference_mode()
def check(runs: dict[Peer, Run], expected: np.ndarray) -> dict[Peer, float]:
    """The signal-to-noise ratio of each peer's outputs in dB."""
    snr = {}
    for peer, run in runs.items():
        switch_to(peer)
        noise = as_array(run()) - expected
        snr[peer] = 10 * math.log10(np.sum(expected**2) / np.sum(noise**2))
    return snr


@torch.inference_mode()
def time_in_turns(runs: dict[Peer, Run], threads: int, repeats: int) -> dict[Peer, list[float]]:
    """The seconds of one run of each peer, once for each of the rounds in which all take turns."""
    numbers = {}
    for peer, run in runs.items():
        switch_to(peer)
        numbers[peer] = math.ceil(MIN_SECONDS / timeit.timeit(run, number=1))
    seconds: dict[Peer, list[float]] = {peer: [] for peer in runs}
    for _ in range(repeats):
        for peer, run in runs.items():
            switch_to(peer)
            if threads > 1:
                time.sleep(0.02)  # the threads of the peer before may still spin, waiting for work
            if numbers[peer] > 1:
                run()  # bring the weights back into the caches
            seconds[peer].append(timeit.timeit(run, number=numbers[peer]) / numbers[peer])
    return seconds


def switch_to(peer: Peer) -> None:
    if peer.isa:
        lfk.set_isa(peer.isa)


if __name__ == "__main__":
    main()
