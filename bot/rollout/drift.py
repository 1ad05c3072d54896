"""The route as it is beside what was written: ours, ahead of the record, ended, changed by somebody else, or gone."""

from bot.rollout.advance import obstacles
from bot.rollout.baking import fresh_bake
from bot.rollout.draft import BOT, Draft
from bot.rollout.effects import MessageKind, Tone
from bot.rollout.events import Remains, Request, RouteGone
from bot.rollout.holds import add_hold, ask_about, drop_hold, remaining
from bot.rollout.model import Direction, HoldReason, Phase, Rollout
from bot.rollout.retreat import ANOTHER, UNCONFIRMED, another, end, hold_for_stable, repin, roll_back
from bot.rollout.route import Mark, RouteState
from bot.rollout.wake import UNSERVED_S
from bot.values import replace

ZEROED = (Phase.ROLLING_BACK.value, Phase.ROLLED_BACK.value)
STUBBORN = 3
"""After so many changes by others at one step, or raises undone at once, only a person says that it is over."""
_KEEPERS = (
    ("argocd", "Argo CD: have it ignore `/spec` of this object and set `RespectIgnoreDifferences=true`, or switch its "
     "self-heal off for the time of the rollout"),
    ("kustomize-controller", "Flux: annotate the object with `kustomize.toolkit.fluxcd.io/ssa: IfNotPresent`, or "
     "`flux suspend kustomization`"),
    ("helm-controller", "Flux: annotate the object with `helm.toolkit.fluxcd.io/driftDetection: disabled`, or "
     "`flux suspend helmrelease`"),
)  # fmt: skip


def observe_route(draft: Draft, route: RouteState, stable_ready: int | None = None) -> bool:
    """Compare a reading with the record; True when it ended or restarted what was going on.

    A mark of ours that is final or ahead wins over the record: a reply or a save was lost. Everything else that
    differs is somebody's doing: hold and ask, never overwrite. Only what nothing serves goes to 0 (see `_unserved`).
    """
    mark = own_mark(draft.rollout, route)
    if mark is not None and mark.phase in (*ZEROED, Phase.PROMOTED.value):
        _ended(draft, route, mark, stable_ready)
        return True
    if mark is not None and mark.revision > _marked(draft.rollout) and _weight(route) == mark.weight_percent:
        return _ahead(draft, mark)
    if route.stable_lost:
        hold_for_stable(draft, route.stable_lost, BOT)
    difference = differs(draft.rollout, route)
    if difference:
        before = draft.rollout.found
        _drifted(draft, route, difference)
        return _unserved(draft, route, stable_ready, before)
    if draft.rollout.held(HoldReason.DRIFT) is None:
        return False
    if draft.rollout.intrusions >= STUBBORN:
        _distrusted(draft, route)
    elif drop_hold(draft, HoldReason.DRIFT):
        draft.set(found=None, gone="", bake=fresh_bake(draft.now, draft.rollout.bake.extra_s))
        draft.note(f"The route's weights are ours again; the bake starts anew.{remaining(draft)}", tone=Tone.GOOD)
    return False


def observe_gone(draft: Draft, event: RouteGone) -> None:
    """There is no route to steer by: hold, and say what happens to the traffic and who can mend it."""
    rollout = draft.rollout
    known = rollout.gone
    draft.set(write=None, found=None, gone=event.detail)
    new = add_hold(draft, HoldReason.DRIFT, event.detail, BOT)
    if new and rollout.touched:
        draft.set(intrusions=rollout.intrusions + 1)
    if known == event.detail and not new:
        return
    if not new:
        draft.say(MessageKind.ASKED, "The route has changed again.")
    target = rollout.target
    ask_about(draft, f"{target.service} is held: {event.detail}. {_without_it(rollout, event)}")


def _without_it(rollout: Rollout, event: RouteGone) -> str:
    target = rollout.target
    canary, stable, weight = target.canary.label, target.stable.label, rollout.weight_percent
    whole = f"as it was, with {stable} {target.total - weight}% and {canary} {weight}%, and it goes on by itself"
    match event.remains:
        case Remains.NOTHING:
            return (
                f"Until it is back, requests for {target.host} go to all its ready pods, {canary}'s too. Its owner has "
                f"to put it back: {whole}; otherwise you are asked again. Roll back ends this rollout, as there is "
                f"nothing to write; to take {canary} out of the traffic meanwhile, scale it to 0."
            )
        case Remains.OBJECT:
            return f"{canary} gets nothing by it. Put the route back {whole}. Roll back ends this rollout."
        case Remains.TRAFFIC:
            return (
                f"Only the route it began with is written. Put that one back {whole}. {canary} has to be taken out of "
                "the other by hand: a roll back cannot be applied until then, and pages."
            )


