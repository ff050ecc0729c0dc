"""Counts the instructions of our calls by callgrind, and compares them with those in counts.json.

python benchmarks/callgrind/counts.py --write

Counts repeat where times do not. They are of AVX2, valgrind's widest instruction set, and of one
call of `eager.lstm` or `eager.step`: what they do for torch, and the kernels; or of what
`eager.call` does beside calling the first.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lstm_fastkernels as lfk

HERE = Path(__file__).parent
FILE = HERE / "counts.json"
HEADER = Path("/usr/include/valgrind/callgrind.h")
TOLERANCE = 0.03
WRITE = f"python {HERE.parent.name}/{HERE.name}/{Path(__file__).name} --write"
# Collecting begins and ends where they do; one inside another is left out.
FUNCTIONS = [
    f"lstm_fastkernels::(anonymous namespace)::{name}(_object*, _object* const*, long)"
    for name in ("lstm", "step", "call")
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write counts.json anew")
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    instructions = measure()
    before = json.loads(FILE.read_text())["instructions"] if FILE.exists() else {}
    for name, count in instructions.items():
        change = f"{count / before[name] - 1:+.1%}" if name in before else "new"
        print(f"{name:50} {count:12,} {change:>8}")
    if arguments.write:
        content = {"made_with": made_with(), "instructions": instructions}
        FILE.write_text(json.dumps(content, indent=2) + "\n")


def missing() -> str:
    """What counting needs and this machine lacks; empty if nothing."""
    if not shutil.which("valgrind") or not HEADER.exists():
        return "valgrind or its headers are missing"
    if not shutil.which("g++"):
        return "g++ is missing"
    return "" if "avx2" in lfk.supported_isas() else "this CPU has no AVX2"


def made_with() -> dict[str, str]:
    """What counts depend on beside our code."""
    library = Path(lfk.__file__).with_name("_ops.abi3.so").read_bytes()
    compilers = sorted(set(re.findall(rb"GCC: [^\0]+|clang version [^\0]+", library)))
    return {
        "compiler": b", ".join(compilers).decode(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": importlib.metadata.version("torch").partition("+")[0],
    }


def measure() -> dict[str, int]:
    """The instructions of each call of calls.py, the fewest where it was made several times."""
    with tempfile.TemporaryDirectory() as folder:
        client, target = Path(folder, "client.so"), Path(folder, "counts")
        compiler = ["g++", "-O2", "-shared", "-fPIC", HERE / "client.cpp", "-o", client]
        subprocess.run(compiler, check=True)
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
            *(f"--toggle-collect={function}" for function in FUNCTIONS),
            *(f"--callgrind-out-file={target}", sys.executable, HERE / "calls.py", client),
        ]
        environment = {"LSTM_FASTKERNELS_ISA": "avx2", "PYTHONHASHSEED": "0"}
        run = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | environment, check=False
        )
        if run.returncode:
            raise RuntimeError(f"the calls cannot be counted:\n{run.stderr}")
        dumps = sorted(target.parent.glob("counts.*"), key=lambda path: int(path.suffix[1:]))
        counts: dict[str, list[int]] = {}
        for dump in dumps:
            name, count = parsed(dump.read_text())
            counts.setdefault(name, []).append(count)
    return {name: min(found) for name, found in counts.items()}


def parsed(dump: str) -> tuple[str, int]:
    """The name and the count of one of callgrind's files."""
    name = re.search(r"^desc: Trigger: Client Request: (.*)$", dump, re.MULTILINE)
    count = re.search(r"^summary: (\d+)$", dump, re.MULTILINE)
    if not name or not count or int(count[1]) == 0:
        raise RuntimeError("callgrind has counted nothing: are the functions' names the same?")
    return name[1], int(count[1])


def faults(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """What has grown by more than the tolerance, and calls that only one of both has."""
    found = [
        f"{name}: {before[name]:,} instructions have become {count:,} "
        f"({count / before[name] - 1:+.1%})"
        for name, count in now.items()
        if name in before and count > before[name] * (1 + TOLERANCE)
    ]
    return found + [f"{name}: not counted on both sides" for name in before.keys() ^ now.keys()]


if __name__ == "__main__":
    main()
