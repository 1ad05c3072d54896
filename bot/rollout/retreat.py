"""The way back: the canary to 0, tried until it is there, and the end of a rollout."""

from bot.rollout.draft import PAGE_EVERY_S, Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import MessageKind, Tone
from bot.rollout.events import Remains, Request, RouteGone, WriteFailed
from bot.rollout.holds import add_hold, ask_about, close_questions
from bot.rollout.model import Actor, Direction, HoldReason, Phase, Rollout, Source
from bot.rollout.route import RouteState
from bot.rollout.wake import RETRY_S
from bot.values import replace

UNAPPLIED = "cannot-roll-back"
UNCONFIRMED = "unconfirmed"
"""The kind of a history entry: a raise whose fate is unknown."""
SETTLING = frozenset((UNCONFIRMED, "raised", "reapplied", "found", "adopted", "restarted"))
HAND_AFTER = 3
ANOTHER = "was deleted and made again"


def roll_back(draft: Draft, reason: str, by: Actor, *, stable_ready: int | None = None, stable_lost: str = "") -> None:
    """Send the canary to 0 now; a rollout that has touched nothing is cancelled instead.

    Unless a person asks, stable has to be able to take over: known to have no ready pod, or no destination that could
    reach one, it holds and pages.
    """
    rollout = draft.rollout
    if not rollout.touched and rollout.weight_percent == 0:
        end(draft, Phase.CANCELLED, reason, by)
        return
    cannot = stable_cannot_carry(rollout, stable_ready, stable_lost)
    if cannot and by.source is not Source.PERSON:
        hold_for_stable(draft, f"{cannot}, so nothing can take over: {reason}", by)
        return
    close_questions(draft, "Settled: it rolls back.")
    draft.set(
        phase=Phase.ROLLING_BACK,
        holds=(),
        approval=None,
        hurry="",
        override="",
        pushed_by=None,
        found=None,
        reason=reason,
    )
    draft.send(Direction.ZERO, 0, reason, by, step=rollout.step)
    draft.record("rolling-back", reason, by)
    target = rollout.target
    moved = f"{target.canary.label} of {target.service} goes from {rollout.weight_percent}%{tried(rollout)} to 0 now"
    draft.note(f"Rolling back: {moved}. {reason}", tone=Tone.BAD, urgent=True)


def tried(rollout: Rollout) -> str:
    """What the canary may have beyond the record, as a tail for its weight: a raise that was never confirmed."""
    known = next((entry for entry in reversed(rollout.history) if entry.kind in SETTLING), None)
    if known is None or known.kind != UNCONFIRMED:
        return ""
    return f" ({known.weight_percent}% was tried and not confirmed)"


def stable_cannot_carry(rollout: Rollout, stable_ready: int | None, lost: str = "") -> str:
    """Why stable is known to be unable to take the traffic, without a full stop; "" when it can or nobody knows."""
    if lost:
        return lost
    return f"{rollout.target.stable.label} has no ready pod" if stable_ready == 0 else ""


def another(rollout: Rollout, route: RouteState) -> bool:
    """The object is another one than the rollout steers, by its uid."""
    uid = rollout.target.route.uid
    return bool(uid and route.uid and route.uid != uid)


def repin(draft: Draft) -> None:
    """A person who was told that the object was made again means the one that is there now."""
    rollout, found = draft.rollout, draft.rollout.found
    if found is not None and another(rollout, found):
        target = rollout.target
        draft.set(target=replace(target, route=replace(target.route, uid=found.uid)))


def hold_for_stable(draft: Draft, detail: str, by: Actor) -> None:
    """Hold because stable is ill as well, page, and ask a person."""
    target = draft.rollout.target
    if not add_hold(draft, HoldReason.STABLE_UNHEALTHY, detail, by):
        return
    text = (
        f"{target.service} is held at {draft.rollout.weight_percent}%: {detail}. It is not (only) the release, so "
        f"nothing is rolled back by itself. Roll back if {target.stable.label} is the better place all the same."
    )
    draft.page(HoldReason.STABLE_UNHEALTHY.value, f"{target.service}: stable is unhealthy during a canary", detail=text)
    ask_about(draft, text)


