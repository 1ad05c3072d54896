"""What people ask of a rollout: each request changes something or nothing, and gets exactly one answer."""

from bot.rollout import drift
from bot.rollout.advance import EXCUSED_BY_OVERRIDE, obstacles
from bot.rollout.draft import Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import Tone
from bot.rollout.events import Request
from bot.rollout.holds import add_hold, drop_hold, remaining
from bot.rollout.model import Direction, HoldReason, Phase, Rollout
from bot.rollout.retreat import ANOTHER, end, ended_by_person, repin, roll_back, stable_cannot_carry, tried
from bot.rollout.writes import begin_again
from bot.values import replace

_NOTHING_TO_ROLL_BACK = (Phase.SCHEDULED, Phase.ROLLING_BACK)
_FIRST = "Nothing changed: it has not begun yet."


def stale(rollout: Rollout, request: Request) -> bool:
    """Whether a button was drawn for another step or revision; answers to approvals have a rule of their own."""
    if request.verb in ("approve", "reject"):
        return False
    drawn_for_another = request.revision is not None and request.revision != rollout.revision
    return drawn_for_another or (request.step is not None and request.step != rollout.step)


def answer_stale(draft: Draft, request: Request) -> None:
    """Say that a button is out of date, and how it stands now; the way to 0 is one more click away."""
    rollout = draft.rollout
    held = f" ({'; '.join(hold.detail for hold in rollout.holds)})" if rollout.holds else ""
    now = f"{rollout.id} is {rollout.phase.value} at {rollout.weight_percent}% now{held}"
    offer = request.verb if request.verb == "rollback" and rollout.phase not in _NOTHING_TO_ROLL_BACK else ""
    way_on = "if it is to go to 0 all the same, click here" if offer else "please use the card as it is"
    text = f"Nothing changed: that button was drawn for an earlier state. {now}; {way_on}."
    draft.answer(request, text, offer=offer)


def ended(draft: Draft, request: Request) -> None:
    """Nothing changes a rollout that has ended."""
    rollout = draft.rollout
    draft.answer(request, f"Nothing changed: {rollout.id} has ended as {rollout.phase.value}.")


def back_again(draft: Draft, request: Request) -> None:
    """Roll back once more: changes something only where the route is not the one that the way to 0 is tried on."""
    if not ended_by_person(draft, request):
        going_back(draft, request)


def going_back(draft: Draft, request: Request) -> None:
    """Nothing stops the way to 0."""
    draft.answer(request, f"Nothing changed: {draft.rollout.id} is rolling back already.")


def not_begun(draft: Draft, request: Request) -> None:
    """The verb wants a rollout that runs."""
    draft.answer(request, _FIRST)


def cancel(draft: Draft, request: Request) -> None:
    """Take back a start before the canary has had any traffic."""
    rollout = draft.rollout
    if rollout.touched or rollout.weight_percent:
        draft.answer(
            request, f"Nothing changed: it has begun ({rollout.weight_percent}%). Use `rollback {rollout.id}` instead."
        )
        return
    end(draft, Phase.CANCELLED, f"Cancelled by {_who(request)}{_because(request)}.", request.by)
    draft.answer(request, "Cancelled; no traffic was moved.", tone=Tone.GOOD)


def cancel_scheduled(draft: Draft, request: Request) -> None:
    """Take back a start that has not begun."""
    end(draft, Phase.CANCELLED, f"Cancelled by {_who(request)}{_because(request)}.", request.by)
    draft.answer(request, "Cancelled; no traffic was moved.", tone=Tone.GOOD)


def rollback(draft: Draft, request: Request) -> None:
    """To 0, now, because a person says so."""
    rollout = draft.rollout
    repin(draft)
    made_again = f" The object {ANOTHER} before." if draft.rollout.target != rollout.target else ""
    roll_back(draft, f"{_who(request)} asked for it{_because(request)}.{made_again}", request.by)
    if draft.rollout.phase is Phase.CANCELLED:
        draft.answer(request, "Cancelled; no traffic had been moved.", tone=Tone.GOOD)
        return
    if rollout.gone:
        draft.answer(request, f"Ending it: {rollout.gone}.", tone=Tone.GOOD)
        return
    look = rollout.assessment
    cannot = stable_cannot_carry(rollout, look.stable_ready, look.stable_lost) if look is not None else ""
    warning = f" Note that {cannot}." if cannot else ""
    draft.answer(
        request, f"Rolling back from {rollout.weight_percent}%{tried(rollout)} to 0 now.{warning}", tone=Tone.GOOD
    )


def hold(draft: Draft, request: Request) -> None:
    """Stop advancing; gates stay on."""
    standing = draft.rollout.held(HoldReason.PERSON)
    if standing is not None:
        since = spoken(draft.now - standing.since)
        draft.answer(request, f"Nothing changed: it is held already, for {since}: {standing.detail}.")
        return
    detail = f"{_who(request)} holds it{_because(request)}"
    add_hold(draft, HoldReason.PERSON, detail, request.by)
    draft.set(hurry="", override="", pushed_by=None)
    draft.note(f"Held at {draft.rollout.weight_percent}%: {detail}. Gates stay on and can still roll back.")
    draft.answer(request, "Held; gates stay on and can still roll back.", tone=Tone.GOOD)


