"""One table of figures: printed for people, written as rows for machines."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"
Row = Mapping[str, Any]


@dataclass(slots=True)
class Table:
    """Rows with the same columns; `failures` are requirements that were not met."""

    title: str
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def show(self, console: Console) -> None:
        """Print it."""
        shown = RichTable(title=self.title, title_justify="left")
        columns = list(self.rows[0]) if self.rows else []
        for column in columns:
            shown.add_column(column, justify="left" if isinstance(self.rows[0][column], str) else "right")
        for row in self.rows:
            shown.add_row(*(_text(row[column]) for column in columns))
        console.print(shown)
        for failure in self.failures:
            console.print(f"NOT MET: {failure}", style="red")

    def write(self, name: str) -> Path:
        """Write the rows to `build/bench/<name>.json`."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{name}.json"
        path.write_text(
            json.dumps({"title": self.title, "rows": self.rows, "failures": self.failures}, indent=2) + "\n"
        )
        return path


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _text(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
