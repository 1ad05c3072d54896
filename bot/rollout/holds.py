"""Reasons to hold: a set, each added and removed on its own; most recover by themselves."""

from collections.abc import Sequence

from bot.rollout.draft import BOT, Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import MessageKind, Tone
from bot.rollout.gate import Assessment, Verdict
from bot.rollout.model import Actor, Freeze, Hold, HoldReason, OnSilence
from bot.rollout.wake import said_at
from bot.values import replace

ASKING = frozenset(
    (HoldReason.DRIFT, HoldReason.NO_DATA, HoldReason.REDEPLOYED, HoldReason.STABLE_UNHEALTHY, HoldReason.RECOVERED)
)


def add_hold(draft: Draft, reason: HoldReason, detail: str, by: Actor) -> bool:
    """Hold for a reason; False when it held for it already (then the newer detail stays)."""
    standing = draft.rollout.held(reason)
    if standing is not None:
        if standing.detail != detail:
            swapped = replace(standing, detail=detail)
            draft.set(holds=tuple(swapped if hold is standing else hold for hold in draft.rollout.holds))
        return False
    draft.set(holds=(*draft.rollout.holds, Hold(reason, draft.now, detail, by)))
    draft.record("hold", f"{reason.value}: {detail}", by)
    return True


def drop_hold(draft: Draft, reason: HoldReason, by: Actor = BOT) -> Hold | None:
    """Stop holding for a reason; the hold that was there, None when there was none."""
    standing = draft.rollout.held(reason)
    if standing is None:
        return None
    draft.set(holds=tuple(hold for hold in draft.rollout.holds if hold is not standing))
    draft.record("unhold", f"{reason.value} after {spoken(draft.now - standing.since)}", by)
    if reason is HoldReason.STABLE_UNHEALTHY:
        draft.page(reason.value, f"{draft.rollout.target.service}: stable is healthy again", resolved=True)
    if reason in ASKING and not any(hold.reason in ASKING for hold in draft.rollout.holds):
        draft.say(MessageKind.ASKED, f"Settled after {spoken(draft.now - standing.since)}: {reason.value}.")
    return standing


def ask_about(draft: Draft, text: str) -> None:
    """Ask people in the channel what to do about a hold."""
    draft.say(MessageKind.ASK, text, tone=Tone.WAIT, urgent=True)


def close_questions(draft: Draft, text: str) -> None:
    """Take back every open question and page: what they were about is decided."""
    rollout = draft.rollout
    if rollout.approval is not None and not rollout.granted:
        draft.say(MessageKind.ASKED, text, step=rollout.approval.step)
    if any(hold.reason in ASKING for hold in rollout.holds):
        draft.say(MessageKind.ASKED, text)
    if rollout.held(HoldReason.STABLE_UNHEALTHY) is not None:
        draft.page(HoldReason.STABLE_UNHEALTHY.value, f"{rollout.target.service}: {text}", resolved=True)
    draft.set(holds=(), approval=None)


def remaining(draft: Draft) -> str:
    """What still holds, as a tail for a sentence; "" when nothing does."""
    holds = draft.rollout.holds
    return f" Still held: {'; '.join(hold.detail for hold in holds)}." if holds else ""


def observe_freezes(draft: Draft, freezes: Sequence[Freeze]) -> None:
    """Hold while a freeze covers the service; nothing goes up then, going to 0 is always possible."""
    service = draft.rollout.target.service
    binding = next((freeze for freeze in freezes if freeze.covers(service, draft.now)), None)
    if binding is None:
        if drop_hold(draft, HoldReason.FREEZE):
            draft.note(f"The freeze is over.{remaining(draft)}")
        return
    until = f" for {spoken(binding.until - draft.now)} from now" if binding.until is not None else ""
    who = binding.by.name or binding.by.id
    if draft.rollout.held(HoldReason.FREEZE) is None:
        detail = f"frozen by {who}{until}: {binding.reason}"
        add_hold(draft, HoldReason.FREEZE, detail, binding.by)
        draft.note(f"Held by a freeze: {detail}. No weight goes up until it ends; gates stay on.", tone=Tone.WAIT)