def own_mark(rollout: Rollout, route: RouteState) -> Mark | None:
    """The route's mark when it is this rollout's."""
    return route.mark if route.mark is not None and route.mark.rollout == rollout.id else None


def differs(rollout: Rollout, route: RouteState) -> str:
    """How the route differs from what we wrote, as a sentence; "" when it does not."""
    target = rollout.target
    canary, stable = _weight(route), route.stable_weight
    by = f" Last changed by `{route.last_manager}`." if route.last_manager else ""
    ours = f"instead of {target.total - rollout.weight_percent}% and {rollout.weight_percent}%"
    if another(rollout, route):
        now = f"; it says {target.stable.label} {stable}%, {target.canary.label} {canary}% {ours}."
        return f"the object {ANOTHER}, so it is another one than this rollout began with{now}" + by
    if route.changed:
        return f"{route.changed}." + by
    if route.canary_lost:
        return f"{route.canary_lost}, so proxies answer {canary}% of the requests with 503."
    if route.others:
        names = ", ".join(f"{name} {weight}%" for name, weight in route.others)
        return f"a third destination has weight: {names}." + by
    if route.canary_weight is None and not target.canary_inserted:
        return f"{target.canary.label} is no longer a destination of the route." + by
    if (canary, stable) != (rollout.weight_percent, target.total - rollout.weight_percent):
        return f"the route says {target.stable.label} {stable}%, {target.canary.label} {canary}% {ours}." + by
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
    """Take the weights that were found as ours, and the object that bears them, with their evidence still to be
    gathered."""
    rollout, found = draft.rollout, draft.rollout.found
    if found is None or rollout.held(HoldReason.DRIFT) is None:
        draft.answer(request, _nothing_found(rollout))
        return
    if against := against_adopting(rollout):
        draft.answer(request, f"Nothing changed: these weights cannot be adopted, {against}")
        return
    weight = _weight(found)
    step = _step_of(rollout, weight)
    passed = [plan for plan in rollout.plan.steps[rollout.step + 1 : step + 1] if plan.approval]
    if passed:
        draft.answer(request, f"Nothing changed: {passed[-1].weight_percent}% needs an approval that was not given.")
        return
    who = request.by.name or request.by.id
    reason = f"{who} adopted the weights found on the route ({weight}%)"
    repin(draft)
    _settled(draft)
    _take(draft, weight, step, found)
    draft.send(Direction.MARK, weight, reason, request.by, step=step, from_percent=weight)
    draft.record("adopted", reason, request.by)
    draft.note(f"{reason}. The bake starts anew.{remaining(draft)}")
    draft.answer(request, f"Adopted: it goes on from {weight}%.", tone=Tone.GOOD)


def reapply(draft: Draft, request: Request) -> None:
    """Write our weight over what was found: downwards at once, upwards only under the rules of a raise."""
    rollout, found = draft.rollout, draft.rollout.found
    if found is None or rollout.held(HoldReason.DRIFT) is None:
        draft.answer(request, _nothing_found(rollout))
        return
    if unrepairable := against_reapplying(rollout):
        draft.answer(request, f"Nothing changed: writing our weights would not repair it, {unrepairable}")
        return
    if _share(found) < rollout.weight_percent and (against := _against_raising(rollout)):
        draft.answer(request, f"Nothing changed: the canary may not get more traffic now: {'; '.join(against)}.")
        return
    who = request.by.name or request.by.id
    reason = f"{who} re-applied {rollout.weight_percent}% over the {_weight(found)}% found on the route"
    mark = own_mark(rollout, found)
    repin(draft)
    _settled(draft)
    draft.set(marked=mark.revision if mark else None)
    ours = (rollout.weight_percent, rollout.target.total - rollout.weight_percent)
    same = (_weight(found), found.stable_weight) == ours
    draft.send(
        Direction.MARK if same else Direction.RAISE, rollout.weight_percent, reason, request.by,
        step=rollout.step, from_percent=_weight(found),
    )  # fmt: skip
    draft.record("reapplied", reason, request.by)
    draft.answer(request, f"Re-applying {rollout.weight_percent}%.", tone=Tone.GOOD)


