"""After the store has lost its data: rollouts taken on from memory, or rebuilt from the mark on their route.

Either way it holds until a person resumes it: freezes and requests are gone, and a rebuilt one knows less than before.
What had ended by then, and had not been saved, is only told.
"""

from bot.rollout.baking import fresh_bake
from bot.rollout.draft import BOT, Draft
from bot.rollout.effects import Audit, Decision, Message, MessageKind, Tone
from bot.rollout.gate import GateSpec
from bot.rollout.holds import add_hold, ask_about
from bot.rollout.model import HoldReason, Phase, Rollout, Rules, Target
from bot.rollout.plan import Plan
from bot.rollout.plan import text as plan_text
from bot.rollout.route import Mark, RouteState

REVISIONS_APART = 1000
"""The record was ahead of the mark by the changes that only people saw: buttons drawn for those stay out of date."""


def rebuilt(
    *, mark: Mark, target: Target, plan: Plan, gates: tuple[GateSpec, ...], rules: Rules, now: float
) -> Rollout:
    """The rollout of a mark that no record knows: its weight, the last step of `plan` that is not above it, and no
    evidence. `target` is the resolved one; plan, gates and rules are the catalog's of now."""
    step = sum(1 for one in plan.steps if one.weight_percent <= mark.weight_percent) - 1
    return Rollout(
        id=mark.rollout, revision=mark.revision + REVISIONS_APART, target=target, plan=plan, gates=gates, rules=rules,
        phase=Phase.HOLDING, created_at=now, started_by=BOT, scheduled_at=now, step=step,
        weight_percent=mark.weight_percent, marked=mark.revision, bake=fresh_bake(now), fresh_after=now, started_at=now,
        touched=True,
    )  # fmt: skip


def held_rebuilt(rollout: Rollout, now: float) -> Decision:
    """Hold a rollout that has just been rebuilt, and ask."""
    draft = Draft(rollout, now)
    detail = "its record was lost, and it was rebuilt from the mark on its route"
    draft.record("recovered", f"{rollout.weight_percent}%: {detail}", BOT)
    add_hold(draft, HoldReason.RECOVERED, detail, BOT)
    draft.say(MessageKind.CARD, urgent=True)
    draft.set(card_at=now)
    ask_about(
        draft,
        f"{_at(rollout)}: {detail}. Plan and gates are the catalog's of now ({plan_text(rollout.plan)}), and who "
        "started it is not known. Freezes and approvals given before are gone. Gates judge afresh and can roll back. "
        f"Resume to go on from {rollout.weight_percent}%, or roll back?",
    )
    return draft.decision()


def held_in_memory(rollout: Rollout, now: float) -> Decision:
    """Hold a rollout that outlived the store's data in this process, and ask; on the way back nothing is held."""
    draft = Draft(rollout, now)
    if not rollout.phase.final and rollout.phase is not Phase.ROLLING_BACK:
        detail = "Redis lost its data while this ran, and it was kept in memory"
        if add_hold(draft, HoldReason.RECOVERED, detail, BOT):
            ask_about(
                draft,
                f"{_at(rollout)}: {detail}. Freezes that stood before are gone, and so is what people asked in that "
                "moment. Gates go on. Resume to go on, or roll back?",
            )
    return draft.decision()


def ended_unsaved(rollout: Rollout, now: float) -> tuple[Message, Audit]:
    """What everybody is told of an end that no record shows, and its line of the audit; a rollout that still rolls back
    has its canary at 0 without having seen it."""
    target = rollout.target
    match rollout.phase:
        case Phase.PROMOTED:
            how, weight = f"Promoted: {target.service} runs {target.canary.label} for 100% of its traffic", 100
        case Phase.CANCELLED:
            how, weight = f"Cancelled: no traffic of {target.service} was moved", 0
        case _:
            back = f"{target.service} is on {target.stable.label} again, {target.canary.label} is at 0"
            how, weight = f"Rolled back: {back}", 0
    text = (
        f"{how}. {rollout.reason} Redis lost the record of {rollout.id} before this could be saved, so its card stays "
        f"as it is, and the history does not have it. Nothing is left to do; `/canary start {target.service}` begins "
        "anew."
    )
    tone = Tone.GOOD if rollout.phase is Phase.PROMOTED else Tone.BAD
    message = Message(MessageKind.NOTICE, text, tone=tone, channel=rollout.rules.channel, urgent=weight == 0)
    return message, Audit(now, rollout.id, "record-lost", BOT.name, text, weight)


def unfollowed(rollout: Rollout, route: RouteState | None, now: float) -> tuple[Message, Audit]:
    """What everybody is told of a way to 0 of which neither a record nor the route (None: there is none) tells any more
    whether it arrived, and its line of the audit."""
    target = rollout.target
    canary = target.canary.label
    shows = "there is no route any more" if route is None else f"the route gives it {route.canary_weight or 0}% now"
    text = (
        f"{canary} of {target.service} was being sent to 0, and whether that arrived is not known: {shows}, and Redis "
        f"lost the record of {rollout.id}. {rollout.reason} Nobody looks after it now, its card stays as it is, and "
        f"the history does not have it. See that {canary} gets no traffic that it should not have; `/canary start "
        f"{target.service}` begins anew."
    )
    message = Message(MessageKind.NOTICE, text, tone=Tone.BAD, channel=rollout.rules.channel, urgent=True)
    return message, Audit(now, rollout.id, "record-lost", BOT.name, text, 0)


def ended_twice(rollout: Rollout, known: Rollout, now: float) -> tuple[Message, Audit]:
    """What everybody is told of a way to 0 that arrived after another holder had ended the rollout, as the record
    `known` shows, and its line of the audit."""
    target = rollout.target
    text = (
        f"{target.canary.label} of {target.service} was sent to 0 once more. {rollout.reason} {rollout.id} had ended "
        f"as {known.phase} before, and a process that could not reach Redis did not know that: what the route said "
        "since is undone. Set it again if it was meant."
    )
    message = Message(MessageKind.NOTICE, text, tone=Tone.BAD, channel=rollout.rules.channel, urgent=True)
    return message, Audit(now, rollout.id, "ended-twice", BOT.name, text, 0)


def _at(rollout: Rollout) -> str:
    return f"{rollout.target.service} {rollout.target.canary.label} is held at {rollout.weight_percent}%"
