"""The route as it is beside what was written: ours, ahead of the record, ended, or changed by somebody else."""

from dataclasses import replace

from bot.rollout.advance import obstacles
from bot.rollout.baking import fresh_bake
from bot.rollout.draft import BOT, Draft
from bot.rollout.effects import MessageKind, Tone
from bot.rollout.events import Request
from bot.rollout.holds import add_hold, ask_about, drop_hold, remaining
from bot.rollout.model import Direction, HoldReason, Phase, Rollout
from bot.rollout.retreat import end, roll_back
from bot.rollout.route import Mark, RouteState

ZEROED = (Phase.ROLLING_BACK.value, Phase.ROLLED_BACK.value)


def observe_route(draft: Draft, route: RouteState, stable_ready: int | None = None) -> bool:
    """Compare a reading with the record; True when it ended or restarted what was going on.

    A mark of ours that is final or ahead wins over the record: a reply or a save was lost. Everything else that
    differs is somebody's doing: hold and ask, never overwrite.
    """
    mark = own_mark(draft.rollout, route)
    if mark is not None and mark.phase in (*ZEROED, Phase.PROMOTED.value):
        _ended(draft, route, mark, stable_ready)
        return True
    if mark is not None and mark.revision > _marked(draft.rollout) and _weight(route) == mark.weight_percent:
        return _ahead(draft, mark)
    difference = differs(draft.rollout, route)
    if difference:
        _drifted(draft, route, difference)
        return False
    if drop_hold(draft, HoldReason.DRIFT):
        draft.set(found=None, bake=fresh_bake(draft.now, draft.rollout.bake.extra_s))
        draft.note(f"The route's weights are ours again; the bake starts anew.{remaining(draft)}", tone=Tone.GOOD)
    return False


def own_mark(rollout: Rollout, route: RouteState) -> Mark | None:
    """The route's mark when it is this rollout's."""
    return route.mark if route.mark is not None and route.mark.rollout == rollout.id else None


def differs(rollout: Rollout, route: RouteState) -> str:
    """How the route differs from what we wrote, as a sentence; "" when it does not."""
    target = rollout.target
    canary, stable = _weight(route), route.stable_weight
    by = f" Last changed by `{route.last_manager}`." if route.last_manager else ""
    if target.route.uid and route.uid and route.uid != target.route.uid:
        return "the object was deleted and made again, so it is another one than this rollout began with." + by
    if route.others:
        names = ", ".join(f"{name} {weight}%" for name, weight in route.others)
        return f"a third destination has weight: {names}." + by
    if (canary, stable) != (rollout.weight_percent, target.total - rollout.weight_percent):
        return (
            f"the route says {target.stable.label} {stable}%, {target.canary.label} {canary}% instead of "
            f"{target.total - rollout.weight_percent}% and {rollout.weight_percent}%." + by
        )
    mark = own_mark(rollout, route)
    if (mark.revision if mark else None) != rollout.marked:
        return "our annotation was removed, set back, or says another weight than the route." + by
    if (
        rollout.marked is None
        and route.mark is not None
        and mark is None
        and route.mark.phase == Phase.PROGRESSING.value
    ):
        return f"the route carries the mark of another rollout that has not ended: {route.mark.rollout}." + by
    return ""


def adopt(draft: Draft, request: Request) -> None:
    """Take the weights that were found as ours, with their evidence still to be gathered."""
    rollout, found = draft.rollout, draft.rollout.found
    if found is None or rollout.held(HoldReason.DRIFT) is None:
        draft.answer(request, "Nothing changed: the route's weights are what was written.")
        return
    weight = _weight(found)
    other = bool(rollout.target.route.uid and found.uid and found.uid != rollout.target.route.uid)
    if found.others or other or weight + found.stable_weight != rollout.target.total:
        draft.answer(request, f"Nothing changed: these weights cannot be adopted, {differs(rollout, found)}")
        return
    step = _step_of(rollout, weight)
    passed = [plan for plan in rollout.plan.steps[rollout.step + 1 : step + 1] if plan.approval]
    if passed:
        draft.answer(request, f"Nothing changed: {passed[-1].weight_percent}% needs an approval that was not given.")
        return
    who = request.by.name or request.by.id
    reason = f"{who} adopted the weights found on the route ({weight}%)"
    _take(draft, weight, step, found)
    draft.send(Direction.MARK, weight, reason, request.by, step=step, from_percent=weight)
    draft.record("adopted", reason, request.by)
    draft.note(f"{reason}. The bake starts anew.{remaining(draft)}")
    draft.answer(request, f"Adopted: it goes on from {weight}%.", tone=Tone.GOOD)


