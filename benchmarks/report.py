"""Reports as Markdown: the parts that all share, and the whole one of compare.py."""

from __future__ import annotations

import json
from typing import Any


def markdown(report: dict[str, Any]) -> str:
    """All that the report holds, the overview first; it has no headings above the third level."""
    choice = (
        "The peers pick their own instruction set, AVX-512 VNNI where the CPU has it; "
        "only ours is held to the one in its name."
    )
    workloads = report["workloads"]
    sections = [
        "\n".join([heading(report), choice, *report["notes"]]),
        "### Microseconds for a time step\n\n" + _overview(workloads),
        "### Details\n\n" + _details(workloads),
        "### Memory\n\n" + _memory(workloads),
        limits_section(report["limits"]),
    ]
    return "\n\n".join(sections) + "\n"


def summary(report: dict[str, Any]) -> str:
    """The report as JSON, a line for each workload: four digits, and no single rounds."""
    fields = []
    for key, value in report.items():
        lines = [json.dumps(_rounded(item)) for item in value] if isinstance(value, list) else []
        text = "[\n    " + ",\n    ".join(lines) + "\n  ]" if lines else json.dumps(_rounded(value))
        fields.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def heading(report: dict[str, Any]) -> str:
    """The machine, and how it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return (
        f"{report['cpu']}. Threads: {report['threads']}. "
        f"Median of {report['repeats']} rounds. {versions}. {report['date']}."
    )


def _overview(workloads: list[dict[str, Any]]) -> str:
    floors = [key for key in workloads[0]["floors_us"] if key.startswith("int8")]
    peers = dict.fromkeys(result["peer"] for w in workloads for result in w["results"])
    rows = []
    for workload in workloads:
        medians = {result["peer"]: result["median_us"] for result in workload["results"]}
        rows.append(
            [workload["name"]]
            + [number(workload["floors_us"][floor]) for floor in floors]
            + [number(medians[peer]) if peer in medians else "" for peer in peers]
        )
    return table(["workload", *(f"floor {key}" for key in floors), *peers], rows)


def _details(workloads: list[dict[str, Any]]) -> str:
    columns = {
        "median us": "median_us",
        "min us": "min_us",
        "GMAC/s": "gmacs",
        "time / ours": "ratio_to_ours",
        "time / floor": "ratio_to_floor",
        "SNR dB": "snr_db",
    }
    rows = [
        [workload["name"], result["peer"], *(number(result[key]) for key in columns.values())]
        for workload in workloads
        for result in workload["results"]
    ]
    return table(["workload", "peer", *columns], rows, labels=2)


def _memory(workloads: list[dict[str, Any]]) -> str:
    rows = []
    for workload in workloads:
        int8, packed = workload["int8_bytes"], workload["packed_bytes"]
        rows.append([workload["name"], f"{int8:,}", f"{packed:,}", f"{packed / int8:.3f}"])
    return table(["workload", "int8 weight bytes", "packed bytes", "ratio"], rows)


def limits_section(limits: dict[str, Any]) -> str:
    """What limits.cpp measured."""
    rates = [[name, number(rate)] for name, rate in limits["gmacs"].items()]
    reads = [
        [f"{int(size) // 1024:,} KB", number(rate)]
        for size, rate in limits["bandwidth_gbs"].items()
    ]
    return "\n\n".join(
        [
            "### Limits of one core",
            table(["instruction sequence", "GMAC/s"], rates),
            table(["working set", "GB/s read"], reads),
        ]
    )


def table(header: list[str], rows: list[list[str]], labels: int = 1) -> str:
    """A Markdown table whose first columns are labels, and whose other ones are numbers."""
    rule = ["---"] * labels + ["---:"] * (len(header) - labels)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def number(value: float) -> str:
    """Three significant digits, and never fewer than the integer part has."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