def against_adopting(rollout: Rollout) -> str:
    """Why the weights found on a drifted route cannot be gone on from, as sentences; "" when they can."""
    found = rollout.found
    if found is None:
        return _nothing_found(rollout)
    if against := against_reapplying(rollout):
        return against
    if _weight(found) + found.stable_weight != rollout.target.total:
        return differs(rollout, found)
    return ""


def against_reapplying(rollout: Rollout) -> str:
    """Why two weights and a mark would not make the route what we wrote, as sentences; "" when they would."""
    found = rollout.found
    if found is None:
        return _nothing_found(rollout)
    way_on = _mending(rollout, found)
    return f"{differs(rollout, found)} {way_on}" if way_on else ""


def _mending(rollout: Rollout, found: RouteState) -> str:
    """What has to be done to a route that two weights and a mark cannot repair."""
    if found.stable_lost:
        return f"Put {rollout.target.stable.label} back."
    missing = found.canary_weight is None and not rollout.target.canary_inserted
    if found.changed or found.canary_lost or missing:
        return "Put that back and it goes on by itself, or roll back."
    return "Take that back and it goes on by itself, or roll back." if found.others else ""


def _nothing_found(rollout: Rollout) -> str:
    if rollout.gone:
        return f"Nothing changed: {rollout.gone}. Put it back as it was, or roll back."
    return "Nothing changed: the route's weights are what was written."


def _settled(draft: Draft) -> None:
    """A person has decided: one more change by others is told as before, and after that it is theirs again."""
    draft.set(intrusions=min(draft.rollout.intrusions, STUBBORN - 1))


def _share(found: RouteState) -> float:
    """The canary's part of the traffic in percent, also where the weights do not sum to the total."""
    everything = found.stable_weight + _weight(found)
    return 100.0 * _weight(found) / everything if everything else 0.0


def _against_raising(rollout: Rollout) -> list[str]:
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
        roll_back(draft, text, BOT, stable_ready=stable_ready, stable_lost=route.stable_lost)


def _ahead(draft: Draft, mark: Mark) -> bool:
    """A write of ours landed although its answer or its save was lost: its weight is the true one."""
    rollout = draft.rollout
    draft.set(marked=mark.revision, revision=max(rollout.revision, mark.revision + 1), write=None, touched=True)
    text = f"Our own write of {mark.weight_percent}% was found on the route ({mark.reason})"
    if mark.weight_percent == rollout.weight_percent:
        draft.set(found=None, gone="")
        if drop_hold(draft, HoldReason.DRIFT):
            draft.set(bake=fresh_bake(draft.now, rollout.bake.extra_s), assessment=None)
            draft.record("found", text, BOT)
            draft.note(f"{text}: our weights are back. The bake of this step starts anew.{remaining(draft)}")
        return False
    _take(draft, mark.weight_percent, _step_of(rollout, mark.weight_percent), None)
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
        gone="", fresh_after=draft.now, hurry="", override="", pushed_by=None,
    )  # fmt: skip


def _drifted(draft: Draft, route: RouteState, difference: str) -> None:
    """Hold, and ask when it is news. A route that others keep changing is asked about a few times and then left to the
    card."""
    rollout = draft.rollout
    draft.set(found=route, gone="")
    new = add_hold(draft, HoldReason.DRIFT, difference.rstrip("."), BOT)
    moved = rollout.found is None or rollout.found.essence != route.essence
    if not new and not moved:
        return
    _was_there(draft, route)
    if rollout.touched:
        draft.set(intrusions=rollout.intrusions + 1)
    if not new and rollout.intrusions >= STUBBORN:
        return
    if not new:
        draft.say(MessageKind.ASKED, "The route has changed again.")
    if not route.stable_lost and not _nothing_serves(draft.rollout, route):
        choices = _choices(draft.rollout, route)
        told = f"{rollout.target.service} is held: {difference}{_again(draft.rollout)}"
        ask_about(draft, f"{told} Nothing is overwritten. {choices}")


