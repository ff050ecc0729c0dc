"""What `sensitivity` found, as a table and as a heat map."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lstm_fastkernels.compression.lstms import label_of
from lstm_fastkernels.compression.table import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SensitivityRow:
    """A part of an LSTM, compressed by one method while all else stays float.

    sqnr: of the LSTM's outputs on held-out batches, in dB, None without any. metric: what
    `evaluate` gave for the model, None without it.
    """

    module: str
    part: str
    method: str
    sqnr: float | None
    metric: float | None


@dataclass(frozen=True)
class SensitivityReport:
    """A row for each part and method; `str()` is a table of parts by methods, heat_map a picture.

    baseline: the metric of the model as it is, None without `evaluate`.
    """

    rows: list[SensitivityRow]
    baseline: float | None

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Module and part, in the order of the model."""
        return list(dict.fromkeys((row.module, row.part) for row in self.rows))

    def __str__(self) -> str:
        by_place = {(row.module, row.part, row.method): row for row in self.rows}
        has_sqnr = any(row.sqnr is not None for row in self.rows)
        heads = [["module", "part"]]
        for method in self.methods:
            heads[0] += [f"{method}, dB"] * has_sqnr + [method] * (self.baseline is not None)
        cells = []
        for module, part in self.parts:
            line = [label_of(module), part or "all"]
            for method in self.methods:
                row = by_place[module, part, method]
                line += [_text(row.sqnr, ".1f")] * has_sqnr
                line += [_text(row.metric, ".4f")] * (self.baseline is not None)
            cells.append(line)
        lines = [table(heads + cells, names=2)]
        if self.baseline is not None:
            lines.append(f"the model as it is: {self.baseline:.4f}")
        return "\n".join(lines)

    def heat_map(self) -> "Figure":
        """A matplotlib Figure of parts by methods: the metric's change or, without it, the SQNR.

        `heat_map().savefig("map.png")` writes it. Needs matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "heat_map needs matplotlib: pip install matplotlib", name=error.name
            ) from error
        by_place = {(row.module, row.part, row.method): row for row in self.rows}
        values = [
            [self._value(by_place[module, part, method]) for method in self.methods]
            for module, part in self.parts
        ]
        figure = Figure(figsize=(3 + 1.2 * len(self.methods), 1.5 + 0.3 * len(values)))
        axes = figure.subplots()
        image = axes.imshow(values, aspect="auto", cmap="magma")
        axes.set_xticks(range(len(self.methods)), self.methods, rotation=30, ha="right")
        labels = [f"{label_of(module)} {part or 'all'}" for module, part in self.parts]
        axes.set_yticks(range(len(labels)), labels)
        text = "SQNR, dB" if self.baseline is None else "change of the metric"
        figure.colorbar(image, label=text)
        figure.tight_layout()
        return figure

    def _value(self, row: SensitivityRow) -> float:
        """NaN, which is left blank, for what is not finite."""
        if self.baseline is not None and row.metric is not None:
            value = row.metric - self.baseline
        else:
            assert row.sqnr is not None
            value = row.sqnr
        return value if math.isfinite(value) else math.nan


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
