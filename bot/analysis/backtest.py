"""The gates tried on the past: rollouts imagined in recorded history, with stable in the canary's place.

Every request of stable is given to the imagined canary with the probability of the step's weight, as the mesh would
have routed it, so the canary is as thin as a real one and is known to be no worse. What fails then is a false alarm,
or a limit that stable itself does not keep. A comparison with stable needs two sides that differ as two sets of pods
do: there the canary's requests come from one half of stable's pods and stable's from the other. A limit of its own is
tried without a stable side, since a real rollout only holds when stable breaks the limit as well, and that would hide
the limits that stable does not keep.

The verdicts are those of `assess`, look by look, with evidence and tallies carried as the state machine carries them.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from math import ceil, floor, inf, log10

from bot.analysis.assessment import assess, questions
from bot.analysis.history import METRICS, History, Labels, one_number
from bot.analysis.look import BUCKETS, DAY_S, REQUESTS, Answers
from bot.analysis.promql import uses
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sentences import milliseconds, number, percent
from bot.analysis.windows import LEAD_S
from bot.errors import CannotMeasure
from bot.rollout.gate import YESTERDAY, Assessment, GateReport, GateSpec, Relation, Verdict
from bot.rollout.judging import counted, deciding
from bot.rollout.model import Actor, Bake, Destination, Phase, Rollout, Rules, Source, Target
from bot.rollout.plan import Plan
from bot.rollout.start import scheduled

Draw = Callable[[float, float], float]
"""How many of so many requests are taken when each is taken with this probability."""

LOOKBACK_S = 300.0
CLEAR = 3.0
_UNRECORDED = {
    "pods": "how pods were in the past is not recorded",
    "nodes": "how nodes were in the past is not judged again",
}
_RANGE = re.compile(r"^(?:max\(timestamp\()?(\w+)\{[^{}]*\}(\)\))?\[(\d+)s(?::(\d+)s)?\]$")
_NICE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


class Split(StrEnum):
    """Who stands in the canary's place."""

    BY_WEIGHT = "by weight"
    BY_PODS = "by pods"


class Outcome(StrEnum):
    """How one gate fared in one imagined rollout. WAITED: some step ended without enough requests for a verdict."""

    PASSED = "passed"
    FAILED = "failed"
    WAITED = "waited"
    UNMEASURED = "unmeasured"


@dataclass(frozen=True, slots=True)
class GateRun:
    """One gate in one imagined rollout, begun at `begin` (epoch seconds).

    `failed_at` is the look that would have ended it. `value` is the worst that was judged, in the gate's unit, as a
    multiple of stable's for relative limits; None when nothing was. `seen` are the values (epoch seconds, value) at
    the ends of the steps, `detail` the sentence of the verdict that counts.
    """

    begin: float
    outcome: Outcome
    detail: str = ""
    failed_at: float | None = None
    value: float | None = None
    samples: int | None = None
    needed_samples: int | None = None
    seen: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate over all imagined rollouts; `untried` says why there are none. `advice` is what it teaches, in words."""

    gate: GateSpec
    split: Split
    runs: tuple[GateRun, ...] = ()
    untried: str = ""
    advice: str = ""

    def count(self, outcome: Outcome) -> int:
        """Runs that fared so."""
        return sum(run.outcome is outcome for run in self.runs)

    @property
    def failed_share(self) -> float:
        """Failed runs as a fraction of all, 0 without runs."""
        return self.count(Outcome.FAILED) / len(self.runs) if self.runs else 0.0

    @property
    def values(self) -> tuple[float, ...]:
        """The worst judged value of every run that has one, ascending."""
        return tuple(sorted(run.value for run in self.runs if run.value is not None))

    def quantile(self, fraction: float) -> float | None:
        """The value that `fraction` of the runs do not exceed (nearest rank); None without values."""
        values = self.values
        return values[min(len(values) - 1, max(0, ceil(fraction * len(values)) - 1))] if values else None


@dataclass(frozen=True, slots=True)
class Backtest:
    """What came of it. Times are epoch seconds; `notes` are sentences about what limits the result."""

    service: str
    stable: str
    plan: Plan
    begin: float
    end: float
    every_s: float
    look_every_s: float
    runs: int
    requests: float
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Population:
    """Requests from which a side is drawn: all of stable's (`half` None) or those of one half of its pods.

    Bucket counts are of the bucket alone, not cumulative.
    """

    metric: str
    reporter: str
    half: int | None
    labels: Labels
    counts: Sequence[float]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Everything the imagined looks are answered from; `custom` holds the answers to other questions by their text."""

    history: History
    populations: Mapping[Split, tuple[Population, ...]]
    custom: Mapping[str, Sequence[Series] | CannotMeasure]
    custom_every_s: float


