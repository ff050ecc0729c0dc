"""Times FastQuantLSTM on a CUDA device beside cuDNN, and this device's limits: see README.md.

python benchmarks/gpu.py --seconds 150 --json out.json
python benchmarks/gpu.py --first --peers 'ours *' 'cuDNN float16' --lines
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_fastkernels as lfk
from report import number, table
from workloads import Pruning, Workload

HERE = Path(__file__).parent
DEVICE = "cuda"
SLOT_SECONDS = 0.004
SIZES = [768, 512, 1024, 256, 2048]
BATCHES = [16, 1, 8, 32]
BLOCK = (16, 32)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# A peer's name says whose it is, and the dtype of its inputs and outputs.
PEERS = ["ours float32", "ours float16", "cuDNN float16", "cuDNN bfloat16", "cuDNN float32"]
DENSE = "ours dense float16"  # of a pruned model
# The jobs that matter most, in this order.
FIRST = ["Q_B16_H768", "Q_B1_H512", "Q_B8_H768", "S_B1_H512", "Q_B32_H1024"]

# Takes all its time steps and returns the outputs, or those of the last step when streaming.
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Job:
    """A workload, and whether its sequences are packed, of T/2 to T steps."""

    workload: Workload
    packed: bool = False

    @property
    def name(self) -> str:
        return self.workload.name

    def peers(self) -> list[str]:
        return [*PEERS, DENSE] if self.workload.pruning else PEERS

    def lengths(self) -> Tensor:
        w = self.workload
        return torch.linspace(w.steps, w.steps // 2, w.batch).long()


def jobs() -> list[Job]:
    """All of them, those first that must not fall victim to the time limit."""

    def job(kind: str, size: int, batch: int, packed: bool = False, **options: Any) -> Job:
        steps = 200 if kind == "S" else 512 if size == 2048 else 1024
        name = f"{kind}_B{batch}_H{size}"
        return Job(Workload(name, size, size, batch, steps, **options), packed)

    pruning = Pruning(0.1, BLOCK)
    every = [(size, batch) for size in SIZES for batch in BATCHES]
    return [
        *(job("Q", *sizes) for sizes in every),
        *(job("S", size, batch, streaming=True) for size in SIZES for batch in (1, 16)),
        job("sparse", 2048, 32, pruning=pruning),
        *(job("L2", *sizes, num_layers=2) for sizes in every),
        *(job("bi", *sizes, bidirectional=True) for sizes in every),
        *(job("packed", size, batch, packed=True) for size in SIZES for batch in (16, 32)),
        job("sparse", 2048, 1, pruning=pruning),
        *(job("Q", size, 128) for size in (256, 512, 1024)),
    ]


def picked(patterns: list[str]) -> list[Job]:
    """The jobs whose names match, in the order of the patterns."""
    found = (job for pattern in patterns for job in jobs() if fnmatch(job.name, pattern))
    return list(dict.fromkeys(found))


# Models


def quantized(lstm: nn.LSTM, layout: str) -> lfk.FastQuantLSTM:
    """With the plainest scales, a row's largest weight / 127: to search for better takes long."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in lstm.state_dict().items():
        if name.startswith("weight"):
            scale = tensor.abs().amax(1) / 127
            tensors[name] = (tensor / scale[:, None]).nan_to_num_(0).round_().to(torch.int8)
            tensors[name + "_scale"] = scale
        else:  # bias_ih_l0 and bias_hh_l0 make bias_l0
            both = name.replace("_ih", "").replace("_hh", "")
            tensors[both] = tensors.get(both, 0) + tensor
    fast = lfk.FastQuantLSTM(
        lstm.input_size,
        lstm.hidden_size,
        lstm.num_layers,
        bidirectional=lstm.bidirectional,
        device="meta",
        layout=layout,
        block_size=BLOCK,
    )
    fast.load_state_dict(tensors)
    return fast.eval()


def model(peer: str, lstm: nn.LSTM, fast: dict[str, nn.Module]) -> nn.Module:
    if peer.startswith("ours"):
        return fast["dense" if peer == DENSE else next(iter(fast))]
    lstm = copy.deepcopy(lstm).to(DEVICE, DTYPES[peer.split()[-1]])
    lstm.flatten_parameters()
    return lstm


# Runs