def _was_there(draft: Draft, route: RouteState) -> None:
    """A write of ours that nobody confirmed landed before somebody changed the route, as its mark shows: told once,
    for no later reading will show its weight."""
    rollout, hold = draft.rollout, draft.rollout.held(HoldReason.DRIFT)
    mark = own_mark(rollout, route)
    if mark is None or hold is None or mark.revision <= _marked(rollout):
        return
    weight = mark.weight_percent
    if weight in (rollout.weight_percent, _weight(route)):
        return
    if any(entry.weight_percent == weight and entry.at >= hold.since for entry in rollout.history):
        return
    what = f"{weight}% was on the route for a while"
    why = "its confirmation had been lost, and somebody has changed the route since"
    draft.record(UNCONFIRMED, f"{what}: {why}", BOT, weight_percent=weight)
    draft.note(f"{what}: {why}.", tone=Tone.WAIT)


def _choices(rollout: Rollout, route: RouteState) -> str:
    if way_on := _mending(rollout, route):
        return way_on
    adopt = "Re-apply" if against_adopting(rollout) else "Adopt these weights, re-apply"
    return f"{adopt} {rollout.weight_percent}%, or roll back?"


def _again(rollout: Rollout) -> str:
    """How often it was changed at this step, and how to make a program stop that puts back what Git says."""
    found = rollout.found
    manager = found.last_manager if found else ""
    keeper = next((advice for name, advice in _KEEPERS if name in manager), "")
    often = f" This is change {rollout.intrusions} of the route at this step." if rollout.intrusions > 1 else ""
    return f"{often} It will be put back again as long as that is so. {keeper}." if keeper else often


def _distrusted(draft: Draft, route: RouteState) -> None:
    """The route is as we wrote it, and has been changed too often to believe that it stays so."""
    times = draft.rollout.intrusions
    draft.set(found=route, gone="")
    detail = f"the route is as it was written, after {times} changes by others; a person has to say that it stays so"
    standing = draft.rollout.held(HoldReason.DRIFT)
    if standing is not None and standing.detail != detail:
        add_hold(draft, HoldReason.DRIFT, detail, BOT)
        draft.say(MessageKind.ASKED, "The route is as it was written again.")
        ask_about(
            draft,
            f"{draft.rollout.target.service} stays held: {detail}. Find out who writes there; then adopt these "
            "weights to go on, or roll back.",
        )


def overwritten(draft: Draft, route: RouteState, detail: str, times: int) -> None:
    """Every raise is undone at once: stop raising, and ask."""
    draft.set(found=route, intrusions=STUBBORN)
    told = f"{times} raises in a row were not to be had: {detail}"
    if add_hold(draft, HoldReason.DRIFT, told, BOT):
        ask_about(
            draft,
            f"{draft.rollout.target.service} is held: {told}.{_again(draft.rollout)} It is not tried again until you "
            "adopt the weights as they are, which goes on from them; or roll back.",
        )


def _nothing_serves(rollout: Rollout, route: RouteState) -> bool:
    """The canary has weight and no proxy knows where to send it, while stable can take it."""
    return bool(route.canary_lost and _weight(route)) and not route.stable_lost and rollout.touched


def _unserved(draft: Draft, route: RouteState, stable_ready: int | None, before: RouteState | None) -> bool:
    """Send what nothing serves to stable: nobody's traffic is taken away by it, and stable's is as it was.

    Like a canary without a ready pod it is a failure that needs no samples; seen twice, `UNSERVED_S` apart, so that a
    DestinationRule which is being replaced rolls nothing back.
    """
    hold = draft.rollout.held(HoldReason.DRIFT)
    if not _nothing_serves(draft.rollout, route) or hold is None or before is None or not before.canary_lost:
        return False
    if draft.now - hold.since < UNSERVED_S:
        return False
    reason = f"{route.canary_lost}: {_weight(route)}% of the requests had nowhere to go."
    roll_back(draft, reason[0].upper() + reason[1:], BOT, stable_ready=stable_ready)
    return draft.rollout.phase is Phase.ROLLING_BACK


def _marked(rollout: Rollout) -> int:
    return -1 if rollout.marked is None else rollout.marked


def _weight(route: RouteState) -> int:
    return route.canary_weight or 0


def _step_of(rollout: Rollout, weight: int) -> int:
    """The last step whose weight is not above this one, -1 when there is none."""
    return sum(1 for step in rollout.plan.steps if step.weight_percent <= weight) - 1
