"""The gate table: value, stable's value, limit, samples, what these could show, and result of every gate."""

from collections.abc import Sequence

from bot.rollout.gate import GateReport
from bot.views.blocks import Block, table
from bot.views.numbers import could_show, limit_of, result, samples, stable_value, value

HEADS = ("Gate", "Canary", "Stable", "Limit", "Samples", "Could show", "Result")


def gate_table(reports: Sequence[GateReport]) -> Block | None:
    """One row per gate, numbers right-aligned, results in words."""
    return table(HEADS, [_row(report) for report in reports], right=(1, 2, 3, 4, 5))


def _row(report: GateReport) -> tuple[str, ...]:
    return (
        report.gate,
        value(report),
        stable_value(report),
        limit_of(report),
        samples(report),
        could_show(report),
        result(report),
    )
