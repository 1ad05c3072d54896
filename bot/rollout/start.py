"""How a rollout comes to be: scheduled by a person, or as the undoing of one that was promoted."""

from dataclasses import replace

from bot.rollout.draft import Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import Decision, MessageKind, Tone
from bot.rollout.events import Due
from bot.rollout.gate import GateSpec
from bot.rollout.model import Actor, Direction, Phase, Rollout, Rules, Source, Target, Write
from bot.rollout.plan import Plan
from bot.rollout.plan import text as plan_text
from bot.rollout.retreat import end


def scheduled(
    *,
    id: str,
    target: Target,
    plan: Plan,
    gates: tuple[GateSpec, ...],
    rules: Rules,
    by: Actor,
    now: float,
    at: float | None = None,
    start_weight: int = 0,
) -> Rollout:
    """The first state of a rollout that begins at `at` (epoch seconds; None is at once).

    `start_weight` is what the canary has already (`--adopt`): it goes on from the step above.
    """
    step = sum(1 for one in plan.steps if one.weight_percent <= start_weight) - 1
    return Rollout(
        id=id, revision=1, target=target, plan=plan, gates=gates, rules=rules, phase=Phase.SCHEDULED, created_at=now,
        started_by=by, scheduled_at=now if at is None else at, step=step, weight_percent=start_weight,
    )  # fmt: skip


def undo(of: Rollout, new_id: str, by: Actor, now: float) -> Rollout:
    """A rollout that takes a promoted one back: all weight to the former stable, at once, also in a freeze.

    Raises ValueError when `of` was not promoted.
    """
    if of.phase is not Phase.PROMOTED:
        raise ValueError(f"{of.id} is {of.phase.value}, not Promoted")
    who = by.name or by.id
    reason = f"undone by {who}"
    write = Write(0, 1, Direction.ZERO, reason, by, now, step=len(of.plan.steps) - 1, from_percent=100)
    return Rollout(
        id=new_id, revision=1, target=of.target, plan=of.plan, gates=of.gates, rules=of.rules,
        phase=Phase.ROLLING_BACK, created_at=now, started_by=by, scheduled_at=now, step=len(of.plan.steps) - 1,
        weight_percent=100, write=write, undo_of=of.id, started_at=now, reason=reason, touched=True,
    )  # fmt: skip


def opening(rollout: Rollout, now: float) -> Decision:
    """What is said, recorded and done about a rollout that has just been made by `scheduled` or `undo`."""
    draft = Draft(rollout, now)
    target, who = rollout.target, rollout.started_by.name or rollout.started_by.id
    if rollout.undo_of:
        text = f"{who} undoes {rollout.undo_of}: all weight of {target.service} goes back to {target.stable.label} now."
        draft.note(text, tone=Tone.BAD, urgent=True)
        draft.record("undo", text, rollout.started_by)
        draft.resend()
    elif rollout.scheduled_at > now:
        text = (
            f"{who} scheduled {target.service} {target.canary.label}, in {spoken(rollout.scheduled_at - now)}: "
            f"{plan_text(rollout.plan)}."
        )
        draft.note(text)
        draft.record("scheduled", text, rollout.started_by)
    else:
        draft.record("asked-to-start", plan_text(rollout.plan), rollout.started_by)
    draft.say(MessageKind.CARD, urgent=True)
    draft.set(card_at=now)
    return draft.decision()


def due(draft: Draft, event: Due) -> None:
    """The time has come: begin, unless preflight found what refuses it."""
    rollout = draft.rollout
    if event.problems:
        end(draft, Phase.CANCELLED, f"It could not start: {'; '.join(event.problems)}", Actor(Source.BOT))
        return
    pinned = replace(rollout.target, fingerprint=event.fingerprint or rollout.target.fingerprint)
    draft.set(phase=Phase.PROGRESSING, started_at=draft.now, target=pinned)
    target, who = rollout.target, rollout.started_by.name or rollout.started_by.id
    sides = f"{target.service} from {target.stable.label} to {target.canary.label}"
    text = f"Started by {who}: {sides}, {plan_text(rollout.plan)}."
    draft.record("started", text, rollout.started_by)
    draft.note(text)
    if rollout.weight_percent:
        reason = f"{who} adopted the {rollout.weight_percent}% that {target.canary.label} has already"
        draft.send(Direction.MARK, rollout.weight_percent, reason, rollout.started_by, step=rollout.step)
    draft.look()