def rolled_back(draft: Draft) -> None:
    """The route shows 0: the rollout has ended."""
    rollout = draft.rollout
    by = rollout.write.by if rollout.write else Actor(Source.BOT)
    was = rollout.weight_percent
    draft.set(weight_percent=0, write=None)
    took = f" {spoken(draft.now - rollout.write.decided_at)} after it was decided" if rollout.write else ""
    draft.record("zero", f"{rollout.target.canary.label} at 0 (was {was}%){took}. {rollout.reason}", by)
    if rollout.paged_at is not None:
        over = "is over, without a route" if rollout.gone else "is applied"
        draft.page(UNAPPLIED, f"{rollout.target.service}: the roll back {over}", resolved=True)
    end(draft, Phase.ROLLED_BACK, rollout.reason, by)


def zero_failed(draft: Draft, event: WriteFailed) -> None:
    """The way to 0 is closed: try again for ever, and page people meanwhile."""
    rollout = draft.rollout
    if rollout.write is None:
        return
    attempts = rollout.write.attempts + 1
    if event.route is not None:
        draft.set(gone="")
    if _zero_already(draft, event, attempts):
        return
    way_on, news = "", False
    if event.route is not None and another(rollout, event.route):
        news = rollout.found is None or rollout.found.uid != event.route.uid
        draft.set(found=event.route)
        way_on = f" The object {ANOTHER}: `rollback {rollout.id}` once more sends the one that is there now to 0."
    has = f"{rollout.target.canary.label} keeps {rollout.weight_percent}%{tried(rollout)} of the traffic."
    _page_unapplied(draft, attempts, f"{event.detail}. {has}{way_on}", news=news)


def zero_without_route(draft: Draft, event: RouteGone) -> None:
    """There is nothing to write 0 to. It is over when nothing in the object sends to the canary, or when a person who
    knows wants it so; else it is waited for, as the canary's pods get requests beside stable's, and people are paged.
    """
    rollout = draft.rollout
    if rollout.write is None:
        return
    attempts = rollout.write.attempts + 1
    knows = bool(rollout.gone) or attempts >= HAND_AFTER
    wanted = rollout.write.by.source is Source.PERSON and knows and event.remains is Remains.NOTHING
    draft.set(gone=event.detail)
    if wanted or event.remains is Remains.OBJECT:
        without_route(draft, event.detail, everybody=wanted)
        return
    target = rollout.target
    if event.remains is Remains.TRAFFIC:
        has = f"Take {target.canary.label} out of that one by hand."
    else:
        has = (
            f"Requests for {target.host} go to all its ready pods, {target.canary.label}'s too: scale it to 0, or put "
            f"the route back. `rollback {rollout.id}` once more ends the rollout without it."
        )
    left = event.remains.value
    _page_unapplied(draft, attempts, f"{event.detail}. {has}", news=rollout.write.told != left, left=left)


def without_route(draft: Draft, detail: str, *, everybody: bool) -> None:
    """End a roll back that has nothing to be written to; `everybody`: all ready pods of the host get requests now."""
    target = draft.rollout.target
    all_pods = f" Without it {target.host} may send to all its ready pods, {target.canary.label}'s too: look at it."
    draft.set(reason=f"{draft.rollout.reason} Nothing was written: {detail}.{all_pods if everybody else ''}")
    rolled_back(draft)


