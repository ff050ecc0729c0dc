#!/usr/bin/env python3
"""Fails where a kernel spills, has a stack frame, or takes more registers than its cap.

python csrc/cmake/check_resources.py lstm_fastkernels/lib/ptxas
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

# Registers a thread, by a part of the kernel's name: the first that fits. Every kernel has a row.
CAPS = {
    "persistent_kernel": 255,  # one block a multiprocessor: all that a thread can have
    "step_kernel": 128,  # of 512 threads: no more fit
    "products_kernel": 128,
    "quantize_kernel": 48,
    "state_kernel": 40,
    "clear_kernel": 32,
    "upload_kernel": 32,
}

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass
class Kernel:
    """What `ptxas -v` says of one kernel on one architecture, with the functions that it calls."""

    name: str
    architecture: str
    registers: int = 0
    stack_bytes: int = 0
    spilled_bytes: int = 0


def kernels(report: str) -> list[Kernel]:
    found: list[Kernel] = []
    for line in report.splitlines():
        if match := ENTRY.search(line):
            found.append(Kernel(*match.groups()))
        elif match := MEMORY.search(line):
            stack, stores, loads = map(int, match.groups())
            found[-1].stack_bytes += stack
            found[-1].spilled_bytes += stores + loads
        elif match := REGISTERS.search(line):
            found[-1].registers = int(match[1])
    return found


def faults(kernel: Kernel, caps: dict[str, int]) -> list[str]:
    cap = next((cap for part, cap in caps.items() if part in kernel.name), None)
    said = []
    if kernel.spilled_bytes:
        said.append(f"spills {kernel.spilled_bytes} bytes")
    if kernel.stack_bytes:
        said.append(f"has a stack frame of {kernel.stack_bytes} bytes")
    if cap is None:
        said.append(f"takes {kernel.registers} registers and has no cap in CAPS")
    elif kernel.registers > cap:
        said.append(f"takes {kernel.registers} registers, {cap} at most")
    return [f"{kernel.name} ({kernel.architecture}) {what}" for what in said]


def main() -> None:
    reports = sorted(Path(sys.argv[1]).glob("*.ptxas"))
    found = [kernel for path in reports for kernel in kernels(path.read_text())]
    if not found:
        sys.exit(f"there is no report of a kernel in {sys.argv[1]}")
    for kernel in found:
        print(f"{kernel.registers:4} registers  {kernel.architecture}  {kernel.name}")
    said = [what for kernel in found for what in faults(kernel, CAPS)]
    sys.exit("\n".join(said) or 0)


if __name__ == "__main__":
    main()