def reapply(draft: Draft, request: Request) -> None:
    """Write our weight over what was found: downwards at once, upwards only under the rules of a raise."""
    rollout, found = draft.rollout, draft.rollout.found
    if found is None or rollout.held(HoldReason.DRIFT) is None:
        draft.answer(request, "Nothing changed: the route's weights are what was written.")
        return
    if unrepairable := _unrepairable(rollout, found):
        draft.answer(request, f"Nothing changed: writing our weights would not repair it, {unrepairable}")
        return
    if _share(found) < rollout.weight_percent and (against := _against_reapplying(rollout)):
        draft.answer(request, f"Nothing changed: the canary may not get more traffic now: {'; '.join(against)}.")
        return
    who = request.by.name or request.by.id
    reason = f"{who} re-applied {rollout.weight_percent}% over the {_weight(found)}% found on the route"
    mark = own_mark(rollout, found)
    draft.set(marked=mark.revision if mark else None)
    ours = (rollout.weight_percent, rollout.target.total - rollout.weight_percent)
    same = (_weight(found), found.stable_weight) == ours
    draft.send(
        Direction.MARK if same else Direction.RAISE, rollout.weight_percent, reason, request.by,
        step=rollout.step, from_percent=_weight(found),
    )  # fmt: skip
    draft.record("reapplied", reason, request.by)
    draft.answer(request, f"Re-applying {rollout.weight_percent}%.", tone=Tone.GOOD)


def _unrepairable(rollout: Rollout, found: RouteState) -> str:
    """Why two weights and a mark would not make the route what we wrote, "" when they would."""
    target = rollout.target
    if found.others or (target.route.uid and found.uid and found.uid != target.route.uid):
        return f"{differs(rollout, found)} Take that back, or roll back."
    if found.canary_weight is None and rollout.weight_percent and not target.canary_inserted:
        return f"{target.canary.label} is no longer a destination of the route. Put it back, or roll back."
    return ""


def _share(found: RouteState) -> float:
    """The canary's part of the traffic in percent, also where the weights do not sum to the total."""
    everything = found.stable_weight + _weight(found)
    return 100.0 * _weight(found) / everything if everything else 0.0


def _against_reapplying(rollout: Rollout) -> list[str]:
    others = tuple(hold for hold in rollout.holds if hold.reason is not HoldReason.DRIFT)
    if rollout.assessment is None:
        return [*(hold.detail for hold in others), "the gates have not been asked yet"]
    baked = replace(rollout.bake, covered_s=rollout.needed_s, arrived_at=rollout.bake.confirmed_at)
    return list(obstacles(rollout.with_(holds=others, bake=baked, override=""), rollout.assessment))


def _ended(draft: Draft, route: RouteState, mark: Mark, stable_ready: int | None) -> None:
    """The route says that this rollout is over: finish the record the same way."""
    draft.set(marked=mark.revision, revision=max(draft.rollout.revision, mark.revision + 1), write=None)
    reason = mark.reason or "found on the route"
    if mark.phase == Phase.PROMOTED.value:
        draft.set(weight_percent=mark.weight_percent)
        end(draft, Phase.PROMOTED, reason, BOT)
    elif _weight(route) == 0:
        if draft.rollout.weight_percent:
            draft.record("zero", f"0 was found on the route: {reason}", BOT)
        draft.set(weight_percent=0)
        end(draft, Phase.ROLLED_BACK, reason, BOT)
    else:
        draft.set(touched=True)
        text = f"{reason} (the route said rolled back, with {_weight(route)}% on the canary)"
        roll_back(draft, text, BOT, stable_ready=stable_ready)


def _ahead(draft: Draft, mark: Mark) -> bool:
    """A write of ours landed although its answer or its save was lost: its weight is the true one."""
    rollout = draft.rollout
    draft.set(marked=mark.revision, revision=max(rollout.revision, mark.revision + 1), write=None, touched=True)
    if mark.weight_percent == rollout.weight_percent:
        drop_hold(draft, HoldReason.DRIFT)
        draft.set(found=None)
        return False
    _take(draft, mark.weight_percent, _step_of(rollout, mark.weight_percent), None)
    text = f"Our own write of {mark.weight_percent}% was found on the route ({mark.reason})"
    draft.record("found", text, BOT)
    draft.note(f"{text}: its confirmation had been lost. The bake of this step starts anew.{remaining(draft)}")
    return True


def _take(draft: Draft, weight: int, step: int, found: RouteState | None) -> None:
    """Make a weight that is on the route the record's, with no evidence yet."""
    if found is not None:
        mark = own_mark(draft.rollout, found)
        draft.set(marked=mark.revision if mark else None)
    drop_hold(draft, HoldReason.DRIFT)
    asked = draft.rollout.approval
    if asked is not None and asked.step != step + 1:
        draft.say(MessageKind.ASKED, f"Void: it goes on from {weight}%.", step=asked.step)
        draft.set(approval=None)
    draft.set(
        weight_percent=weight, step=step, bake=fresh_bake(draft.now), tallies=(), assessment=None, found=None,
        fresh_after=draft.now, hurry="", override="", pushed_by=None,
    )  # fmt: skip


def _drifted(draft: Draft, route: RouteState, difference: str) -> None:
    draft.set(found=route)
    detail = difference.rstrip(".")
    if add_hold(draft, HoldReason.DRIFT, detail, BOT):
        target = draft.rollout.target
        ask_about(
            draft,
            f"{target.service} is held: {difference} Nothing is overwritten. Adopt these weights, re-apply "
            f"{draft.rollout.weight_percent}%, or roll back?",
        )


def _marked(rollout: Rollout) -> int:
    return -1 if rollout.marked is None else rollout.marked


def _weight(route: RouteState) -> int:
    return route.canary_weight or 0


def _step_of(rollout: Rollout, weight: int) -> int:
    """The last step whose weight is not above this one, -1 when there is none."""
    return sum(1 for step in rollout.plan.steps if step.weight_percent <= weight) - 1
