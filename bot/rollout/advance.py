"""When weight may go up: every condition by itself, and what is decided when none is left."""

from collections.abc import Sequence

from bot.rollout.approval import ask
from bot.rollout.draft import BOT, Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import Tone
from bot.rollout.gate import Assessment
from bot.rollout.model import Actor, Direction, HoldReason, Rollout

EXCUSED_BY_OVERRIDE = frozenset((HoldReason.NO_DATA, HoldReason.CANNOT_MEASURE))


def advance(draft: Draft, look: Assessment) -> None:
    """Raise to the next step, ask before it, or finish after the last, when nothing stands against it."""
    rollout = draft.rollout
    if rollout.write is not None:
        return
    against = obstacles(rollout, look)
    if against:
        _spend_override(draft, against)
        return
    following = rollout.next_step
    reason, by = _because(rollout)
    if following is None:
        draft.send(Direction.MARK, rollout.weight_percent, reason, by, step=rollout.step, promotes=True)
        return
    if not _approved(rollout):
        ask(draft, look)
        return
    draft.send(Direction.RAISE, following.weight_percent, reason, by, step=rollout.step + 1)


def _spend_override(draft: Draft, against: Sequence[str]) -> None:
    """An override is for now: one that cannot be used is taken back, and does not lie in wait."""
    if draft.rollout.override:
        draft.set(override="", pushed_by=None)
        draft.record("override-unused", "; ".join(against), BOT)
        draft.note(f"The override could not be used and is taken back: {'; '.join(against)}.", tone=Tone.WAIT)


def obstacles(rollout: Rollout, look: Assessment) -> tuple[str, ...]:
    """What stands against entering the next step, apart from its approval; sentences without a full stop."""
    found = [*_held(rollout), *_unready(look)]
    if not _first(rollout) and not rollout.override:
        found += [*_unproven(rollout, look), *_unbaked(rollout)]
    return tuple(found)


def _first(rollout: Rollout) -> bool:
    """Nothing has been sent to the canary yet, so there is nothing to judge."""
    return rollout.step < 0 and rollout.weight_percent == 0


def _held(rollout: Rollout) -> list[str]:
    excused = EXCUSED_BY_OVERRIDE if rollout.override else frozenset()
    return [hold.detail for hold in rollout.holds if hold.reason not in excused]


def _unready(look: Assessment) -> list[str]:
    sides = (("stable", look.stable_ready), ("the canary", look.canary_ready))
    return [
        f"{side} has no ready pod" if ready == 0 else f"nobody can say whether {side} has ready pods"
        for side, ready in sides
        if not ready
    ]


def _unproven(rollout: Rollout, look: Assessment) -> list[str]:
    if (look.step, look.weight_percent) != (rollout.step, rollout.weight_percent):
        return ["the gates were asked for another step"]
    if not look.passed:
        wanting = [report for report in look.reports if report.verdict != "pass"]
        return [f"{report.gate}: {report.detail}" for report in wanting] or ["no gate has been asked"]
    newest = look.newest_sample_at
    since = max(rollout.fresh_after, rollout.bake.confirmed_at or 0.0)
    if newest is None or newest <= since:
        return ["there are no newer samples yet"]
    return []


def _unbaked(rollout: Rollout) -> list[str]:
    left_s = rollout.needed_s - rollout.bake.covered_s
    if rollout.bake.arrived_at is None and rollout.step >= 0 and not rollout.hurry:
        return ["the weight has not arrived in the traffic yet"]
    if left_s > 0 and not rollout.hurry:
        return [f"it has to bake {spoken(left_s)} more"]
    return []


def _approved(rollout: Rollout) -> bool:
    following = rollout.next_step
    return following is None or not following.approval or rollout.granted


def _because(rollout: Rollout) -> tuple[str, Actor]:
    by = rollout.pushed_by or BOT
    who = by.name or by.id
    if rollout.override:
        return f"{who} overrode the gates: {rollout.override}", by
    if rollout.hurry:
        return f"{who} ended the bake, and all gates pass", by
    agreed = ", ".join(actor.name or actor.id for actor in rollout.approval.approved_by) if rollout.approval else ""
    approved = f", approved by {agreed}" if agreed else ""
    if _first(rollout):
        return f"the first step{approved}", rollout.started_by
    baked = spoken(rollout.bake.covered_s)
    return f"all gates pass, {baked} baked at {rollout.weight_percent}%{approved}", BOT
