"""The judges that are compared, each over many runs at once: at which look does it first say FAIL?

Ours is `bot.analysis.statistics` written for arrays; `differs` compares the two. The others are restated from what
their authors publish.
"""

from collections.abc import Callable, Sequence
from math import lgamma, log, log1p

import numpy as np

from bot.analysis import statistics
from bot.analysis.statistics import Evidence, Interval
from tests.bench.traffic import LOOK_S, MINUTE, Array, Random, Traffic, arrays, rollout, same, simulate

NEVER = -1
Hits = np.ndarray
"""Per run the look at which it is called, NEVER when it is not."""


def thinned(traffic: Traffic, known: Traffic | None = None) -> Traffic:
    """What the gates do about requests that fail together: counts divided by stable's clump so far.

    `known` is traffic before the start, from which the clump is known already.
    """
    if known is not None:
        both = thinned(Traffic(*(np.hstack(pair) for pair in zip(arrays(known), arrays(traffic), strict=True))))
        return Traffic(*(array[:, known.looks :] for array in arrays(both)))
    parts = [array.copy() for array in arrays(traffic)]
    count, requests, bad, squares = (np.zeros(traffic.runs) for _ in range(4))
    with np.errstate(divide="ignore", invalid="ignore"):
        for look in range(traffic.looks):
            seen, failed = traffic.stable_requests[:, look], traffic.stable_bad[:, look]
            some = seen > 0
            kept = np.where(some, statistics.FADING, 1.0)
            count = kept * count + some
            requests = kept * requests + seen
            bad = kept * bad + np.where(some, failed, 0.0)
            squares = kept * squares + np.where(some, failed**2 / seen, 0.0)
            mean = bad / requests
            enough = (mean > 0) & (mean < 1) & (bad >= 10) & (count >= 3)
            found = (squares - 2 * mean * bad + mean**2 * requests) / (mean * (1 - mean)) / (count - 1)
            clumped = enough & (found > 1 + 3 * np.sqrt((2 + count / bad) / (count - 1)))
            by = np.where(clumped, np.minimum(statistics.MOST_TOGETHER, found), 1.0)
            for part in parts:
                part[:, look] /= by
    return Traffic(*parts)


def limit_log_e(traffic: Traffic, limit: float, horizon_s: float) -> Array:
    """Logarithm of our e-process against a limit, per run and look."""

    def terms(odds: float) -> Array:
        raised = odds * limit / (1 - limit + odds * limit)
        good = traffic.requests - traffic.bad
        return traffic.bad * log(raised / limit) + good * (log1p(-raised) - log1p(-limit))

    return _log_e(terms, traffic, horizon_s)


def stable_log_e(traffic: Traffic, ratio: float, horizon_s: float) -> Array:
    """Logarithm of our e-process against stable, per run and look."""
    judged = _stretches(traffic)
    weighed = ratio * judged.requests
    some = weighed > 0
    share = np.where(some, weighed, 1.0) / np.where(some, weighed + judged.stable_requests, 2.0)

    def terms(odds: float) -> Array:
        other = odds * share / (1 + (odds - 1) * share)
        found: Array = judged.bad * np.log(other / share) + judged.stable_bad * (np.log1p(-other) - np.log1p(-share))
        return found

    return _log_e(terms, traffic, horizon_s)


def first(log_e: Array, alpha: float) -> Hits:
    """The look at which the e-process reaches 1/alpha."""
    return _first(log_e >= -log(alpha))


def threshold(traffic: Traffic, limit: float) -> Hits:
    """A rate over the last minute above the limit, asked every minute, twice running: Flagger, Argo Rollouts."""
    over = _minutes(traffic.bad) > limit * _minutes(traffic.requests)
    return _at_minute(_first(over[:, 1:] & over[:, :-1]), 2)


