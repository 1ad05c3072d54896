"""What a wake-up means: with a look at the gates, or with the clock alone."""

from bot.rollout import approval
from bot.rollout.advance import advance
from bot.rollout.baking import observe_silence, progress
from bot.rollout.draft import Draft
from bot.rollout.drift import observe_gone, observe_route
from bot.rollout.events import Clocked, Looked
from bot.rollout.gate import Assessment
from bot.rollout.holds import drop_hold, observe_errors, observe_fingerprint, observe_freezes, observe_nodes
from bot.rollout.judging import judge
from bot.rollout.model import HoldReason, Phase, Rollout
from bot.rollout.retreat import stable_cannot_carry
from bot.values import replace

_BACK = (Phase.ROLLING_BACK, Phase.PROMOTED, Phase.ROLLED_BACK, Phase.CANCELLED)


def looked(draft: Draft, event: Looked) -> None:
    """Judge first: a deciding FAIL goes before everything that could hold; then hold, bake, ask, and advance last."""
    look = event.assessment
    draft.card_every_s = event.card_every_s
    known = event.route or draft.rollout.found
    if known is not None and known.stable_lost:
        look = replace(look, stable_lost=known.stable_lost)
    valid = judged_for(draft.rollout, look)
    if valid and gated(draft.rollout) and judge(draft, look):
        _keep(draft, look)
        return
    withdraw(draft)
    observe_freezes(draft, event.freezes)
    if event.gone is not None:
        observe_gone(draft, event.gone)
    elif _route_says_otherwise(draft, event, look.stable_ready):
        return
    valid = valid and judged_for(draft.rollout, look)
    if valid:
        _observe(draft, look)
    if _over(draft):
        return
    approval.observe_clock(draft, look.stable_ready, look.stable_lost)
    if _over(draft):
        return
    if draft.rollout.write is not None:
        draft.resend()
    elif valid:
        draft.settle()
        advance(draft, look)


def clocked(draft: Draft, event: Clocked) -> None:
    """Time passed: freezes, drift, reminders and expiry; nothing goes up without a look."""
    withdraw(draft)
    observe_freezes(draft, event.freezes)
    if _route_says_otherwise(draft, event, event.stable_ready):
        return
    known = event.route or draft.rollout.found
    approval.observe_clock(draft, event.stable_ready, known.stable_lost if known is not None else "")
    if not _over(draft):
        draft.resend()


def withdraw(draft: Draft) -> None:
    """A raise that nothing came back from is decided afresh, never replayed."""
    write = draft.rollout.write
    if write is not None and write.raising:
        draft.set(write=None)


def waited(draft: Draft, event: Clocked) -> None:
    """A scheduled start is still to come."""


def tried_again(draft: Draft, event: Looked | Clocked) -> None:
    """The way to 0 is tried again."""
    if event.route is not None:
        draft.set(gone="")
    draft.resend()


def judged_for(rollout: Rollout, look: Assessment) -> bool:
    """The look was made for the present step and weight; otherwise it is void."""
    return (look.step, look.weight_percent) == (rollout.step, rollout.weight_percent)


def gated(rollout: Rollout) -> bool:
    """The canary has had traffic, so its gates mean something."""
    return rollout.weight_percent > 0 or rollout.step >= 0


def _route_says_otherwise(draft: Draft, event: Looked | Clocked, stable_ready: int | None) -> bool:
    return (
        event.route is not None
        and draft.rollout.write is None
        and observe_route(draft, event.route, stable_ready=stable_ready)
    )


def _observe(draft: Draft, look: Assessment) -> None:
    observe_fingerprint(draft, look)
    if gated(draft.rollout):
        progress(draft, look)
        observe_errors(draft, look)
        observe_silence(draft, look)
    else:
        observe_nodes(draft, look)
        if not stable_cannot_carry(draft.rollout, look.stable_ready, look.stable_lost):
            drop_hold(draft, HoldReason.STABLE_UNHEALTHY)
    if not _over(draft):
        _keep(draft, look)


def _keep(draft: Draft, look: Assessment) -> None:
    """The look as the card shows it, and its evidence once, in the rollout, where the next look goes on from."""
    draft.set(assessment=replace(look, evidence=()), evidence=look.evidence or draft.rollout.evidence)


def _over(draft: Draft) -> bool:
    return draft.rollout.phase in _BACK