def runs_of(job: Job, module: nn.Module, x: Tensor) -> Iterator[tuple[str, Run]]:
    """Eager and as a replayed CUDA graph: the whole sequence, or one step at a time."""
    w = job.workload
    if w.streaming:
        directions = 2 if w.bidirectional else 1
        state = torch.zeros(2, w.num_layers * directions, w.batch, w.hidden_size).to(x)
        frame = x[:1]

        def call() -> Tensor:
            y, new = module(frame, (state[0], state[1]))
            for old, to_keep in zip(state, new, strict=True):
                old.copy_(to_keep)
            return y

        def steps(step: Callable[[], Any], y: Callable[[], Tensor]) -> Run:
            def run() -> Tensor:
                state.zero_()
                for _ in range(w.steps):
                    step()
                return y()

            return run

        last: list[Tensor] = [frame]

        def eager() -> None:
            last[0] = call()

        yield "eager", steps(eager, lambda: last[0])
        graph, y = captured(call)
        yield "graph", steps(graph.replay, lambda: y)
        return

    sequence = pack_padded_sequence(x, job.lengths()) if job.packed else x

    def whole() -> Tensor:
        y = module(sequence)[0]
        return y.data if job.packed else y

    yield "eager", whole
    graph, outputs = captured(whole)

    def replay() -> Tensor:
        graph.replay()
        return outputs

    yield "graph", replay


