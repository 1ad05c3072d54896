"""Counters cut into the intervals between scrapes, each with the canary's and stable's requests and bad requests.

Errors and slowness are both sums of counters: a row says how much each increase of its counter adds to the requests and
to the bad ones of its side. For a latency between two bucket bounds the weights interpolate as Prometheus does.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache

from bot.analysis.counts import Counter
from bot.analysis.latency import Latencies
from bot.analysis.requests import Outcome, Traffic, Whose
from bot.analysis.statistics import Interval
from bot.values import dataclass

NEAR = 0.75
KEPT = 64
"""Sets of rows remembered of one service: relative limits move."""


@dataclass(frozen=True, slots=True)
class Row:
    """One counter of one side, and what each of its increases adds to requests and bad requests."""

    counter: Counter
    canary: bool
    requests: float
    bad: float


def error_rows(traffic: Traffic, reporter: str, canary: frozenset[Whose], stable: frozenset[Whose]) -> list[Row]:
    """Rows whose bad requests are errors; requests whose client left are in none."""
    key = (reporter, canary, stable)
    rows: list[Row] | None = traffic.kept.get(key)
    if rows is None:
        rows = traffic.kept[key] = [
            Row(line.counter, line.whose in canary, 1.0, float(line.outcome is Outcome.ERROR))
            for line in traffic.lines
            if line.reporter == reporter
            and line.outcome is not Outcome.ABORTED
            and (line.whose in canary or line.whose in stable)
        ]
    return rows


def latency_rows(
    latencies: Latencies, reporter: str, limit_ms: float, canary: frozenset[Whose], stable: frozenset[Whose]
) -> list[Row]:
    """Rows whose bad requests are slower than the limit: all requests less those in the buckets up to it."""
    key = (reporter, limit_ms, canary, stable)
    known: list[Row] | None = latencies.kept.get(key)
    if known is not None:
        return known
    rows: list[Row] = []
    for side in canary | stable:
        buckets = latencies.groups.get((reporter, side), ())
        weights = _weights(tuple(sorted({bound for bound, _ in buckets})), limit_ms)
        rows += [
            Row(counter, side in canary, *weights[bound])
            for bound, counter in buckets
            if weights.get(bound) is not None
        ]
    if len(latencies.kept) < KEPT:
        latencies.kept[key] = rows
    return rows


def cut(
    rows: Sequence[Row], others: Sequence[Row], since: float, until: float, interval_s: float, ago_s: float = 0.0
) -> list[Interval]:
    """The intervals after `since` up to `until` (epoch seconds), about one per scrape.

    `others` are rows of stable as it was `ago_s` seconds before; with 0 they are of the same time.
    """
    if until <= since:
        return []
    edges = [since, *_edges(rows, since, until, interval_s)]
    count = len(edges) - 1
    if count == 1 and not others:
        return [_whole(rows, since, until)]
    requests, bad, stable_requests, stable_bad = ([0.0] * count for _ in range(4))
    for row in rows:
        _add(row, edges, *((requests, bad) if row.canary else (stable_requests, stable_bad)))
    for row in others:
        _add(row, [edge - ago_s for edge in edges], stable_requests, stable_bad)
    return [
        Interval(
            edges[index + 1] - edges[index],
            requests[index],
            min(max(bad[index], 0.0), requests[index]),
            stable_requests[index],
            min(max(stable_bad[index], 0.0), stable_requests[index]),
        )
        for index in range(count)
    ]


def _whole(rows: Sequence[Row], since: float, until: float) -> Interval:
    """The one interval between two moments."""
    requests = bad = stable_requests = stable_bad = 0.0
    times: Sequence[float] = ()
    first = last = 0
    for row in rows:
        counter = row.counter
        if counter.times is not times:
            times = counter.times
            first, last = bisect_right(times, since), bisect_right(times, until)
        totals = counter.totals
        more = (totals[last - 1] if last else 0.0) - (totals[first - 1] if first else 0.0)
        if row.canary:
            requests += row.requests * more
            bad += row.bad * more
        else:
            stable_requests += row.requests * more
            stable_bad += row.bad * more
    return Interval(
        until - since,
        requests,
        min(max(bad, 0.0), requests),
        stable_requests,
        min(max(stable_bad, 0.0), stable_requests),
    )


def _add(row: Row, edges: Sequence[float], requests: list[float], bad: list[float]) -> None:
    times, totals = row.counter.times, row.counter.totals
    first = bisect_right(times, edges[0])
    before = totals[first - 1] if first else 0.0
    if not totals or totals[-1] == before:
        return
    for index in range(len(edges) - 1):
        position = bisect_right(times, edges[index + 1], first)
        total = totals[position - 1] if position else 0.0
        if total != before:
            requests[index] += row.requests * (total - before)
            bad[index] += row.bad * (total - before)
            before = total
        first = position


def _edges(rows: Iterable[Row], since: float, until: float, interval_s: float) -> list[float]:
    """Moments of scrapes, those left out that follow within three quarters of an interval; `until` at the end."""
    moments: set[float] = set()
    former: Sequence[float] = ()
    for row in rows:
        times = row.counter.times
        if times is former:
            continue
        former = times
        moments.update(times[bisect_right(times, since) : bisect_right(times, until)])
    edges: list[float] = []
    last = since
    for moment in sorted(moments):
        if moment - last >= NEAR * interval_s and until - moment >= NEAR * interval_s:
            edges.append(moment)
            last = moment
    return [*edges, until]


@lru_cache(maxsize=256)
def _weights(bounds: tuple[float, ...], limit_ms: float) -> dict[float, tuple[float, float]]:
    """What an increase of each bucket adds to requests and to slow requests; buckets that add nothing are left out.

    As `Histogram.above`: linear between the bounds around the limit, beyond the highest finite bound all of the last.
    """
    if not bounds:
        return {}
    weights = {bounds[-1]: (1.0, 1.0)}
    upper = next((bound for bound in bounds if limit_ms <= bound), bounds[-1])
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    part = 0.0 if upper == float("inf") else min(1.0, (limit_ms - lower) / (upper - lower))
    for bound, share in ((upper, part), (lower, 1 - part)):
        if bound in bounds and share:
            requests, slow = weights.get(bound, (0.0, 0.0))
            weights[bound] = (requests, slow - share)
    return weights
