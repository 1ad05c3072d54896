"""The picture of the load bench: how each figure grows with the number of rollouts."""

from collections.abc import Sequence
from pathlib import Path

from tests.bench.table import Row

PATH = Path(__file__).resolve().parents[2] / "docs" / "img" / "load.png"
PANELS = (
    ("Seconds", "s", (
        ("lateness_p99_s", "wake-up late, p99", "#1f6f43"),
        ("verdict_to_zero_p99_s", "verdict to weight 0, p99", "#c0392b"),
        ("ack_p99_s", "command to acknowledgement, p99", "#7a6fb0"),
        ("start_s", "start, everything looked at", "#b9770e"),
    )),
    ("For each rollout and minute", "calls", (
        ("queries_per_rollout_minute", "queries", "#1f6f43"),
        ("api_calls_per_rollout_minute", "API calls", "#c0392b"),
    )),
    ("The bot", "% of a core, MiB", (
        ("cpu_percent", "processor, % of one core", "#c0392b"),
        ("rss_mib", "memory, MiB", "#1f6f43"),
    )),
)  # fmt: skip


def draw(rows: Sequence[Row], path: Path = PATH) -> None:
    """Write the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (title, unit, lines) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for key, label, colour in lines:
            values = [100 * row["cpu_fraction"] if key == "cpu_percent" else row[key] for row in rows]
            axes.plot([row["rollouts"] for row in rows], values, marker="o", color=colour, label=label, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("active rollouts", fontsize=8)
        axes.set_ylabel(unit, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(linewidth=0.4)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": ""})
