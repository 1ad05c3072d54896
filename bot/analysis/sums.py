"""What a service counted between two moments, added up by Prometheus: one number for each side, outcome and bucket.

Of each series the difference between the two moments, after a reset its value, and of a series that was born in between
its value as well, provided that its target was being scraped at the earlier moment. Moments are whole seconds of
Prometheus' time, a little in the past; those of two looks meet, so nothing is counted twice and nothing between them is
lost. What happened between two moments is one interval, and pods are not told apart.

Of the latency buckets only those are asked for that the limit needs: the bounds around it and the highest. All buckets,
for the p99 that people read, are asked for every four minutes, and at every look while they show more than the limit.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor
from sys import intern
from typing import Any

from bot.analysis.counts import Counted, Counter
from bot.analysis.latency import Latencies, Shown, bound_of
from bot.analysis.promql import literal, quote
from bot.analysis.requests import Line, Outcome, Traffic, Whose, hosts, outcome, whose
from bot.analysis.samples import Answer, Query
from bot.analysis.windows import RECENT_S
from bot.rollout.model import Target
from bot.values import dataclass

SERVICE = "destination_service"
SIDES = ("reporter", SERVICE, "destination_workload", "destination_version")
OUTCOMES = ("response_code", "response_flags", "grpc_response_status", "request_protocol")
SETTLES_S = 3.0
BETWEEN_S = 60.0
BEHIND_S = 2.0
SHOWN_EVERY_S = 240.0
POINTS = 16
SAMPLED = 64
_NO_LABELS: Mapping[str, str] = {}
BEGINS_WITHIN_S = 5.0

Side = tuple[str, Whose]
Kind = tuple[str, Whose, Outcome] | tuple[str, Whose, float]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about the stretch (`since`, `until`], epoch seconds; `whole` when it is about all buckets."""

    query: Query
    since: float
    until: float
    whole: bool = False


def increments(series: str, kinds: str, seconds: int) -> str:
    """What each kind of series has counted in the last seconds, exact for resets and for births in known targets."""
    before = f"{series} offset {seconds}s"
    born = f"({series} and on (job, instance) (up offset {seconds}s == 1))"
    return f"sum by ({kinds}) ((({series} - {before}) >= 0) or {born})"


def sum_question(metric: str, of: tuple[str, ...], since: float, until: float, bounds: tuple[str, ...] = ()) -> Query:
    """The increments between two moments, and beside them the newest sample's time; of some buckets or all."""
    names = f"=~{quote('|'.join(map(literal, sorted(of))))}" if len(of) > 1 else f"={quote(of[0])}"
    return Query(names.join(_pieces(metric, int(until - since), bounds)), until)


@lru_cache(maxsize=1024)
def _pieces(metric: str, seconds: int, bounds: tuple[str, ...]) -> tuple[str, ...]:
    """The question's text around the names of its services."""
    mark = "\0"
    buckets = f",le=~{quote('|'.join(map(literal, bounds)))}" if bounds else ""
    series = f"{metric}{{{SERVICE}{mark}{buckets}}}"
    kinds = ",".join((*SIDES, *(("le",) if metric.endswith("_bucket") else OUTCOMES)))
    newest = f"max by ({SERVICE}) (timestamp({series}))"
    return tuple(f"{increments(series, kinds, seconds)} or {newest}".split(mark))


def moment(now: float, every_s: float, former: float) -> float:
    """The newest moment up to which everything is in; where it can be, a whole number of looks after the former one, so
    that those who look together go on asking together."""
    newest = float(floor(now - SETTLES_S))
    if former <= 0:
        return newest
    every = max(1, round(every_s))
    in_step = former + (newest - former) // every * every
    return in_step if in_step > former and newest - in_step <= BEHIND_S else newest


