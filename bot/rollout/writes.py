"""What became of a change of the route, and what a new holder does first."""

from bot.rollout import drift
from bot.rollout.baking import fresh_bake
from bot.rollout.draft import BOT, Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import Tone
from bot.rollout.events import RouteGone, TookOver, WriteFailed, Written
from bot.rollout.handover import may_be_in_hand
from bot.rollout.holds import drop_hold, remaining
from bot.rollout.model import Direction, HoldReason, Phase, Rollout, Write
from bot.rollout.retreat import SETTLING, UNCONFIRMED, end, rolled_back, zero_failed, zero_without_route
from bot.rollout.route import RouteState
from bot.values import replace

UNSURE = frozenset(("transient", "broken"))
"""Kinds of failure after which the write may be on the route all the same."""
MOVED = frozenset(("conflict", "overwritten"))
"""Kinds of failure for which somebody else is the cause."""


def written(draft: Draft, event: Written) -> None:
    """The route shows our change, read back."""
    write = draft.rollout.write
    assert write is not None
    draft.set(marked=write.revision, write_failures=0)
    if draft.rollout.phase is Phase.ROLLING_BACK:
        rolled_back(draft)
    elif write.promotes:
        end(draft, Phase.PROMOTED, write.reason, write.by)
    elif write.direction is Direction.ZERO:
        _restarted(draft, write)
    else:
        _reached(draft, write)


def _reached(draft: Draft, write: Write) -> None:
    """A weight of the plan (or a mark on one) is confirmed."""
    rollout = draft.rollout
    moved = (write.weight_percent, write.step) != (rollout.weight_percent, rollout.step)
    rewritten = write.direction is Direction.RAISE
    draft.set(write=None, weight_percent=write.weight_percent, step=write.step)
    if rewritten and drop_hold(draft, HoldReason.DRIFT):
        draft.set(found=None, gone="")
    if rewritten and moved and rollout.step >= 0:
        draft.set(intrusions=0)
    if moved or rewritten or rollout.bake.confirmed_at is None:
        draft.set(bake=fresh_bake(draft.now), assessment=None)
    if moved:
        last = draft.rollout.next_step is None
        hurry = "full" if rollout.hurry == "full" and not last else ""
        draft.set(tallies=(), approval=None, override="", hurry=hurry, pushed_by=rollout.pushed_by if hurry else None)
        drop_hold(draft, HoldReason.NO_DATA)
    if rewritten:
        draft.record("raised" if moved else "reapplied", f"{write.weight_percent}%: {write.reason}", write.by)
        draft.note(_reached_text(draft.rollout, write, rollout.weight_percent) + remaining(draft), tone=Tone.GOOD)


def _reached_text(rollout: Rollout, write: Write, was: int) -> str:
    target, step = rollout.target, rollout.current
    text = f"{target.canary.label} of {target.service} is at {write.weight_percent}% (was {was}%): {write.reason}."
    if step is None:
        return text
    following = rollout.next_step
    then = "it is promoted" if following is None else f"{following.weight_percent}%"
    if following is not None and following.approval:
        then += ", after an approval"
    return f"{text} Next: {then}, in {spoken(step.bake_s)} if the gates pass."


def _restarted(draft: Draft, write: Write) -> None:
    """The canary is at 0 to begin again from step 1 with what runs now."""
    rollout = draft.rollout
    was = rollout.weight_percent
    begin_again(draft, write.repin)
    draft.set(write=None, weight_percent=0)
    draft.record("restarted", f"0% (was {was}%): {write.reason}", write.by)
    draft.note(f"{rollout.target.canary.label} is at 0 (was {was}%) and begins again from step 1: {write.reason}.")
    draft.look()


def begin_again(draft: Draft, fingerprint: str) -> None:
    """Forget the evidence and pin what runs now."""
    drop_hold(draft, HoldReason.REDEPLOYED)
    drop_hold(draft, HoldReason.NO_DATA)
    rollout = draft.rollout
    draft.set(
        step=-1, bake=fresh_bake(draft.now), tallies=(), approval=None, assessment=None, override="", hurry="",
        pushed_by=None, fresh_after=draft.now, found=None, evidence=(),
        target=replace(rollout.target, fingerprint=fingerprint),
    )  # fmt: skip


def write_failed(draft: Draft, event: WriteFailed) -> None:
    """A change did not happen: going to 0 tries again for ever, everything else is decided afresh at the next look."""
    rollout = draft.rollout
    write = rollout.write
    assert write is not None
    if rollout.phase is Phase.ROLLING_BACK:
        zero_failed(draft, event)
        return
    failures = rollout.write_failures + 1
    draft.set(write=None, write_failures=failures)
    if write.raising and event.kind in UNSURE:
        _unconfirmed(draft, write, event.detail, failures)
    elif write.raising and event.kind == "overwritten":
        what = f"{write.weight_percent}% was on the route for a moment"
        draft.record("write-failed", f"{what}: {event.detail}", BOT, weight_percent=write.weight_percent)
        draft.note(f"{what}: {event.detail}. It is decided afresh at the next look.", tone=Tone.WAIT)
    elif _told_again(failures):
        what = {
            Direction.RAISE: f"{write.weight_percent}% could not be written",
            Direction.ZERO: "0% could not be written",
            Direction.MARK: "Our annotation could not be written",
        }[write.direction]
        draft.record("write-failed", f"{what}: {event.detail}", BOT)
        times = f" ({failures} times now)" if failures > 1 else ""
        draft.note(
            f"{what}{times}: {event.detail}. The canary keeps {rollout.weight_percent}%; "
            "it is decided afresh at the next look.",
            tone=Tone.WAIT,
        )
    if event.route is None:
        return
    drift.observe_route(draft, event.route)
    again = event.kind in MOVED and write.raising and failures >= drift.STUBBORN
    if again and draft.rollout.phase is rollout.phase and draft.rollout.held(HoldReason.DRIFT) is None:
        drift.overwritten(draft, event.route, event.detail, failures)


