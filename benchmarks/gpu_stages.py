"""The stages of gpu_check.py, in two calls; the most important answers come first."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection

from gpu_programs import FOLDER, OPS
from stage_runner import ROOT, Stage

CALL_SECONDS = {1: 330, 2: 300}  # for everything
LOADING_SECONDS = 20  # of these, for finding out what loads before the first stage
BUILD_SECONDS = 180  # where a call has to build, the stages at its end find less time

WITHOUT_PERSISTENT = {"LSTM_FASTKERNELS_PERSISTENT": "0"}
FIRST_TESTS = "many_steps or repeated or graphs or streams or non_finite or half"


def stages(call: int, missing: Collection[str], architecture: str) -> list[Stage]:
    """Those of a call; a program that is `missing` is built before the first stage that runs it."""

    def building(name: str) -> list[Stage]:
        script = "benchmarks/gpu_check.py"
        command = python(script, "--build", name, "--architecture", architecture)
        return [Stage(f"build {name}", BUILD_SECONDS, command)] if name in missing else []

    if call == 1:
        return [
            *building(OPS),
            Stage("device", 10, python("benchmarks/gpu_smoke.py", "device")),
            *smoke(),
            *building("device_tests"),
            Stage("device tests", 40, [program("device_tests")]),
            against_cudnn("against cuDNN", 45, ["--first", "--peers", "ours *", "cuDNN float16"]),
            *building("steps"),
            Stage("steps", 60, [program("steps")]),
            *building("latencies"),
            Stage("latencies", 15, [program("latencies")]),
            pytest("first tests", 60, "-k", FIRST_TESTS, "--maxfail=3"),
            sanitizer("memcheck", 40),
        ]
    return [
        *building(OPS),
        *smoke(),
        against_cudnn("without persistent", 40, ["--first"], WITHOUT_PERSISTENT),
        against_cudnn("other jobs", 60, ["--jobs", "sparse_*", "*_B16_H768", "*_B1_H512", "*"]),
        pytest("other tests", 70, "-k", f"not ({FIRST_TESTS})"),
        *building("device_tests"),
        sanitizer("racecheck", 40),
        *building("steps"),
        profile(30),
    ]


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def program(name: str) -> str:
    return str(FOLDER / name)


def smoke() -> list[Stage]:
    """Where a persistent path fails or hangs, nothing after it takes one."""

    def stage(path: str, seconds: int, **options: dict[str, str]) -> Stage:
        command = python("benchmarks/gpu_smoke.py", path)
        return Stage(f"smoke: {path}", seconds, command, headline=True, **options)

    return [
        stage("plain", 10, environment=WITHOUT_PERSISTENT),
        stage("grid", 15, if_it_fails=WITHOUT_PERSISTENT),
        stage("cluster", 15, if_it_fails=WITHOUT_PERSISTENT),
    ]


def against_cudnn(
    name: str, seconds: int, options: list[str], environment: dict[str, str] | None = None
) -> Stage:
    begin = str(seconds - 15)  # the last job needs some seconds, too
    command = python("benchmarks/gpu.py", "--lines", "--seconds", begin, *options)
    return Stage(name, seconds, command, environment or {}, headline=True)


def pytest(name: str, seconds: int, *options: str) -> Stage:
    # The others may not even import here.
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text()
    ]
    quiet = ["--tb=short", "-p", "no:cacheprovider"]
    command = python("-m", "pytest", "-v", "-m", "gpu", *quiet, *options, *marked)
    return Stage(name, seconds, command)


def sanitizer(tool: str, seconds: int) -> Stage:
    command = ["compute-sanitizer", "--error-exitcode", "9", "--tool", tool]
    return Stage(tool, seconds, [*command, program("device_tests"), "on_a_device"])


def profile(seconds: int) -> Stage:
    """Of the persistent kernel at the first size, by ncu; by nsys where only that is there."""
    work = [program("steps"), "768", "16"]
    ncu = ["ncu", "--clock-control", "none", "--set", "detailed"]
    command = [*ncu, "--kernel-name", "regex:persistent_kernel", "--launch-count", "1", *work]
    if shutil.which("nsys") and not shutil.which("ncu"):
        command = ["nsys", "profile", "--stats=true", "--output", program("profile"), *work]
    return Stage("profile", seconds, command)
