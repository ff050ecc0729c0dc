"""What gpu_check.py runs besides Python programs: the ops library and three C++ programs.

They are built for one architecture; that needs nvcc and no device. So they can be built elsewhere
and carried to a device, where those that do not load, or are older than the sources, are built
again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from stage_runner import ROOT

FOLDER = ROOT / "build/gpu-check"
LARGEST_BYTES = 25 << 20  # of the folder, which is to be carried
STAMP = FOLDER / "built-from"

OPS = "_ops.abi3.so"
# What the package needs of its build: the ops library and the libraries that it links.
BUILT = [OPS, "lib/liblstm_fastkernels_cuda.so", "lib/liblstm_fastkernels.so"]
PACKAGE = ROOT / "lstm_fastkernels"
LIBRARIES = [f"lstm_fastkernels/lib/liblstm_fastkernels{part}.a" for part in ("_cuda", "")]
INCLUDES = ["-Icsrc/include", "-Icsrc", "-Itests/cpp/support"]
# By name: what nvcc is given.
CPP_PROGRAMS = {
    "device_tests": [
        *("tests/cpp/gpu/main.cpp", "tests/cpp/gpu/device_test.cpp"),
        *("tests/cpp/gpu/numerics_test.cu", "tests/cpp/support/check.cpp"),
        *("tests/cpp/support/stack.cpp", *INCLUDES, *LIBRARIES),
    ],
    "steps": ["benchmarks/cuda/steps.cu", *INCLUDES, *LIBRARIES],
    "latencies": ["benchmarks/cuda/latencies.cu"],
}
PROGRAMS = [OPS, *CPP_PROGRAMS]
# Line numbers are for the sanitizer; they hold paths, so releases have none.
NVCC_FLAGS = "-lineinfo --compress-mode=size"
SOURCES = ["setup.py", "csrc/**/*", "benchmarks/cuda/*", "tests/cpp/support/*", "tests/cpp/gpu/*"]


def build(names: Iterable[str], architecture: str) -> None:
    """Builds them into FOLDER; the ops library also in place. Raises CalledProcessError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "USE_CUDA": "1",
        "CUDA_ARCHS": f"{architecture}-real",
        "LSTM_FASTKERNELS_CUDA_STATIC": "1",  # what the C++ programs link
        "LSTM_FASTKERNELS_FILE": "1" if importlib.util.find_spec("nlohmann_json") else "0",
        "NVCC_APPEND_FLAGS": NVCC_FLAGS,
    }

    def call(*command: str | Path) -> None:
        subprocess.run(command, cwd=ROOT, env=environment, check=True)

    def build_package() -> None:
        """The ops library and LIBRARIES, in place."""
        call(sys.executable, "setup.py", "-q", "build_ext", "--inplace")

    code = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    for name in names:
        if name == OPS:
            build_package()
            for part in BUILT:
                call("strip", "-o", FOLDER / Path(part).name, PACKAGE / part)
            continue
        # A prebuilt ops library comes without them.
        if not all((ROOT / part).exists() for part in CPP_PROGRAMS[name] if part in LIBRARIES):
            build_package()
        flags = ["-std=c++17", "-O2", "--fmad=false", "-Xlinker=-s", code]
        call("nvcc", *flags, *CPP_PROGRAMS[name], "-o", FOLDER / name)


def prebuild(architecture: str) -> int:
    """Builds all, and returns how many bytes they have."""
    STAMP.unlink(missing_ok=True)
    build(PROGRAMS, architecture)
    STAMP.write_text(digest(architecture))
    return sum(path.stat().st_size for path in FOLDER.iterdir())


def digest(architecture: str) -> str:
    """Of all that the programs are built from."""
    found = hashlib.sha256(architecture.encode())
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern)):
        if path.is_file() and path.suffix != ".pyc":
            found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()


def missing(architecture: str) -> dict[str, str]:
    """Of each program that has to be built here: why. Puts the ops library into the package."""
    if not STAMP.exists():
        return dict.fromkeys(PROGRAMS, "not prebuilt")
    if STAMP.read_text() != digest(architecture):
        return dict.fromkeys(PROGRAMS, "prebuilt from other sources or for another architecture")
    for part in BUILT:
        (PACKAGE / part).parent.mkdir(exist_ok=True)
        shutil.copy(FOLDER / Path(part).name, PACKAGE / part)
    return {name: why for name in PROGRAMS if (why := obstacle(name))}


def obstacle(name: str) -> str:
    """Why a program that is there does not load; empty where it does."""
    command: list[str | Path] = [FOLDER / name, "--list"]
    if name == OPS:
        check = "import sys, lstm_fastkernels as lfk; sys.exit(not lfk.cuda_built())"
        command = [sys.executable, "-c", check]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stdout.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