def recorded(
    history: History,
    gates: Sequence[GateSpec],
    custom: Mapping[str, Sequence[Series] | CannotMeasure],
    custom_every_s: float,
) -> Recorded:
    """Sort a history into populations, once for all runs.

    Buckets that no request fell into are left out where no limit lies: below all requests, and far above them.
    """
    highest_ms = CLEAR * 2 * max((gate.limit for gate in gates if gate.kind == "p99"), default=0.0)
    populations = {Split.BY_WEIGHT: tuple(_populations(history, None, highest_ms))}
    if history.pods:
        populations[Split.BY_PODS] = tuple(_populations(history, history.pods, highest_ms))
    return Recorded(history, populations, custom, custom_every_s)


def imagined(target: Target, plan: Plan, gates: Sequence[GateSpec], rules: Rules, begin: float) -> Rollout:
    """A rollout of stable against stable that begins at `begin`; without the gates that nothing recorded can answer."""
    named = target.stable
    canary = replace(named, workloads=("~canary",), destination=Destination(target.host, "~canary"))
    stable = replace(
        named, label=f"the rest of {named.label}", workloads=("~stable",), destination=Destination(target.host)
    )
    return scheduled(
        id=f"{target.service}-imagined",
        target=replace(target, stable=stable, canary=canary, fingerprint=""),
        plan=replace(plan, steps=tuple(replace(step, approval=False) for step in plan.steps)),
        gates=tuple(gate for gate in gates if gate.kind not in _UNRECORDED),
        rules=rules,
        by=Actor(Source.BOT),
        now=begin,
    ).with_(phase=Phase.PROGRESSING, started_at=begin)


def split_of(gate: GateSpec) -> Split:
    """By pods what compares the two sides, by weight what has a limit of its own."""
    return Split.BY_PODS if gate.kind == "missing-responses" or _beside_stable(gate) else Split.BY_WEIGHT


def judged_together(gates: Sequence[GateSpec], split: Split) -> tuple[GateSpec, ...]:
    """The gates to judge in the runs of a split: its own, and with a sequential one all others that share its alpha."""
    own = tuple(gate for gate in gates if split_of(gate) is split)
    if not any(gate.sequential for gate in own):
        return own
    return tuple(gate for gate in gates if gate in own or gate.sequential)


def untried(gate: GateSpec, history: History, stable: str) -> str:
    """Why a gate cannot be tried on this history, a sentence without its end; "" when it can."""
    if gate.kind in _UNRECORDED:
        return _UNRECORDED[gate.kind]
    if gate.kind == "custom" and (gate.relation is Relation.RELATIVE and uses(gate.query, "canary")):
        return "its query would compare stable with itself"
    if split_of(gate) is Split.BY_PODS and not history.pods:
        return f"cannot be tried without two pods of {stable} whose own proxies report (label `pod` or `instance`)"
    return ""


def duration_s(plan: Plan, interval_s: float) -> float:
    """Seconds an imagined rollout takes: its bakes, and one scrape more for each step."""
    return sum(step.bake_s + 2 * interval_s for step in plan.steps)


def begins(begin: float, end: float, plan: Plan, every_s: float, interval_s: float) -> tuple[float, ...]:
    """When imagined rollouts begin, so that each ends within the history."""
    room_s = end - begin - duration_s(plan, interval_s)
    return tuple(begin + index * every_s for index in range(floor(room_s / every_s + 1e-9) + 1)) if room_s >= 0 else ()


def look_spacing(plan: Plan, check_every_s: float, interval_s: float, runs: int, looks_max: int) -> float:
    """Seconds between looks: as the rollout would, but not under the scrape interval, nor more looks than `looks_max`.

    At least three looks a step, so that a row of failures can be one.
    """
    wanted_s = max(check_every_s, interval_s)
    in_budget_s = max(1, runs) * duration_s(plan, interval_s) / looks_max
    shortest_s = min(step.bake_s for step in plan.steps)
    return max(wanted_s, min(in_budget_s, max(wanted_s, shortest_s / 3)))


def custom_questions(rollout: Rollout, look_every_s: float, interval_s: float) -> tuple[str, ...]:
    """Every text beside the recorded series that the looks of one imagined rollout will ask."""
    texts: list[str] = []
    for baking, moments in _schedule(rollout, rollout.created_at, look_every_s, interval_s):
        for now in moments:
            texts.extend(query.promql for query in questions(baking, now) if not _RANGE.match(query.promql))
    return tuple(dict.fromkeys(texts))


def run(
    rollout: Rollout, split: Split, known: Recorded, begin: float, look_every_s: float, draw: Draw
) -> dict[str, GateRun]:
    """One imagined rollout begun at `begin`: how each of its gates fared, by name.

    A gate that failed is not judged again, the others go on as if it had not.
    """
    history = known.history
    interval_s = history.interval_s
    ends = begin + duration_s(rollout.plan, interval_s)
    if history.requests(begin, ends) < 1:
        return {gate.name: GateRun(begin, Outcome.WAITED, "No requests at all.", samples=0) for gate in rollout.gates}
    tape = _Tape(rollout, split, known, begin, draw, interval_s)
    told = {gate.name: _Told(gate) for gate in rollout.gates}
    carried = rollout
    for baking, moments in _schedule(rollout, begin, look_every_s, interval_s):
        stepped = carry(baking, carried)
        for now in moments:
            look = assess(stepped, now, tape.answers(questions(stepped, now), now), None, None)
            tallies = counted(stepped.tallies, look)
            failing = {report.gate for report in deciding(tallies, look)}
            for report in look.reports:
                told[report.gate].hear(report, now, report.gate in failing, now == moments[-1])
            stepped = kept(stepped, look).with_(
                tallies=tallies, bake=replace(stepped.bake, covered_until=max(stepped.bake.covered_until, now))
            )
        carried = stepped
        if all(one.failed_at is not None for one in told.values()):
            break
    return {name: one.run(begin) for name, one in told.items()}


def carry(baking: Rollout, before: Rollout) -> Rollout:
    """A step's rollout with what the machine keeps from the step before: look and evidence, not the tallies."""
    return baking.with_(assessment=before.assessment, evidence=before.evidence)


def kept(rollout: Rollout, look: Assessment) -> Rollout:
    """The rollout after a look, as the machine keeps it."""
    return rollout.with_(assessment=replace(look, evidence=()), evidence=look.evidence or rollout.evidence)


def better_limit(result: GateResult) -> GateSpec | None:
    """The gate with a limit worth trying: above all values where it failed, nearer to them where it is far too wide."""
    gate, values = result.gate, result.values
    if not values or gate.kind == "missing-responses" or not gate.limit:
        return None
    highest = values[-1]
    if result.count(Outcome.FAILED):
        return replace(gate, limit=_nice(max(highest, 1.05 * gate.limit)))
    if highest > 0 and gate.limit > CLEAR * highest:
        tighter = _nice(1.5 * highest)
        return replace(gate, limit=tighter) if tighter < gate.limit else None
    return None


def wider(gate: GateSpec) -> GateSpec:
    """The gate with half as much more again."""
    return replace(gate, limit=_nice(1.45 * gate.limit))


def advice(result: GateResult, other: GateResult | None) -> str:
    """What a gate's runs teach, in words; `other` is the same with another limit, None when none was tried."""
    runs = len(result.runs)
    if result.untried or not runs:
        return ""
    failed, waited = result.count(Outcome.FAILED), result.count(Outcome.WAITED)
    told = []
    if failed:
        told.append(f"{spelled(result.gate)} would have failed {failed} of {runs} runs")
        if other is not None:
            again = other.count(Outcome.FAILED)
            told[0] += f"; {limit_text(other.gate)} {again} of {len(other.runs)}"
        told[0] += "."
    elif result.count(Outcome.UNMEASURED) == runs:
        told.append(f"{spelled(result.gate)} could not be measured: {result.runs[-1].detail}")
    elif waited < runs:
        told.append(f"{spelled(result.gate)} would have failed none of {runs} runs.")
        if other is not None and not other.count(Outcome.FAILED):
            told.append(f"Nor would {limit_text(other.gate)}, which would see a smaller regression.")
    if waited:
        example = next(one for one in result.runs if one.outcome is Outcome.WAITED)
        told.append(f"{waited} of {runs} would have waited for more requests: {example.detail}")
    return " ".join(told)


def spelled(gate: GateSpec) -> str:
    """A gate as people type it: `p99<250 ms`, `error-rate<2x`."""
    return f"{gate.name}<{limit_text(gate)}" if gate.limit else gate.name


def limit_text(gate: GateSpec) -> str:
    """The limit with its unit."""
    return amount(gate, gate.limit)


def amount(gate: GateSpec, value: float) -> str:
    """A value of a gate in its unit, `1.3x` for relative limits."""
    if gate.relation is Relation.RELATIVE:
        return f"{number(value)}x"
    match gate.kind:
        case "error-rate" | "missing-responses":
            return percent(value)
        case "p99":
            return milliseconds(value)
        case _:
            return f"{number(value)}{gate.unit if gate.unit in ('', '%') else f' {gate.unit}'}"


class _Told:
    """What one gate has said so far in one run."""

    def __init__(self, gate: GateSpec) -> None:
        self.gate = gate
        self.failed_at: float | None = None
        self.waited: GateReport | None = None
        self.unmeasured: GateReport | None = None
        self.last: GateReport | None = None
        self.seen: list[tuple[float, float]] = []

    def hear(self, report: GateReport, now: float, fails: bool, ends_step: bool) -> None:
        """Take one report in; `fails` ends the gate's part."""
        if self.failed_at is not None:
            return
        if not (fails or ends_step):
            return
        self.last = report
        value = _value(self.gate, report)
        if value is not None and report.verdict in (Verdict.PASS, Verdict.FAIL):
            self.seen.append((now, value))
        if fails:
            self.failed_at = now
        elif report.verdict is Verdict.INCONCLUSIVE:
            self.waited = self.waited or report
        elif report.verdict is Verdict.ERROR:
            self.unmeasured = self.unmeasured or report

    def run(self, begin: float) -> GateRun:
        """How it fared in the end."""
        if self.failed_at is not None:
            outcome, spoke = Outcome.FAILED, self.last
        elif self.unmeasured is not None:
            outcome, spoke = Outcome.UNMEASURED, self.unmeasured
        elif self.waited is not None:
            outcome, spoke = Outcome.WAITED, self.waited
        else:
            outcome, spoke = Outcome.PASSED, self.last
        return GateRun(
            begin,
            outcome,
            spoke.detail if spoke else "",
            self.failed_at,
            max((value for _, value in self.seen), default=None),
            spoke.samples if spoke else None,
            spoke.needed_samples if spoke else None,
            tuple(self.seen),
        )


def _value(gate: GateSpec, report: GateReport) -> float | None:
    if gate.relation is not Relation.RELATIVE or report.value is None:
        return report.value
    return report.value / report.stable_value if report.stable_value else None


def _beside_stable(gate: GateSpec) -> bool:
    return gate.relation is Relation.RELATIVE and gate.kind != "custom" and gate.against != YESTERDAY


def _schedule(
    rollout: Rollout, begin: float, look_every_s: float, interval_s: float
) -> Iterator[tuple[Rollout, tuple[float, ...]]]:
    """Each step's rollout and the moments of its looks, the last one at its end."""
    at = begin
    for index, step in enumerate(rollout.plan.steps):
        long_s = step.bake_s + 2 * interval_s
        looks = max(1, floor(long_s / look_every_s + 1e-9))
        moments = [at + number * look_every_s for number in range(1, looks + 1)]
        if moments[-1] < at + long_s - 0.5 * look_every_s or looks == 1:
            moments.append(at + long_s)
        moments[-1] = at + long_s
        baking = rollout.with_(
            step=index,
            weight_percent=step.weight_percent,
            started_at=begin,
            bake=Bake(confirmed_at=at, arrived_at=at, covered_until=at, seen=True),
        )
        yield baking, tuple(dict.fromkeys(moments))
        at += long_s


def _populations(history: History, halves: Mapping[str, int] | None, highest_ms: float) -> Iterator[Population]:
    merged: dict[tuple[str, str, int | None, Labels], list[float]] = {}
    for group in history.groups:
        half = None if halves is None else halves.get(group.pod)
        if halves is not None and half is None:
            continue
        key = (group.metric, group.reporter, half, group.labels)
        sums = merged.get(key)
        merged[key] = list(group.counts) if sums is None else [a + b for a, b in zip(sums, group.counts, strict=True)]
    for (metric, reporter, half, labels), counts in merged.items():
        if metric == REQUESTS:
            yield Population(metric, reporter, half, labels, counts)
    ladders: dict[tuple[str, int | None], list[tuple[float, Labels, list[float]]]] = {}
    for (metric, reporter, half, labels), counts in merged.items():
        bound = _bound(labels) if metric == BUCKETS else None
        if bound is not None:
            ladders.setdefault((reporter, half), []).append((bound, labels, counts))
    wanted = _populated(ladders.values(), highest_ms)
    for (reporter, half), ladder in ladders.items():
        below: list[float] = [0.0] * history.cells
        for bound, labels, counts in sorted(ladder, key=lambda rung: rung[0]):
            if bound in wanted:
                own = [max(0.0, upper - lower) for upper, lower in zip(counts, below, strict=True)]
                yield Population(BUCKETS, reporter, half, labels, own)
                below = [max(upper, lower) for upper, lower in zip(counts, below, strict=True)]


def _populated(ladders: Iterable[Sequence[tuple[float, Labels, list[float]]]], highest_ms: float) -> frozenset[float]:
    """Bounds from the one below all requests to the one above them all, and on to the one above `highest_ms`."""
    totals: dict[float, float] = {}
    for ladder in ladders:
        for bound, _, counts in ladder:
            totals[bound] = totals.get(bound, 0.0) + sum(counts)
    bounds = sorted(totals)
    first = max(0, sum(totals[bound] <= 0 for bound in bounds) - 1)
    above = next((bound for bound in bounds if totals[bound] >= max(totals.values()) and bound >= highest_ms), inf)
    return frozenset(bound for bound in bounds[first:] if bound <= above or bound == inf)


def _bound(labels: Labels) -> float | None:
    try:
        return float(dict(labels).get("le", ""))
    except ValueError:
        return None


class _Tape:
    """The series of one imagined rollout, from which its looks are answered."""

    def __init__(
        self, rollout: Rollout, split: Split, known: Recorded, begin: float, draw: Draw, interval_s: float
    ) -> None:
        history = known.history
        self._known = known
        self._host = rollout.target.host
        ends = begin + duration_s(rollout.plan, interval_s)
        first = max(0, history.cell(begin - LEAD_S - 2 * interval_s))
        last = min(history.cells, history.cell(ends) + 1)
        weights = _weights(rollout.plan, history, begin, range(first, last), interval_s)
        share = 0.5
        if split is Split.BY_PODS:
            ones, others = (history.requests(begin, ends, half) for half in (0, 1))
            share = ones / (ones + others) if ones + others else 0.5
        self._now = self._series(known.populations[split], range(first, last), weights, share, draw)
        self._yesterday: dict[str, tuple[list[float], list[Series]]] | None = None
        self._day_before = (history.cell(begin - DAY_S - LEAD_S - 2 * interval_s), history.cell(ends - DAY_S) + 1)
        self._begin = begin

    def answers(self, asked: Sequence[Query], now: float) -> Answers:
        """What Prometheus would have answered at `now` (epoch seconds)."""
        return {query: self._answer(query, now) for query in asked}

    def _answer(self, query: Query, now: float) -> Answer | CannotMeasure:
        at = now if query.at is None else query.at
        found = _RANGE.match(query.promql)
        if found is None:
            return self._custom(query.promql, at, now)
        metric, moments, window_s, resolution_s = found[1], found[2], float(found[3]), float(found[4] or 0)
        tapes = self._now if at > self._begin - DAY_S / 2 else self._former()
        times, series = tapes.get(metric, ([], []))
        if moments:
            return Answer((Series({}, _newest(times, at, window_s, resolution_s)),), now)
        if resolution_s:
            cut = [replace(one, points=_coarse(one, times, at, window_s, resolution_s)) for one in series]
        else:
            begin, end = bisect_right(times, at - window_s), bisect_right(times, at)
            cut = [Series(one.labels, one.points[begin:end]) for one in series]
        return Answer(tuple(one for one in cut if one.points), now)

    def _custom(self, promql: str, at: float, now: float) -> Answer | CannotMeasure:
        rows = self._known.custom.get(promql, CannotMeasure("this question was not recorded"))
        if isinstance(rows, CannotMeasure):
            return rows
        found = [(row.labels, one_number(row.points, at, 1.5 * self._known.custom_every_s)) for row in rows]
        return Answer(tuple(Series(labels, ((at, point[1]),)) for labels, point in found if point is not None), now)

    def _former(self) -> dict[str, tuple[list[float], list[Series]]]:
        """The same hours a day earlier, all of them stable's."""
        if self._yesterday is None:
            history = self._known.history
            cells = range(max(0, self._day_before[0]), max(0, min(history.cells, self._day_before[1])))
            populations = self._known.populations[Split.BY_WEIGHT]
            self._yesterday = self._series(populations, cells, [0.0] * len(cells), 0.5, lambda *_: 0.0)
        return self._yesterday

    def _series(
        self, populations: Sequence[Population], cells: range, weights: Sequence[float], share: float, draw: Draw
    ) -> dict[str, tuple[list[float], list[Series]]]:
        history = self._known.history
        made: dict[str, tuple[list[float], list[Series]]] = {}
        for metric in METRICS:
            sampled = [cell for cell in cells if history.sampled[metric][cell]]
            made[metric] = ([history.moment(cell) for cell in sampled], [])
        below: dict[tuple[str, str], list[float]] = {}
        for population in populations:
            for side, counts in _drawn(population, cells, weights, share, draw):
                own = counts
                if population.metric == BUCKETS:
                    ladder = below.get((population.reporter, side))
                    own = counts if ladder is None else [a + b for a, b in zip(counts, ladder, strict=True)]
                    below[population.reporter, side] = own
                totals = list(accumulate(own))
                times, rows = made[population.metric]
                sampled_totals = [
                    totals[cell - cells.start] for cell in cells if history.sampled[population.metric][cell]
                ]
                rows.append(Series(self._labels(population, side), tuple(zip(times, sampled_totals, strict=True))))
        return made

    def _labels(self, population: Population, side: str) -> dict[str, str]:
        return {
            "reporter": population.reporter,
            "destination_service": self._host,
            "destination_workload": side,
            "destination_version": "unknown",
            **dict(population.labels),
        }