def rank_test(canary: Array, stable: Array, every: int = 5, since: int = 10) -> Hits:
    """Kayenta's judge on two series with a value per minute (NaN where there is none), asked every few minutes.

    NetflixACAJudge: Mann-Whitney with continuity and tie correction, the shift and its 98% interval as in R's
    wilcox.test; High when the interval's lower end is above 25% of the Hodges-Lehmann shift. The root that it looks for
    numerically is a difference between two values; here it is picked by its rank, so the unit does not matter.
    """
    runs, minutes = canary.shape
    hit = np.full(runs, NEVER)
    for upto in range(min(since, minutes), minutes + 1, every):
        live = np.flatnonzero(hit == NEVER)
        if not live.size:
            break
        for some in np.array_split(live, max(1, live.size * upto**2 // 2_000_000)):
            high = _high(canary[some, :upto], stable[some, :upto])
            hit[some[high]] = upto * MINUTE - 1
    return hit


def rates(traffic: Traffic) -> tuple[Array, Array]:
    """Bad requests in percent per minute, canary and stable; NaN where there were no requests."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            100 * _minutes(traffic.bad) / _minutes(traffic.requests),
            100 * _minutes(traffic.stable_bad) / _minutes(traffic.stable_requests),
        )


def requests_at(traffic: Traffic, hits: Hits, since: int = 0) -> Array:
    """The canary's requests until each call that was made, from look `since` on."""
    called = np.flatnonzero(hits >= since)
    totals = np.cumsum(traffic.requests[called, since:], axis=1)
    found: Array = totals[np.arange(called.size), hits[called] - since]
    return found


def fisher(traffic: Traffic, alpha: float) -> float:
    """The best test against stable that looks only once, at the end: Fisher's exact test; the fraction it flags."""
    totals = [array.sum(axis=1) for array in arrays(traffic)]
    return sum(_hypergeometric_tail(*map(int, run)) <= alpha for run in zip(*totals, strict=True)) / traffic.runs


def binomial(traffic: Traffic, limit: float, alpha: float) -> float:
    """The best test against a limit that looks only once, at the end: the exact binomial; the fraction it flags."""
    totals = zip(traffic.requests.sum(axis=1), traffic.bad.sum(axis=1), strict=True)
    return sum(_binomial_tail(int(requests), int(bad), limit) <= alpha for requests, bad in totals) / traffic.runs


def differs(random: Random) -> float:
    """How far the arrays and `bot.analysis.statistics` are apart on the same traffic, at most (logarithms)."""
    found = 0.0
    for canary_per_s, canary in ((0.1, 1.0), (1.0, 3.0), (20.0, 1.2)):
        traffic = simulate(random, 3, rollout(canary_per_s), same(0.02), canary)
        horizon_s = traffic.looks * LOOK_S
        limits, stables = limit_log_e(traffic, 0.01, horizon_s), stable_log_e(traffic, 1.5, horizon_s)
        for run in range(traffic.runs):
            limit, stable = statistics.NONE, statistics.NONE
            for look in range(traffic.looks):
                interval = [_interval(traffic, run, look)]
                limit = statistics.against_limit(limit, interval, 0.01, horizon_s, look * LOOK_S)
                stable = statistics.against_stable(stable, interval, 1.5, horizon_s, look * LOOK_S)
                found = max(found, _apart(limit, limits[run, look]), _apart(stable, stables[run, look]))
    return found


def _apart(evidence: Evidence, log_e: float) -> float:
    return abs(evidence.log_e - float(log_e)) / max(1.0, abs(evidence.log_e))


def _interval(traffic: Traffic, run: int, look: int) -> Interval:
    return Interval(LOOK_S, *(float(array[run, look]) for array in arrays(traffic)))


def _log_e(terms: Callable[[float], Array], traffic: Traffic, horizon_s: float) -> Array:
    looks = traffic.looks
    begun = np.array([statistics.begins(look * LOOK_S, (look + 1) * LOOK_S, horizon_s) for look in range(looks)])
    to_come = np.log(statistics.LATE_SHARE) + np.log(np.maximum(1 - np.cumsum(begun), 1e-300))
    found: Array = np.broadcast_to(to_come, (traffic.runs, looks)).copy()
    both = sorted({*statistics.WHOLE, *statistics.LATE})
    whole = dict(zip(statistics.WHOLE, statistics.WHOLE_WEIGHTS, strict=True))
    for odds in both:
        walk = np.cumsum(terms(odds), axis=1)
        if odds in whole:
            found = np.logaddexp(found, log((1 - statistics.LATE_SHARE) * whole[odds]) + walk)
        if odds in statistics.LATE:
            before = np.zeros_like(walk)
            before[:, 1:] = walk[:, :-1]
            late = walk + np.logaddexp.accumulate(np.log(begun) - before, axis=1)
            found = np.logaddexp(found, log(statistics.LATE_SHARE / len(statistics.LATE)) + late)
    return found


def _stretches(traffic: Traffic) -> Traffic:
    """The counts at the looks at which a stretch ends, zeros at all others."""
    counts = arrays(traffic)
    ended = [np.zeros_like(array) for array in counts]
    waiting = [np.zeros(traffic.runs) for _ in counts]
    seconds = np.zeros(traffic.runs)
    for look in range(traffic.looks):
        seconds += LOOK_S
        for one, array in zip(waiting, counts, strict=True):
            one += array[:, look]
        enough = np.minimum(waiting[0], waiting[2]) >= statistics.TOGETHER
        over = enough | (seconds >= statistics.TOGETHER_S)
        for one, end in zip(waiting, ended, strict=True):
            end[enough, look] = one[enough]
            one[over] = 0.0
        seconds[over] = 0.0
    return Traffic(*ended)


def _first(called: np.ndarray) -> Hits:
    return np.where(called.any(axis=1), called.argmax(axis=1), NEVER)


def _minutes(counts: Array) -> Array:
    found: Array = counts.reshape(counts.shape[0], -1, MINUTE).sum(axis=2)
    return found


def _at_minute(hits: Hits, later: int) -> Hits:
    return np.where(hits == NEVER, NEVER, (hits + later) * MINUTE - 1)


def threshold_of_values(values: Array, limit: float) -> Hits:
    """The same on a series with a value per minute, such as a p99."""
    over = values > limit
    return _at_minute(_first(over[:, 1:] & over[:, :-1]), 2)


def _high(canary: Array, stable: Array) -> np.ndarray:
    runs = canary.shape[0]
    differences = (canary[:, :, None] - stable[:, None, :]).reshape(runs, -1)
    differences = -np.sort(-differences, axis=1)
    n, m = (~np.isnan(canary)).sum(axis=1), (~np.isnan(stable)).sum(axis=1)
    pairs = n * m
    with np.errstate(divide="ignore", invalid="ignore"):
        ties = (_ties(canary) + _ties(stable)) / ((n + m) * (n + m - 1.0))
        sigma = np.sqrt(pairs / 12 * (n + m + 1 - ties))
    rank = np.ceil(np.where(pairs > 0, pairs / 2 + 0.5 + 2.3263478740408408 * sigma, 1.0))
    rows = np.arange(runs)
    lower = differences[rows, np.clip(rank, 1, np.maximum(pairs, 1)).astype(np.int64) - 1]
    shift = (differences[rows, (np.maximum(pairs, 1) - 1) // 2] + differences[rows, np.maximum(pairs, 1) // 2]) / 2
    found: np.ndarray = (pairs > 1) & (lower > 0.25 * np.abs(shift))
    return found


def _ties(values: Array) -> Array:
    times = (values[:, :, None] == values[:, None, :]).sum(axis=2).astype(np.float64)
    found: Array = np.where(np.isnan(values), 0.0, times**2 - 1).sum(axis=1)
    return found


def _choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _tail(logs: Sequence[float]) -> float:
    return float(np.exp(np.array(logs)).sum()) if logs else 0.0


def _hypergeometric_tail(requests: int, bad: int, stable_requests: int, stable_bad: int) -> float:
    failed, whole = bad + stable_bad, _choose(requests + stable_requests, bad + stable_bad)
    return _tail(
        [
            _choose(requests, k) + _choose(stable_requests, failed - k) - whole
            for k in range(bad, min(failed, requests) + 1)
        ]
    )


def _binomial_tail(requests: int, bad: int, limit: float) -> float:
    upto = min(requests, bad + 200)
    return _tail([_choose(requests, k) + k * log(limit) + (requests - k) * log1p(-limit) for k in range(bad, upto + 1)])
