"""The comparison as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from report import is_wrong

NAME = "comparison.svg"
MARKERS = "ovs^DPX"  # seven, so that each of ten colours meets all of them


def draw(panels: dict[str, list[dict[str, Any]]], target: Path) -> None:
    """A panel for each list of workloads; what is wrong is not shown."""
    rows = max(map(len, panels.values()))
    figure, all_axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(5 * len(panels) + 3, max(5, 1.5 + 0.35 * rows)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    names = dict.fromkeys(
        result["peer"]
        for workloads in panels.values()
        for workload in workloads
        for result in workload["results"]
    )
    styles = {
        name: {"color": f"C{i % 10}", "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(names)
    }
    for axes, (title, workloads) in zip(all_axes[0], panels.items(), strict=True):
        for name, style in styles.items():
            points = [
                (result["ratio_to_ours"], place)
                for place, workload in enumerate(workloads)
                for result in workload["results"]
                if result["peer"] == name and not is_wrong(result)
            ]
            axes.scatter(*zip(*points, strict=True) if points else ([], []), label=name, **style)
        axes.set(xscale="log", xlabel="time / ours (int8)", title=title)
        axes.set_yticks(range(len(workloads)), [workload["name"] for workload in workloads])
        axes.axvline(1, color="black", linewidth=0.8)
        axes.grid(axis="y", linewidth=0.3)
    all_axes[0][0].invert_yaxis()
    figure.legend(*all_axes[0][0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
