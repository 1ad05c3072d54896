"""Approvals: asked before a step that wants them, answered by people, expiring into a stated default."""

from bot.rollout.draft import CLOCK, Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import MessageKind, Tone
from bot.rollout.events import Request
from bot.rollout.gate import Assessment
from bot.rollout.holds import add_hold, remaining
from bot.rollout.model import Approval, HoldReason, OnSilence, Rollout
from bot.rollout.retreat import roll_back
from bot.rollout.wake import REMINDERS, reminder_at
from bot.values import replace


def ask(draft: Draft, look: Assessment) -> None:
    """Open the question whether the next step may be entered; a standing one stays."""
    rollout = draft.rollout
    step = rollout.step + 1
    if rollout.approval is not None and rollout.approval.step == step:
        return
    policy = rollout.rules.approval
    revision = draft.next_revision()
    draft.set(approval=Approval(step, draft.now, draft.now + policy.expires_s, revision=revision), revision=revision)
    target, weight = rollout.target, rollout.plan.steps[step].weight_percent
    gates = "gates pass" if look.passed else "gates overridden" if rollout.override else "nothing measured yet"
    text = f"Approval needed: {target.service} {target.canary.label} to {weight}% in {target.namespace} ({gates})"
    detail = f"{_wanted(rollout)} Without an answer in {spoken(policy.expires_s)} {_silence(rollout)}."
    draft.say(MessageKind.ASK, text, detail=detail, tone=Tone.WAIT, urgent=True, step=step)
    draft.record("asked", f"approval for {weight}%", CLOCK)


def approve(draft: Draft, request: Request) -> None:
    """Count one person's approval; enough of them let the next look raise."""
    rollout = draft.rollout
    refusal = _refusal(rollout, request)
    if refusal or rollout.approval is None:
        draft.answer(request, refusal)
        return
    policy = rollout.rules.approval
    if policy.four_eyes and request.by.id == rollout.started_by.id:
        draft.answer(request, "Nothing changed: you started this rollout, so somebody else has to approve it.")
        return
    if any(actor.id == request.by.id for actor in rollout.approval.approved_by):
        draft.answer(request, f"Nothing changed: you have approved it already ({_count(rollout)}).")
        return
    approval = replace(rollout.approval, approved_by=(*rollout.approval.approved_by, request.by))
    draft.set(approval=approval)
    weight = rollout.plan.steps[approval.step].weight_percent
    draft.record("approved", f"{weight}% ({_count(draft.rollout)})", request.by)
    who = ", ".join(actor.name or actor.id for actor in approval.approved_by)
    if not draft.rollout.granted:
        draft.answer(request, f"Approved, {_count(draft.rollout)}: more are needed.", tone=Tone.GOOD)
        draft.say(MessageKind.ASKED, f"{_count(draft.rollout)} approved by {who}.", tone=Tone.WAIT, step=approval.step)
        return
    entered = f"Approved: {weight}% is entered at the next look if the gates still pass.{remaining(draft)}"
    draft.answer(request, entered, tone=Tone.GOOD)
    draft.say(
        MessageKind.ASKED, f"Approved by {who} after {spoken(draft.now - approval.asked_at)}.",
        tone=Tone.GOOD, urgent=True, step=approval.step,
    )  # fmt: skip
    draft.look()


