"""Imports in Python and includes in C++ point one way; what needs no compiled op runs without."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lstm_fastkernels"

# Each sees itself and what stands before it.
ORDER = ["paths", "reference", "_eager", "ops", "weights", "modules", "compression", "io", "cli"]


def imported(path):
    """What a file imports of the package: "weights.shape"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            package, _, module = str(node.module).partition(".")
            if package == "lstm_fastkernels":
                yield from [module] if module else [alias.name for alias in node.names]


def test_imports_point_one_way():
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in ORDER:
            for module in imported(path):
                found = module.partition(".")[0]
                below = ORDER[: ORDER.index(room) + 1]
                assert found in below or found == "__version__", f"{path} imports {module}"


def test_the_reference_depends_on_torch_alone():
    assert not list(imported(PACKAGE / "reference.py"))


# What each room of csrc sees beside itself and the public headers.
INCLUDES = {
    "common": [],
    "weights": ["common"],
    "kernels": ["common", "weights"],
    "runtime": ["common", "weights", "kernels"],
    "file": ["common"],
    "cuda/kernels": ["common"],
    "cuda/host": ["common", "weights", "cuda/kernels"],
    "bindings/c": ["common"],
    "bindings/eager": ["bindings/torch"],
    "bindings/python": [],
    "bindings/torch": ["weights", "runtime", "cuda/host"],
}


def test_includes_point_one_way():
    sources = [p for end in ("h", "cpp", "inl", "cu") for p in (ROOT / "csrc").rglob(f"*.{end}")]
    for path in sources:
        below = path.relative_to(ROOT / "csrc").as_posix()
        if below.startswith("include/"):
            continue
        (room,) = (room for room in INCLUDES if below.startswith(f"{room}/"))
        for header in re.findall(r'^#include "(\w+/[\w/.]+)"', path.read_text(), re.MULTILINE):
            seen = ["lstm_fastkernels", room, *INCLUDES[room]]
            assert any(header.startswith(f"{part}/") for part in seen), f"{below}: {header}"


def test_pruning_and_factorizing_need_no_compiled_op():
    script = """if True:
        import sys
        sys.modules["lstm_fastkernels.ops"] = None
        import lstm_fastkernels as lfk
        import torch
        from torch import nn
        lfk.prune_(nn.LSTM(9, 31), lfk.PruneConfig(0.5))
        lfk.prune_hidden_(nn.LSTM(9, 31))
        lfk.sparsity_report(nn.LSTM(9, 31))
        lfk.factorize_(nn.LSTM(9, 31), lfk.LowRankConfig(3), calibration=[torch.zeros(2, 3, 9)])
    """
    subprocess.run([sys.executable, "-c", script], check=True)
