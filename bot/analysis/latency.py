"""Latency from `istio_request_duration_milliseconds_bucket`: quantiles and the fraction above a limit.

Both interpolate inside a bucket the way Prometheus' `histogram_quantile` does (promql/quantile.go): linearly between
the bucket's bounds, from 0 in the lowest one, and never beyond the highest finite bound.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import lru_cache
from math import inf, isinf
from typing import NamedTuple

from bot.analysis.columns import Columns, Counters, Layout, layout
from bot.analysis.counts import Counted
from bot.analysis.requests import REPORTERS, Whose, whose
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
        return _quantile(self.buckets, fraction * self.buckets[-1][1]) if self.buckets else None

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


class Bucket(NamedTuple):
    """What one column of latencies counts: requests not slower than `bound` ms."""

    reporter: str
    whose: Whose
    bound: float


@dataclass(slots=True)
class Shown:
    """All buckets of each side from `begin` to `until` (epoch seconds): cumulative counts of `sides`, one after the
    other, each in the order of `bounds`."""

    begin: float
    until: float
    bounds: tuple[float, ...]
    sides: tuple[tuple[str, Whose], ...] = ()
    counts: "array[float]" = field(default_factory=lambda: array("d"))

    def histogram(self, reporter: str, side: Whose) -> Histogram:
        """What one side has had."""
        return Histogram(tuple(zip(self.bounds, self._counts((reporter, side)), strict=False)))

    def quantile(self, fraction: float, reporter: str, side: Whose) -> float | None:
        """The quantile of one side's histogram."""
        counts = self._counts((reporter, side))
        return _quantile(zip(self.bounds, counts, strict=True), fraction * counts[-1]) if counts else None

    def _counts(self, side: tuple[str, Whose]) -> "array[float]":
        """Those of one side, none of a side that has not been seen."""
        begin = self.sides.index(side) * len(self.bounds) if side in self.sides else len(self.counts)
        return self.counts[begin : begin + len(self.bounds)]

    def count(self, side: tuple[str, Whose], bound: float, more: float) -> None:
        """Add to one bucket of one side."""
        if side not in self.sides:
            self.sides = (*self.sides, side)
            self.counts.extend([0.0] * len(self.bounds))
        self.counts[self.sides.index(side) * len(self.bounds) + self.bounds.index(bound)] += more


@dataclass(frozen=True, slots=True)
class Latencies:
    """All counted bucket series of a service; `layout` says which column counts what.

    Where only the buckets around the limit are counted from look to look, `shown` has all of them, and may be older: it
    is what quantiles are read from. The fraction above the limit is exact either way.
    """

    layout: Layout[Bucket]
    columns: Columns
    counted: Counted
    shown: Shown | None = None

    @property
    def reporters(self) -> tuple[str, ...]:
        """Those that saw requests of one of the two sides."""
        return _reporters(self.layout)

    def histogram(self, begin: float, end: float, reporter: str, side: Whose) -> Histogram:
        """Requests completed after `begin` up to `end`, by latency."""
        group = groups(self.layout).get((reporter, side))
        return Histogram() if group is None else self._summed((group,), begin, end)

    def together(self, begin: float, end: float, reporter: str) -> Histogram:
        """The same over all sides, also those that are neither stable nor canary."""
        seen = [group for (seen_by, _), group in groups(self.layout).items() if seen_by == reporter]
        return self._summed(seen, begin, end)

    def _summed(self, groups: Iterable["Group"], begin: float, end: float) -> Histogram:
        sums: dict[float, float] = {}
        for group in groups:
            for bound, more in zip(group.bounds, self.columns.increases(group.places, begin, end), strict=True):
                sums[bound] = sums.get(bound, 0.0) + more
        return Histogram(_monotonic(sums))

    def quantile(self, histogram: Histogram, fraction: float, reporter: str, side: Whose) -> float | None:
        """The quantile of a side's histogram, of all its buckets as last known where it has only some of them."""
        return histogram.quantile(fraction) if self.shown is None else self.shown.quantile(fraction, reporter, side)

    def newest(self, reporter: str, side: Whose) -> float | None:
        """Newest sample of a side at a reporter, epoch seconds on Prometheus' clock."""
        group = groups(self.layout).get((reporter, side))
        return None if group is None else self.columns.newest(group.places)


class Group(NamedTuple):
    """The columns of one side at one reporter: their bounds in ms and their places, the lowest bound first."""

    bounds: tuple[float, ...]
    places: tuple[int, ...]


@lru_cache(maxsize=4096)
def groups(layout: Layout[Bucket]) -> Mapping[tuple[str, Whose], Group]:
    """The columns by reporter and side."""
    found: dict[tuple[str, Whose], list[tuple[float, int]]] = {}
    for place, bucket in enumerate(layout.kinds):
        found.setdefault((bucket.reporter, bucket.whose), []).append((bucket.bound, place))
    return {side: Group(*zip(*sorted(columns), strict=True)) for side, columns in found.items()}


@lru_cache(maxsize=4096)
def _reporters(layout: Layout[Bucket]) -> tuple[str, ...]:
    seen = {reporter for reporter, side in groups(layout) if side in (Whose.CANARY, Whose.STABLE)}
    return tuple(reporter for reporter in REPORTERS if reporter in seen)


def sort(target: Target, counted: Counted) -> Latencies:
    """Sort counted bucket series by reporter and side; series whose `le` is not a number are left out."""
    buckets, counters = [], []
    for counter in counted.counters:
        bound = bound_of(counter.labels.get("le", ""))
        if bound is not None:
            buckets.append(Bucket(counter.labels.get("reporter", ""), whose(target, counter.labels), bound))
            counters.append(counter)
    return Latencies(layout(tuple(buckets)), Counters(tuple(counters)), counted)


@lru_cache(maxsize=1024)
def bound_of(text: str) -> float | None:
    """A bucket's upper bound in ms, None when its `le` is not a number."""
    try:
        return float(text)
    except ValueError:
        return None


def _quantile(buckets: Iterable[tuple[float, float]], rank: float) -> float | None:
    """The latency in ms up to which `rank` requests lie, None where that is none."""
    if rank <= 0:
        return None
    lower_ms, below = 0.0, 0.0
    for upper_ms, cumulative in buckets:
        if cumulative >= rank:
            if isinf(upper_ms):
                return lower_ms
            if cumulative <= below:
                return upper_ms
            return lower_ms + (upper_ms - lower_ms) * (rank - below) / (cumulative - below)
        lower_ms, below = upper_ms, cumulative
    return lower_ms


def _monotonic(sums: Mapping[float, float]) -> tuple[tuple[float, float], ...]:
    buckets, highest = [], 0.0
    for bound in sorted(sums):
        if sums[bound] > highest:
            highest = sums[bound]
        buckets.append((bound, highest))
    return tuple(buckets)
