"""Times FastQuantLSTM beside its peers and this machine's limits: see README.md for the method.

taskset -c 0 python benchmarks/compare.py --workloads 'Q_*' 'S_*' --json out.json
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

import lstm_fastkernels as lfk
from measuring import (
    about,
    argument_parser,
    instruction_sets,
    limits_program,
    parse_arguments,
    prepare,
    publish,
    time_in_turns,
)
from peers import Peer, available, ours
from report import markdown
from workloads import WORKLOADS, Workload, floor_seconds


def main() -> None:
    arguments = parse_arguments(argument_parser(__doc__, ["*"]), WORKLOADS)
    torch.set_num_threads(arguments.threads)
    others, notes = available()
    peers = ours(instruction_sets(arguments.isa)) + others
    results, all_limits = [], []
    with limits_program() as measure_limits:
        for workload in arguments.workloads:
            print(workload.name, file=sys.stderr, flush=True)
            # Anew each time: clock rates drift within minutes.
            limits = measure_limits()
            all_limits.append(limits)
            part, faults = compare(workload, peers, limits, arguments.threads, arguments.repeats)
            results.append(part)
            notes += faults
    report = about(arguments, all_limits) | {"notes": notes, "workloads": results}
    publish(arguments, report, markdown(report))


def compare(
    workload: Workload, peers: list[Peer], limits: dict[str, Any], threads: int, repeats: int
) -> tuple[dict[str, Any], list[str]]:
    """The report's part on one workload, where times are for one step of the whole batch; and who
    fails."""
    lstm = workload.float_lstm()
    runs, snr, faults = prepare(peers, workload, lstm, threads)
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
            "ours": peer.isa is not None,
            "median_us": median,
            "min_us": float(times[peer].min()),
            "gmacs": workload.weights() * workload.batch / median * 1e-3,
            # Turn by turn, so that a drift of the clock rate cancels out.
            "ratio_to_ours": float(np.median(times[peer] / times[peers[0]])),
            "ratio_to_floor": median / floor,
            "snr_db": snr[peer],
        }

    part = {
        "name": workload.name,
        "int8_bytes": workload.weights(),
        "packed_bytes": lfk.FastQuantLSTM.from_float(lstm).packed_bytes(),
        "floors_us": floors,
        "results": [result(peer) for peer in runs],
    }
    return part, faults


if __name__ == "__main__":
    main()
