"""Builds on a machine with a CUDA device, and runs there all that needs one; see README.md.

Needs nvcc, a C++ compiler, cmake, ninja and Python with torch, setuptools, pybind11 and pytest; no
network. Uses the Python that runs it, builds in place, writes gpu-*.json into the folder OUT (by
default benchmarks/results) and takes less than ten minutes: each stage has its limit, and none
keeps the ones after it from running.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 570.0  # for everything
TABLES = ("latencies", "steps", "benchmark")  # stages whose output is shown
LEFT = "{left}"  # in a command: seconds to its time limit, but for some to come to an end
Command = list[str | Path]


@dataclass(frozen=True)
class Stage:
    name: str
    seconds: float  # at most
    commands: list[Command]
    environment: dict[str, str] = field(default_factory=dict)


def stages(architecture: str, build: Path, out: Path) -> list[Stage]:
    python = sys.executable
    library = ROOT / "lstm_fastkernels/lib"
    nvcc: Command = ["nvcc", "-O2", "-std=c++17", f"-arch=sm_{architecture}"]
    cpp = ROOT / "tests/cpp"
    names = ("main.cpp", "stack.cpp", "gpu/device_test.cpp", "gpu/numerics_test.cu")
    sources = [cpp / name for name in names]
    includes = [f"-I{folder}" for folder in (ROOT / "csrc", ROOT / "csrc/include", cpp)]
    libraries = [library / f"liblstm_fastkernels{part}.a" for part in ("_cuda", "")]
    device_tests, latencies, steps = (build / n for n in ("device_tests", "latencies", "steps"))
    with_file = "1" if importlib.util.find_spec("nlohmann_json") else "0"
    options = {
        "USE_CUDA": "1",
        "CUDA_ARCHS": architecture,
        "LSTM_FASTKERNELS_CUDA_STATIC": "1",  # what the programs below link
        "LSTM_FASTKERNELS_FILE": with_file,
        "NVCC_APPEND_FLAGS": "-lineinfo",  # for the sanitizer; holds paths, so not in releases
    }
    pytest: Command = [python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    # The others may not even import here.
    marked = [p for p in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in p.read_text()]
    sanitizer: Command = ["compute-sanitizer", "--error-exitcode", "9", "--tool"]
    return [
        Stage("build", 200, [[python, "setup.py", "-q", "build_ext", "--inplace"]], options),
        Stage("resources", 10, [[python, "csrc/cmake/check_resources.py", library / "ptxas"]]),
        Stage(
            "device tests",
            60,
            [
                [*nvcc, "--fmad=false", *sources, *includes, *libraries, "-o", device_tests],
                [device_tests],
            ],
        ),
        Stage(
            "pytest",
            200,
            [[*pytest, *marked]],
        ),
        Stage("memcheck", 60, [[*sanitizer, "memcheck", device_tests, "on_a_device"]]),
        Stage("racecheck", 60, [[*sanitizer, "racecheck", device_tests, "on_a_device"]]),
        Stage(
            "latencies",
            60,
            [
                [*nvcc, ROOT / "benchmarks/cuda/latencies.cu", "-o", latencies],
                [latencies, out / "gpu-latencies.json"],
            ],
        ),
        Stage(
            "steps",
            90,
            [
                [
                    *(*nvcc, *includes),
                    *(ROOT / "benchmarks/cuda/steps.cu", *libraries, "-o", steps),
                ],
                [steps, out / "gpu-steps.json"],
            ],
        ),
        Stage(
            "benchmark",
            180,
            [[python, "benchmarks/gpu.py", "--json", out / "gpu-lstm.json", "--seconds", LEFT]],
        ),
    ]


def run(command: Command, seconds: float, environment: dict[str, str], log: TextIO) -> int:
    """The exit status; 124 at the time limit, 127 where there is no such program."""
    log.write(f"\n$ {' '.join(map(str, command))}\n")
    log.flush()
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        log.write(f"{error}\n")
        return 127
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.write(f"ended after {seconds:.0f} s\n")
        return 124


def run_stages(
    todo: list[Stage], log_path: Path, clock: Callable[[], float] = time.monotonic
) -> list[dict[str, Any]]:
    """What became of each stage; a stage's later commands run only where those before went well."""
    start = clock()
    results = []
    for stage in todo:
        begun, status, lines = clock(), 0, []
        for command in stage.commands:
            left = min(stage.seconds - (clock() - begun), SECONDS - (clock() - start))
            if left <= 0:
                status = 124
            elif status == 0:
                ends = f"{max(left - 30, 1):.0f}"
                command = [ends if part == LEFT else part for part in command]
                environment = os.environ | {"PYTHONPATH": str(ROOT)} | stage.environment
                with log_path.open("a") as log:
                    at = log.tell()
                    status = run(command, left, environment, log)
                lines = log_path.read_bytes()[at:].decode(errors="replace").splitlines()
        results.append(
            {"stage": stage.name, "status": status, "seconds": round(clock() - begun, 1)}
        )
        print(f"{stage.name}: {verdict(status)}", flush=True)
        if status or stage.name in TABLES:
            print("\n".join(lines[-100 if stage.name in TABLES else -25 :]), flush=True)
    return results


def verdict(status: int) -> str:
    return {0: "passed", 124: "out of time"}.get(status, f"failed ({status})")


def table(results: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{result['stage']:14} {result['seconds']:7.1f} s  {verdict(result['status'])}"
        for result in results
    )


def main() -> None:
    import torch

    if not torch.cuda.is_available():
        sys.exit("gpu_check.py: torch sees no CUDA device here")
    major, minor = torch.cuda.get_device_capability()
    out = Path(os.environ.get("OUT") or ROOT / "benchmarks/results").resolve()
    build = ROOT / "build/gpu-check"
    for folder in (out, build):
        folder.mkdir(parents=True, exist_ok=True)
    log = out / "gpu-check.log"
    log.write_text("")
    results = run_stages(stages(f"{major}{minor}", build, out), log)
    about = {
        "device": torch.cuda.get_device_name(),
        "architecture": f"sm_{major}{minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    (out / "gpu-check.json").write_text(json.dumps(about | {"stages": results}, indent=2) + "\n")
    print(f"\n{about['device']}, torch {about['torch']}\n{table(results)}")
    sys.exit(any(result["status"] for result in results))


if __name__ == "__main__":
    main()