def ended_by_person(draft: Draft, request: Request) -> bool:
    """Roll back once more: end without a route, or mean the object that is there now. False when neither is it."""
    rollout = draft.rollout
    if rollout.write is None:
        return False
    if rollout.gone:
        without_route(draft, rollout.gone, everybody=True)
        draft.answer(request, f"Ended, and nothing was written: {rollout.gone}.", tone=Tone.GOOD)
        return True
    if rollout.found is None or not another(rollout, rollout.found):
        return False
    repin(draft)
    draft.set(found=None, write=replace(rollout.write, by=request.by))
    draft.resend()
    draft.answer(request, "Sending the canary of the object that is there now to 0.", tone=Tone.GOOD)
    return True


def _page_unapplied(draft: Draft, attempts: int, why: str, *, news: bool, left: str = "") -> None:
    """Page and say it, at most every five minutes; `news` is said at once, for people act on what they were told.
    `left` is what a route that is gone has left, as `Write.told`."""
    rollout = draft.rollout
    assert rollout.write is not None
    draft.set(write=replace(rollout.write, attempts=attempts))
    again_s = RETRY_S[min(attempts - 1, len(RETRY_S) - 1)]
    if not news and rollout.paged_at is not None and draft.now - rollout.paged_at < PAGE_EVERY_S:
        return
    target = rollout.target
    attempted = (
        f"Tried {attempts} times in {spoken(draft.now - rollout.write.decided_at)}, again every {spoken(again_s)}"
    )
    text = (
        f"The roll back of {target.service} cannot be applied: {why} {attempted} until it works; the card has "
        "the line to do it by hand."
    )
    draft.set(paged_at=draft.now, write=replace(rollout.write, attempts=attempts, told=left))
    draft.page(UNAPPLIED, f"{target.service}: the roll back cannot be applied", detail=text)
    draft.say(MessageKind.ALERT, text, tone=Tone.BAD, urgent=True)


def _zero_already(draft: Draft, event: WriteFailed, attempts: int) -> bool:
    """End when the canary has nothing although our write is refused: by hand, or because the object is another one.

    The same object gets some attempts first, so that our destination is taken out and the mark says the end.
    """
    rollout, route = draft.rollout, event.route
    if route is None or route.canary_weight:
        return False
    made_again = another(rollout, route)
    if not made_again and attempts < HAND_AFTER:
        return False
    found = "the object was made again" if made_again else f"somebody did it, for ours was refused: {event.detail}"
    draft.set(reason=f"{rollout.reason} The route sends nothing to {rollout.target.canary.label} ({found}).")
    rolled_back(draft)
    return True


def end(draft: Draft, phase: Phase, reason: str, by: Actor) -> None:
    """Reach a final phase, say how and why, and close what was open."""
    rollout = draft.rollout
    close_questions(draft, "No longer needed: the rollout has ended.")
    draft.set(
        phase=phase, holds=(), approval=None, write=None, hurry="", override="", pushed_by=None, found=None,
        gone="", reason=reason, ended_at=draft.now,
    )  # fmt: skip
    target = rollout.target
    lasted = spoken(draft.now - (rollout.started_at if rollout.started_at is not None else rollout.created_at))
    match phase:
        case Phase.PROMOTED:
            text = f"Promoted: {target.service} runs {target.canary.label} for 100% of its traffic, after {lasted}."
            draft.say(MessageKind.FINAL, text, detail=reason, tone=Tone.GOOD)
        case Phase.ROLLED_BACK:
            again = f"{target.service} is on {target.stable.label} again{tried(rollout)}"
            text = f"Rolled back: {again}, after {lasted}. {reason}"
            draft.say(MessageKind.FINAL, text, tone=Tone.BAD)
            if by.source is not Source.PERSON:
                draft.say(MessageKind.ALERT, text, tone=Tone.BAD, urgent=True)
        case _:
            text = f"Cancelled: no traffic of {target.service} was moved. {reason}"
            draft.say(MessageKind.FINAL, text, tone=Tone.INFO)
            if by.source is not Source.PERSON:
                draft.say(MessageKind.ALERT, text, tone=Tone.BAD)
    draft.record(phase.value, reason, by)