class Sums:
    """One metric of one rollout. Not shared, not saved.

    `since` is the moment from which on everything is known, `until` up to which; 0 before the first answer. `limits_ms`
    are the latencies that have to be told exactly, None for all buckets at every look.
    """

    __slots__ = (
        "_bounds",
        "_counters",
        "_groups",
        "_kept",
        "_known",
        "_lines",
        "_seen",
        "_shown",
        "_texts",
        "interval_s",
        "limits_ms",
        "metric",
        "newest_at",
        "sampled",
        "server_time",
        "since",
        "target",
        "times",
        "until",
        "warnings",
    )

    def __init__(self, metric: str, target: Target, interval_s: float, limits_ms: tuple[float, ...] | None) -> None:
        self.metric = metric
        self.target = target
        self.interval_s = interval_s
        self.limits_ms = limits_ms
        self.since = 0.0
        self.until = 0.0
        self.newest_at: float | None = None
        self.server_time: float | None = None
        self.warnings: tuple[str, ...] = ()
        self.times = array("d")
        self.sampled = array("d")
        self._counters: dict[Kind, Counter] = {}
        self._seen: dict[tuple[str, str, str], Whose] = {}
        self._texts: tuple[str, ...] = ()
        self._bounds: frozenset[float] | None = None
        self._shown: Shown | None = None
        self._kept: dict[object, Any] = {}
        self._known: dict[int, array[float] | None] = {}
        self._lines: tuple[Line, ...] | None = None
        self._groups: Mapping[Side, tuple[tuple[float, Counter], ...]] | None = None

    @property
    def buckets(self) -> bool:
        """It is about latencies."""
        return self.metric.endswith("_bucket")

    def questions(self, begin: float, reached: float | None, now: float, every_s: float, whole: bool) -> list[Asked]:
        """What to ask at a look; nothing while there is nothing new.

        `begin` is the first moment that belongs to the present weight alone, `reached` how far the evidence carries
        (None without any). `whole` asks for all buckets out of turn.
        """
        until = moment(now, every_s, self.until)
        if until <= self.until:
            return []
        edges = [*self._edges(begin, reached, until, every_s), until]
        if not self.buckets:
            return [self._asked(*edge, whole=False) for edge in pairwise(edges)]
        if self._bounds is None or self.limits_ms is None:
            return [self._asked(*edge, whole=True) for edge in pairwise(edges)]
        shown = self._shown
        if shown is None or not (whole or _due(shown.until, until, every_s)):
            return [self._asked(*edge, whole=False) for edge in pairwise(edges)]
        since = max(shown.until, begin)
        if edges == [since, until]:
            return [self._asked(since, until, whole=True)]
        asked = [self._asked(*edge, whole=False) for edge in pairwise(edges)]
        return [*asked, self._asked(since, until, whole=True)] if since < until else asked

    def _edges(self, begin: float, reached: float | None, until: float, every_s: float) -> list[float]:
        if self.until:
            return [self.until, begin] if self.until < begin < until else [self.until]
        if reached is not None and ceil(reached) < until:
            carried = float(max(ceil(reached), begin if begin < until else 0.0))
            return [begin, carried] if begin < carried <= begin + BETWEEN_S else [carried]
        return [begin] if until - BETWEEN_S <= begin < until else [until - max(BETWEEN_S, every_s)]

    def _asked(self, since: float, until: float, *, whole: bool) -> Asked:
        texts = () if whole or not self.buckets else self._texts
        return Asked(sum_question(self.metric, hosts(self.target), since, until, texts), since, until, whole)

    def take(self, asked: Sequence[Asked], answers: Sequence[Answer], begin: float) -> None:
        """Add the answers. Without any sample lately nothing is known, and the next look asks again."""
        for one, answer in zip(asked, answers, strict=True):
            self.server_time, self.warnings = answer.server_time, answer.warnings
            newest = max([row.points[-1][1] for row in answer.series if len(row.labels) == 1], default=None)
            if newest is None:
                continue
            if self.buckets and one.whole:
                self._show(one, answer, begin)
            if one.since == self.until or not self.until:
                self._advance(one, answer, newest)

    def _advance(self, one: Asked, answer: Answer, newest: float) -> None:
        if not self.until:
            self.since = one.since
        at, times = min(one.until, newest), self.times
        self._cover(at, one)
        self.until, self.newest_at = one.until, newest
        if times and at <= times[-1]:
            at = times[-1]
        else:
            times.append(at)
            for counter in self._counters.values():
                counter.totals.append(counter.totals[-1])  # type: ignore[attr-defined]
        known = self._known
        kept = self._bounds if one.whole else None
        for row in answer.series:
            labels = row.labels
            if len(labels) == 1 or (kept is not None and bound_of(labels.get("le", "")) not in kept):
                continue
            name = hash((*labels, *labels.values()))
            try:
                totals = known[name]
            except KeyError:
                totals = known[name] = self._totals(labels)
            if totals is not None and (value := row.points[-1][1]) == value:
                totals[-1] += value

    def _totals(self, labels: Mapping[str, str]) -> "array[float] | None":
        """Where a row of an answer is added to, None when it is about nothing that is kept."""
        reporter = labels.get("reporter")
        if reporter is None:
            return None
        kind: Kind
        if self.buckets:
            bound = bound_of(labels.get("le", ""))
            if bound is None or (self._bounds is not None and bound not in self._bounds):
                return None
            kind = (intern(reporter), self._whose(labels), bound)
        else:
            kind = (intern(reporter), self._whose(labels), outcome_of(labels))
        counter = self._counters.get(kind) or self._new(kind)
        totals = counter.totals
        assert isinstance(totals, array)
        return totals

    def _new(self, kind: Kind) -> Counter:
        made = Counter(_NO_LABELS, self.times, array("d", bytes(8 * len(self.times))))
        self._counters[kind] = made
        self._lines = self._groups = None
        self._kept = {}
        return made

    def _whose(self, labels: Mapping[str, str]) -> Whose:
        names = (
            labels.get("destination_workload", ""),
            labels.get("destination_version", ""),
            labels.get(SERVICE, ""),
        )
        found = self._seen.get(names)
        if found is None:
            found = self._seen[names] = whose(self.target, labels)
        return found

    def _cover(self, at: float, one: Asked) -> None:
        """Note the moments of the scrapes; between two moments not further apart than a minute they were regular."""
        sampled = self.sampled
        before = sampled[-1] if sampled else None
        if before is not None and at - before <= self.interval_s + min(one.until - one.since, BETWEEN_S):
            scrapes = int((at - before) / self.interval_s)
            sampled.extend(at - number * self.interval_s for number in range(scrapes - 1, 0, -1))
        if before is None or at > before:
            sampled.append(at)
        del sampled[:-SAMPLED]

    def _show(self, one: Asked, answer: Answer, begin: float) -> None:
        """Add all buckets to what is shown of the present weight, and learn which bounds there are."""
        self._learn(answer)
        shown = self._shown
        if shown is None or shown.begin + BEGINS_WITHIN_S < begin:
            shown = self._shown = Shown(max(begin, one.since), one.until, shown.bounds if shown else ())
        if one.until <= begin:
            return
        shown.until = one.until
        rows = [(row.labels, row.points[-1][1]) for row in answer.series if len(row.labels) > 1]
        bounds = {bound_of(labels.get("le", "")) for labels, _ in rows}
        if not bounds.issubset(shown.bounds):
            known = {bound for bound in bounds if bound is not None}
            shown = self._shown = Shown(max(begin, one.since), one.until, tuple(sorted(known.union(shown.bounds))))
        places = {bound: place for place, bound in enumerate(shown.bounds)}
        sides: dict[tuple[str, str, str], array[float]] = {}
        for labels, value in rows:
            place = places.get(bound_of(labels.get("le", "")))  # type: ignore[arg-type]
            reporter = labels.get("reporter")
            if place is None or reporter is None or value != value:
                continue
            key = (reporter, labels.get("destination_workload", ""), labels.get("destination_version", ""))
            totals = sides.get(key)
            if totals is None:
                side = (intern(reporter), self._whose(labels))
                totals = shown.sides.setdefault(side, array("d", bytes(8 * len(shown.bounds))))
                if len(hosts(self.target)) == 1:
                    sides[key] = totals
            totals[place] += value

    def _learn(self, answer: Answer) -> None:
        """Which bounds the limits need, as the service writes them."""
        if self._bounds is not None or self.limits_ms is None:
            return
        texts = {row.labels["le"] for row in answer.series if "le" in row.labels}
        by_bound = {bound: text for text in texts if (bound := bound_of(text)) is not None}
        if by_bound:
            needed = bounds_for(tuple(sorted(by_bound)), self.limits_ms)
            self._bounds = frozenset(needed)
            self._texts = tuple(sorted(text for text in texts if bound_of(text) in needed))

    def counted(self, keep: Iterable[float]) -> Counted:
        """Everything so far, as a look takes it; single series are not kept. `keep` are moments at which a window may
        begin: what was counted after them stays exact when old moments are left out."""
        self._thin(tuple(keep))
        return Counted(
            (),
            tuple(self.sampled),
            self.interval_s,
            self.newest_at,
            self.server_time,
            self.warnings,
            self.until or None,
        )

    def _thin(self, keep: tuple[float, ...]) -> None:
        """Leave out every other of the moments that are more than two minutes old, once there are many."""
        times = self.times
        old = sum(1 for at in times if at < times[-1] - RECENT_S - self.interval_s) if len(times) > POINTS else 0
        if old <= POINTS // 2:
            return
        held = {max((index for index, at in enumerate(times) if at <= one), default=0) for one in keep}
        places = [index for index in range(len(times)) if index >= old or index % 2 == 0 or index in held]
        if len(places) == len(times):
            return
        for counter in self._counters.values():
            totals = counter.totals
            totals[:] = array("d", [totals[index] for index in places])  # type: ignore[index]
        times[:] = array("d", [times[index] for index in places])

    def traffic(self, counted: Counted) -> Traffic:
        """The requests by side, reporter and outcome."""
        if self._lines is None:
            self._lines = tuple(
                Line(reporter, side, how, counter)
                for (reporter, side, how), counter in self._counters.items()
                if isinstance(how, Outcome)
            )
        return Traffic(self._lines, counted, self._kept)

    def latencies(self, counted: Counted) -> Latencies:
        """The buckets by side and reporter, and what is shown of all of them."""
        if self._groups is None:
            groups: dict[Side, list[tuple[float, Counter]]] = {}
            for (reporter, side, bound), counter in self._counters.items():
                if isinstance(bound, float):
                    groups.setdefault((reporter, side), []).append((bound, counter))
            self._groups = {key: tuple(rows) for key, rows in groups.items()}
        shown = self._shown
        if self.limits_ms is None or shown is None:
            return Latencies(self._groups, counted, None, self._kept)
        return Latencies(self._groups, counted, shown, self._kept)


