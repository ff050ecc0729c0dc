"""Times the block-sparse kernels beside our dense ones, nn.LSTM and torch's sparse products.

taskset -c 0 python benchmarks/sparse.py --workloads 'Q_*' --density 0.1 --block 16x32
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lstm_fastkernels as lfk
from measuring import (
    HERE,
    about,
    argument_parser,
    compiled,
    instruction_sets,
    limits_program,
    parse_arguments,
    prepare,
    publish,
    reference,
    snr_db,
    switch_to,
    time_in_turns,
)
from peers import Peer, Run, as_array, available, run_module
from report import heading, is_wrong, notes_section, number, right, snr_cell, table
from workloads import SIZES, Pruning, Workload, batched, floor_seconds, sequence, streaming

WORKLOADS = {
    workload.name: workload
    for sizes in SIZES[1:]
    for workload in (
        streaming(*sizes),
        sequence(*sizes),
        batched(8, *sizes),
        batched(32, *sizes),
    )
}
STEP_BATCHES = (1, 8, 32)
STEP_ROUNDS = 9  # at least

# Whose time over ours is a speed-up.
BASELINES = {
    "int8 sparse": "int8 dense",
    "int16 sparse": "int16 dense",
    "float32 sparse": "nn.LSTM",
}
LEAST_FLOAT32_SNR_DB = 100.0

# The microseconds of a step in each round, by what took them: a name and an instruction set, which
# is None where a peer picks its own.
Times = dict[tuple[str, str | None], np.ndarray]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    dense_peers, notes = ([], []) if arguments.only == "kernels" else available()
    models = product(dict.fromkeys(map(_sizes, arguments.workloads)), arguments.prunings)
    calls, steps, all_limits = [], [], []
    with limits_program() as measure_limits, compiled(HERE / "step.cpp") as run:
        for sizes, pruning in models:
            print(*sizes, pruning, file=sys.stderr, flush=True)
            limits = measure_limits()  # anew each time: clock rates drift within minutes
            all_limits.append(limits)
            if arguments.only != "kernels":
                workloads = [w for w in arguments.workloads if _sizes(w) == sizes]
                pruned = [replace(workload, pruning=pruning) for workload in workloads]
                records, faults = time_calls(pruned, dense_peers, limits, arguments)
                calls += records
                notes += faults
            if arguments.only != "calls":
                steps += time_steps(
                    replace(streaming(*sizes), pruning=pruning), run, limits, arguments
                )
    report = about(arguments, all_limits) | {
        "notes": list(dict.fromkeys(notes)),
        "matrices": arguments.matrices,
        "calls": calls,
        "steps": steps,
    }
    publish(arguments, report, markdown(report))


def parse() -> argparse.Namespace:
    parser = argument_parser(__doc__, ["*_256_512", "*_512_1024"])
    parser.add_argument("--density", nargs="+", type=float, default=[0.5, 0.2, 0.1, 0.05])
    parser.add_argument("--block", nargs="+", default=["8x4"], metavar="ROWSxCOLUMNS")
    parser.add_argument(
        "--matrices", choices=["both", "hh"], default="both", help="hh: the recurrent one alone"
    )
    only = partial(
        parser.add_mutually_exclusive_group().add_argument, dest="only", action="store_const"
    )
    only("--calls", const="calls", help="calls from Python alone")
    only("--kernels", const="kernels", help="steps without Python alone")
    arguments = parse_arguments(parser, WORKLOADS)
    blocks = [tuple(map(int, block.split("x"))) for block in arguments.block]
    for (rows, columns), workload in product(blocks, arguments.workloads):
        if workload.hidden_size % rows or math.gcd(*_sizes(workload)) % columns:
            parser.error(f"blocks of {rows}x{columns} do not divide {workload.name}")
    hh_only = arguments.matrices == "hh"
    if not all(0 < density < 1 for density in arguments.density):
        parser.error("densities lie between 0 and 1")
    if hh_only and max(arguments.density) > 0.5:
        parser.error("hh takes a density of 0.5 or less: above, layout='auto' makes it dense")
    arguments.prunings = [
        Pruning(density, block, hh_only) for block, density in product(blocks, arguments.density)
    ]
    return arguments


def _sizes(workload: Workload) -> tuple[int, int]:
    return workload.input_size, workload.hidden_size


# ---- calls from Python ----


def time_calls(
    workloads: list[Workload],
    dense_peers: list[Peer],
    limits: dict[str, Any],
    arguments: argparse.Namespace,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The report's part on workloads that share one model, and which peers fail."""
    lstm = workloads[0].float_lstm()
    modules = compress(lstm, workloads[0].pruning)
    ours = [
        Peer(name, partial(_run_ours, module), isa)
        for isa in instruction_sets(arguments.isa)
        for name, module in modules.items()
    ]
    products = [
        Peer("torch CSR", partial(_torch_products, Tensor.to_sparse_csr)),
        Peer("torch BSR", partial(_torch_products, _to_square_blocks(workloads[0].pruning.block))),
    ]
    packed = {name: module.packed_bytes() for name, module in modules.items()}
    records, faults = [], []
    for workload in workloads:
        runs = {peer: peer.make(workload, lstm, arguments.threads) for peer in ours}
        snr = check(runs, reference(workload, lstm))
        peer_runs, peer_snr, failed = prepare(dense_peers, workload, lstm, arguments.threads)
        runs |= peer_runs
        runs |= {peer: peer.make(workload, lstm, arguments.threads) for peer in products}
        times: Times = {
            (peer.name, peer.isa): np.array(seconds) * 1e6 / workload.steps
            for peer, seconds in time_in_turns(runs, arguments.threads, arguments.repeats).items()
        }
        by_name = {peer.name: db for peer, db in peer_snr.items()}
        records.append(record(workload, times, packed, limits, by_name) | {"snr_db": snr})
        faults += failed
    return records, faults