def reject(draft: Draft, request: Request) -> None:
    """Say no to the next step: the weight stays where it is, held by the person, until resumed or rolled back."""
    rollout = draft.rollout
    refusal = _refusal(rollout, request)
    if refusal or rollout.approval is None:
        draft.answer(request, refusal)
        return
    if not request.reason:
        draft.answer(request, "Nothing changed: a rejection needs a reason.")
        return
    weight = rollout.plan.steps[rollout.approval.step].weight_percent
    who = request.by.name or request.by.id
    detail = f"{who} rejected {weight}%: {request.reason}"
    step = rollout.approval.step
    draft.set(approval=None, hurry="", override="", pushed_by=None)
    draft.record("rejected", f"{weight}%: {request.reason}", request.by)
    add_hold(draft, HoldReason.PERSON, detail, request.by)
    way_on = "Resume asks again; roll back sends the canary to 0."
    draft.say(MessageKind.ASKED, f"Rejected by {who}: {request.reason}", tone=Tone.BAD, urgent=True, step=step)
    draft.note(f"{detail}. Held at {rollout.weight_percent}%. {way_on}", tone=Tone.WAIT)
    draft.answer(request, f"Rejected; it holds at {rollout.weight_percent}%. {way_on}")


def observe_clock(draft: Draft, stable_ready: int | None, stable_lost: str = "") -> None:
    """Remind at half and at 90% of the window; at its end do what silence means."""
    rollout = draft.rollout
    approval = rollout.approval
    if approval is None or rollout.granted:
        return
    if draft.now >= approval.expires_at:
        _expire(draft, approval, stable_ready, stable_lost)
        return
    reminded = approval.reminded
    while reminded < len(REMINDERS) and draft.now >= reminder_at(replace(approval, reminded=reminded)):
        reminded += 1
    if reminded == approval.reminded:
        return
    draft.set(approval=replace(approval, reminded=reminded))
    weight = rollout.plan.steps[approval.step].weight_percent
    left = spoken(approval.expires_at - draft.now)
    draft.note(
        f"Still waiting for approval of {weight}% ({_count(rollout)}). Without it, in {left} {_silence(rollout)}.",
        tone=Tone.WAIT,
    )


def _expire(draft: Draft, approval: Approval, stable_ready: int | None, stable_lost: str) -> None:
    rollout = draft.rollout
    weight = rollout.plan.steps[approval.step].weight_percent
    waited = spoken(approval.expires_at - approval.asked_at)
    reason = f"The approval for {weight}% expired: nobody decided within {waited} ({_count(rollout)})."
    draft.record("expired", reason, CLOCK)
    draft.say(
        MessageKind.ASKED,
        f"Expired after {waited}: {_silence(rollout)}.",
        tone=Tone.BAD,
        urgent=True,
        step=approval.step,
    )
    draft.set(approval=None, hurry="")
    if rollout.rules.approval.on_expiry is OnSilence.ROLL_BACK:
        roll_back(draft, reason, CLOCK, stable_ready=stable_ready, stable_lost=stable_lost)
        return
    add_hold(draft, HoldReason.PERSON, reason.rstrip("."), CLOCK)
    draft.note(f"{reason} It holds at {rollout.weight_percent}%; resume asks again.", tone=Tone.WAIT)


def _refusal(rollout: Rollout, request: Request) -> str:
    """Why an answer does not count; "" when it does. Buttons are good as long as their question stands."""
    approval = rollout.approval
    if approval is None or rollout.granted:
        return "Nothing changed: no approval is open for this rollout."
    older = request.revision is not None and request.revision < approval.revision
    if older or (request.step is not None and request.step != approval.step):
        return "Nothing changed: that button was for an earlier question. Please use the present one."
    if request.at >= approval.expires_at:
        return "Nothing changed: the approval has expired."
    return ""


def _count(rollout: Rollout) -> str:
    have = len(rollout.approval.approved_by) if rollout.approval else 0
    return f"{have} of {rollout.rules.approval.quorum}"


def _wanted(rollout: Rollout) -> str:
    policy = rollout.rules.approval
    people = "1 approval is" if policy.quorum == 1 else f"{policy.quorum} approvals are"
    who = "; who started it cannot approve it" if policy.four_eyes else ""
    return f"{people} needed{who}."


def _silence(rollout: Rollout) -> str:
    rolls = rollout.rules.approval.on_expiry is OnSilence.ROLL_BACK
    return "it rolls back" if rolls else f"it holds at {rollout.weight_percent}%"
