"""A rollout in sentences: its state, why, what happens next and when, and what the reader can do."""

from dataclasses import dataclass
from typing import assert_never

from bot.rollout.drift import against_reapplying
from bot.rollout.duration import spoken
from bot.rollout.gate import Assessment, Verdict
from bot.rollout.model import Hold, HoldReason, OnSilence, Phase, Rollout, Source
from bot.views.escape import code, date, escape, person
from bot.views.numbers import samples, share

EMOJI = {
    Phase.SCHEDULED: "🗓️",
    Phase.PROGRESSING: "🐤",
    Phase.AWAITING_APPROVAL: "✋",
    Phase.HOLDING: "⏸️",
    Phase.ROLLING_BACK: "⏪",
    Phase.PROMOTED: "✅",
    Phase.ROLLED_BACK: "🔴",
    Phase.CANCELLED: "⚪",
}
HELD = {
    HoldReason.PERSON: "somebody said so",
    HoldReason.DRIFT: "the weights are not ours",
    HoldReason.NO_DATA: "too little traffic to judge",
    HoldReason.CANNOT_MEASURE: "metrics cannot be read",
    HoldReason.FREEZE: "freeze",
    HoldReason.NODES: "unhealthy node",
    HoldReason.STABLE_UNHEALTHY: "stable fails as well",
    HoldReason.NOT_ARRIVED: "the weight has not arrived in the traffic",
    HoldReason.REDEPLOYED: "the canary was redeployed",
    HoldReason.RECOVERED: "recovered after a loss of state",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """`state` is plain text for a header; `why`, `next` and `can` are mrkdwn, "" when there is nothing to say."""

    state: str
    why: str
    next: str
    can: str


def situation(rollout: Rollout) -> Situation:
    """What a person who was just woken needs to know, in that order."""
    return Situation(state(rollout), why(rollout), following(rollout), possible(rollout))


def state(rollout: Rollout) -> str:
    """One line without mark-up: `Holding: payments v2 at 25% (freeze)`."""
    target = rollout.target
    service, canary = target.service, target.canary.label
    at = f"{service} {canary} at {rollout.weight_percent}%"
    match rollout.phase:
        case Phase.SCHEDULED:
            return f"Scheduled: {service} {target.stable.label} → {canary}"
        case Phase.PROGRESSING:
            if rollout.write is not None and rollout.write.raising:
                return f"Raising: {service} {canary} from {rollout.weight_percent}% to {rollout.write.weight_percent}%"
            return f"Progressing: {at}"
        case Phase.AWAITING_APPROVAL:
            wanted = rollout.next_step.weight_percent if rollout.next_step else 100
            return f"Approval needed: {service} {canary} from {rollout.weight_percent}% to {wanted}%"
        case Phase.HOLDING:
            return f"Holding: {at} ({', '.join(held_for(rollout, hold) for hold in rollout.holds)})"
        case Phase.ROLLING_BACK:
            return f"Rolling back: {service} {canary} from {rollout.weight_percent}% to 0%"
        case Phase.PROMOTED:
            return f"Promoted: {service} {canary} has all traffic"
        case Phase.ROLLED_BACK:
            return f"Rolled back: {service} {canary} has no traffic"
        case Phase.CANCELLED:
            return f"Cancelled: {service} {canary} never started"
        case _:
            assert_never(rollout.phase)


def held_for(rollout: Rollout, hold: Hold) -> str:
    """A hold in a few words."""
    if hold.reason is HoldReason.DRIFT and rollout.gone:
        return "the route is gone"
    if hold.reason is HoldReason.DRIFT and rollout.found is not None and rollout.found.canary_lost:
        return "nothing serves the canary's traffic"
    return HELD[hold.reason]


def why(rollout: Rollout) -> str:
    """The cause and its consequence."""
    match rollout.phase:
        case Phase.SCHEDULED:
            return f"Starts {date(rollout.scheduled_at)}. Preflight is done again then."
        case Phase.HOLDING | Phase.AWAITING_APPROVAL if rollout.holds:
            lines = [_held(rollout, hold) for hold in rollout.holds]
            return "\n".join([*lines, _judged(rollout)]).strip()
        case Phase.ROLLING_BACK:
            reason = rollout.write.reason if rollout.write else rollout.reason
            failed = rollout.write_failures or (rollout.write.attempts if rollout.write else 0)
            tried = f"\n*It has failed {_times(failed)} and is tried again until it works.*" if failed > 1 else ""
            gone = f"\n*There is no route to write to:* {escape(rollout.gone, 600)}" if rollout.gone else ""
            return f"{escape(reason, 1200) or 'Going back.'}{tried}{gone}"
        case Phase.PROMOTED | Phase.ROLLED_BACK | Phase.CANCELLED:
            return escape(rollout.reason, 1500)
        case _:
            return _judged(rollout)


def _held(rollout: Rollout, hold: Hold) -> str:
    by = f" by {person(hold.by.id, hold.by.name)}" if hold.by.source is Source.PERSON else ""
    return f"• *{held_for(rollout, hold)}*{by} since {date(hold.since)}: {escape(hold.detail, 600)}"


def _judged(rollout: Rollout) -> str:
    look = rollout.assessment
    if rollout.current is None or look is None:
        return "" if rollout.current is None else "The gates have not been asked yet at this weight."
    if look.cause is not None:
        return f"{_verdicts(look)}\n{escape(look.cause.sentence, 900)}".strip()
    return _verdicts(look)


def _verdicts(look: Assessment) -> str:
    named = {
        verdict: [report for report in look.reports if report.verdict is verdict]
        for verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)
    }
    if look.reports and not any(named.values()):
        return "All gates pass."
    lines = [f"✗ {escape(report.detail, 500)}" for report in named[Verdict.FAIL]]
    lines += [f"! {escape(report.detail, 500)}" for report in named[Verdict.ERROR]]
    thin = [f"{escape(report.gate, 60)} {samples(report)}" for report in named[Verdict.INCONCLUSIVE]]
    if thin:
        lines.append(f"… Too little data yet: {', '.join(thin)}.")
    return "\n".join(lines)


