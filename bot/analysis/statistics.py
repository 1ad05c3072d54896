"""Sequential tests on request counts: valid at every look, over the whole rollout.

A test is an e-process: a number that starts at 1 and, while nothing is wrong, is not expected to grow however often
one looks. By Ville's inequality it ever reaches 1/alpha with a probability of at most alpha, so FAIL at that line keeps
the error rate over the whole rollout. It is built as Robbins built it (Robbins 1970, "Statistical methods related to
the law of the iterated logarithm"): the likelihood ratio of the counts under an alternative against the limit, averaged
over alternatives fixed beforehand. For counts in time see Lindon and Malek (arXiv 2011.03567), for deployments Lindon,
Sanden and Shirikian (arXiv 2205.14762), for bounds that hold at every look Howard, Ramdas, McAuliffe and Sekhon (2021).

Absolute limit p0: every request is bad with a probability of at most p0, which may change with time. For an
alternative p1 > p0 one request multiplies the number by p1/p0 when bad, by (1-p1)/(1-p0) when good; its expectation
grows with the true probability and is 1 at p0, so it is at most 1 below the limit.

Against stable: the two sides share one unknown, time-varying probability. Given the bad requests of a stretch, the
canary's part of them is hypergeometric, with the canary's share of the requests as its mean. The factor is a convex
function of that part, and of all convex functions a hypergeometric expectation is at most the binomial one (Hoeffding
1963, theorem 4), for which the factor is 1. A limit of `ratio` times stable's rate weighs the canary's requests so:
with n and m requests, s = ratio n / (ratio n + m), a share q > s under the alternative, and requests that fail
independently with probability ratio p and p, the expectation is at most
(1 + ratio p (q/s - 1))^n (1 + p ((1-q)/(1-s) - 1))^m <= exp(p (ratio n + m) ((q - s) - (q - s))) = 1.
A stretch lasts until both sides have had a few requests: in the pieces between two scrapes a thin canary would often
have none, and all that stable shows in those would be lost. It ends by the number of requests, never by how they went.

A failure that begins late must not be hidden by a long good past: a part of the number is put on alternatives that
begin with the first request, the rest is spread over every later moment at which the release may have turned bad. An
average of e-processes is one, so alpha is not spent twice.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import exp, inf, lgamma, log, log1p, sqrt
from operator import add

from bot.values import dataclass

WHOLE = (1.2, 1.7, 3.0, 9.0)
WHOLE_WEIGHTS = (0.02, 0.03, 0.40, 0.55)
LATE = (4.0, 8.0)
"""Alternatives: how many times worse than the limit, in odds; for failures that hold since the first request, and,
equally weighed, for those that begin later. Chosen by simulation (`make bench`): 3 and 9 for power at few requests, the
small ones, which cost the others next to nothing, for small effects at many requests."""

LATE_SHARE = 0.4
_LOG_WEIGHTS = tuple(log(1 - LATE_SHARE) + log(weight) for weight in WHOLE_WEIGHTS)
_LOG_LATE = log(LATE_SHARE)
_LOG_LATE_EACH = log(LATE_SHARE) - log(len(LATE))
WITHIN_HORIZON = 0.5
KEPT = 0.8
TOGETHER = 4
TOGETHER_S = 300.0
"""Against stable, requests of each side that are judged together, and for how long they are waited for."""

ALPHA = 0.01
FADING = 0.998
MOST_TOGETHER = 10.0


@dataclass(frozen=True, slots=True)
class Interval:
    """Requests between two scrapes or looks: the canary's and stable's, how many of them bad, over how many seconds.

    Counts may be fractions where a limit lies inside a histogram bucket.
    """

    seconds: float
    requests: float
    bad: float
    stable_requests: float = 0.0
    stable_bad: float = 0.0

    def joined(self, after: "Interval") -> "Interval":
        """This interval and the one after it as one."""
        return Interval(
            self.seconds + after.seconds,
            self.requests + after.requests,
            self.bad + after.bad,
            self.stable_requests + after.stable_requests,
            self.stable_bad + after.stable_bad,
        )


EMPTY = Interval(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the requests so far say, as logarithms per alternative; carried from step to step.

    `whole` for alternatives that hold since the first request, `late` for those that began at some moment after,
    `spent` the part of the late share that has been given to moments gone by, `waiting` requests that are not judged
    yet, because one side has had too few of them (only against stable).
    """

    whole: tuple[float, ...] = (0.0,) * len(WHOLE)
    late: tuple[float, ...] = (-inf,) * len(LATE)
    spent: float = 0.0
    waiting: Interval = EMPTY

    @property
    def log_e(self) -> float:
        """Logarithm of the e-process; FAIL at `log(1 / alpha)`."""
        to_come = log1p(-self.spent) if self.spent < 1 else -inf
        whole = _log_sum(tuple(map(add, _LOG_WEIGHTS, self.whole)))
        return _log_sum((whole, _LOG_LATE_EACH + _log_sum(self.late), _LOG_LATE + to_come))

    def fails(self, alpha: float) -> bool:
        """The evidence against the release has reached 1/alpha."""
        return self.log_e >= -log(alpha)