def captured(call: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    return graph, outputs


# Times


def milliseconds(run: Run, calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def time_in_turns(runs: dict[tuple[str, str], Run], rounds: int) -> dict[tuple[str, str], Any]:
    """The milliseconds of one run of each, in each of the rounds in which all take turns."""
    calls = {}
    for key, run in runs.items():
        run()
        calls[key] = max(1, math.ceil(SLOT_SECONDS * 1e3 / milliseconds(run, 1)))
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            run()  # brings the weights back into L2, and the clock up
            times[key].append(milliseconds(run, calls[key]))
    return {key: np.array(values) for key, values in times.items()}


def results_of(times: dict[tuple[str, str], np.ndarray], steps: int) -> list[dict[str, Any]]:
    """For each peer microseconds a step, and how much longer its faster way takes than ours.

    The ratio is the median of the ratios within each round; "ours" is the fastest of our own, but
    for the dense form of a pruned model.
    """
    medians = {key: float(np.median(values)) * 1e3 / steps for key, values in times.items()}
    best: dict[str, tuple[str, str]] = {}
    for key in sorted(medians, key=medians.__getitem__, reverse=True):
        best[key[0]] = key
    ours = [key for peer, key in best.items() if peer.startswith("ours") and peer != DENSE]
    fastest = min(ours, key=medians.__getitem__, default=None)
    return [
        {
            "peer": peer,
            "median_us": {way: medians[peer, way] for p, way in times if p == peer},
            "ratio_to_ours": float(np.median(times[best[peer]] / times[fastest]))
            if fastest
            else None,
        }
        for peer in dict.fromkeys(peer for peer, _ in times)
    ]


def snr_db(outputs: Tensor, expected: Tensor) -> float:
    noise = (outputs.double() - expected).square().sum()
    return float(10 * torch.log10(expected.square().sum() / noise))


# The comparison


@torch.inference_mode()
def compare(job: Job, rounds: int, peers: list[str]) -> dict[str, Any]:
    """The report's part on one job, with those of its peers that match one of the patterns."""
    w = job.workload
    lstm = w.float_lstm()
    generator = torch.Generator(DEVICE).manual_seed(2)
    x = torch.randn(w.steps, w.batch, w.input_size, device=DEVICE, generator=generator)
    double = copy.deepcopy(lstm).to(DEVICE, torch.float64)
    _, reference = next(runs_of(job, double, x.double()))
    expected = reference()
    faults: dict[str, str] = {}
    fast: dict[str, nn.Module] = {}
    runs: dict[tuple[str, str], Run] = {}
    snr: dict[str, float] = {}
    for layout in ("block_sparse", "dense") if w.pruning else ("dense",):
        try:
            fast[layout] = quantized(lstm, layout).to(DEVICE)
        except (RuntimeError, ValueError) as error:
            faults[f"ours {layout}"] = str(error)
    for peer in job.peers():
        if not any(fnmatch(peer, pattern) for pattern in peers):
            continue
        try:
            module = model(peer, lstm, fast)
            for way, run in runs_of(job, module, x.to(DTYPES[peer.split()[-1]])):
                snr[f"{peer} {way}"] = snr_db(run(), expected)
                runs[peer, way] = run
        except KeyError:
            continue  # there is no such model
        except RuntimeError as error:  # no such path, or one that a graph cannot hold
            faults[peer] = str(error).partition("\n")[0]
            torch.cuda.synchronize()
    return {
        "name": job.name,
        "steps": w.steps,
        "results": results_of(time_in_turns(runs, rounds), w.steps),
        "snr_db": snr,
        "faults": faults,
    }


# The device


@torch.inference_mode()
def limits() -> dict[str, float]:
    source = torch.randn(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    copy_ms = median_ms(lambda: target.copy_(source))
    size = 8192
    a = torch.randint(-127, 128, (size, size), device=DEVICE, dtype=torch.int8)
    b = torch.randint(-127, 128, (size, size), device=DEVICE, dtype=torch.int8).t()
    product_ms = median_ms(lambda: torch._int_mm(a, b))
    return {
        "copy_gbs": 2 * source.nbytes / copy_ms * 1e-6,
        "int8_tops": 2 * size**3 / product_ms * 1e-9,
    }


def median_ms(run: Run) -> float:
    run()
    return float(np.median([milliseconds(run, 1) for _ in range(15)]))


def printed(*command: str) -> str | None:
    """What a program prints, or nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip().partition("\n")[0]


def about() -> dict[str, Any]:
    device = torch.cuda.get_device_properties(0)
    return {
        "device": device.name,
        "multiprocessors": device.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": printed("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": printed("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "date": datetime.date.today().isoformat(),
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
    }


# The report


def markdown(report: dict[str, Any]) -> str:
    heading = ", ".join(f"{key} {report[key]}" for key in ("device", "torch", "cudnn", "driver"))
    measured = ", ".join(f"{name} {number(value)}" for name, value in report["limits"].items())
    rows = []
    for job in report["jobs"]:
        cells = [job["name"]]
        results = {result["peer"]: result for result in job["results"]}
        for peer in [*PEERS, DENSE]:
            if peer not in results:
                cells.append("")
                continue
            fastest = min(results[peer]["median_us"].values())
            ratio = results[peer]["ratio_to_ours"]
            cells.append(number(fastest) + (f" ({number(ratio)})" if ratio else ""))
        rows.append(cells)
    notes = [
        f"{job['name']}: {who}: {what}"
        for job in report["jobs"]
        for who, what in job["faults"].items()
    ]
    if report["left_out"]:
        notes.append(f"left out for want of time: {', '.join(report['left_out'])}")
    title = "Microseconds a step, the faster of eager and graph (how many times ours)"
    return (
        "\n\n".join(
            [heading, f"Limits: {measured}", title, table(["job", *PEERS, DENSE], rows), *notes]
        )
        + "\n"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--jobs", nargs="+", default=["*"], metavar="GLOB", help="in this order")
    which.add_argument("--first", dest="jobs", action="store_const", const=FIRST, help=str(FIRST))
    parser.add_argument("--peers", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--seconds", type=float, default=150, help="begin no job after these")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lines", action="store_true", help="JSON Lines instead of a table")
    arguments = parser.parse_args()
    arguments.jobs = picked(arguments.jobs)
    if not arguments.jobs:
        parser.error(f"no job matches; there are {', '.join(job.name for job in jobs())}")
    if not torch.cuda.is_available():
        parser.exit(2, "gpu.py: torch sees no CUDA device here\n")
    return arguments


def main() -> None:
    arguments = parse()
    end = time.monotonic() + arguments.seconds

    def line(part: dict[str, Any]) -> None:
        if arguments.lines:
            print(json.dumps(part), flush=True)

    report = about() | {"rounds": arguments.rounds, "jobs": [], "left_out": []}
    for job in arguments.jobs:
        if time.monotonic() > end:
            report["left_out"].append(job.name)
            continue
        print(job.name, file=sys.stderr, flush=True)
        report["jobs"].append(compare(job, arguments.rounds, arguments.peers))
        line(report["jobs"][-1])
        if arguments.json:  # what is there, should the rest fail
            arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    report["limits"] = limits()
    line({"limits": report["limits"], "left_out": report["left_out"]})
    if not arguments.lines:
        print(markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(any(who.startswith("ours") for job in report["jobs"] for who in job["faults"]))


if __name__ == "__main__":
    main()
