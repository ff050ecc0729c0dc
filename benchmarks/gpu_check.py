"""Tests and measures on a machine with a CUDA device, in two calls of minutes: see README.md.

python benchmarks/gpu_check.py --prebuild    # anywhere, beforehand; needs nvcc, no device
python benchmarks/gpu_check.py --call 1      # at most 330 s: whether it runs, and how fast
python benchmarks/gpu_check.py --call 2      # at most 300 s: the rest

Uses the Python that runs it and no network. Answers go to gpu-check-CALL.jsonl in the folder OUT
(by default benchmarks/results) as they come, all output to gpu-check-CALL.log.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu_programs
from gpu_stages import CALL_SECONDS, stages
from stage_runner import ROOT, Answers, exit_on_sigterm, run_stages

CAPABILITY = "import torch; print('%d%d' % torch.cuda.get_device_capability())"


def device_architecture() -> str:
    """Of compute capability 9.0 "90"; empty where torch sees no device.

    Asked in a process of its own, which leaves no context on the device.
    """
    command = [sys.executable, "-c", CAPABILITY]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def check(call: int) -> int:
    start = time.monotonic()
    exit_on_sigterm()
    architecture = device_architecture()
    if not architecture:
        print("gpu_check.py: torch sees no CUDA device here", file=sys.stderr)
        return 1
    out = Path(os.environ.get("OUT") or ROOT / "benchmarks/results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"gpu-check-{call}.log"
    log.write_text("")
    answers = Answers(out / f"gpu-check-{call}.jsonl")
    missing = gpu_programs.missing(architecture)
    answers.add("programs", architecture=f"sm_{architecture}", to_build=missing)
    print(f"sm_{architecture}; to be built here: {missing or 'nothing'}", flush=True)
    seconds = CALL_SECONDS[call] - (time.monotonic() - start)
    return not run_stages(stages(call, missing, architecture), seconds, answers, log)


def prebuild(architecture: str) -> int:
    size = gpu_programs.prebuild(architecture)
    print(f"{gpu_programs.FOLDER}: {size / 2**20:.1f} MB for sm_{architecture}")
    if size > gpu_programs.LARGEST_BYTES:
        print(f"more than {gpu_programs.LARGEST_BYTES >> 20} MB", file=sys.stderr)
        return 1
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--call", type=int, choices=CALL_SECONDS, default=1)
    what.add_argument("--prebuild", action="store_true", help="build all programs, and stop")
    what.add_argument("--build", choices=gpu_programs.PROGRAMS, help="build one, and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the call's stages, and stop")
    parser.add_argument("--architecture", default="90", help="to build for")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.prebuild:
        return prebuild(arguments.architecture)
    if arguments.build:
        gpu_programs.build([arguments.build], arguments.architecture)
        return 0
    if arguments.dry_run:
        for stage in stages(arguments.call, (), arguments.architecture):
            print(f"{stage.name:28} {stage.seconds:4.0f} s  {' '.join(stage.command)}")
        return 0
    return check(arguments.call)


if __name__ == "__main__":
    sys.exit(main())
