"""Runs all comparisons, each in a process of its own, and puts them together as one report.

python benchmarks/run_all.py --workloads 'Q_*' --parts dense-1-thread --out build/results
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import compare
import forms
import plot
import sparse
import streaming
from report import limits_section, notes_section

HERE = Path(__file__).parent
README = HERE / "README.md"
MARK = "<!-- `run_all.py --readme` replaces what is below. -->\n"


class Part(NamedTuple):
    title: str
    program: ModuleType
    threads: int = 1


PARTS = {
    "dense-1-thread": Part("Dense, one thread", compare),
    "dense-2-threads": Part("Dense, two threads", compare, threads=2),
    "streaming": Part("Streaming", streaming),
    "sparse": Part("Block-sparse", sparse),
    "forms": Part("4 bits, low rank, 16 bits", forms),
}


def main() -> None:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    reports, faults = {}, []
    for name in arguments.parts:
        part = PARTS[name]
        if len(arguments.cpus) < part.threads:
            faults.append(f"{part.title}: left out, this process may use one core only.")
        elif part_has(part, arguments.workloads):
            try:
                reports[name] = run(name, arguments)
            except subprocess.CalledProcessError as error:
                faults.append(f"{part.title}: the program failed with status {error.returncode}.")
    if panels := {
        PARTS[name].title: report["workloads"]
        for name, report in reports.items()
        if PARTS[name].program is compare
    }:
        plot.draw(panels, arguments.out / plot.NAME)
    Path(arguments.out, "comparison.md").write_text(markdown(reports, faults, "."))
    if arguments.readme:
        write_last_run(README, markdown(reports, faults, os.path.relpath(arguments.out, HERE)))
    print(markdown(reports, faults, arguments.out))
    sys.exit(1 if any("failed" in fault for fault in faults) else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workloads", nargs="+", metavar="GLOB", help="all of a part by default")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="the folder of results")
    parser.add_argument("--readme", action="store_true", help="write the report into README.md")
    parser.add_argument(
        "--cpus",
        type=lambda text: list(map(int, text.split(","))),
        default=sorted(os.sched_getaffinity(0))[:2],
        help="the cores to run on, the first one for one thread: 0,1",
    )
    return parser.parse_args()


def part_has(part: Part, globs: list[str] | None) -> bool:
    names = part.program.WORKLOADS
    return globs is None or any(fnmatch(name, glob) for name in names for glob in globs)


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The report that a part's program writes, on as many cores as it has threads."""
    part = PARTS[name]
    print(f"{part.title}:", file=sys.stderr, flush=True)
    target = arguments.out / f"{name}.json"
    command = [sys.executable, part.program.__file__, "--json", target]
    command += ["--repeats", str(arguments.repeats), "--threads", str(part.threads)]
    if arguments.workloads:
        command += ["--workloads", *arguments.workloads]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, arguments.cpus[: part.threads])  # the program inherits it
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    finally:
        os.sched_setaffinity(0, before)
    return json.loads(target.read_text())


def markdown(reports: dict[str, dict[str, Any]], faults: list[str], folder: str | Path) -> str:
    """One report of all; `folder` is where its plot lies, as seen from the text."""
    sections = notes_section(faults)
    if any(PARTS[name].program is compare for name in reports):
        sections.append(f"![Time of every peer over ours]({folder}/{plot.NAME})")
    for name, report in reports.items():
        text = PARTS[name].program.markdown(report).replace("\n### ", "\n#### ")
        sections += [f"### {PARTS[name].title}", text]
    if reports:
        sections.append(limits_section(next(iter(reports.values()))["limits"]))
    return "\n\n".join(sections) + "\n"


def write_last_run(readme: Path, text: str) -> None:
    """Replaces what stands below the mark."""
    kept, mark, _ = readme.read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{readme} has no line {MARK.strip()}")
    readme.write_text(f"{kept}{mark}\n{text}")


if __name__ == "__main__":
    main()