def bounds_for(bounds: tuple[float, ...], limits_ms: Iterable[float]) -> tuple[float, ...]:
    """Of ascending bounds those that say how many requests were slower than the limits: the one at or above each, the
    one below where the limit is not itself a bound, and the highest."""
    needed = {bounds[-1]}
    for limit_ms in limits_ms:
        upper = next((bound for bound in bounds if limit_ms <= bound), bounds[-1])
        needed.add(upper)
        if upper != limit_ms:
            needed.update(bound for bound in bounds if bound < upper and bound == max(b for b in bounds if b < upper))
    return tuple(sorted(needed))


def _due(former: float, until: float, every_s: float) -> bool:
    """All buckets again; those who look at different moments at different times, so that the work is level."""
    if until - former >= 2 * SHOWN_EVERY_S:
        return True
    phase_s = until % max(1.0, every_s) / max(1.0, every_s) * SHOWN_EVERY_S
    return floor((until + phase_s) / SHOWN_EVERY_S) > floor((former + phase_s) / SHOWN_EVERY_S)


@lru_cache(maxsize=4096)
def _outcome(code: str, flags: str, status: str, protocol: str) -> Outcome:
    return outcome(dict(zip(OUTCOMES, (code, flags, status, protocol), strict=True)))


def outcome_of(labels: Mapping[str, str]) -> Outcome:
    """`outcome`, remembered: there are few different ones."""
    get = labels.get
    return _outcome(
        get("response_code", ""),
        get("response_flags", ""),
        get("grpc_response_status", ""),
        get("request_protocol", ""),
    )
