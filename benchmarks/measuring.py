"""What the comparisons share: the command line, the machine's limits, turns, and the check."""

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
import shlex
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
from lstm_fastkernels import runtime
from peers import Peer, Run, as_array
from report import limits_section, summary
from workloads import Workload

HERE = Path(__file__).parent
MIN_SECONDS = 0.01  # of a timed slot, unless one run takes longer
# Between peers, where they have several threads: those of the one before may still spin, waiting
# for work.
PAUSE_SECONDS = 0.1


def argument_parser(doc: str | None, workloads: list[str]) -> argparse.ArgumentParser:
    """The options of every comparison."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", default=workloads, metavar="GLOB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--isa", choices=instruction_sets(), help="the best that ours may use")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def parse_arguments(
    parser: argparse.ArgumentParser, workloads: dict[str, Workload]
) -> argparse.Namespace:
    """The arguments, with the workloads of that name in the place of the patterns."""
    arguments = parser.parse_args()
    patterns = arguments.workloads
    arguments.workloads = [
        workload
        for name, workload in workloads.items()
        if any(fnmatch(name, pattern) for pattern in patterns)
    ]
    if not instruction_sets():
        parser.error("there is nothing to compare: no kernels but the scalar ones can run here")
    if not arguments.workloads:
        parser.error(f"no workload matches {patterns}; there are {', '.join(workloads)}")
    return arguments


def instruction_sets(best: str | None = None) -> list[str]:
    """What ours is timed with, best first: the scalar code is the reference, not a contestant."""
    isas = [isa for isa in reversed(lfk.supported_isas()) if isa != "scalar"]
    return isas[isas.index(best) :] if best else isas


@contextlib.contextmanager
def compiled(source: Path, *, linked: bool = True) -> Iterator[Callable[..., Any]]:
    """Gives a function that runs a C++ program, compiled at its first run, and returns the JSON
    that it prints; `linked` to the package's static libraries."""
    flags: list[str | Path] = []
    if linked:
        names = ("lstm_fastkernels_file", "lstm_fastkernels")
        libraries = [Path(lfk.get_library_dir(), f"lib{name}.a") for name in names]
        flags = ["-pthread", f"-I{lfk.get_include()}", *libraries]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")

        def run(*arguments: object, environment: dict[str, str] | None = None) -> Any:
            if not program.exists():
                compiler = os.environ.get("CXX", "g++")
                command = [compiler, "-O3", "-std=c++17", source, *flags, "-o", program]
                subprocess.run(command, check=True)
            finished = subprocess.run(
                [program, *map(str, arguments)],
                check=True,
                stdout=subprocess.PIPE,
                env=os.environ | (environment or {}),
            )
            return json.loads(finished.stdout)

        yield run


def limits_program() -> contextlib.AbstractContextManager[Callable[[], dict[str, Any]]]:
    """Compiles limits.cpp; what is given measures this machine's limits."""
    return compiled(HERE / "limits.cpp", linked=False)


def about(arguments: argparse.Namespace, all_limits: list[dict[str, Any]]) -> dict[str, Any]:
    """What a report says of the machine and of the way that it was measured."""
    return {
        "cpu": all_limits[0]["cpu"],
        **surroundings(),
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "limits": {kind: _medians(all_limits, kind) for kind in ("bandwidth_gbs", "gmacs")},
    }


def surroundings() -> dict[str, Any]:
    """When and with what something was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": _versions(),
    }


def publish(arguments: argparse.Namespace, report: dict[str, Any], text: str) -> None:
    """Prints the report's text, and writes the files that the arguments ask for."""
    if "limits" in report:
        text = f"{text}\n\n{limits_section(report['limits'])}\n"
    print(text)
    if arguments.json:
        arguments.json.write_text(summary(report))
    if arguments.markdown:
        arguments.markdown.write_text(text)


@torch.inference_mode()
def reference(workload: Workload, lstm: nn.LSTM) -> np.ndarray:
    """The outputs of nn.LSTM in float64."""
    return copy.deepcopy(lstm).double()(workload.inputs().double())[0].numpy()


def snr_db(outputs: np.ndarray, expected: np.ndarray) -> float | None:
    """The signal-to-noise ratio in dB; None if outputs are not finite or have another shape."""
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return None
    noise = np.sum((outputs - expected) ** 2)
    return 10 * math.log10(np.sum(expected**2) / noise) if noise else math.inf


def prepare(
    peers: list[Peer], workload: Workload, lstm: nn.LSTM, threads: int
) -> tuple[dict[Peer, Run], dict[Peer, float | None], list[str]]:
    """The calls of the peers that have one for the workload, their SNR, and who fails, and why."""
    expected = reference(workload, lstm)
    runs, snr, faults = {}, {}, []
    for peer in peers:
        switch_to(peer.isa)
        try:
            with torch.inference_mode():
                run = peer.make(workload, lstm, threads)
                if run:
                    snr[peer] = snr_db(as_array(run()), expected)
                    runs[peer] = run
        except Exception as fault:
            if peer.isa:  # ours
                raise
            faults.append(f"{peer.name} fails on {workload.name}: {fault}.")
    return runs, snr, faults


@torch.inference_mode()
def time_in_turns(runs: dict[Peer, Run], threads: int, repeats: int) -> dict[Peer, list[float]]:
    """The seconds of one run of each peer, once for each of the rounds in which all take turns."""
    numbers = {}
    for peer, run in runs.items():
        switch_to(peer.isa)
        numbers[peer] = math.ceil(MIN_SECONDS / timeit.timeit(run, number=1))
    seconds: dict[Peer, list[float]] = {peer: [] for peer in runs}
    for _ in range(repeats):
        for peer, run in runs.items():
            switch_to(peer.isa)
            if threads > 1:
                time.sleep(PAUSE_SECONDS)
            if numbers[peer] > 1:
                run()  # bring the weights back into the caches
            seconds[peer].append(timeit.timeit(run, number=numbers[peer]) / numbers[peer])
    return seconds


def switch_to(isa: str | None) -> None:
    """Ours run on that instruction set, in torch and in NumPy."""
    if isa:
        lfk.set_isa(isa)
        runtime.set_isa(isa)


def _commit() -> str:
    """Of the working tree, or empty outside of one."""
    command = ["git", "-C", HERE, "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _medians(all_limits: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """The median of each figure of one kind over all measurements of the limits."""
    return {
        name: float(np.median([limits[kind][name] for limits in all_limits]))
        for name in all_limits[0][kind]
    }


def _versions() -> dict[str, str]:
    """The versions of whatever is installed of the things that are compared."""
    installed = {"python": platform.python_version(), "torch": torch.__version__}
    for package in (HERE / "peers/requirements.txt").read_text().split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed
