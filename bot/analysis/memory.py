"""What a holder remembers of a rollout's counters from look to look, so that a look asks for what is new and no more.

Samples are added up here by what the gates tell apart (`bot.analysis.sampled`). Forgetting everything costs one wide
question.

A service with more than `MANY` series of a metric, and every service of a holder with very many rollouts, is asked for
increments that Prometheus has added up, and not for samples (`bot.analysis.sums`). Where a latency gate is near its
limit, samples are asked for again: what it is put down to takes all buckets and the pods.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from types import MappingProxyType
from typing import Any, TypeVar

from bot.analysis.counts import GAP_INTERVALS, Counted, Counter
from bot.analysis.latency import Latencies
from bot.analysis.look import (
    BUCKETS,
    MAX_SKEW_S,
    REQUESTS,
    Answers,
    begin_of,
    coverage_question,
    found,
    range_questions,
)
from bot.analysis.promql import over, selector
from bot.analysis.requests import Traffic, hosts
from bot.analysis.sampled import Sampled
from bot.analysis.samples import Answer, Query
from bot.analysis.sums import BETWEEN_S, Sums
from bot.analysis.windows import LEAD_S, Rung, reaching
from bot.errors import CannotMeasure
from bot.rollout.gate import GateReport, Relation, Verdict
from bot.rollout.model import Rollout, Target
from bot.values import replace

MANY = 2000
NARROW = (Rung(15), Rung(30), Rung(60), Rung(120), Rung(300))
FRESH_S = 200.0
SCRAPES_S = 120
Sorted = TypeVar("Sorted", Traffic, Latencies)
Kept = TypeVar("Kept")
METRICS = (REQUESTS, BUCKETS)
_NO_METRICS = frozenset[str]()
_NOTHING: Mapping[str, Any] = MappingProxyType({})
"""Of samples most rollouts of a large fleet keep nothing, and a dictionary for each of them is 64 bytes."""


class Memory:
    """Of one rollout, in the holder's memory. Not shared, not saved.

    `asked_at` is when the questions of this look were made (epoch seconds).
    With `summed` the service is asked for sums, `detailed` asks for the samples of its latencies nevertheless.
    """

    __slots__ = (
        "_ahead_s",
        "_asked",
        "_begin",
        "_fits",
        "_interval_s",
        "_kept",
        "_large",
        "_sorted",
        "_sums",
        "asked_at",
        "detailed",
        "summed",
    )

    def __init__(self, *, summed: bool = False) -> None:
        self.summed = summed
        self.asked_at: float | None = None
        self.detailed = False
        self._fits: bool | None = None
        self._kept: Mapping[str, Sampled] = _NOTHING
        self._sums: tuple[Sums, ...] = ()
        self._asked: Mapping[str, tuple[Query, ...]] = _NOTHING
        self._large: frozenset[str] | None = None
        self._interval_s = 15.0
        self._ahead_s = 0.0
        self._begin = 0.0
        self._sorted: Mapping[str, tuple[tuple[Counter, ...], Target, Traffic | Latencies]] = _NOTHING

    @property
    def sized(self) -> bool:
        """It is known how many series the service has, and whether they can be summed."""
        return self._large is not None

    def unknown(self, rollout: Rollout) -> tuple[Query, ...]:
        """What has to be asked once beside the look: the answers go to `size`."""
        if self.sized:
            return ()
        return (*sizing(rollout), fitting(rollout)) if self.summed else sizing(rollout)

    def size(self, rollout: Rollout, answers: Answers) -> None:
        """Read the answers to `sizing`, if they are there. Of a metric of many series nothing single is kept."""
        if self.sized:
            return
        values: list[float | None] = []
        for query in sizing(rollout):
            answer = answers.get(query)
            if not isinstance(answer, Answer):
                return
            values.append(answer.series[0].points[-1][1] if answer.series else None)
        requests, buckets, scrapes = values
        if self._fits is None and isinstance(told := answers.get(fitting(rollout)), Answer):
            self._fits = bool(told.series) or requests is None
        if requests is None and self.summed:
            return
        sizes = {REQUESTS: requests or 0.0, BUCKETS: buckets or 0.0}
        self._large = frozenset([metric for metric, size in sizes.items() if size > MANY]) or _NO_METRICS
        self._interval_s = SCRAPES_S / scrapes if scrapes else self._interval_s
        for sums in self._sums:
            sums.interval_s = self._interval_s
        for metric in self._large:
            self._kept = _without(metric, self._kept)

    def sums(self, metric: str) -> bool:
        """This metric is asked for in sums."""
        if self._many(metric):
            return True
        return self.summed and self._fits is not False and not (metric == BUCKETS and self.detailed)

    def all_sums(self, rollout: Rollout, now: float) -> tuple[Query, ...] | None:
        """The questions about requests and latencies where both are summed; None where samples are asked for."""
        if not self.sums(REQUESTS) or not self.sums(BUCKETS):
            return None
        self._begin_anew()
        return tuple([query for metric in _needed(rollout) for query in self.sum_questions(metric, rollout, now)])

    def sum_questions(self, metric: str, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """What to ask at a look for a metric in sums: the increments since the last look."""
        begin = begin_of(rollout)
        if begin is None:
            return ()
        self._kept = _without(metric, self._kept)
        sums = self._sums_of(metric)
        if sums is None or (sums.target is not rollout.target and sums.target != rollout.target):
            sums = Sums(metric, rollout.target, self._interval_s, _limits_ms(metric, rollout))
            self._sums = (*self._others(metric), sums)
            if self._going_on(rollout, now):
                sums.sampled = (rollout.bake.covered_until,)
        sums.pending = tuple(
            sums.questions(
                self._since(begin),
                None if sums.until else _reached(metric, rollout),
                now + self._ahead_s,
                rollout.rules.check_every_s,
                whole=metric == BUCKETS and _open(rollout),
            )
        )
        return tuple([one.query for one in sums.pending])

    def _begin_anew(self) -> None:
        """Nothing has been asked at this look yet."""
        self._asked = _NOTHING
        for sums in self._sums:
            sums.pending = None

    def _asked_in_sums(self, metric: str) -> Sums | None:
        """The sums that this look asks for, None where it asks for samples or nothing."""
        sums = self._sums_of(metric)
        return sums if sums is not None and sums.pending is not None else None

    def _sums_of(self, metric: str) -> Sums | None:
        for sums in self._sums:
            if sums.metric == metric:
                return sums
        return None

    def _others(self, metric: str) -> tuple[Sums, ...]:
        """The sums of other metrics."""
        return tuple([sums for sums in self._sums if sums.metric != metric])

    def begin(self, begin: float) -> float | None:
        """From which moment on the sums know everything of the present weight; None without sums."""
        known = [sums.since for sums in self._sums if sums.pending is not None and sums.until]
        return max(self._since(begin), *known) if known else None

    def _since(self, begin: float) -> float:
        """The first whole second at which every target has been scraped since the weight was set."""
        return float(ceil(begin + self._ahead_s + self._interval_s))

    def _going_on(self, rollout: Rollout, now: float) -> bool:
        """Another holder looked a moment ago."""
        behind_s = now - rollout.bake.covered_until
        return rollout.assessment is not None and behind_s <= BETWEEN_S + self._interval_s

    def instead(self, asked: Sequence[Query], rollout: Rollout, now: float) -> tuple[Query, ...]:
        """The questions of a look with the wide ones narrowed to what is not known yet."""
        begin = begin_of(rollout)
        if begin is None:
            return tuple(asked)
        left = list(asked)
        self._begin_anew()
        for metric in METRICS:
            wide = range_questions(metric, rollout, now)
            if not any(query in left for query in wide):
                continue
            if self.sums(metric):
                left = [query for query in left if query not in wide]
                left += self.sum_questions(metric, rollout, now)
                continue
            self._sums = self._others(metric)
            narrow = self._narrow(metric, rollout, now)
            if narrow is None:
                self._kept = _without(metric, self._kept)
                continue
            self._asked = {**self._asked, metric: narrow}
            history = coverage_question(rollout, now) if metric == REQUESTS and self._covers(rollout, begin) else None
            left = [query for query in left if query not in wide and query != history]
            left += narrow
        return tuple(dict.fromkeys(left))

    def counted(
        self, metric: str, rollout: Rollout, now: float, answers: Answers
    ) -> tuple[str, Counted | CannotMeasure | None]:
        """Everything counted so far, why it could not be, or None when it was not asked for; and the question that a
        person would ask to see the same."""
        sums = self._asked_in_sums(metric)
        if sums is not None:
            return _told_by(sums, rollout, now), self._added(sums, rollout, answers)
        wide = range_questions(metric, rollout, now)
        queries = self._asked.get(metric)
        if queries is None:
            queries = found(metric, rollout.target, wide, answers)
        kept = self._kept.get(metric)
        if not queries and metric not in self._asked:
            return "", None
        good = []
        for query in queries:
            answer = answers.get(query)
            if not isinstance(answer, Answer):
                return queries[0].promql, answer or CannotMeasure("the question was not asked")
            good.append(answer)
        if kept is not None and metric in self._asked:
            kept.extend(good[0])
        else:
            kept = Sampled(metric)
            self._kept = {**self._kept, metric: kept}
            kept.begin(good[0], good[1] if len(good) > 1 else None)
        return wide[-1].promql if wide else "", kept.counted()

    def _added(self, sums: Sums, rollout: Rollout, answers: Answers) -> Counted | CannotMeasure:
        pending, good = sums.pending or (), []
        for one in pending:
            answer = answers.get(one.query)
            if not isinstance(answer, Answer):
                return answer or CannotMeasure("the question was not asked")
            good.append(answer)
        begin = begin_of(rollout) or 0.0
        sums.take(pending, good, self._since(begin))
        sums.pending = ()
        keep = [self._since(begin)]
        if rollout.bake.arrived_at is not None:
            keep.append(rollout.bake.arrived_at + self._ahead_s)
        return sums.counted(keep, rollout.bake.covered_until)

    def behind(self, skew_s: float) -> None:
        """By how much Prometheus' clock is ahead of ours; less than a second is not known."""
        self._ahead_s = skew_s if abs(skew_s) > 1 else 0.0

    def sorted(
        self, metric: str, target: Target, counted: Counted, sort: Callable[[Target, Counted], Sorted]
    ) -> Sorted:
        """The counted series sorted by side; only once, until one of a new kind appears."""
        sums = self._asked_in_sums(metric)
        if sums is not None:
            return sums.latencies(counted) if metric == BUCKETS else sums.traffic(counted)  # type: ignore[return-value]
        former = self._sorted.get(metric)
        if former is not None and former[0] == counted.counters and former[1] is target:
            return replace(former[2], counted=counted)  # type: ignore[return-value]
        found = sort(target, counted)
        self._sorted = {**self._sorted, metric: (counted.counters, target, found)}
        return found

    def _many(self, metric: str) -> bool:
        return self._large is not None and metric in self._large

    def _covers(self, rollout: Rollout, begin: float) -> bool:
        kept = self._kept.get(REQUESTS)
        since = max(begin, rollout.bake.covered_until)
        return kept is not None and bool(kept.times) and kept.times[0] <= since + kept.interval_s

    def _narrow(self, metric: str, rollout: Rollout, now: float) -> tuple[Query, ...] | None:
        """What to ask instead of the wide question; None when only that one will do."""
        kept = self._kept.get(metric)
        if kept is None or not kept.targets:
            return None
        newest_at = max(cell[0] for cell in kept.targets.values())
        alive_since = newest_at - GAP_INTERVALS * kept.interval_s
        behind_s = now - min(cell[0] for cell in kept.targets.values() if cell[0] >= alive_since)
        if behind_s > FRESH_S:
            return None
        reach_s = max(0.0, behind_s) + MAX_SKEW_S + 2 * kept.interval_s
        rung = next((rung for rung in NARROW if rung.window_s >= reach_s), NARROW[-1])
        return (Query(over(_series(metric, rollout.target), rung.window_s)),)


def _without(metric: str, kept: Mapping[str, Kept]) -> Mapping[str, Kept]:
    if metric not in kept:
        return kept
    return {name: one for name, one in kept.items() if name != metric} or _NOTHING


def _told_by(sums: Sums, rollout: Rollout, now: float) -> str:
    rung = reaching(now - (begin_of(rollout) or now) + LEAD_S)
    if sums.told_of is not rung:
        wide = range_questions(sums.metric, rollout, now)
        sums.told, sums.told_of = wide[-1].promql if wide else "", rung
    return sums.told


def sizing(rollout: Rollout) -> tuple[Query, ...]:
    """How many series the service has of each metric, and how often it was scraped lately."""
    requests, buckets = (_series(metric, rollout.target) for metric in METRICS)
    return (
        Query(f"count({requests})"),
        Query(f"count({buckets})"),
        Query(f"max(count_over_time({requests}[{SCRAPES_S}s]))"),
    )


def fitting(rollout: Rollout) -> Query:
    """Something where the service's targets are known by `up`: without it the first count of a series is not seen in
    sums, and samples have to be asked for."""
    return Query(f"count({_series(REQUESTS, rollout.target)} and on (job, instance) up)")


def _needed(rollout: Rollout) -> tuple[str, ...]:
    """The metrics that the rollout's gates, its share and its bake are judged by."""
    needed = [REQUESTS] if rollout.target.route.protocol == "http" else []
    kinds = {spec.kind for spec in rollout.gates}
    if not needed and kinds & {"error-rate", "missing-responses"}:
        needed.append(REQUESTS)
    if "p99" in kinds:
        needed.append(BUCKETS)
    return tuple(needed)


def _reached(metric: str, rollout: Rollout) -> float | None:
    """Up to which moment everything of this metric has been judged; None when nothing has."""
    kind = "p99" if metric == BUCKETS else "error-rate"
    names = {spec.name for spec in rollout.gates if spec.kind == kind}
    return min((one.until for one in rollout.evidence if one.gate in names), default=None)


def _limits_ms(metric: str, rollout: Rollout) -> tuple[float, ...] | None:
    """The latencies that the buckets have to tell exactly; None where a limit moves with what is measured."""
    specs = [spec for spec in rollout.gates if spec.kind == "p99"]
    if metric != BUCKETS or not specs or any(spec.relation is Relation.RELATIVE for spec in specs):
        return None
    return tuple(spec.limit for spec in specs)


def _open(rollout: Rollout) -> bool:
    """At the last look a latency gate had no p99 to show, or one above its limit."""
    names = {spec.name for spec in rollout.gates if spec.kind == "p99"}
    look = rollout.assessment
    return look is not None and any(one.gate in names and _exceeds(one) for one in look.reports)


def _exceeds(report: GateReport) -> bool:
    return report.verdict is Verdict.FAIL or report.value is None or report.value > (report.limit or 0.0)


def _series(metric: str, target: Target) -> str:
    return selector(metric, {"destination_service": hosts(target)})