def following(rollout: Rollout) -> str:
    """What happens next by itself, and when."""
    match rollout.phase:
        case Phase.SCHEDULED:
            first = rollout.plan.steps[0].weight_percent
            return f"At that time {escape(rollout.target.canary.label, 100)} gets {first}%."
        case Phase.PROGRESSING:
            return _progressing(rollout)
        case Phase.AWAITING_APPROVAL:
            return _silence(rollout)
        case Phase.HOLDING:
            return " ".join(dict.fromkeys(_way_out(rollout, hold.reason) for hold in rollout.holds))
        case Phase.ROLLING_BACK:
            stable = escape(rollout.target.stable.label, 100)
            if rollout.gone:
                again = code(f"/canary rollback {rollout.id}")
                return f"It waits for the route. If that is to stay away, {again} once more ends the rollout."
            return f"{stable} gets all traffic as soon as the API server takes it."
        case Phase.PROMOTED:
            return "If the route is kept in Git, set the weights there as well: Git still says what it said before."
        case Phase.ROLLED_BACK:
            return "The route is as it was before; nothing else changes by itself."
        case Phase.CANCELLED:
            return ""
        case _:
            assert_never(rollout.phase)


def _progressing(rollout: Rollout) -> str:
    step, bake, look = rollout.current, rollout.bake, rollout.assessment
    if rollout.write is not None:
        return f"{rollout.write.weight_percent}% is being written to the route."
    if step is None:
        return f"{rollout.plan.steps[0].weight_percent}% as soon as both sides have ready pods and nothing holds."
    if rollout.hurry:
        return f"{_then(rollout)} as soon as the gates pass."
    if bake.arrived_at is None:
        return f"The bake of {spoken(rollout.needed_s)} begins when {step.weight_percent}% shows in the traffic."
    left_s = max(0.0, rollout.needed_s - bake.covered_s)
    if left_s <= 0:
        return f"{_then(rollout)} at the next look that passes."
    at = (look.at if look else bake.arrived_at) + left_s
    return f"{_then(rollout)} about {date(at, '{time}')}, after {spoken(left_s)} more of passing gates."


def _then(rollout: Rollout) -> str:
    step = rollout.next_step
    if step is None:
        return "Promoted"
    return f"Approval for {step.weight_percent}% is asked" if step.approval else f"{step.weight_percent}%"


