"""Counting from raw samples: births, resets, gaps; what `increase` and `rate` do not see.

Each series of a counter becomes a step function of what it has counted since the window began. Resets are undone per
series before anything is summed. The first sample of a series counts in full when the series was born inside the
window, that is when scrapes before it did not have it; of a series that is merely older than the window the first
sample is the baseline. The same goes for a whole new scrape target, as long as its first sample is no larger than a few
scrapes' worth: a target that was only unreachable for a while brings all its past with it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import isnan
from statistics import median

from bot.analysis.samples import Answer
from bot.values import dataclass

DEFAULT_INTERVAL_S = 15.0
GAP_INTERVALS = 2.5
_FEW = 20.0
_TARGET = ("job", "instance", "namespace", "pod")


@dataclass(frozen=True, slots=True)
class Counter:
    """One series as counted: times in epoch seconds, and the running total of its increases at each of them."""

    labels: Mapping[str, str]
    times: Sequence[float]
    totals: Sequence[float]

    def increase(self, begin: float, end: float) -> float:
        """Counted after the last sample at or before `begin`, up to `end` (epoch seconds)."""
        times, totals = self.times, self.totals
        first, last = bisect_right(times, begin), bisect_right(times, end)
        return (totals[last - 1] if last else 0.0) - (totals[first - 1] if first else 0.0)


@dataclass(frozen=True, slots=True)
class Counted:
    """All series of one question.

    `raw_times` are the moments of its raw samples, ascending, `interval_s` the scrape interval that they show.
    `settled_at` is the moment up to which every target that is still scraped has been seen: nothing before it can
    change any more, however late the scrapes of a target come in.
    """

    counters: tuple[Counter, ...]
    raw_times: tuple[float, ...]
    interval_s: float
    newest_at: float | None
    server_time: float | None
    warnings: tuple[str, ...] = ()
    settled_at: float | None = None


def count(answer: Answer, older: Answer | None = None) -> Counted:
    """Count the series of a raw range; `older` adds the coarse points of a subquery that reaches further back."""
    raw = [(series.labels, _numbers(series.points)) for series in answer.series]
    interval_s = scrape_interval(points for _, points in raw)
    coarse = [(series.labels, _numbers(series.points)) for series in older.series] if older else []
    step_s = max(interval_s, scrape_interval(points for _, points in coarse)) if coarse else interval_s
    rows = [(labels, _target(labels), points) for labels, points in (_merged(coarse, raw) if coarse else raw) if points]
    first_anywhere = min((points[0][0] for _, _, points in rows), default=0.0)
    first_of_target: dict[tuple[str, ...], float] = {}
    for _, target, points in rows:
        first_of_target[target] = min(first_of_target.get(target, points[0][0]), points[0][0])
    counters = tuple(
        _counter(labels, points, first_of_target[target], first_anywhere, step_s) for labels, target, points in rows
    )
    raw_times = tuple(sorted({time for _, points in raw for time, _ in points}))
    warnings = answer.warnings + (older.warnings if older else ())
    newest_at = raw_times[-1] if raw_times else None
    settled_at = None
    if newest_at is not None:
        last_of_target: dict[tuple[str, ...], float] = {}
        for _, target, points in rows:
            last_of_target[target] = max(last_of_target.get(target, 0.0), points[-1][0])
        alive_since = newest_at - GAP_INTERVALS * interval_s
        settled_at = min(last for last in (newest_at, *last_of_target.values()) if last >= alive_since)
    return Counted(
        counters, raw_times, interval_s, newest_at, answer.server_time, tuple(dict.fromkeys(warnings)), settled_at
    )


def scrape_interval(series: Iterable[Iterable[tuple[float, float]]]) -> float:
    """The median distance between neighbouring samples of one series, in seconds; 15 when there are none."""
    gaps = [after[0] - before[0] for points in series for before, after in pairwise(points)]
    return max(0.001, median(gaps)) if gaps else DEFAULT_INTERVAL_S


def covered(times: Iterable[float], since: float, interval_s: float) -> tuple[float, float]:
    """Seconds after `since` that samples cover, and the newest moment covered.

    A stretch between neighbouring samples counts when it is not longer than 2.5 scrape intervals.
    """
    added_s, until, before = 0.0, since, None
    ordered = sorted(times)
    for time in ordered[max(0, bisect_right(ordered, since) - 1) :]:
        if before is not None and time > since and time - before <= GAP_INTERVALS * interval_s:
            added_s += time - max(before, since)
        before = time
        until = max(until, time)
    return added_s, until


def _counter(
    labels: Mapping[str, str],
    points: list[tuple[float, float]],
    first_of_target: float,
    first_anywhere: float,
    interval_s: float,
) -> Counter:
    first_at, first_value = points[0]
    if first_at > first_of_target:
        born = first_at - first_of_target > 0.5 * interval_s
    elif first_at - first_anywhere > GAP_INTERVALS * interval_s:
        born = first_value <= few(points, interval_s)
    else:
        born = False
    times, totals = [], []
    total, before = 0.0, 0.0 if born else first_value
    for time, value in points:
        total += value - before if value >= before else value
        before = value
        times.append(time)
        totals.append(total)
    return Counter(labels, tuple(times), tuple(totals))


def few(points: Sequence[tuple[float, float]], interval_s: float) -> float:
    """What a target that is new, and not only back, can have counted by its first sample: a few scrapes' worth."""
    later_rate = _increase(points) / max(interval_s, points[-1][0] - points[0][0])
    return _FEW + 3 * GAP_INTERVALS * interval_s * later_rate


def _increase(points: Sequence[tuple[float, float]]) -> float:
    return sum(after - before if after >= before else after for (_, before), (_, after) in pairwise(points))


Rows = list[tuple[Mapping[str, str], list[tuple[float, float]]]]


def _merged(coarse: Rows, raw: Rows) -> Rows:
    """The points of both for each series, raw ones where both have one."""
    merged: dict[tuple[tuple[str, str], ...], tuple[Mapping[str, str], dict[float, float]]] = {}
    for labels, points in (*coarse, *raw):
        merged.setdefault(_identity(labels), (labels, {}))[1].update(points)
    return [(labels, sorted(points.items())) for labels, points in merged.values()]


def _numbers(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for point in points if not isnan(point[1])]


def _identity(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in labels.items() if name != "__name__"))


def _target(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(name, "") for name in _TARGET)