def _told_again(failures: int) -> bool:
    """A failure is told at once, and again after 4, 16, 64 in a row."""
    return failures == 1 or (failures & (failures - 1) == 0 and failures.bit_length() % 2 == 1)


def _unconfirmed(draft: Draft, write: Write, detail: str, failures: int) -> None:
    """A raise whose fate is unknown is recorded at the weight it may have brought: nobody may ever confirm it."""
    rollout = draft.rollout
    known = next((entry for entry in reversed(rollout.history) if entry.kind in SETTLING), None)
    told = known is not None and (known.kind, known.weight_percent) == (UNCONFIRMED, write.weight_percent)
    if told and not _told_again(failures):
        return
    what = f"{write.weight_percent}% could not be written for certain"
    draft.record(UNCONFIRMED, f"{what}: {detail}", BOT, weight_percent=write.weight_percent)
    draft.note(
        f"{what}: {detail}. The canary has {rollout.weight_percent}% or {write.weight_percent}% now; "
        "the next reading of the route will tell, and it is decided afresh then.",
        tone=Tone.WAIT,
    )


def took_over(draft: Draft, event: TookOver) -> None:
    """A new holder: fence the old one where it may have a raise in hand, withdraw that, want fresh samples; going to 0
    is gone on with."""
    rollout = draft.rollout
    if rollout.phase is Phase.SCHEDULED:
        return
    if rollout.phase is Phase.ROLLING_BACK:
        found = event.route
        mark = drift.own_mark(rollout, found) if found else None
        if found is not None and mark is not None and mark.phase in drift.ZEROED and not found.canary_weight:
            draft.set(marked=mark.revision)
            rolled_back(draft)
            return
        draft.resend()
        return
    withdrawn = rollout.write
    draft.set(write=None, fresh_after=draft.now)
    if withdrawn is not None and withdrawn.raising:
        draft.record("withdrawn", f"{withdrawn.weight_percent}% was pending when the holder changed", BOT)
        if withdrawn.step == rollout.step:
            draft.note(
                f"Re-applying {withdrawn.weight_percent}% was under way when the holder changed. It is withdrawn: ask "
                "for it again.",
                tone=Tone.WAIT,
            )
        if event.route is None:
            _unconfirmed(
                draft, withdrawn, "the holder changed while it was written, and the route cannot be read now", 1
            )
        _written_over(draft, withdrawn, event.route)
    if event.route is not None and drift.observe_route(draft, event.route) and draft.rollout.phase.final:
        return
    rollout = draft.rollout
    if rollout.phase is Phase.ROLLING_BACK or not rollout.touched or rollout.held(HoldReason.DRIFT) is not None:
        return
    if may_be_in_hand(draft.before, draft.now):
        draft.send(Direction.MARK, rollout.weight_percent, "a new holder took over", BOT, step=rollout.step)


def _written_over(draft: Draft, write: Write, route: RouteState | None) -> None:
    """A raise that nobody confirmed, on a route that was written since: no later reading will tell of it."""
    mark = drift.own_mark(draft.rollout, route) if route else None
    if route is None or mark is None or mark.revision < write.revision:
        return
    when = "it was being written when the holder changed"
    if mark.revision == write.revision:
        if (route.canary_weight or 0) == mark.weight_percent:
            return
        what, why = (
            f"{write.weight_percent}% was on the route for a while",
            f"{when}, and somebody has changed it since",
        )
    else:
        if mark.weight_percent == write.weight_percent:
            return
        what = f"{write.weight_percent}% may have been on the route for a while"
        why = f"{when}, and the route was written again before anybody read it"
    draft.record(UNCONFIRMED, f"{what}: {why}", BOT, weight_percent=write.weight_percent)
    draft.note(f"{what}: {why}.", tone=Tone.WAIT)


def route_gone(draft: Draft, event: RouteGone) -> None:
    """The route is no longer there: nothing can be steered by it, and nothing reaches the canary by it."""
    match draft.rollout.phase:
        case Phase.SCHEDULED:
            return
        case Phase.ROLLING_BACK:
            zero_without_route(draft, event)
        case _:
            write = draft.rollout.write
            if write is not None and write.raising:
                _unconfirmed(draft, write, event.detail, 1)
            drift.observe_gone(draft, event)
