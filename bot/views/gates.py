"""The gate table: value, stable's value, limit, samples and result of every gate."""

from collections.abc import Sequence

from bot.rollout.gate import GateReport
from bot.views.blocks import Block, table
from bot.views.numbers import MARKS, amount, samples

HEADS = ("Gate", "Canary", "Stable", "Limit", "Samples", "Result")


def gate_table(reports: Sequence[GateReport]) -> Block | None:
    """One row per gate, numbers right-aligned, results in words."""
    return table(HEADS, [_row(report) for report in reports], right=(1, 2, 3, 4))


def _row(report: GateReport) -> tuple[str, ...]:
    return (
        report.gate,
        amount(report.value, report.unit),
        amount(report.stable_value, report.unit),
        amount(report.limit, report.unit),
        samples(report),
        MARKS[report.verdict],
    )