def _weights(plan: Plan, history: History, begin: float, cells: range, interval_s: float) -> list[float]:
    """The canary's share in each cell, 0 before the first step."""
    edges, shares, at = [begin], [0.0], begin
    for step in plan.steps:
        at += step.bake_s + 2 * interval_s
        edges.append(at)
        shares.append(step.weight_percent / 100)
    shares.append(shares[-1])
    return [shares[bisect_right(edges, history.moment(cell) - 1e-6)] for cell in cells]


def _drawn(
    population: Population, cells: range, weights: Sequence[float], share: float, draw: Draw
) -> Iterator[tuple[str, list[float]]]:
    """The requests of this population that each side gets, by cell; `share` is the first half's of all requests."""
    counts = population.counts[cells.start : cells.stop]
    if population.half is None:
        if any(weights):
            yield (
                "~canary",
                [draw(count, weight) if count else 0.0 for count, weight in zip(counts, weights, strict=True)],
            )
        else:
            yield "~stable", list(counts)
        return
    parts = [_parts(weight, share)[population.half] for weight in weights]
    side = ("~canary", "~stable")[population.half]
    yield side, [draw(count, part) if count else 0.0 for count, part in zip(counts, parts, strict=True)]


def _parts(weight: float, share: float) -> tuple[float, float]:
    """Of the requests of each half, the part to keep, so that the first half has `weight` of what is kept."""
    if weight <= 0 or share <= 0:
        return 0.0, 1.0
    if weight >= 1 or share >= 1:
        return 1.0, 0.0
    kept_share = min(share / weight, (1 - share) / (1 - weight))
    return min(1.0, kept_share * weight / share), min(1.0, kept_share * (1 - weight) / (1 - share))


def _newest(times: Sequence[float], at: float, window_s: float, resolution_s: float) -> tuple[tuple[float, float], ...]:
    return tuple((step, times[index]) for step, index in _steps(times, at, window_s, resolution_s))


def _coarse(
    series: Series, times: Sequence[float], at: float, window_s: float, resolution_s: float
) -> tuple[tuple[float, float], ...]:
    return tuple((step, series.points[index][1]) for step, index in _steps(times, at, window_s, resolution_s))


def _steps(times: Sequence[float], at: float, window_s: float, resolution_s: float) -> Iterator[tuple[float, int]]:
    """Moments of a subquery and which sample each shows: the newest that is not older than five minutes."""
    for number_ in range(floor((at - window_s) / resolution_s) + 1, floor(at / resolution_s) + 1):
        step = number_ * resolution_s
        index = bisect_right(times, step) - 1
        if index >= 0 and step - times[index] < LOOKBACK_S:
            yield step, index


def _nice(value: float) -> float:
    """The next round number that is not smaller: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 with any power of ten."""
    scale = 10.0 ** floor(log10(value))
    mantissa = next((one for one in _NICE if one * scale >= value * (1 - 1e-9)), 10.0)
    return float(f"{mantissa * scale:.6g}")
