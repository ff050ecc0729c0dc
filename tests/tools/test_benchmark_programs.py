"""The C++ programs of the benchmarks fit the library's public headers."""

import shutil
import subprocess
from pathlib import Path

import pytest

import lstm_fastkernels as lfk

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("program", sorted(BENCHMARKS.glob("*.cpp")), ids=lambda path: path.stem)
def test_it_compiles(program):
    options = ["-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-I", lfk.get_include()]
    process = subprocess.run(["g++", *options, program], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
