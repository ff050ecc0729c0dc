"""What is compared: every peer makes the same call for a workload, and returns what nn.LSTM would.

Each library is a module with a table PEERS. It is tried in a process of its own first: one that is
missing, fails or crashes is left out.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path

from peers.ours import ours
from peers.peer import Make, Peer, Run, as_array, run_module

__all__ = ["Make", "Peer", "Run", "as_array", "available", "fault_of", "ours", "run_module"]

LIBRARIES = {
    "torch": "pytorch",
    "torch int8": "torch_ao",
    "ONNX Runtime": "onnx_runtime",
    "ncnn": "ncnn_int8",
    "LiteRT": "litert",
    "oneDNN": "onednn",  # must be loaded before OpenVINO: see there
    "OpenVINO": "open_vino",
}
TRIAL_SECONDS = 120


def available() -> tuple[list[Peer], list[str]]:
    """The peers that run on this machine, and for each library that does not, why."""
    peers, notes = [], []
    for library, module in LIBRARIES.items():
        if fault := fault_of(module):
            notes.append(f"{library} is left out: {fault}.")
        else:
            table = importlib.import_module(f"peers.{module}").PEERS
            peers += [Peer(name, make) for name, make in table.items()]
    return peers, notes


def fault_of(module: str) -> str:
    """Why a module's peers do not run here; empty if they do."""
    command = [sys.executable, "-m", "peers.trial", module]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {TRIAL_SECONDS} s"
    if done.returncode < 0:
        return f"it ended with {signal.Signals(-done.returncode).name}"
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return said[-1] if done.returncode else ""
