"""What a service counted between two moments, added up by Prometheus: one number for each side, outcome and bucket.

Of each series the difference between the two moments, after a reset its value, and of a series that was born in between
its value as well, provided that its target was being scraped at the earlier moment. Moments are whole seconds of
Prometheus' time, a little in the past; those of two looks meet, so nothing is counted twice and nothing between them is
lost. What happened between two moments is one interval, and pods are not told apart.

Of the latency buckets only those are asked for that the limit needs: the bounds around it and the highest. All buckets,
for the p99 that people read, are asked for every four minutes, and at every look while they show more than the limit.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor
from sys import intern
from typing import TypeVar, cast
from zlib import crc32

from bot.analysis.columns import Layout, Table, layout
from bot.analysis.counts import Counted
from bot.analysis.latency import Bucket, Latencies, Shown, bound_of
from bot.analysis.promql import literal, quote
from bot.analysis.requests import Line, Outcome, Traffic, Whose, hosts, outcome, whose
from bot.analysis.samples import Answer, Query
from bot.analysis.windows import RECENT_S, Rung
from bot.rollout.model import Target
from bot.values import dataclass

SERVICE = "destination_service"
SIDES = ("reporter", SERVICE, "destination_workload", "destination_version")
OUTCOMES = ("response_code", "response_flags", "grpc_response_status", "request_protocol")
SETTLES_S = 3.0
BETWEEN_S = 60.0
BEHIND_S = 2.0
SHOWN_EVERY_S = 240.0
SHOWN_PARTS = 2
POINTS = 16
SAMPLED = 64
NOWHERE = (1 << 15) - 1
"""The place of rows that are not kept; places are less."""
_NAME = ~NOWHERE
BEGINS_WITHIN_S = 5.0

Shared = TypeVar("Shared")


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
    are the latencies that have to be told exactly, None for all buckets at every look. `pending` are the questions of
    this look, None when it does not ask for sums; `told` is the same question as a person would ask it, of the window
    `told_of`. `sampled` are moments of scrapes, ascending: those of the requests, by which a bake is covered.
    """

    __slots__ = (
        "_bounds",
        "_layout",
        "_rows",
        "_shown",
        "_table",
        "_texts",
        "buckets",
        "interval_s",
        "limits_ms",
        "metric",
        "newest_at",
        "pending",
        "sampled",
        "server_time",
        "since",
        "target",
        "told",
        "told_of",
        "until",
        "warnings",
    )

    def __init__(self, metric: str, target: Target, interval_s: float, limits_ms: tuple[float, ...] | None) -> None:
        self.metric = metric
        self.buckets = metric.endswith("_bucket")
        self.target = target
        self.interval_s = interval_s
        self.limits_ms = _same(limits_ms)
        self.since = 0.0
        self.until = 0.0
        self.newest_at: float | None = None
        self.server_time: float | None = None
        self.warnings: tuple[str, ...] = ()
        self.pending: tuple[Asked, ...] | None = None
        self.told = ""
        self.told_of: Rung | None = None
        self.sampled: tuple[float, ...] = ()
        self._table = Table()
        self._layout: Layout[Line | Bucket] = layout(())
        self._rows = array("q")
        self._texts: tuple[str, ...] = ()
        self._bounds: frozenset[float] | None = None
        self._shown: Shown | None = None

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
        if shown is None or not (whole or all_due(shown.until, until, every_s, self.target.host)):
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
        at, table = min(one.until, newest), self._table
        if not self.buckets:
            self._cover(at, one)
        self.until, self.newest_at = one.until, newest
        if not table.times or at > table.times[-1]:
            table.begin(at)
        kept = self._bounds if one.whole else None
        for row in answer.series:
            labels = row.labels
            if len(labels) == 1 or (kept is not None and bound_of(labels.get("le", "")) not in kept):
                continue
            place = self._place(labels)
            if place < NOWHERE and (value := row.points[-1][1]) == value:
                table.count(place, value)

    def _place(self, labels: Mapping[str, str]) -> int:
        """Where a row of an answer is added to, `NOWHERE` when it is about nothing that is kept.

        Rows are known again by 49 bits of a hash of their labels; the same number has their place in its other bits.
        """
        rows, name = self._rows, hash((*labels, *labels.values())) & _NAME
        index = bisect_left(rows, name)
        if index == len(rows) or (place := rows[index] - name) > NOWHERE:
            place = self._column(labels)
            rows.insert(index, name + place)
        return place

    def _column(self, labels: Mapping[str, str]) -> int:
        reporter = labels.get("reporter")
        if reporter is None:
            return NOWHERE
        kind: Line | Bucket
        if self.buckets:
            bound = bound_of(labels.get("le", ""))
            if bound is None or (self._bounds is not None and bound not in self._bounds):
                return NOWHERE
            kind = Bucket(intern(reporter), whose(self.target, labels), bound)
        else:
            kind = Line(intern(reporter), whose(self.target, labels), outcome_of(labels))
        kinds = self._layout.kinds
        if kind in kinds:
            return kinds.index(kind)
        self._layout = layout((*kinds, kind))
        return self._table.widen()

    def _cover(self, at: float, one: Asked) -> None:
        """Note the moments of the scrapes; between two moments not further apart than a minute they were regular."""
        before = self.sampled[-1] if self.sampled else None
        if before is not None and at <= before:
            return
        between: list[float] = []
        if before is not None and at - before <= self.interval_s + min(one.until - one.since, BETWEEN_S):
            scrapes = int((at - before) / self.interval_s)
            between = [at - number * self.interval_s for number in range(scrapes - 1, 0, -1)]
        self.sampled = (*self.sampled, *between, at)[-SAMPLED:]

    def _show(self, one: Asked, answer: Answer, begin: float) -> None:
        """Add all buckets to what is shown of the present weight, and learn which bounds there are."""
        rows = [(row.labels, row.points[-1][1]) for row in answer.series if len(row.labels) > 1]
        texts = frozenset([labels.get("le", "") for labels, _ in rows])
        if self._bounds is None and self.limits_ms is not None and (found := _needed(texts, self.limits_ms)):
            self._bounds, self._texts = found
        shown = self._shown
        if shown is None or shown.begin + BEGINS_WITHIN_S < begin:
            shown = self._shown = Shown(max(begin, one.since), one.until, shown.bounds if shown else ())
        if one.until <= begin:
            return
        shown.until = one.until
        bounds = {bound for text in texts if (bound := bound_of(text)) is not None}
        if not bounds.issubset(shown.bounds):
            together = _same(tuple(sorted(bounds.union(shown.bounds))))
            shown = self._shown = Shown(max(begin, one.since), one.until, together)
        sides: dict[tuple[str, str, str, str], tuple[str, Whose]] = {}
        for labels, value in rows:
            bound, reporter = bound_of(labels.get("le", "")), labels.get("reporter")
            if bound is None or reporter is None or value != value:
                continue
            names = (
                reporter,
                labels.get(SERVICE, ""),
                labels.get("destination_workload", ""),
                labels.get("destination_version", ""),
            )
            side = sides.get(names)
            if side is None:
                side = sides[names] = (intern(reporter), whose(self.target, labels))
            shown.count(side, bound, value)
        shown.sides = _same(shown.sides)

    def counted(self, keep: Iterable[float], covered_until: float = 0.0) -> Counted:
        """Everything so far, as a look takes it; single series are not kept. `keep` are moments at which a window may
        begin: what was counted after them stays exact when old moments are left out. Nobody asks for scrapes before
        `covered_until` any more, but for the last of them."""
        self._thin(tuple(keep))
        self.sampled = self.sampled[max(0, bisect_right(self.sampled, covered_until) - 1) :]
        return Counted(
            (),
            self.sampled,
            self.interval_s,
            self.newest_at,
            self.server_time,
            self.warnings,
            self.until or None,
        )

    def _thin(self, keep: tuple[float, ...]) -> None:
        """Leave out every other of the moments that are more than two minutes old, once there are many."""
        times = self._table.times
        old = bisect_left(times, times[-1] - RECENT_S - self.interval_s) if len(times) > POINTS else 0
        if old <= POINTS // 2:
            return
        held = {max(0, bisect_right(times, one) - 1) for one in keep}
        rows = [index for index in range(len(times)) if index >= old or index % 2 == 0 or index in held]
        if len(rows) < len(times):
            self._table.keep(rows)

    def traffic(self, counted: Counted) -> Traffic:
        """The requests by side, reporter and outcome."""
        return Traffic(cast(Layout[Line], self._layout), self._table, counted)

    def latencies(self, counted: Counted) -> Latencies:
        """The buckets by side and reporter, and what is shown of all of them."""
        shown = None if self.limits_ms is None else self._shown
        return Latencies(cast(Layout[Bucket], self._layout), self._table, counted, shown)


