"""Runs stages one after the other, each within its time limit, and keeps what they answer.

An answer is a line of output that is a JSON object. It goes to a JSON Lines file as soon as it is
printed, all output to a log. Both are complete up to the moment at which this process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT_OF_TIME, NO_PROGRAM = 124, 127  # exit statuses, as in the shell
POLL_SECONDS = 0.05
TAIL_LINES = 20  # of a failed stage's output that the JSON Lines file gets


@dataclass(frozen=True)
class Stage:
    name: str
    seconds: float  # at most
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    if_it_fails: dict[str, str] = field(default_factory=dict)  # environment of all later stages
    headline: bool = False  # its answers are printed once more at the end


class Answers:
    """A JSON Lines file; a line is on disk before `add` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self._start = time.monotonic()

    def add(self, stage: str, **what: Any) -> None:
        line = {"stage": stage, "at": round(time.monotonic() - self._start, 2), **what}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Output:
    """Takes a stage's output in pieces: prints it at once, and picks out the answers."""

    def __init__(self, stage: Stage, answers: Answers) -> None:
        self._stage, self._file = stage, answers
        self._rest = b""
        self.answers: list[str] = []
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def take(self, piece: bytes) -> None:
        sys.stdout.write(piece.decode(errors="replace"))
        sys.stdout.flush()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._take_line(line.decode(errors="replace"))

    def end(self) -> None:
        if self._rest:
            self.take(b"\n")

    def _take_line(self, line: str) -> None:
        answer = None
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
        if answer is None:
            self.tail.append(line)
        else:
            self.answers.append(line)
            self._file.add(self._stage.name, answer=answer)


def run(
    command: list[str],
    seconds: float,
    environment: dict[str, str],
    log: Path,
    take: Callable[[bytes], None],
) -> int:
    """Returns the exit status. The command writes into the log itself, and `take` gets it from
    there, so that nothing is lost with this process."""
    with log.open("ab") as output, log.open("rb") as written:
        written.seek(0, os.SEEK_END)
        try:
            # A group of its own, to be killed as a whole, but no new session: what ends this
            # process's session ends the command, too.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            output.write(f"{error}\n".encode())
            output.flush()
            take(written.read())
            return NO_PROGRAM
        end = time.monotonic() + seconds
        try:
            while (status := process.poll()) is None and time.monotonic() < end:
                take(written.read())
                time.sleep(POLL_SECONDS)
        finally:
            kill_group(process)
        take(written.read())
        return OUT_OF_TIME if status is None else status


def exit_on_sigterm() -> None:
    """So that a stage that runs does not outlive this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Also ends what the process has left running. One that the kernel does not let go is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def run_stages(stages: list[Stage], seconds: float, answers: Answers, log: Path) -> bool:
    """Runs them all, whatever becomes of each, within so many seconds; whether all went well."""
    end = time.monotonic() + seconds
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    headlines, rows = [], []
    for stage in stages:
        start = time.monotonic()
        limit = max(0.0, min(stage.seconds, end - start))
        print(f"\n== {stage.name}, at most {limit:.0f} s: {' '.join(stage.command)}", flush=True)
        answers.add(stage.name, limit=limit, command=stage.command)
        output, status = Output(stage, answers), OUT_OF_TIME
        if limit > 0:
            status = run(stage.command, limit, environment | stage.environment, log, output.take)
            output.end()
        took = round(time.monotonic() - start, 1)
        tail = list(output.tail) if status else list(output.tail)[-1:]
        answers.add(stage.name, status=status, verdict=verdict(status), seconds=took, tail=tail)
        if status:
            environment |= stage.if_it_fails
        if stage.headline:
            headlines += output.answers
        rows.append((stage.name, took, status, output.tail[-1] if output.tail else ""))
    print("\n==", *headlines, sep="\n")
    for name, took, status, last in rows:
        print(f"{name:28} {took:6.1f} s  {verdict(status):12}  {last[:80]}".rstrip())
    sys.stdout.flush()
    return not any(status for _, _, status, _ in rows)


def verdict(status: int) -> str:
    if status < 0:
        return f"signal {-status}"
    known = {0: "passed", OUT_OF_TIME: "out of time", NO_PROGRAM: "not there"}
    return known.get(status, f"failed ({status})")