NONE = Evidence()


def against_limit(
    evidence: Evidence, intervals: Iterable[Interval], limit: float, horizon_s: float, began_s: float = 0.0
) -> Evidence:
    """The evidence after some more intervals, against a limit on the bad fraction (0 < limit < 1).

    `horizon_s` is how long the rollout is expected to bake in all, `began_s` how much of it lies before these.
    """
    whole: Sequence[float] = evidence.whole
    late: Sequence[float] = evidence.late
    whole_factors, late_factors = _factors(limit)
    spent, at = evidence.spent, began_s
    for interval in intervals:
        begun = begins(at, at + interval.seconds, horizon_s)
        at += interval.seconds
        failed = interval.bad
        well = interval.requests - failed
        if begun > 0:
            spent += begun
            late = _begun_now(late, begun)
        whole = [one + failed * bad + well * good for one, (bad, good) in zip(whole, whole_factors, strict=True)]
        late = [one + failed * bad + well * good for one, (bad, good) in zip(late, late_factors, strict=True)]
    return Evidence(tuple(whole), tuple(late), min(1.0, spent))


def against_stable(
    evidence: Evidence, intervals: Iterable[Interval], ratio: float, horizon_s: float, began_s: float = 0.0
) -> Evidence:
    """The evidence after some more intervals, against a limit of `ratio` times stable's bad fraction (ratio > 0).

    Intervals are joined until both sides have had `TOGETHER` requests; what has not come to that within `TOGETHER_S`
    seconds says nothing. Where the route's weights change, begin with `waiting` empty.
    """
    whole, late = _Walk(evidence.whole), _Walk(evidence.late)
    spent, at, waiting = evidence.spent, began_s, evidence.waiting
    for interval in intervals:
        begun = begins(at, at + interval.seconds, horizon_s)
        at += interval.seconds
        spent += begun
        late.begin(begun)
        waiting = waiting.joined(interval)
        if min(waiting.requests, waiting.stable_requests) >= TOGETHER:
            whole.step(_shifted(waiting, ratio, odds) for odds in WHOLE)
            late.step(_shifted(waiting, ratio, odds) for odds in LATE)
            waiting = EMPTY
        elif waiting.seconds >= TOGETHER_S:
            waiting = EMPTY
    return Evidence(tuple(whole.logs), tuple(late.logs), min(1.0, spent), waiting)


def begins(since_s: float, until_s: float, horizon_s: float) -> float:
    """The part of the late share given to failures that begin between two moments of the rollout.

    Half of it is spread evenly over the expected length, a fifth of the rest over as much again, a fifth of what is
    left over twice that, and so on: a rollout that is held for a night keeps something to give.
    """
    return _begun(until_s, horizon_s) - _begun(since_s, horizon_s)


def upper_bound(requests: float, bad: float, alpha: float) -> float:
    """A bound that the true bad fraction stays below at every look, with an error rate of alpha.

    Robbins' beta-binomial mixture with a Beta(1/2, 1/2) prior: all p with B(bad+1/2, good+1/2)/B(1/2, 1/2) below
    p^bad (1-p)^good / alpha. Returns a fraction, 1.0 when nothing can be said.
    """
    if requests <= 0:
        return 1.0
    good = max(0.0, requests - bad)
    line = _log_beta(bad + 0.5, good + 0.5) - _log_beta(0.5, 0.5) + log(alpha)
    low, high = min(1.0, max(bad / requests, 0.0)), 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if bad * log(middle) + good * log1p(-min(middle, 1 - 1e-15)) >= line:
            low = middle
        else:
            high = middle
    return high


def smallest_visible(requests: float, limit: float, alpha: float) -> float | None:
    """The smallest bad fraction above the limit that this many requests would be expected to show; None when none.

    "Expected": about one time in two; a limit's breach that is half as large again is hardly ever missed.
    """
    if requests <= 0:
        return None
    factors, _ = _factors(limit)
    smallest = min(
        [(price / requests - good) / (bad - good) for price, (bad, good) in zip(_prices(alpha), factors, strict=True)]
    )
    return smallest if smallest <= 1 else None


def requests_to_show(fraction: float, limit: float, alpha: float) -> float:
    """How many requests are expected until a bad fraction above the limit is called; infinite when it never is.

    The logarithm of an alternative's part of the e-process grows with every request by `fraction` of what a bad one
    adds and the rest of what a good one adds; it has to reach `log(1/alpha)` from the logarithm of its weight. The
    alternative that gets there first.
    """
    fastest, (factors, _) = inf, _factors(limit)
    for price, (bad, good) in zip(_prices(alpha), factors, strict=True):
        growth = fraction * bad + (1 - fraction) * good
        if growth > 0:
            fastest = min(fastest, price / growth)
    return fastest


def dispersion(intervals: Sequence[Interval]) -> float:
    """By how much bad requests clump beyond chance, at least 1: Pearson's chi square over its degrees of freedom.

    Stable's counts per interval against stable's own mean (McCullagh and Nelder 1989, section 4.5). Requests that fail
    together, such as the retries of one, are not as many observations as there are requests: their counts are divided
    by this.
    """
    seen = [one for one in intervals if one.stable_requests > 0]
    requests = sum(one.stable_requests for one in seen)
    mean = sum(one.stable_bad for one in seen) / requests if requests else 0.0
    if not 0 < mean < 1 or len(seen) < 3 or mean * requests < 10:
        return 1.0
    chi_square = sum(
        (one.stable_bad - mean * one.stable_requests) ** 2 / (mean * (1 - mean) * one.stable_requests) for one in seen
    )
    return max(1.0, chi_square / (len(seen) - 1))


def clearly_worse(bad: float, requests: float, stable_bad: float, stable_requests: float) -> bool:
    """True when the canary is worse than twice stable, by more than three standard errors (two-proportion z-test).

    Then the release is to blame even though stable breaks the limit too.
    """
    rate, stable_rate = bad / requests, stable_bad / stable_requests
    if rate <= 2 * stable_rate:
        return False
    pooled = (bad + stable_bad) / (requests + stable_requests)
    error = sqrt(pooled * (1 - pooled) * (1 / requests + 1 / stable_requests))
    return error == 0 or (rate - stable_rate) / error > 3


def scattered(
    scatter: tuple[float, float, float, float], intervals: Iterable[Interval]
) -> tuple[float, float, float, float]:
    """The sums behind `clump` after some more intervals: intervals, stable's requests, bad, and bad squared over
    requests. Older intervals fade, so that what clumped long ago is forgotten."""
    count, requests, bad, squares = scatter
    for one in intervals:
        if one.stable_requests > 0:
            count, requests = FADING * count + 1, FADING * requests + one.stable_requests
            if bad or one.stable_bad:
                bad = FADING * bad + one.stable_bad
                squares = FADING * squares + one.stable_bad**2 / one.stable_requests
    return count, requests, bad, squares


def clump(scatter: tuple[float, float, float, float]) -> float:
    """`dispersion` from carried sums, 1 unless it is beyond chance, with at least ten bad requests. At most 10.

    Beyond chance: by three standard errors; the square that an interval with a mean of m bad requests adds has a
    variance of 2 + 1/m.
    """
    count, requests, bad, squares = scatter
    if bad < 10 or count < 3 or not bad < requests:
        return 1.0
    mean = bad / requests
    found = (squares - 2 * mean * bad + mean**2 * requests) / (mean * (1 - mean)) / (count - 1)
    return min(MOST_TOGETHER, found) if found > 1 + 3 * sqrt((2 + count / bad) / (count - 1)) else 1.0


def thinned(intervals: Iterable[Interval], by: float) -> list[Interval]:
    """The intervals with all counts divided, for requests that come in clumps."""
    return [
        Interval(one.seconds, one.requests / by, one.bad / by, one.stable_requests / by, one.stable_bad / by)
        for one in intervals
    ]


class _Walk:
    """Logarithms of one number per alternative, going from interval to interval."""

    def __init__(self, logs: Iterable[float]) -> None:
        self.logs = list(logs)

    def begin(self, part: float) -> None:
        """Give every alternative some more weight that begins now."""
        if part > 0:
            self.logs = _begun_now(self.logs, part)

    def step(self, factors: Iterable[float]) -> None:
        """Multiply by the likelihood ratios of an interval (logarithms)."""
        self.logs = [one + factor for one, factor in zip(self.logs, factors, strict=True)]


@lru_cache(maxsize=256)
def _prices(alpha: float) -> tuple[float, ...]:
    """What the logarithm of each alternative since the first request has to reach by itself."""
    return tuple(-log(alpha) - log(1 - LATE_SHARE) - log(weight) for weight in WHOLE_WEIGHTS)


_Factors = tuple[tuple[float, float], ...]


@lru_cache(maxsize=256)
def _factors(limit: float) -> tuple[_Factors, _Factors]:
    """What one bad and one good request add, per alternative: of those since the first request, and of later ones."""
    whole, late = (
        [odds * limit / (1 - limit + odds * limit) for odds in alternatives] for alternatives in (WHOLE, LATE)
    )
    good = log1p(-limit)
    return (
        tuple((log(one / limit), log1p(-one) - good) for one in whole),
        tuple((log(one / limit), log1p(-one) - good) for one in late),
    )


def _shifted(interval: Interval, ratio: float, odds: float) -> float:
    """The logarithm of the likelihood ratio of one interval's bad requests under a canary `odds` times as bad."""
    weighed = ratio * interval.requests
    share = weighed / (weighed + interval.stable_requests)
    other = odds * weighed / (odds * weighed + interval.stable_requests)
    return interval.bad * log(other / share) + interval.stable_bad * (log1p(-other) - log1p(-share))


def _begun(at_s: float, horizon_s: float) -> float:
    if at_s <= horizon_s:
        return WITHIN_HORIZON * (at_s / horizon_s)
    part, left, length, at_s = WITHIN_HORIZON, 1 - WITHIN_HORIZON, horizon_s, at_s - horizon_s
    while at_s > 0:
        part += (1 - KEPT) * left * min(1.0, at_s / length)
        left, length, at_s = KEPT * left, 2 * length, at_s - length
    return part


def _log_beta(first: float, second: float) -> float:
    return lgamma(first) + lgamma(second) - lgamma(first + second)


def _begun_now(logs: Iterable[float], part: float) -> list[float]:
    """Every alternative with some more weight that begins now."""
    more = log(part)
    return [one + log1p(exp(more - one)) if one > more else more + log1p(exp(one - more)) for one in logs]


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    if top == -inf:
        return -inf
    total = 0.0
    for one in logs:
        total += exp(one - top)
    return top + log(total)
