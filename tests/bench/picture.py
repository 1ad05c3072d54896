"""The picture of the judge bench: what each judge flags when nothing is wrong, and when something is."""

from collections.abc import Sequence
from pathlib import Path

from tests.bench.table import Row

PATH = Path(__file__).resolve().parents[2] / "docs" / "img" / "judge.png"
SHOWN = (
    ("stable, alpha 0.25%", "canary-bot, against stable", "#1f6f43", "o"),
    ("limit, alpha 0.25%", "canary-bot, against the 1% limit", "#5aa77b", "s"),
    ("2 points", "2 points over 1%", "#c0392b", "^"),
    ("rank test", "rank test (Kayenta)", "#7a6fb0", "D"),
)
NOTHING = (
    "6/min, 0.50%",
    "6/min, 1.00%",
    "60/min, 0.50%",
    "60/min, 1.00%",
    "10/s, 1.00%",
    "1,000/s, 1.00%",
    "60/min, drifting to 1%",
    "10/s, drifting to 1%",
    "60/min bursty, 1.00%",
)
SOMETHING = (
    ("6/min, 0.50%", "x5"),
    ("6/min, 0.50%", "+5 points"),
    ("60/min, 0.05%", "+1 point"),
    ("60/min, 0.50%", "x2"),
    ("60/min, 0.50%", "+1 point"),
    ("60/min, 0.50%", "+5 points"),
    ("60/min, 1.00%", "x2"),
    ("10/s, 0.50%", "+1 point"),
    ("1,000/s, 0.50%", "x2"),
)


def draw(rows: Sequence[Row], path: Path = PATH) -> None:
    """Write the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = {(row["scenario"], row["effect"], row["method"]): row for row in rows}
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, lines in ((left, [(name, "none") for name in NOTHING]), (right, list(SOMETHING))):
        for height, (method, label, colour, marker) in enumerate(SHOWN):
            points = [
                (value, line + 0.18 * (1.5 - height))
                for line, (name, effect) in enumerate(reversed(lines))
                if (value := _value(cells[name, effect, method])) is not None
            ]
            axes.scatter(*zip(*points, strict=True), s=26, color=colour, marker=marker, label=label)
        names = [name if effect == "none" else f"{name}, {effect}" for name, effect in lines]
        axes.set_yticks(range(len(lines)), reversed(names), fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", linewidth=0.4)
    left.set_title("Nothing is wrong: rollouts flagged", fontsize=10)
    left.set_xlabel("% of rollouts (line: 1%)", fontsize=8)
    left.set_xlim(-3, 103)
    left.axvline(1, color="black", linewidth=0.8, linestyle="--")
    left.legend(fontsize=7, loc="center", bbox_to_anchor=(0.55, 0.5))
    right.set_title("Something is wrong: requests until the call", fontsize=10)
    right.set_xlabel("canary requests, median (left out: under half are called)", fontsize=8)
    right.set_xscale("log")
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": ""})


def _value(row: Row) -> float | None:
    if row["effect"] == "none":
        return 100 * float(row["flagged"])
    return float(row["median_requests"]) if row["flagged"] >= 0.5 else None