@lru_cache(maxsize=1024)
def _needed(texts: frozenset[str], limits_ms: tuple[float, ...]) -> tuple[frozenset[float], tuple[str, ...]] | None:
    """The bounds that the limits need, as numbers and as the service writes them; None where it has none."""
    by_bound = {bound for text in texts if (bound := bound_of(text)) is not None}
    if not by_bound:
        return None
    needed = bounds_for(tuple(sorted(by_bound)), limits_ms)
    return frozenset(needed), tuple(sorted(text for text in texts if bound_of(text) in needed))


@lru_cache(maxsize=1024)
def _same(value: Shared) -> Shared:
    """The equal value that other rollouts have."""
    return value


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


def all_due(former: float, until: float, every_s: float, host: str) -> bool:
    """All buckets again. Those who look at the same moment do so in some parts, and those of different moments at
    different times, so that the work is level and not all their answers are in memory at once."""
    if until - former >= 2 * SHOWN_EVERY_S:
        return True
    part_s = SHOWN_EVERY_S / SHOWN_PARTS
    phase_s = crc32(host.encode()) % SHOWN_PARTS * part_s + until % max(1.0, every_s) / max(1.0, every_s) * part_s
    return (until + phase_s) // SHOWN_EVERY_S > (former + phase_s) // SHOWN_EVERY_S


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
