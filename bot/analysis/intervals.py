"""Counters cut into the intervals between scrapes, each with the canary's and stable's requests and bad requests.

Errors and slowness are both sums of counters: a row says how much each increase of its counter adds to the requests and
to the bad ones of its side. For a latency between two bucket bounds the weights interpolate as Prometheus does.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from bot.analysis.columns import Columns, Counters, Layout
from bot.analysis.counts import Counter
from bot.analysis.latency import Bucket, Latencies, groups
from bot.analysis.requests import Line, Outcome, Traffic, Whose
from bot.analysis.statistics import Interval
from bot.values import dataclass

NEAR = 0.75


class Row(NamedTuple):
    """One column of one side, and what each of its increases adds to requests and bad requests."""

    canary: bool
    requests: float
    bad: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of one service and what each of those at `places` adds."""

    columns: Columns
    places: tuple[int, ...]
    rows: tuple[Row, ...]


NO_ROWS = Rows(Counters(), (), ())
Placed = tuple[tuple[int, ...], tuple[Row, ...]]


def error_rows(traffic: Traffic, reporter: str, canary: frozenset[Whose], stable: frozenset[Whose]) -> Rows:
    """Rows whose bad requests are errors; requests whose client left are in none."""
    return Rows(traffic.columns, *_error_rows(traffic.layout, reporter, canary, stable))


def latency_rows(
    latencies: Latencies, reporter: str, limit_ms: float, canary: frozenset[Whose], stable: frozenset[Whose]
) -> Rows:
    """Rows whose bad requests are slower than the limit: all requests less those in the buckets up to it."""
    return Rows(latencies.columns, *_latency_rows(latencies.layout, reporter, limit_ms, canary, stable))


@lru_cache(maxsize=1024)
def _error_rows(layout: Layout[Line], reporter: str, canary: frozenset[Whose], stable: frozenset[Whose]) -> Placed:
    found = [
        (place, Row(line.whose in canary, 1.0, float(line.outcome is Outcome.ERROR)))
        for place, line in enumerate(layout.kinds)
        if line.reporter == reporter
        and line.outcome is not Outcome.ABORTED
        and (line.whose in canary or line.whose in stable)
    ]
    return tuple(place for place, _ in found), tuple(row for _, row in found)


@lru_cache(maxsize=1024)
def _latency_rows(
    layout: Layout[Bucket], reporter: str, limit_ms: float, canary: frozenset[Whose], stable: frozenset[Whose]
) -> Placed:
    places: list[int] = []
    rows: list[Row] = []
    for side in sorted(canary | stable):
        group = groups(layout).get((reporter, side))
        if group is None:
            continue
        weights = _weights(tuple(sorted(set(group.bounds))), limit_ms)
        for bound, place in zip(group.bounds, group.places, strict=True):
            if bound in weights:
                places.append(place)
                rows.append(Row(side in canary, *weights[bound]))
    return tuple(places), tuple(rows)


def cut(
    rows: Rows, since: float, until: float, interval_s: float, others: Rows = NO_ROWS, ago_s: float = 0.0
) -> list[Interval]:
    """The intervals after `since` up to `until` (epoch seconds), about one per scrape.

    `others` are rows of stable as it was `ago_s` seconds before; with 0 they are of the same time.
    """
    if until <= since:
        return []
    near_s = NEAR * interval_s
    edges = _edges(rows, since, until, near_s) if until - since >= 2 * near_s else [since, until]
    if len(edges) == 2 and not others.places:
        return [_whole(rows, since, until)]
    count = len(edges) - 1
    requests, bad, stable_requests, stable_bad = ([0.0] * count for _ in range(4))
    for place, row in zip(rows.places, rows.rows, strict=True):
        sums = (requests, bad) if row.canary else (stable_requests, stable_bad)
        _add(row, rows.columns.counter(place), edges, *sums)
    earlier = [edge - ago_s for edge in edges]
    for place, row in zip(others.places, others.rows, strict=True):
        _add(row, others.columns.counter(place), earlier, stable_requests, stable_bad)
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


def _whole(rows: Rows, since: float, until: float) -> Interval:
    """The one interval between two moments."""
    requests = bad = stable_requests = stable_bad = 0.0
    increases = rows.columns.increases(rows.places, since, until)
    for (canary, each, each_bad), more in zip(rows.rows, increases, strict=True):
        if canary:
            requests += each * more
            bad += each_bad * more
        else:
            stable_requests += each * more
            stable_bad += each_bad * more
    return Interval(
        until - since,
        requests,
        min(max(bad, 0.0), requests),
        stable_requests,
        min(max(stable_bad, 0.0), stable_requests),
    )


def _add(row: Row, counter: Counter, edges: Sequence[float], requests: list[float], bad: list[float]) -> None:
    times, totals = counter.times, counter.totals
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


def _edges(rows: Rows, since: float, until: float, near_s: float) -> list[float]:
    """`since`, moments of scrapes at least `near_s` seconds from each other and from both ends, `until`."""
    edges = [since]
    for moment in sorted(rows.columns.moments(rows.places, since, until)):
        if moment - edges[-1] >= near_s and until - moment >= near_s:
            edges.append(moment)
    edges.append(until)
    return edges


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