def compress(lstm: nn.LSTM, pruning: Pruning) -> dict[str, nn.Module]:
    """Our modules of a pruned model."""
    # Of the two layouts that store blocks, "auto" leaves a matrix without zeros dense.
    layout = "auto" if pruning.hh_only else "block_sparse"
    modules: dict[str, nn.Module] = {}
    for activations in ("int8", "int16"):
        options = {"activations": activations, "block_size": pruning.block}
        sparse = lfk.FastQuantLSTM.from_float(lstm, layout=layout, **options)
        # The same integers: quantizing a large model takes seconds.
        sizes = lstm.input_size, lstm.hidden_size
        dense = lfk.FastQuantLSTM(*sizes, layout="dense", device="meta", **options)
        dense.load_state_dict(sparse.state_dict())
        modules |= {f"{activations} sparse": sparse, f"{activations} dense": dense}
    floats = lfk.FastSparseLSTM.from_float(lstm, layout=layout, block_size=pruning.block)
    return modules | {"float32 sparse": floats}


def _run_ours(module: nn.Module, workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, module)


def _torch_products(
    to_sparse: Callable[[Tensor], Tensor], workload: Workload, lstm: nn.LSTM, threads: int
) -> Run:
    """Torch's matrix products of the workload, and nothing else of an LSTM.

    One product with W_hh a step, and with W_ih all steps at once, or one a step when streaming.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse tensors are "in beta state"
        ih = lstm.weight_ih_l0 if workload.pruning.hh_only else to_sparse(lstm.weight_ih_l0)
        hh = to_sparse(lstm.weight_hh_l0)
    x = workload.inputs().flatten(0, 1).T.contiguous()
    times_x = _product(ih, x[:, :1].contiguous() if workload.streaming else x)
    times_h = _product(hh, torch.ones(workload.hidden_size, workload.batch))

    def run() -> None:
        for _ in range(workload.steps if workload.streaming else 1):
            times_x()
        for _ in range(workload.steps):
            times_h()

    return run


def _product(weight: Tensor, columns: Tensor) -> Run:
    # A vector is the faster operand for CSR, and the slower one for BSR.
    if columns.shape[1] == 1 and weight.layout != torch.sparse_bsr:
        columns = columns[:, 0]
    return lambda: weight @ columns


def _to_square_blocks(block: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    side = math.gcd(*block)  # products on the CPU take no other blocks
    return lambda weight: weight.to_sparse_bsr((side, side))


@torch.inference_mode()
def check(ours: dict[Peer, Run], expected: np.ndarray) -> dict[str, float | None]:
    """The SNR of each arithmetic in dB; raises unless all kernels of one give the same outputs."""
    first: dict[str, np.ndarray] = {}
    for peer, run in ours.items():
        switch_to(peer.isa)
        outputs = as_array(run())
        arithmetic = peer.name.split()[0]
        if not np.array_equal(outputs, first.setdefault(arithmetic, outputs)):
            raise RuntimeError(f"{peer.name} on {peer.isa} gives other outputs than before it")
    snr = {arithmetic: snr_db(outputs, expected) for arithmetic, outputs in first.items()}
    float32 = snr["float32"]
    if float32 is None or float32 < LEAST_FLOAT32_SNR_DB:
        raise RuntimeError(f"float32 is wrong: its SNR is {snr_cell(float32)} dB")
    return snr


# ---- steps without Python ----


def time_steps(
    workload: Workload,
    run: Callable[..., Any],
    limits: dict[str, Any],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The report's part on one step of the bare kernels, by batch."""
    records = []
    for batch in STEP_BATCHES:
        step = replace(workload, name=f"{workload.name}, B = {batch}", batch=batch)
        times: Times = {}
        for isa in instruction_sets(arguments.isa):
            printed = run(
                *_sizes(step),
                batch,
                step.pruning.density,
                *step.pruning.block,
                arguments.matrices,
                arguments.threads,
                max(arguments.repeats, STEP_ROUNDS),
                environment={"LSTM_FASTKERNELS_ISA": isa},
            )
            times |= {(name, isa): np.array(result["us"]) for name, result in printed.items()}
        packed = {name: result["packed_bytes"] for name, result in printed.items()}
        records.append(record(step, times, packed, limits, peer_snr={}))
    return records


