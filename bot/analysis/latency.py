"""Latency from `istio_request_duration_milliseconds_bucket`: quantiles and the fraction above a limit.

Both interpolate inside a bucket the way Prometheus' `histogram_quantile` does (promql/quantile.go): linearly between
the bucket's bounds, from 0 in the lowest one, and never beyond the highest finite bound.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import lru_cache
from math import inf, isinf
from typing import Any

from bot.analysis.counts import Counted, Counter
from bot.analysis.requests import Whose, whose
from bot.rollout.model import Target
from bot.values import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative requests by upper bound: (le in ms, requests not slower), ascending, the last le infinite."""

    buckets: tuple[tuple[float, float], ...] = ()

    @property
    def requests(self) -> int:
        """All requests."""
        return round(self.buckets[-1][1]) if self.buckets else 0

    def quantile(self, fraction: float) -> float | None:
        """The latency in ms that `fraction` of the requests do not exceed, None without requests."""
        if not self.buckets or self.buckets[-1][1] <= 0:
            return None
        rank = fraction * self.buckets[-1][1]
        lower_ms, below = 0.0, 0.0
        for upper_ms, cumulative in self.buckets:
            if cumulative >= rank:
                if isinf(upper_ms):
                    return lower_ms
                if cumulative <= below:
                    return upper_ms
                return lower_ms + (upper_ms - lower_ms) * (rank - below) / (cumulative - below)
            lower_ms, below = upper_ms, cumulative
        return lower_ms

    def above(self, limit_ms: float) -> float:
        """Requests slower than the limit; beyond the highest finite bound all of the last bucket."""
        if not self.buckets:
            return 0.0
        total = self.buckets[-1][1]
        lower_ms, below = 0.0, 0.0
        for upper_ms, cumulative in self.buckets:
            if limit_ms <= upper_ms:
                if isinf(upper_ms):
                    return total - below
                return total - below - (cumulative - below) * (limit_ms - lower_ms) / (upper_ms - lower_ms)
            lower_ms, below = upper_ms, cumulative
        return 0.0

    def bucket_of(self, limit_ms: float) -> tuple[float, float]:
        """The bounds (lower, upper) in ms of the bucket the limit falls into; a limit on a bound is the upper one."""
        lower_ms = 0.0
        for upper_ms, _ in self.buckets:
            if limit_ms <= upper_ms:
                return lower_ms, upper_ms
            lower_ms = upper_ms
        return lower_ms, inf


@dataclass(slots=True)
class Shown:
    """All buckets of each side from `begin` to `until` (epoch seconds), cumulative counts in the order of `bounds`."""

    begin: float
    until: float
    bounds: tuple[float, ...]
    sides: dict[tuple[str, Whose], "array[float]"] = field(default_factory=dict)

    def histogram(self, reporter: str, side: Whose) -> Histogram:
        """What one side has had."""
        totals = self.sides.get((reporter, side))
        return Histogram() if totals is None else Histogram(tuple(zip(self.bounds, totals, strict=True)))


@dataclass(frozen=True, slots=True)
class Latencies:
    """All counted bucket series of a service, by reporter and side.

    Where only the buckets around the limit are counted from look to look, `shown` has all of them, and may be older: it
    is what quantiles are read from. The fraction above the limit is exact either way. `kept` is what was worked out of
    these groups before; it goes on to the next look while the groups are the same.
    """

    groups: Mapping[tuple[str, Whose], tuple[tuple[float, Counter], ...]]
    counted: Counted
    shown: Shown | None = None
    kept: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    def histogram(self, begin: float, end: float, reporter: str, side: Whose) -> Histogram:
        """Requests completed after `begin` up to `end`, by latency."""
        sums: dict[float, float] = {}
        for bound, counter in self.groups.get((reporter, side), ()):
            sums[bound] = sums.get(bound, 0.0) + counter.increase(begin, end)
        return Histogram(tuple(_monotonic(sums)))

    def together(self, begin: float, end: float, reporter: str) -> Histogram:
        """The same over all sides, also those that are neither stable nor canary."""
        sums: dict[float, float] = {}
        for (seen_by, _), buckets in self.groups.items():
            if seen_by == reporter:
                for bound, counter in buckets:
                    sums[bound] = sums.get(bound, 0.0) + counter.increase(begin, end)
        return Histogram(tuple(_monotonic(sums)))

    def quantile(self, histogram: Histogram, fraction: float, reporter: str, side: Whose) -> float | None:
        """The quantile of a side's histogram, of all its buckets as last known where it has only some of them."""
        full = histogram if self.shown is None else self.shown.histogram(reporter, side)
        return full.quantile(fraction)

    def newest(self, reporter: str, side: Whose) -> float | None:
        """Newest sample of a side at a reporter, epoch seconds on Prometheus' clock."""
        return max((counter.times[-1] for _, counter in self.groups.get((reporter, side), ())), default=None)


def sort(target: Target, counted: Counted) -> Latencies:
    """Sort counted bucket series by reporter and side; series whose `le` is not a number are left out."""
    groups: dict[tuple[str, Whose], list[tuple[float, Counter]]] = {}
    for counter in counted.counters:
        bound = bound_of(counter.labels.get("le", ""))
        if bound is not None:
            key = (counter.labels.get("reporter", ""), whose(target, counter.labels))
            groups.setdefault(key, []).append((bound, counter))
    return Latencies({key: tuple(rows) for key, rows in groups.items()}, counted)


@lru_cache(maxsize=1024)
def bound_of(text: str) -> float | None:
    """A bucket's upper bound in ms, None when its `le` is not a number."""
    try:
        return float(text)
    except ValueError:
        return None


def _monotonic(sums: Mapping[float, float]) -> Iterable[tuple[float, float]]:
    highest = 0.0
    for bound in sorted(sums):
        highest = max(highest, sums[bound])
        yield bound, highest