def _silence(rollout: Rollout) -> str:
    approval = rollout.approval
    if approval is None:
        return ""
    what = "it rolls back" if rollout.rules.approval.on_expiry is OnSilence.ROLL_BACK else "it holds"
    return f"If nobody answers until {date(approval.expires_at)}, {what}. Gates go on and can roll back before."


def _way_out(rollout: Rollout, reason: HoldReason) -> str:
    match reason:
        case HoldReason.DRIFT if rollout.gone:
            return "Goes on by itself when the route is back as it was; a roll back ends it."
        case HoldReason.DRIFT if rollout.found is not None and against_reapplying(rollout):
            return escape(against_reapplying(rollout), 600)
        case HoldReason.PERSON:
            return "Goes on when somebody resumes it."
        case HoldReason.DRIFT:
            return "Nothing is overwritten: somebody has to say which weights are right."
        case HoldReason.NO_DATA:
            return "Goes on when there is enough traffic to judge."
        case HoldReason.CANNOT_MEASURE:
            return "The weight stays; goes on by itself when the metrics can be read."
        case HoldReason.FREEZE:
            return "Goes on by itself when the freeze ends."
        case HoldReason.NODES:
            return "Goes on by itself when the node is healthy."
        case HoldReason.STABLE_UNHEALTHY:
            return "It is not the release alone, so nothing is rolled back: somebody has to decide."
        case HoldReason.NOT_ARRIVED:
            return "Goes on by itself when the weight shows in the traffic."
        case HoldReason.REDEPLOYED:
            return "What was measured is void: start again from the first step, or roll back."
        case HoldReason.RECOVERED:
            return "Goes on when somebody resumes it."
        case _:
            assert_never(reason)


def possible(rollout: Rollout) -> str:
    """What the reader can do, as words to type."""
    match rollout.phase:
        case Phase.SCHEDULED:
            return f"{code(f'/canary cancel {rollout.id}')} takes it back."
        case Phase.PROMOTED:
            undo = code(f"/canary undo {rollout.target.service}")
            return f"{undo} gives all traffic back to {escape(rollout.target.stable.label, 100)}."
        case Phase.ROLLED_BACK | Phase.CANCELLED:
            return f"{code(f'/canary start {rollout.target.service}')} tries again."
        case _:
            return f"{code(f'/canary rollback {rollout.id}')} sends it to 0% at once; gates can do so at any time."


def headline(rollout: Rollout) -> str:
    """The state with its mark, for a header."""
    return f"{EMOJI[rollout.phase]} {state(rollout)}"


def approvals(rollout: Rollout) -> str:
    """`1 of 2: @grace`; "" without an open approval."""
    approval = rollout.approval
    if approval is None:
        return ""
    names = ", ".join(person(actor.id, actor.name) for actor in approval.approved_by)
    return f"{len(approval.approved_by)} of {rollout.rules.approval.quorum}{': ' + names if names else ''}"


def seen_share(rollout: Rollout) -> str:
    """`24.1% seen in 1,204 requests`, and why it cannot be told or may not have arrived."""
    look = rollout.assessment
    if look is None:
        return "not seen yet"
    seen = "not seen yet"
    if look.share.percent is not None:
        seen = f"{share(look.share.percent)} seen in {look.share.requests:,} requests"
    return f"{seen}\n{escape(look.share.note, 300)}" if look.share.note else seen


def short_verdict(rollout: Rollout) -> str:
    """Gates in two words for a lock screen: `gates pass`, `p99 fails`."""
    look = rollout.assessment
    if look is None or not look.reports:
        return "not judged yet"
    failing = [report.gate for report in look.reports if report.verdict is Verdict.FAIL]
    if failing:
        return f"{', '.join(failing)} fails"
    if any(report.verdict is Verdict.ERROR for report in look.reports):
        return "cannot measure"
    if any(report.verdict is Verdict.INCONCLUSIVE for report in look.reports):
        return "too little data"
    return "gates pass"


def warned(rollout: Rollout) -> str:
    """`1 warning` when something beside the verdicts speaks against going on, "" when nothing does."""
    look = rollout.assessment
    if look is None:
        return ""
    count = len(look.nodes_critical) + bool(look.likely_machine) + (look.canary_ready == 0) + (look.stable_ready == 0)
    return f"{count} warning{'' if count == 1 else 's'}" if count else ""


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