def resume(draft: Draft, request: Request) -> None:
    """Remove what people may remove; every other reason to hold stays, and is named."""
    gone = None if request.option == HoldReason.RECOVERED else drop_hold(draft, HoldReason.PERSON, request.by)
    if gone is None:
        gone = drop_hold(draft, HoldReason.RECOVERED, request.by)
    if gone is None:
        draft.answer(request, f"Nothing changed: no person holds it.{remaining(draft)}")
        return
    left = remaining(draft)
    draft.note(f"{_who(request)} resumed it after {spoken(draft.now - gone.since)}.{left}")
    draft.answer(request, f"Resumed.{left}", tone=Tone.GOOD)
    draft.look()


def promote(draft: Draft, request: Request) -> None:
    """End the bake at the next look: with a PASS, or without one for a stated reason."""
    rollout = draft.rollout
    override = request.option == "override"
    if override and not request.reason:
        draft.answer(request, "Nothing changed: `--override` needs a reason. It is recorded and announced.")
        return
    if rollout.approval is not None and not rollout.granted:
        draft.answer(request, "Nothing changed: it waits for an approval, which promoting does not replace.")
        return
    excused = EXCUSED_BY_OVERRIDE if override else frozenset()
    blocking = [standing.detail for standing in rollout.holds if standing.reason not in excused]
    if blocking:
        draft.answer(request, f"Nothing changed: it is held: {'; '.join(blocking)}.")
        return
    who = _who(request)
    following = rollout.next_step
    to = "the end" if following is None else f"{following.weight_percent}%"
    if override:
        draft.set(override=request.reason, pushed_by=request.by)
        draft.record("override", request.reason, request.by)
        draft.note(f"{who} overrides the gates on the way to {to}: {request.reason}", tone=Tone.WAIT, urgent=True)
        draft.answer(request, f"Overridden: on to {to} without a PASS. Freezes, holds and approvals still bind.")
    else:
        full = request.option == "full"
        draft.set(hurry="full" if full else "step", pushed_by=request.by)
        draft.record("promote", "full" if full else f"to {to}", request.by)
        draft.note(f"{who} ends the bake{' of every step' if full else ''}: on to {to} when all gates pass.")
        against = obstacles(draft.rollout, rollout.assessment) if rollout.assessment is not None else ()
        wait = f" Not yet: {'; '.join(against)}." if against else ""
        draft.answer(request, f"On to {to} at the next look at which all gates pass.{wait}", tone=Tone.GOOD)
    draft.look()


def extend(draft: Draft, request: Request) -> None:
    """Let the present step bake longer."""
    rollout = draft.rollout
    try:
        extra_s = float(request.option)
    except ValueError:
        extra_s = 0.0
    if not 0 < extra_s <= 7 * 86400:
        draft.answer(request, "Nothing changed: extend by a number of seconds up to 7 days.")
        return
    if rollout.current is None or (rollout.approval is not None and not rollout.granted):
        draft.answer(request, "Nothing changed: no step is baking.")
        return
    draft.set(bake=replace(rollout.bake, extra_s=rollout.bake.extra_s + extra_s), hurry="", override="", pushed_by=None)
    draft.record("extended", f"{spoken(extra_s)} longer", request.by)
    left = spoken(draft.rollout.needed_s - draft.rollout.bake.covered_s)
    draft.note(f"{_who(request)} lets it bake {spoken(extra_s)} longer at {rollout.weight_percent}%: {left} left.")
    draft.answer(request, f"Extended: {left} left.", tone=Tone.GOOD)


def settle_drift(draft: Draft, request: Request) -> None:
    """Adopt the weights found on the route, or write ours again."""
    match request.option:
        case "adopt":
            drift.adopt(draft, request)
        case "reapply":
            drift.reapply(draft, request)
        case _:
            draft.answer(request, "Nothing changed: choose `adopt` or `reapply`.")


def restart(draft: Draft, request: Request) -> None:
    """Begin again from step 1 with the canary that runs now."""
    rollout = draft.rollout
    if rollout.held(HoldReason.REDEPLOYED) is None:
        draft.answer(request, "Nothing changed: the canary is what this rollout began with.")
        return
    seen = rollout.assessment.canary_fingerprint if rollout.assessment else ""
    repin = seen or rollout.target.fingerprint
    reason = f"{_who(request)} began again with the redeployed canary{_because(request)}"
    if rollout.approval is not None:
        draft.set(approval=None)
    if rollout.weight_percent == 0:
        begin_again(draft, repin)
        draft.record("restarted", reason, request.by)
        draft.note(f"{reason}.")
        draft.look()
    else:
        draft.send(Direction.ZERO, 0, reason, request.by, step=-1, repin=repin)
    draft.answer(request, "It begins again from step 1.", tone=Tone.GOOD)


def _who(request: Request) -> str:
    return request.by.name or request.by.id


def _because(request: Request) -> str:
    return f": {request.reason}" if request.reason else ""
