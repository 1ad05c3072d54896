"""One metric of one rollout in samples: added up by what the gates tell apart (reporter, side, outcome, bucket, the
canary's and stable's pods), and of each single series its last sample.

A series that appears in a target known before is counted in full. Compare `bot.analysis.sums`, where Prometheus adds
up.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isnan
from sys import intern

from bot.analysis.counts import GAP_INTERVALS, Counted, Counter, count, few, scrape_interval
from bot.analysis.look import BUCKETS, REQUESTS
from bot.analysis.samples import Answer, Series
from bot.analysis.sums import OUTCOMES, SIDES

LONGEST = 4096
_KINDS = {REQUESTS: (*SIDES, *OUTCOMES), BUCKETS: (*SIDES, "le")}
_PODS = ("pod", "kubernetes_pod_name", "pod_name")
_TARGET = ("job", "instance", "namespace", "pod")


@dataclass(slots=True)
class _Known:
    """One series: its last sample, the sum it goes into, and its target's newest moment (a list of one)."""

    at: float
    value: float
    sum: Counter
    target: list[float]


@dataclass(slots=True)
class Sampled:
    """Sums by kind, and what is needed to go on with them. `times` are moments of samples, ascending. Not shared, not
    saved."""

    metric: str
    sums: dict[tuple[str, ...], Counter] = field(default_factory=dict)
    known: dict[int, _Known] = field(default_factory=dict)
    targets: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    interval_s: float = 15.0
    server_time: float | None = None
    warnings: tuple[str, ...] = ()

    def begin(self, raw: Answer, older: Answer | None) -> None:
        """Take a wide answer as the beginning."""
        counted = count(raw, older)
        self.times, self.interval_s = list(counted.raw_times), counted.interval_s
        events: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for counter in counted.counters:
            kind = self._kind(counter)
            before = 0.0
            for time, total in zip(counter.times, counter.totals, strict=True):
                events.setdefault(kind, []).append((time, total - before))
                before = total
        for kind, steps in events.items():
            _add(self.sums[kind], sorted(steps))
        for series in raw.series:
            points = [point for point in series.points if not isnan(point[1])]
            if points:
                self._meet(series, *points[-1])
        self._heard(raw)

    def extend(self, answer: Answer) -> None:
        """Add the samples that are newer than what is known of their series."""
        moments: set[float] = set()
        span = (0.0, 0.0, 0)
        known_before = {target: cell[0] for target, cell in self.targets.items()}
        for series in answer.series:
            points = series.points
            if not points:
                continue
            one = self.known.get(_name(series))
            if one is None:
                at, value = points[0]
                one = self._meet(series, at, value)
                born = _target(series) in known_before or value <= few(points, self.interval_s)
                _add(one.sum, ((at, value if born else 0.0),))
                moments.add(at)
            if points[-1][0] <= one.at:
                continue
            first = len(points) - 1
            while first and points[first - 1][0] > one.at:
                first -= 1
            steps, before = [], one.value
            for at, value in points[first:]:
                if value == value:
                    steps.append((at, value - before if value >= before else value))
                    before = value
            if steps:
                one.at, one.value = steps[-1][0], before
                if span != (spanned := (steps[0][0], one.at, len(steps))):
                    span = spanned
                    moments.update([at for at, _ in steps])
                _add(one.sum, steps)
            if one.at > one.target[0]:
                one.target[0] = one.at
        self._saw(moments)
        longest = max((series.points for series in answer.series[:5]), key=len, default=())
        if len(longest) > 2:
            self.interval_s = scrape_interval([longest])
        self._heard(answer)

    def counted(self) -> Counted:
        """Everything so far as a look takes it."""
        newest_at = max((cell[0] for cell in self.targets.values()), default=None)
        alive_since = (newest_at or 0.0) - GAP_INTERVALS * self.interval_s
        settled_at = min((cell[0] for cell in self.targets.values() if cell[0] >= alive_since), default=newest_at)
        del self.times[:-LONGEST]
        for counter in self.sums.values():
            _shorten(counter)
        return Counted(
            tuple(self.sums.values()),
            tuple(self.times),
            self.interval_s,
            newest_at,
            self.server_time,
            self.warnings,
            settled_at,
        )

    def _saw(self, moments: set[float]) -> None:
        fresh = sorted(moments.difference(self.times[-len(moments) - 1 :]))
        if fresh and self.times and fresh[0] < self.times[-1]:
            self.times = sorted({*self.times, *fresh})
        else:
            self.times += fresh

    def _heard(self, answer: Answer) -> None:
        self.server_time, self.warnings = answer.server_time, answer.warnings

    def _meet(self, series: Series, at: float, value: float) -> _Known:
        target = self.targets.setdefault(_target(series), [at])
        target[0] = max(target[0], at)
        one = _Known(at, value, self._sum(self._kind(series)), target)
        self.known[_name(series)] = one
        return one

    def _kind(self, series: Series | Counter) -> tuple[str, ...]:
        labels = series.labels
        kind = tuple([intern(labels.get(name, "")) for name in _KINDS[self.metric]])
        if labels.get("reporter") == "destination":
            kind += tuple(labels.get(name, "") for name in _PODS)
        self._sum(kind)
        return kind

    def _sum(self, kind: tuple[str, ...]) -> Counter:
        found = self.sums.get(kind)
        if found is None:
            names = (*_KINDS[self.metric], *_PODS)
            labels = {name: value for name, value in zip(names, kind, strict=False) if value}
            found = self.sums[kind] = Counter(labels, array("d"), array("d"))
        return found


def _name(series: Series) -> int:
    """A series' labels as 64 bits: the labels themselves would be half a megabyte for each rollout."""
    return hash((tuple(series.labels), tuple(series.labels.values())))


def _target(series: Series) -> tuple[str, ...]:
    return tuple(series.labels.get(name, "") for name in _TARGET)


def _add(counter: Counter, steps: Iterable[tuple[float, float]]) -> None:
    """Add what was counted at these moments (ascending). The last moment is kept even when nothing was counted."""
    times, totals = counter.times, counter.totals
    assert isinstance(times, array)
    assert isinstance(totals, array)
    for at, more in steps:
        if not times or at > times[-1]:
            total = totals[-1] if totals else 0.0
            if len(totals) > 1 and totals[-2] == total:
                times[-1] = at
                totals[-1] = total + more
            else:
                times.append(at)
                totals.append(total + more)
        elif more:
            index = bisect_right(times, at)
            if index and times[index - 1] == at:
                index -= 1
            else:
                times.insert(index, at)
                totals.insert(index, totals[index - 1] if index else 0.0)
            for later in range(index, len(totals)):
                totals[later] += more


def _shorten(counter: Counter) -> None:
    """Leave out three of four moments of the older half once there are very many; what was counted stays."""
    times, totals = counter.times, counter.totals
    if len(times) > LONGEST:
        assert isinstance(times, array)
        assert isinstance(totals, array)
        half = len(times) // 2
        times[:half] = times[3:half:4]
        totals[:half] = totals[3:half:4]
