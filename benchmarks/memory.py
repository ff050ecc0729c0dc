"""Measures what processes that run one model take together, and how long they load it, with and
without mapping its file.

python benchmarks/memory.py --processes 4 --hidden 1024 --layers 2
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import lstm_fastkernels as lfk
from report import number, table

# What each process runs. It prints how many seconds loading took and goes on until its input ends.
PROCESS = """
import sys, time
import numpy as np
{imports}
path, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
begin = time.perf_counter()
{load}
seconds = time.perf_counter() - begin
{run}
print(seconds, flush=True)
sys.stdin.read()
"""
NUMPY = {
    "imports": "from lstm_fastkernels.runtime import LSTM",
    "run": "lstm.forward(np.zeros((3, 1, sizes[0]), np.float32))",
}
TORCH = {
    "imports": "import torch, lstm_fastkernels as lfk; torch.set_num_threads(1); lfk.load_file",
    "run": "lstm(torch.zeros(3, 1, sizes[0]))",
}


@dataclass(frozen=True)
class Way:
    """Code of a process, and what it loads: nothing for the memory that all else takes."""

    code: dict[str, str]
    load: str

    def program(self, loads: bool) -> str:
        parts = {**self.code, "load": self.load} if loads else {**self.code, "load": "", "run": ""}
        return PROCESS.format(**parts)


WAYS = {
    "NumPy, read": Way(NUMPY, "lstm = LSTM.load(path)"),
    "NumPy, mapped": Way(NUMPY, "lstm = LSTM.load(path, mmap=True)"),
    'torch, keep="canonical"': Way(TORCH, "lstm = lfk.load_file(path)"),
    'torch, keep="packed"': Way(TORCH, 'lstm = lfk.load_file(path, keep="packed")'),
    'torch, keep="packed", mapped': Way(
        TORCH, 'lstm = lfk.load_file(path, keep="packed", mmap=True)'
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    lstm = lfk.FastQuantLSTM(arguments.hidden, arguments.hidden, arguments.layers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.safetensors")
        lfk.save_file(lstm, path, packed=True)
        sizes = [str(arguments.hidden)]
        rows = []
        for name, way in WAYS.items():
            print(name, file=sys.stderr, flush=True)
            without, _ = run(way.program(False), path, sizes, arguments.processes)
            together, seconds = run(way.program(True), path, sizes, arguments.processes)
            milliseconds = 1e3 * statistics.median(seconds)
            rows.append([name, number((together - without) / 1e6), number(milliseconds)])
        print(f"Packed: {number(lstm.packed_bytes() / 1e6)} MB.", end=" ")
        print(f"File: {number(path.stat().st_size / 1e6)} MB.\n")
    header = ["", f"MB, {arguments.processes} processes together", "ms to load, median"]
    print(table(header, rows))


def run(program: str, path: Path, sizes: list[str], count: int) -> tuple[int, list[float]]:
    """The bytes that so many processes take together, shared pages counted once, and the seconds
    that each took to load, one after the other."""
    seconds = []
    command = [sys.executable, "-c", program, str(path), *sizes]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert process.stdout
            processes.append(process)
            seconds.append(float(process.stdout.readline()))
        together = sum(proportional_bytes(process.pid) for process in processes)
        for process in processes:
            assert process.stdin
            process.stdin.close()
    return together, seconds


def proportional_bytes(process: int) -> int:
    """Its pages, each divided by how many processes have it."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("the system does not count proportional pages")


if __name__ == "__main__":
    main()