# ---- the report ----


def record(
    workload: Workload,
    times: Times,
    packed: dict[str, int],
    limits: dict[str, Any],
    peer_snr: dict[str, float | None],
) -> dict[str, Any]:
    """The report's part on one workload, either way of timing it."""
    floors = {key: seconds * 1e6 for key, seconds in floor_seconds(workload, limits).items()}
    results = []
    for (name, isa), us in times.items():
        result = {"name": name, "isa": isa, "median_us": float(np.median(us))}
        if name in peer_snr:
            result["snr_db"] = peer_snr[name]
        if name in BASELINES:
            arithmetic = name.split()[0]
            floor = floors["float32" if arithmetic == "float32" else f"{arithmetic} {isa}"]
            result["ratio_to_floor"] = result["median_us"] / floor
            # Round by round, so that a drift of the clock rate cancels out.
            other = BASELINES[name]
            baseline = times.get((other, isa), times.get((other, None)))
            if baseline is not None:
                result["speed_up"] = float(np.median(baseline / us))
            ratios = [
                float(np.median(times[peer, None] / us))
                for peer, snr in peer_snr.items()
                if not is_wrong({"snr_db": snr})
            ]
            if ratios:
                result["ratio_of_best_peer"] = min(ratios)
        results.append(result)
    return {
        "workload": workload.name,
        "density": workload.pruning.density,
        "block": "x".join(map(str, workload.pruning.block)),
        "packed_bytes": packed,
        "floors_us": floors,
        "results": results,
    }


def markdown(report: dict[str, Any]) -> str:
    """All that the report holds; it has no headings above the third level."""
    which = {"both": "both matrices", "hh": "the recurrent matrix alone"}[report["matrices"]]
    sections = [
        heading(report),
        f"Pruned: {which}. Speed-ups are those of the sparse int8 and int16 kernels over the "
        "dense ones, and of the sparse float32 kernels over nn.LSTM; / floor is the time over the "
        "least one that the limits leave for the weights that stay. torch CSR and torch BSR are "
        "the matrix products alone; the other peers run the pruned model dense.",
        *notes_section(report["notes"]),
    ]
    if report["calls"]:
        sections += ["### Calls from Python: microseconds for a time step", _times(report["calls"])]
        sections += ["### Accuracy and memory", _accuracy(report["calls"])]
    if report["steps"]:
        sections += ["### Steps without Python: microseconds for a call", _times(report["steps"])]
    return "\n\n".join(sections)


def _times(records: list[dict[str, Any]]) -> str:
    """A row for each instruction set of ours; peers that pick their own stand in all of them."""
    results = [result for record in records for result in record["results"]]
    names = list(dict.fromkeys(result["name"] for result in results))
    isas = list(dict.fromkeys(result["isa"] for result in results if result["isa"]))
    titles = {
        "speed_up": "speed-up",
        "ratio_of_best_peer": "best peer / ours",
        "ratio_to_floor": "/ floor",
    }
    ratios = {
        f"{name.split()[0]} {title}": (name, key)
        for key, title in titles.items()
        for name in BASELINES
        if any(result["name"] == name and key in result for result in results)
    }
    rows = []
    for row, isa in product(_by_workload(records), isas):
        found = {r["name"]: r for r in row["results"] if r["isa"] in (isa, None)}
        rows.append(
            [*_labels(row), isa]
            + [_time(found.get(name)) for name in names]
            + [number(found[name][key]) for name, key in ratios.values()]
        )
    return table(["workload", "density", "block", "ISA", *names, *ratios], rows, labels=4)


def _time(result: dict[str, Any] | None) -> str:
    """Empty for a peer that has no call for the workload."""
    if not result:
        return ""
    return right(result, "median_us") if "snr_db" in result else number(result["median_us"])


def _accuracy(records: list[dict[str, Any]]) -> str:
    snr, packed = records[0]["snr_db"], records[0]["packed_bytes"]
    rows = [
        _labels(row)
        + [snr_cell(row["snr_db"][arithmetic]) for arithmetic in snr]
        + [f"{row['packed_bytes'][name]:,}" for name in packed]
        for row in _by_workload(records)
    ]
    header = [f"{arithmetic} SNR dB" for arithmetic in snr] + [f"{name} bytes" for name in packed]
    return table(["workload", "density", "block", *header], rows, labels=3)


def _by_workload(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measured model by model, and shown with all densities of a workload together."""
    order = list(dict.fromkeys(row["workload"] for row in records))
    return sorted(records, key=lambda row: order.index(row["workload"]))


def _labels(row: dict[str, Any]) -> list[str]:
    return [row["workload"], f"{row['density']:g}", row["block"]]


if __name__ == "__main__":
    main()
