"""Reports as Markdown: the parts that all share, and the whole one of compare.py."""

from __future__ import annotations

import json
from typing import Any

# Below this, in dB, a result is wrong, however fast it came; all peers that work have 20 or more.
LEAST_SNR_DB = 15.0
WRONG = "wrong"


def markdown(report: dict[str, Any]) -> str:
    """All that the report holds but the limits; it has no headings above the third level."""
    choice = (
        "The peers pick their own instruction set, AVX-512 VNNI where the CPU has it; "
        "only ours is held to the one in its name."
    )
    workloads = report["workloads"]
    sections = [
        "\n".join([heading(report), choice]),
        *notes_section(report["notes"]),
        "### Microseconds for a time step\n\n" + _overview(workloads),
        "### Details\n\n" + _details(workloads),
        "### Memory\n\n" + _memory(workloads),
    ]
    return "\n\n".join(sections)


def notes_section(notes: list[str]) -> list[str]:
    """Who was left out, and why."""
    return ["\n".join(f"- {note}" for note in notes)] if notes else []


def is_wrong(result: dict[str, Any]) -> bool:
    snr = result["snr_db"]
    return snr is None or not snr >= LEAST_SNR_DB


def best_peer(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of those that are not ours, the fastest one that is not wrong."""
    peers = [result for result in results if not result["ours"] and not is_wrong(result)]
    return min(peers, key=lambda result: result["ratio_to_ours"], default=None)


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
        results = workload["results"]
        cells = {result["peer"]: right(result, "median_us") for result in results}
        rows.append(
            [workload["name"]]
            + [number(workload["floors_us"][floor]) for floor in floors]
            + [cells.get(peer, "") for peer in peers]
            + _ratios(results)
        )
    header = ["workload", *(f"floor {key}" for key in floors), *peers]
    return table([*header, "best peer / ours", "ours / floor"], rows)


def _ratios(results: list[dict[str, Any]]) -> list[str]:
    """The best peer's time over ours, and ours over the floor; a wrong result of ours has none."""
    ours, best = results[0], best_peer(results)
    if is_wrong(ours):
        return [WRONG, WRONG]
    ratio = f"{number(best['ratio_to_ours'])} {best['peer']}" if best else ""
    return [ratio, number(ours["ratio_to_floor"])]


def right(result: dict[str, Any], key: str) -> str:
    """A figure of a result, in the place of which a wrong result says that it is."""
    return WRONG if is_wrong(result) else number(result[key])


def _details(workloads: list[dict[str, Any]]) -> str:
    columns = {
        "median us": "median_us",
        "min us": "min_us",
        "GMAC/s": "gmacs",
        "time / ours": "ratio_to_ours",
        "time / floor": "ratio_to_floor",
    }
    rows = [
        [
            *(workload["name"], result["peer"]),
            *(right(result, key) for key in columns.values()),
            snr_cell(result["snr_db"]),
        ]
        for workload in workloads
        for result in workload["results"]
    ]
    return table(["workload", "peer", *columns, "SNR dB"], rows, labels=2)


def snr_cell(snr: float | None) -> str:
    return "none" if snr is None else number(snr)


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
