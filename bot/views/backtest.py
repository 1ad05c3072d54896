"""What a backtest found: how often each gate would have failed on the past, and what to make of it."""

from dataclasses import asdict
from typing import Any

from bot.analysis.backtest import Backtest, GateResult, Outcome, amount, spelled
from bot.rollout.duration import spoken
from bot.rollout.plan import text as plan_text
from bot.views.blocks import Rendered, context, header, rendered, section, table
from bot.views.escape import code, date, escape
from bot.views.numbers import NOTHING, counted

HEADS = ("Gate", "Runs", "Would fail", "Too few requests", "p50", "p95", "Highest")
SHOWN_TIMES = 8


def backtest(result: Backtest) -> Rendered:
    """The table, what each gate teaches, and when it would have failed."""
    title = f"Gates of {result.service} on its last {spoken(result.end - result.begin)}"
    tried = [gate for gate in result.gates if not gate.untried]
    summary = " ".join(gate.advice for gate in tried if gate.advice)
    how = (
        f"{counted(result.runs, 'rollout')} imagined, one every {spoken(result.every_s)}, with {result.stable} in the "
        f"canary's place ({round(result.requests):,} requests): {plan_text(result.plan)}."
    )
    return rendered(
        escape(f"{title}: {summary}", 2500),
        [
            header(title),
            context(escape(how), *(escape(note) for note in result.notes)),
            table(HEADS, [row(gate) for gate in tried], right=range(1, len(HEADS))),
            *(section(_told(gate)) for gate in tried),
            context(*(f"{escape(gate.gate.name)}: {escape(gate.untried)}." for gate in result.gates if gate.untried)),
            context(f"A chart: {code(f'canary-bot simulate --service {result.service} --png gates.png')}"),
        ],
    )


def row(result: GateResult) -> tuple[str, ...]:
    """A gate's line of the table, as plain text."""
    runs = len(result.runs)
    failed, waited = result.count(Outcome.FAILED), result.count(Outcome.WAITED)
    return (
        spelled(result.gate),
        f"{runs:,}",
        f"{failed:,} ({100 * result.failed_share:.0f}%)" if failed else "0",
        f"{waited:,}" if waited else "0",
        *(_value(result, fraction) for fraction in (0.5, 0.95, 1.0)),
    )


def document(result: Backtest) -> dict[str, Any]:
    """Everything as JSON values: times in epoch seconds, values in the gates' units, counts beside the runs."""
    whole: dict[str, Any] = asdict(result)
    for gate, written in zip(result.gates, whole["gates"], strict=True):
        written["failed"] = gate.count(Outcome.FAILED)
        written["waited"] = gate.count(Outcome.WAITED)
        written["failed_share"] = gate.failed_share
        written |= {name: gate.quantile(part) for name, part in (("p50", 0.5), ("p95", 0.95), ("highest", 1.0))}
    return whole


def _value(result: GateResult, fraction: float) -> str:
    value = result.quantile(fraction)
    return NOTHING if value is None else amount(result.gate, value)


def _told(result: GateResult) -> str:
    failed = [run for run in result.runs if run.failed_at is not None]
    when = ", ".join(date(run.failed_at) for run in failed[:SHOWN_TIMES] if run.failed_at is not None)
    more = f" and {len(failed) - SHOWN_TIMES} more" if len(failed) > SHOWN_TIMES else ""
    lines = [f"*{escape(result.gate.name, 60)}*  {escape(result.advice, 1200)}"]
    if failed:
        lines.append(f"When: {when}{more}. The last: {escape(failed[-1].detail, 500)}")
    return "\n".join(lines)
