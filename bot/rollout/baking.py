"""How far a step has baked: has its weight arrived, and which seconds do samples cover."""

from bot.rollout.draft import BOT, CLOCK, Draft
from bot.rollout.duration import spoken
from bot.rollout.effects import Tone
from bot.rollout.gate import Assessment, Verdict
from bot.rollout.holds import add_hold, ask_about, drop_hold, remaining
from bot.rollout.model import Bake, HoldReason, OnSilence
from bot.rollout.retreat import roll_back
from bot.values import replace

CLOCKS_APART_S = 5.0
"""What clocks may be apart: beyond that no gate is measured."""


def fresh_bake(now: float, extra_s: float = 0.0) -> Bake:
    """The bake of a weight that the API server has just confirmed."""
    return Bake(confirmed_at=now, covered_until=now, extra_s=extra_s)


def progress(draft: Draft, look: Assessment) -> None:
    """Count the seconds this look covers; only after the weight arrived, and never while the weights are not ours."""
    if _has_yet_to_begin(draft, look):
        _begins_now(draft)
    arrived_before = draft.rollout.bake.arrived_at is not None
    _observe_arrival(draft, look)
    rollout = draft.rollout
    bake, coverage = rollout.bake, look.coverage
    if not arrived_before or coverage is None or coverage.until <= bake.covered_until:
        return
    countable_s = 0.0 if rollout.held(HoldReason.DRIFT) else coverage.until - bake.covered_until
    added_s = max(0.0, min(coverage.added_s, countable_s))
    draft.set(bake=replace(bake, covered_s=bake.covered_s + added_s, covered_until=coverage.until))


def _has_yet_to_begin(draft: Draft, look: Assessment) -> bool:
    """A clock that was ahead said when the weight was confirmed. That ours is right now is known when the gates can be
    measured: they cannot be where Prometheus' clock is another."""
    confirmed_at = draft.rollout.bake.confirmed_at
    ahead = confirmed_at is not None and confirmed_at > draft.now + CLOCKS_APART_S
    return ahead and bool(look.reports) and all(report.verdict is not Verdict.ERROR for report in look.reports)


def _begins_now(draft: Draft) -> None:
    """Until its bake had begun, no sample would count for the gates, and nobody would see a canary that fails."""
    rollout = draft.rollout
    assert rollout.bake.confirmed_at is not None
    ahead = spoken(rollout.bake.confirmed_at - draft.now)
    draft.set(bake=fresh_bake(draft.now, rollout.bake.extra_s), fresh_after=draft.now, evidence=())
    draft.note(f"The bake of {rollout.weight_percent}% starts anew: it was begun by a clock that was {ahead} ahead.")


def _observe_arrival(draft: Draft, look: Assessment) -> None:
    rollout = draft.rollout
    bake = rollout.bake
    if bake.confirmed_at is None or rollout.held(HoldReason.DRIFT) is not None:
        return
    waited_out = draft.now - bake.confirmed_at >= rollout.rules.arrival_s
    match look.share.arrived:
        case True:
            if not bake.seen:
                at = bake.arrived_at if bake.arrived_at is not None else draft.now
                draft.set(bake=replace(bake, arrived_at=at, seen=True, covered_until=max(bake.covered_until, at)))
            if drop_hold(draft, HoldReason.NOT_ARRIVED):
                draft.note(f"The weight has arrived in the traffic.{remaining(draft)}", tone=Tone.GOOD)
        case None if bake.arrived_at is None and waited_out and rollout.held(HoldReason.NOT_ARRIVED) is None:
            at = bake.confirmed_at + rollout.rules.arrival_s
            draft.set(bake=replace(bake, arrived_at=at, covered_until=max(bake.covered_until, at)))
            why = f" {look.share.note}" if look.share.note else ""
            draft.note(
                f"The bake of {rollout.weight_percent}% began {spoken(rollout.rules.arrival_s)} after the weight was "
                f"set: whether it shows in the traffic cannot be measured.{why}"
            )
        case False if waited_out and not bake.seen:
            share = "none" if look.share.percent is None else f"{look.share.percent:.1f}%"
            seen = f"{share} of the traffic reaches the canary instead of {rollout.weight_percent}%"
            why = look.share.note or "Proxies may be stale."
            if add_hold(draft, HoldReason.NOT_ARRIVED, f"{seen}. {why}".removesuffix("."), BOT):
                draft.note(
                    f"Held: {seen}, {spoken(draft.now - bake.confirmed_at)} after the API server took the weight. "
                    f"{why} It goes on by itself when the weight arrives.",
                    tone=Tone.WAIT,
                )
        case _:
            pass


def observe_silence(draft: Draft, look: Assessment) -> None:
    """After too long with too little data: hold and ask, or roll back where the rules say so.

    With somebody else's weights on the route nobody can expect data.
    """
    rollout = draft.rollout
    if rollout.held(HoldReason.DRIFT) is not None:
        draft.set(bake=replace(rollout.bake, inconclusive_since=None))
        return
    verdicts = {report.verdict for report in look.reports}
    if Verdict.INCONCLUSIVE not in verdicts:
        if Verdict.ERROR not in verdicts and look.reports:
            if rollout.bake.inconclusive_since is not None:
                draft.set(bake=replace(rollout.bake, inconclusive_since=None))
            if drop_hold(draft, HoldReason.NO_DATA):
                draft.note(f"There is enough data again.{remaining(draft)}", tone=Tone.GOOD)
        return
    since = rollout.bake.inconclusive_since
    if since is None:
        draft.set(bake=replace(rollout.bake, inconclusive_since=draft.now))
        return
    limit_s = rollout.rules.no_data_after_s or 2 * (rollout.needed_s or rollout.plan.steps[0].bake_s)
    if draft.now - since < limit_s:
        return
    wanting = [report for report in look.reports if report.verdict is Verdict.INCONCLUSIVE]
    detail = f"too little data for {spoken(draft.now - since)}: {wanting[0].detail}"
    if rollout.rules.on_no_data is OnSilence.ROLL_BACK:
        reason, ready = f"{detail} The rules say to roll back then.", look.stable_ready
        roll_back(draft, reason, CLOCK, stable_ready=ready, stable_lost=look.stable_lost)
    elif add_hold(draft, HoldReason.NO_DATA, f"too little data: {wanting[0].detail}", BOT):
        ask_about(
            draft,
            f"{rollout.target.service} is held at {rollout.weight_percent}%: {detail} It goes on by itself when there "
            "is enough. You can wait, roll back, or promote with --override and a reason.",
        )
