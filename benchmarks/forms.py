"""Times the forms that an LSTM's weights can have beside dense int8: 4 bits, low rank, 16 bits.

taskset -c 0 python benchmarks/forms.py --workloads 'Q_*' --forms 'int4*' 'rank*'
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import lstm_fastkernels as lfk
from measuring import (
    about,
    argument_parser,
    instruction_sets,
    limits_program,
    parse_arguments,
    publish,
    reference,
    snr_db,
    switch_to,
    time_in_turns,
)
from peers import Peer, Run, as_array, run_module
from peers.pytorch import torch_lstm
from report import heading, number, snr_cell, table
from workloads import WORKLOADS, Workload

BASE = "int8"


def quantized(lstm: nn.LSTM, **options: Any) -> lfk.FastQuantLSTM:
    return lfk.FastQuantLSTM.from_float(lstm, layout="dense", **options)


def low_rank(lstm: nn.LSTM, share: int) -> lfk.FastQuantLSTM:
    """Factors of rank H / share for all matrices, multiplied in int8."""
    factorized = copy.deepcopy(lstm).requires_grad_(True)
    lfk.factorize_(factorized, lfk.LowRankConfig(rank=lstm.hidden_size // share))
    return lfk.FastQuantLSTM.from_float(factorized)


FORMS: dict[str, Callable[[nn.LSTM], nn.Module]] = {
    BASE: quantized,
    "int16": partial(quantized, activations="int16"),
    "mixed": partial(quantized, activations="mixed"),
    "int4, 32": partial(quantized, activations="int4", group_size=32),
    "int4, 64": partial(quantized, activations="int4", group_size=64),
    "int4, 128": partial(quantized, activations="int4", group_size=128),
    "rank H/8": partial(low_rank, share=8),
    "rank H/4": partial(low_rank, share=4),
    "float32": partial(lfk.FastSparseLSTM.from_float, layout="dense"),
}


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    records, all_limits = [], []
    with limits_program() as measure_limits:
        for workload in arguments.workloads:
            print(workload.name, file=sys.stderr, flush=True)
            all_limits.append(measure_limits())
            records.append(compare(workload, arguments))
    report = about(arguments, all_limits) | {"workloads": records}
    publish(arguments, report, markdown(report))


def parse() -> argparse.Namespace:
    parser = argument_parser(__doc__, ["Q_*", "B8_*", "B32_*"])
    parser.add_argument("--forms", nargs="+", default=["*"], metavar="GLOB")
    arguments = parse_arguments(parser, WORKLOADS)
    chosen = [name for name in FORMS if any(fnmatch(name, glob) for glob in arguments.forms)]
    arguments.forms = dict.fromkeys([BASE, *chosen])
    return arguments


def compare(workload: Workload, arguments: argparse.Namespace) -> dict[str, Any]:
    """The report's part on one workload; the times are for one step of the whole batch."""
    lstm = workload.float_lstm()
    modules = {name: FORMS[name](lstm) for name in arguments.forms}
    peers = [
        Peer(name, partial(_run, module), isa)
        for isa in instruction_sets(arguments.isa)
        for name, module in modules.items()
    ]
    runs = {peer: peer.make(workload, lstm, arguments.threads) for peer in peers}
    runs[Peer("nn.LSTM", torch_lstm)] = torch_lstm(workload, lstm, arguments.threads)
    expected = reference(workload, lstm)
    times = time_in_turns(runs, arguments.threads, arguments.repeats)
    base = {peer.isa: np.array(times[peer]) for peer in peers if peer.name == BASE}
    results = []
    for peer, run in runs.items():
        seconds = np.array(times[peer])
        against = base.get(peer.isa, base[instruction_sets(arguments.isa)[0]])
        results.append(
            {
                "form": peer.name,
                "isa": peer.isa,
                "median_us": float(np.median(seconds)) * 1e6 / workload.steps,
                # Turn by turn, so that a drift of the clock rate cancels out.
                "speed_up": float(np.median(against / seconds)),
                "snr_db": _snr(peer, run, expected),
            }
        )
    packed = {name: module.packed_bytes() for name, module in modules.items()}
    return {"name": workload.name, "packed_bytes": packed, "results": results}


def _run(module: nn.Module, workload: Workload, lstm: nn.LSTM, threads: int) -> Run:
    return run_module(workload, module)


@torch.inference_mode()
def _snr(peer: Peer, run: Run, expected: np.ndarray) -> float | None:
    switch_to(peer.isa)
    return snr_db(as_array(run()), expected)


def markdown(report: dict[str, Any]) -> str:
    """Microseconds, speed over dense int8, bytes and SNR of each form; no headings above ###."""
    sections = [
        heading(report),
        "Microseconds for a time step of the whole batch and, in brackets, dense int8's time on "
        "the same instruction set over it. SNR is that of random weights, of which low rank keeps "
        "little: it says nothing of trained ones.",
        _table(report["workloads"], lambda r: f"{number(r['median_us'])} ({r['speed_up']:.2f})"),
        "### SNR, dB",
        _table(report["workloads"], lambda r: snr_cell(r["snr_db"])),
    ]
    return "\n\n".join(sections)


def _table(records: list[dict[str, Any]], cell: Callable[[dict[str, Any]], str]) -> str:
    isas = list(dict.fromkeys(r["isa"] for r in records[0]["results"] if r["isa"]))
    forms = list(dict.fromkeys(r["form"] for r in records[0]["results"]))
    rows = []
    for record in records:
        for isa in isas:
            found = {r["form"]: r for r in record["results"] if r["isa"] in (isa, None)}
            rows.append([record["name"], isa, *(cell(found[form]) for form in forms)])
    return table(["workload", "ISA", *forms], rows, labels=2)


if __name__ == "__main__":
    main()
