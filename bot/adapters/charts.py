"""Charts as PNG, by matplotlib (extra `charts`), without a screen."""

from io import BytesIO
from typing import TYPE_CHECKING

from bot.analysis.backtest import Backtest, GateResult, Outcome, amount, spelled
from bot.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN = 11.0
ROW_IN = 2.6
DPI = 120
VALUE, LIMIT, FAILED, WAITED = "#1f5fa8", "#b3261e", "#b3261e", "#8a8a8a"


def backtest_png(result: Backtest) -> bytes:
    """Each tried gate's values over the history, its limit as a line, failed runs shaded, waiting ones marked below.

    Times are UTC. Raises UserError when matplotlib is not installed, and when no gate could be tried.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "Charts need the extra `charts`.", f"Install it: pip install 'canary-bot[charts]' ({error})."
        ) from error
    tried = [gate for gate in result.gates if not gate.untried]
    if not tried:
        raise UserError("There is nothing to draw: no gate could be tried.")
    figure = Figure(figsize=(WIDTH_IN, 1.0 + ROW_IN * len(tried)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(len(tried), 1, sharex=True, squeeze=False)[:, 0])
    for panel, gate in zip(panels, tried, strict=True):
        _draw(panel, gate, result)
    figure.suptitle(f"{result.service}: gates tried on {result.stable}'s past, {result.runs:,} imagined rollouts")
    panels[-1].set_xlabel("begin of the imagined rollout, values at the end of each step (UTC)")
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _draw(panel: "Axes", gate: GateResult, result: Backtest) -> None:
    for run in gate.runs:
        if run.failed_at is not None:
            panel.axvspan(_time(run.begin), _time(run.failed_at), color=FAILED, alpha=0.15, linewidth=0)
    seen = sorted(point for run in gate.runs for point in run.seen)
    panel.plot(
        [_time(at) for at, _ in seen],
        [value for _, value in seen],
        ".",
        color=VALUE,
        markersize=3,
        label="value",
        clip_on=False,
    )
    if gate.gate.limit:
        panel.axhline(gate.gate.limit, color=LIMIT, linewidth=1.2, label=f"limit {amount(gate.gate, gate.gate.limit)}")
    waited = [_time(run.begin) for run in gate.runs if run.outcome is Outcome.WAITED]
    if waited:
        panel.plot(
            waited, [0.02] * len(waited), "|", color=WAITED, label="too few requests",
            transform=panel.get_xaxis_transform(),
        )  # fmt: skip
    failed = gate.count(Outcome.FAILED)
    panel.set_title(f"{spelled(gate.gate)}: {failed} of {len(gate.runs)} would have failed", loc="left", fontsize=10)
    highest = max([gate.gate.limit, *(value for _, value in seen)])
    panel.set_ylim(0, 1.15 * highest or 1.0)
    panel.set_xlim(_time(result.begin), _time(result.end))
    panel.yaxis.set_major_formatter(lambda value, _: amount(gate.gate, value))
    panel.legend(loc="upper right", fontsize=8, framealpha=0.9)
    panel.grid(alpha=0.25)
    panel.xaxis_date("UTC")


def _time(at: float) -> float:
    """The axis' own unit, days since 1970."""
    return at / 86400.0
