"""The share of a route's requests that reached the canary, and whether the weight has arrived in the traffic.

Measured at the source reporters, whose proxies the route binds, with binomial tolerance: 3.3 standard errors plus half
a point. Requests whose client left count too: they did reach the canary. Istio's series name the host and not the
route: where requests have other ways to the host, a share that differs from the weight says nothing.
"""

from collections.abc import Mapping

from bot.analysis.promql import span
from bot.analysis.requests import NOTHING, Tally, Traffic, Whose, attribute, tolerance
from bot.analysis.samples import Answer, Query
from bot.analysis.sentences import duration, number
from bot.analysis.windows import RATE_WINDOWS_S, within
from bot.errors import CannotMeasure
from bot.rollout.gate import Share
from bot.rollout.model import Rollout
from bot.values import dataclass, replace

MIN_EXPECTED = 20.0
SLOW_PUSH_S = 10.0


@dataclass(frozen=True, slots=True)
class Split:
    """Requests of the two sides in one window."""

    canary: float
    both: float

    def agrees(self, share: float) -> bool:
        """Within chance of this share (a fraction)."""
        return abs(self.canary - share * self.both) <= tolerance(self.both, share)


def split(traffic: Traffic, begin: float, end: float, share: float, reporter: str = "source") -> Split:
    """Requests after `begin` up to `end`; those that name no side are the canary's where only that explains them."""
    tallies, _ = attribute(traffic.tally(begin, end, reporter), share)
    canary: Tally = tallies.get(Whose.CANARY, NOTHING)
    return Split(canary.all, canary.all + tallies.get(Whose.STABLE, NOTHING).all)


def previous_share(rollout: Rollout) -> float:
    """The fraction that the traffic had before the present weight."""
    if rollout.step <= 0:
        return 0.0
    return rollout.plan.steps[rollout.step - 1].weight_percent / 100


def observe(rollout: Rollout, traffic: Traffic, begin: float) -> Share:
    """The observed share since `begin`.

    `arrived` is True when the share agrees with the weight, over all of the time or its second half or last quarter
    (the first requests may still have gone the old way), and no longer with the weight before; False when there were
    enough requests to see it and it does not; None when it cannot be told: thin traffic, no caller with a proxy, or
    other ways to the host. The note says which.
    """
    share, before = rollout.weight_percent / 100, previous_share(rollout)
    end = traffic.counted.newest_at or begin
    whole = split(traffic, begin, end, share)
    if whole.both < 1:
        fallback = split(traffic, begin, end, share, "destination")
        if fallback.both < 1:
            return Share(None, 0, None, "There have been no requests since.")
        outside = "Its callers report nothing: they have no proxy of the mesh, so the route may not bind them."
        return Share(100 * fallback.canary / fallback.both, round(fallback.both), None, outside)
    for part in (0.0, 0.5, 0.75):
        cut = split(traffic, begin + part * (end - begin), end, share) if part else whole
        if cut.both < 1 or not cut.agrees(share):
            continue
        expected = min(share, 1 - share) * cut.both if share < 1 else cut.both
        if expected >= MIN_EXPECTED or not cut.agrees(before):
            return Share(100 * cut.canary / cut.both, round(cut.both), True)
    percent = 100 * whole.canary / whole.both
    if share * whole.both < MIN_EXPECTED:
        awaited = f"{share * whole.both:.1f} were to be expected"
        thin = f"Too few requests: {number(MIN_EXPECTED)} of the canary would show it, {awaited}."
        return Share(percent, round(whole.both), None, thin)
    if whole.agrees(share):
        return Share(percent, round(whole.both), None, "It is not yet far enough from the weight before.")
    if rollout.target.other_ways:
        ways = "; ".join(rollout.target.other_ways)
        return Share(percent, round(whole.both), None, f"Requests reach the host by other ways as well: {ways}.")
    return Share(percent, round(whole.both), False)


def converged(window_s: int) -> Query:
    """istiod's pushes by how long they took to reach their proxy."""
    return Query(f"sum by (le) (increase(pilot_proxy_convergence_time_bucket[{span(window_s)}]))")


def rejected(window_s: int) -> Query:
    """Configuration that proxies refused, by type."""
    return Query(f"sum by (type) (increase(pilot_total_xds_rejects[{span(window_s)}]))")


def arrival_questions(rollout: Rollout, now: float) -> tuple[Query, ...]:
    """What istiod says of its pushes since the weight was set; only while it has been seen not to arrive."""
    look, confirmed_at = rollout.assessment, rollout.bake.confirmed_at
    if look is None or look.share.arrived is not False or confirmed_at is None:
        return ()
    window_s = within(now - confirmed_at) or RATE_WINDOWS_S[0]
    return converged(window_s), rejected(window_s)


def explained(share: Share, answers: Mapping[Query, Answer | CannotMeasure]) -> Share:
    """A share that has not arrived, with its likely cause: what istiod reports of stale proxies."""
    if share.arrived is not False:
        return share
    window_s = next((window for window in reversed(RATE_WINDOWS_S) if converged(window) in answers), None)
    if window_s is None:
        return share
    rejects = _last(answers.get(rejected(window_s)), "type")
    refused = {kind: count for kind, count in rejects.items() if count > 0}
    if refused:
        kinds = ", ".join(f"{number(count)} {kind or 'of unknown type'}" for kind, count in sorted(refused.items()))
        told = f"proxies refused configuration in the last {duration(window_s)} (pilot_total_xds_rejects: {kinds})"
        return replace(share, note=f"Likely stale proxies: {told}, so they go on with the route they had.")
    pushes = {float(bound): count for bound, count in _last(answers.get(converged(window_s)), "le").items() if bound}
    if not pushes:
        return replace(share, note="Proxies may be stale; istiod's own metrics are not in Prometheus to tell.")
    total = max(pushes.values())
    slow = total - max((count for bound, count in pushes.items() if bound <= SLOW_PUSH_S), default=0.0)
    if total < 0.5:
        told = f"istiod has not finished a push to any proxy in the last {duration(window_s)}"
        return replace(share, note=f"Likely stale proxies: {told} (pilot_proxy_convergence_time).")
    if slow >= 0.5:
        told = f"{slow:.0f} of {total:.0f} pushes took longer than {duration(SLOW_PUSH_S)} to reach their proxies"
        return replace(share, note=f"Likely stale proxies: {told} (pilot_proxy_convergence_time).")
    told = f"istiod's {total:.0f} pushes of the last {duration(window_s)} reached their proxies in time"
    return replace(share, note=f"Stale proxies are not likely: {told}; callers may hold on to old connections.")


def _last(answer: Answer | CannotMeasure | None, label: str) -> dict[str, float]:
    if not isinstance(answer, Answer):
        return {}
    return {one.labels.get(label, ""): one.points[-1][1] for one in answer.series if one.points}
