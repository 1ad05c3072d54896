"""How a rollout ended: what, why, how long, the worst gate."""

from bot.rollout.duration import spoken
from bot.rollout.effects import Message
from bot.rollout.gate import GateReport, Verdict
from bot.rollout.model import Rollout
from bot.views.blocks import Rendered, context, fields, header, rendered, section
from bot.views.card import lock_screen
from bot.views.escape import clock, escape
from bot.views.gates import gate_table
from bot.views.numbers import limit_of, samples, value
from bot.views.situation import following, headline, possible

_WORST_FIRST = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)
_LINES = 12
READY_PODS = "ready pods"


def final(message: Message, rollout: Rollout) -> Rendered:
    """The last message in the thread."""
    look = rollout.assessment
    ended, begun = rollout.ended_at, rollout.started_at
    lasted = spoken(ended - begun) if ended is not None and begun is not None else ""
    return rendered(
        lock_screen(rollout),
        [
            header(headline(rollout)),
            section(escape(message.text or rollout.reason, 2000)),
            context("" if message.detail in message.text else escape(message.detail, 1900)),
            fields(("Took", lasted), ("Worst gate", worst(look.reports) if look else "")),
            gate_table(look.reports) if look else None,
            section(story(rollout)),
            section(f"{following(rollout)}\n{possible(rollout)}".strip()),
        ],
    )


def worst(reports: tuple[GateReport, ...]) -> str:
    """The gate that decided, or came nearest to its limit."""
    if not reports:
        return ""
    report = min(reports, key=lambda one: (_WORST_FIRST.index(one.verdict), -_closeness(one)))
    limit = f", limit {limit_of(report)}" if report.limit is not None else ""
    counted = f", {samples(report)} requests" if report.samples is not None else ""
    return escape(f"{report.gate} {value(report)}{limit}{counted}", 500)


def _closeness(report: GateReport) -> float:
    """How much of its limit a gate has used; gates that want a minimum of pods have none to use."""
    return (report.value or 0.0) / report.limit if report.limit and report.unit != READY_PODS else 0.0


def story(rollout: Rollout) -> str:
    """The last lines of the history, oldest first."""
    lines = [
        f"{clock(entry.at)}  *{entry.weight_percent}%*  {escape(entry.text, 180)}"
        for entry in rollout.history[-_LINES:]
    ]
    return "\n".join(lines)
