"""The share of a route's requests that reached the canary, and whether the weight has arrived in the traffic.

Measured at the source reporters, whose proxies the route binds, with binomial tolerance: 3.3 standard errors plus half
a point. Requests whose client left count too: they did reach the canary.
"""

from dataclasses import dataclass

from bot.analysis.requests import NOTHING, Tally, Traffic, Whose, attribute, tolerance
from bot.rollout.gate import Share
from bot.rollout.model import Rollout

MIN_EXPECTED = 20.0


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
    enough requests to see it and it does not; None when it cannot be told: thin traffic, or no caller with a proxy.
    """
    share, before = rollout.weight_percent / 100, previous_share(rollout)
    end = traffic.counted.newest_at or begin
    whole = split(traffic, begin, end, share)
    if whole.both < 1:
        fallback = split(traffic, begin, end, share, "destination")
        if fallback.both < 1:
            return Share(None, 0, None)
        return Share(100 * fallback.canary / fallback.both, round(fallback.both), None)
    for part in (0.0, 0.5, 0.75):
        cut = split(traffic, begin + part * (end - begin), end, share)
        if cut.both < 1 or not cut.agrees(share):
            continue
        expected = min(share, 1 - share) * cut.both if share < 1 else cut.both
        if expected >= MIN_EXPECTED or not cut.agrees(before):
            return Share(100 * cut.canary / cut.both, round(cut.both), True)
    percent = 100 * whole.canary / whole.both
    if share * whole.both < MIN_EXPECTED:
        return Share(percent, round(whole.both), None)
    return Share(percent, round(whole.both), None if whole.agrees(share) else False)