def observe_nodes(draft: Draft, look: Assessment, blamed: str = "") -> None:
    """Hold while nodes under the canary are critical, or while a failure is put down to the machine."""
    if not look.nodes_critical and not blamed:
        if drop_hold(draft, HoldReason.NODES):
            well = f"The nodes under the canary are well again.{_baking_again(draft)}"
            draft.note(f"{well}{remaining(draft)}", tone=Tone.GOOD)
        return
    told = next((report.detail for report in look.reports if report.holds), "")
    detail = blamed or told or f"critical nodes under the canary: {', '.join(look.nodes_critical)}."
    if add_hold(draft, HoldReason.NODES, detail.removesuffix("."), BOT):
        draft.note(
            f"Held at {draft.rollout.weight_percent}%. {detail} It goes on by itself when that is over; gates stay on.",
            tone=Tone.WAIT,
        )


def _baking_again(draft: Draft) -> str:
    """Where the machine is an excuse the step bakes anew: what was measured there says nothing of the release."""
    rollout = draft.rollout
    if rollout.step < 0 or rollout.rules.on_machine is not OnSilence.HOLD:
        return ""
    draft.set(bake=replace(rollout.bake, confirmed_at=draft.now, covered_s=0.0, covered_until=draft.now))
    return f" The bake of {rollout.weight_percent}% begins again."


def observe_fingerprint(draft: Draft, look: Assessment) -> None:
    """Hold when the canary is no longer what was started: its evidence is void until a person says what now."""
    target = draft.rollout.target
    if not target.fingerprint or not look.canary_fingerprint or look.canary_fingerprint == target.fingerprint:
        return
    detail = f"{target.canary.label} was redeployed in mid-run"
    if add_hold(draft, HoldReason.REDEPLOYED, detail, BOT):
        if draft.rollout.approval is not None:
            draft.say(MessageKind.ASKED, "Void: the canary was redeployed.", step=draft.rollout.approval.step)
        draft.set(approval=None, hurry="", override="", pushed_by=None)
        ask_about(
            draft,
            f"{target.service}: {detail}, so what was measured says nothing about what runs now. It holds at "
            f"{draft.rollout.weight_percent}%. Start again from step 1, or roll back?",
        )


def observe_errors(draft: Draft, look: Assessment) -> None:
    """Hold while a gate cannot be measured; speak of it after 1 min, after 15 min, then hourly."""
    failing = [report for report in look.reports if report.verdict is Verdict.ERROR]
    if not failing:
        gone = drop_hold(draft, HoldReason.CANNOT_MEASURE)
        if gone is not None and gone.said:
            draft.note(
                f"The gates can be measured again, after {spoken(draft.now - gone.since)}.{remaining(draft)}",
                tone=Tone.GOOD,
            )
        return
    detail = f"cannot measure {', '.join(report.gate for report in failing)}: {failing[0].detail.removesuffix('.')}"
    add_hold(draft, HoldReason.CANNOT_MEASURE, detail, BOT)
    hold = draft.rollout.held(HoldReason.CANNOT_MEASURE)
    if hold is None or draft.now < said_at(hold):
        return
    said = hold.said
    while draft.now >= said_at(replace(hold, said=said)):
        said += 1
    spoken_of = replace(hold, said=said)
    draft.set(holds=tuple(spoken_of if other is hold else other for other in draft.rollout.holds))
    draft.note(
        f"Held at {draft.rollout.weight_percent}%: {detail}, for {spoken(draft.now - hold.since)} now. Not measuring "
        "is no failure: nothing is rolled back, and it goes on by itself when the answers are back.",
        tone=Tone.WAIT,
    )
