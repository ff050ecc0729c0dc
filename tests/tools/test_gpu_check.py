"""benchmarks/gpu_check.py, as far as it goes without a device."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpu_check
from gpu_check import Stage

PYTHON = sys.executable


def test_a_stage_that_fails_keeps_none_from_running(tmp_path, capfd):
    stages = [
        Stage("fails", 60, [[PYTHON, "-c", "print('why'); exit(3)"], [PYTHON, "-c", "1 / 0"]]),
        Stage("missing", 60, [["no-such-program-here"]]),
        Stage("sleeps", 1, [[PYTHON, "-c", "import time; time.sleep(60)"]]),
        Stage(
            "works", 60, [[PYTHON, "-c", "import os; assert os.environ['A'] == 'b'"]], {"A": "b"}
        ),
    ]
    results = gpu_check.run_stages(stages, tmp_path / "log")
    assert [result["status"] for result in results] == [3, 127, 124, 0]
    assert results[2]["seconds"] < 30
    printed = capfd.readouterr().out
    assert "why" in printed
    assert "ZeroDivisionError" not in printed
    assert "works: passed" in printed
    assert "sleeps             " in gpu_check.table(results)


def test_no_stage_begins_after_the_end(tmp_path):
    times = iter([0.0, *[1e6] * 20])
    stages = [Stage("late", 1e9, [[PYTHON, "-c", "1 / 0"]])]
    (late,) = gpu_check.run_stages(stages, tmp_path / "log", lambda: next(times))
    assert late["status"] == 124
    assert not (tmp_path / "log").exists()


def test_stages_name_files_that_exist(tmp_path):
    root = gpu_check.ROOT
    for stage in gpu_check.stages("90", tmp_path, tmp_path):
        for part in [part for command in stage.commands for part in command]:
            path = root / part
            if isinstance(part, Path) and root in path.parents and "lib" not in path.parts:
                assert path.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_so():
    done = subprocess.run([PYTHON, gpu_check.__file__], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
