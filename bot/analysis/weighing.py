"""Evidence carried from look to look: each sequential gate at each reporter, after the requests that are new.

A look adds the intervals since the last one's `until`, whatever the windows that were asked for: two looks at one
scrape add nothing, and a look after a gap adds all that Prometheus has recorded meanwhile. `until` goes no further than
the oldest newest scrape of the targets that are alive, so a late scrape is waited for and not lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from math import inf, log

from bot.analysis import statistics
from bot.analysis.counts import Counted
from bot.analysis.findings import Finding
from bot.analysis.intervals import NO_ROWS, Rows, cut, error_rows, latency_rows
from bot.analysis.latency import Histogram, Latencies
from bot.analysis.look import DAY_S, MAX_SKEW_S, Look, Weighed, Window
from bot.analysis.requests import NOTHING, Tally, Traffic, Whose, attribute
from bot.analysis.statistics import Evidence, Interval, clearly_worse
from bot.analysis.windows import RECENT_S
from bot.rollout.gate import MIN_REQUESTS, YESTERDAY, GateEvidence, GateSpec, Odds, Relation, Scatter, Verdict
from bot.values import dataclass, replace

TAIL = 0.01
QUANTILE = 0.99
_CANARY = frozenset({Whose.CANARY})
_STABLE = frozenset({Whose.STABLE})
_EVERYONE = frozenset(Whose)
_NOBODY: frozenset[Whose] = frozenset()
_MOST = 1 - 1e-6
NOT_WEIGHED = Weighed(GateEvidence("", "", 0.0), alpha=0.01, log_e=0.0)


@dataclass(frozen=True, slots=True)
class _Case:
    """One gate at one reporter: what was carried, and the counters to go on with.

    `others` are those of the same time yesterday. `fraction` is the limit on the bad fraction, `ratio` that on the
    canary's bad fraction over stable's; None where it is not tested. `before` is what came too late to be counted
    when it happened.
    """

    spec: GateSpec
    former: GateEvidence
    rows: Rows
    counted: Counted
    alpha: float
    fraction: float | None
    ratio: float | None
    others: Rows = NO_ROWS
    before: Sequence[Interval] = ()


def needed(spec: GateSpec) -> int:
    """Requests without which there is no PASS."""
    return spec.min_requests or MIN_REQUESTS[spec.kind]


def weigh(look: Look) -> dict[tuple[str, str], Weighed]:
    """Every sequential gate at every reporter, by gate and reporter; none where nothing could be measured."""
    specs = [spec for spec in look.rollout.gates if spec.sequential]
    if abs(look.skew_s) > MAX_SKEW_S:
        return {}
    weighed = {}
    horizon_s = max(60.0, sum([step.bake_s for step in look.rollout.plan.steps]))
    for spec in specs:
        reporters = _reporters(look, spec)
        alpha = look.rollout.rules.alpha / (len(specs) * max(2, len(reporters)))
        for reporter in reporters:
            case = _errors(look, spec, reporter, alpha) if spec.kind == "error-rate" else None
            case = _slowness(look, spec, reporter, alpha) if spec.kind == "p99" else case
            if case is not None:
                weighed[spec.name, reporter] = _weighed(look, case, horizon_s)
    return weighed


def kept(look: Look) -> tuple[GateEvidence, ...]:
    """What the next look goes on from: what this one weighed, and what it could not as it was."""
    evidence = {(one.gate, one.reporter): one for one in look.rollout.evidence}
    return tuple((evidence | {key: one.evidence for key, one in look.weighed.items()}).values())


def verdict(weighed: Weighed, *, value: float, limit: float, requests: float, needed: int, known: bool) -> Verdict:
    """FAIL at 1/alpha; PASS when the bound clears the limit, or with enough requests and no evidence against.

    `value` and `limit` are bad fractions since the step began, `known` says that there is a baseline to compare with.
    A FAIL that stable shares is `weighed.excused`.
    """
    if weighed.excused or weighed.fails:
        return Verdict.FAIL
    effective = requests / weighed.clump
    enough = requests >= needed or (
        requests > 0 and statistics.upper_bound(effective, value * effective, weighed.alpha) <= limit
    )
    if not known or not enough or doubtful(weighed, value, limit):
        return Verdict.INCONCLUSIVE
    return Verdict.PASS


def doubtful(weighed: Weighed, value: float, limit: float) -> bool:
    """Not enough to call it, and too much to give it more traffic."""
    return weighed.log_e > 0 and (value > limit or weighed.doubts)


def visible(weighed: Weighed, limit: float) -> float | None:
    """The smallest bad fraction that the canary's requests so far could be expected to show; None when none.

    Beside stable's, n requests next to m say about as much as n m / (n + m) against a known limit.
    """
    evidence = weighed.evidence
    requests = evidence.requests
    if evidence.stable.whole and evidence.stable_requests > 0:
        requests = requests * evidence.stable_requests / (requests + evidence.stable_requests)
    return (
        statistics.smallest_visible(requests / weighed.clump, min(limit, _MOST), weighed.alpha) if limit > 0 else None
    )


def past_rate(evidence: GateEvidence) -> float:
    """Stable's bad fraction over the rollout so far, with one more failure so that a flawless past is not a limit of
    0."""
    return (evidence.stable_bad + 1) / (evidence.stable_requests + 1)


def windows(look: Look, spec: GateSpec, newest_at: float) -> tuple[Window, ...]:
    """The windows whose numbers are shown: of a sequential gate only the step, while nothing speaks against it."""
    against = [one for (gate, _), one in look.weighed.items() if gate == spec.name and (one.log_e > 0 or one.excused)]
    return look.windows(newest_at) if against or not spec.sequential else (look.step(newest_at),)


def alone(look: Look, spec: GateSpec) -> bool:
    """A relative gate whose stable has no traffic any more: its past in this rollout is what there is to go by."""
    return spec.relation is Relation.RELATIVE and not against_yesterday(spec) and look.share >= 1


def baseline_name(look: Look, spec: GateSpec) -> str:
    """Stable, or yesterday, as people call it."""
    return "the same time yesterday" if against_yesterday(spec) else look.rollout.target.stable.label


def baseline_tally(look: Look, spec: GateSpec, tallies: Mapping[Whose, Tally], window: Window, reporter: str) -> Tally:
    """What the canary's errors are compared with: stable's requests, or the whole service's of a day before."""
    if not against_yesterday(spec):
        return tallies.get(Whose.STABLE, NOTHING)
    if not isinstance(look.past_traffic, Traffic):
        return NOTHING
    return sum(look.past_traffic.tally(window.begin - DAY_S, window.end - DAY_S, reporter).values(), NOTHING)


def baseline_histogram(look: Look, spec: GateSpec, begin: float, end: float, reporter: str) -> Histogram:
    """The same for latencies."""
    if not against_yesterday(spec):
        assert isinstance(look.latencies, Latencies)
        return look.latencies.histogram(begin, end, reporter, Whose.STABLE)
    if not isinstance(look.past_latencies, Latencies):
        return Histogram()
    return look.past_latencies.together(begin - DAY_S, end - DAY_S, reporter)


def sequential_numbers(look: Look, spec: GateSpec, finding: Finding) -> tuple[float | None, float | None]:
    """What a report adds of its test: its part of alpha, and the smallest effect that could have been seen."""
    weighed = look.weighed.get((spec.name, finding.reporter))
    if weighed is None or finding.bound is None:
        return None, None
    return weighed.alpha, visible(weighed, finding.bound)


def in_words(weighed: Weighed, outcome: Verdict, *, doubts: bool) -> str:
    """What the evidence amounts to, as the end of a sentence."""
    told = ""
    if outcome is Verdict.FAIL and not weighed.excused:
        told = f"; a release that keeps the limit looks like this in fewer than 1 of {1 / weighed.alpha:,.0f} rollouts"
    elif doubts:
        told = "; it may still be chance, more requests will tell"
    if weighed.clump > 1:
        told += f"; requests fail about {weighed.clump:.1f} at a time, so they were counted as that much fewer"
    return told


def against_yesterday(spec: GateSpec) -> bool:
    """A relative limit that multiplies what was measured a day before."""
    return spec.relation is Relation.RELATIVE and spec.against == YESTERDAY


def _reporters(look: Look, spec: GateSpec) -> tuple[str, ...]:
    if spec.kind == "error-rate" and isinstance(look.traffic, Traffic):
        return look.traffic.reporters
    if spec.kind == "p99" and isinstance(look.latencies, Latencies):
        return look.latencies.reporters
    return ()


def _former(look: Look, spec: GateSpec, reporter: str) -> GateEvidence:
    """What is known so far. It cannot end after the newest sample: a holder whose clock was ahead said so of a step
    that had not begun, and until then no failure would be counted."""
    for evidence in look.rollout.evidence:
        if (evidence.gate, evidence.reporter) == (spec.name, reporter):
            ahead = evidence.until > look.now + look.skew_s + MAX_SKEW_S
            return replace(evidence, until=look.begin) if ahead else evidence
    return GateEvidence(spec.name, reporter, look.begin)


def _errors(look: Look, spec: GateSpec, reporter: str, alpha: float) -> _Case:
    traffic = look.traffic
    assert isinstance(traffic, Traffic)
    former = _former(look, spec, reporter)
    relative, past = spec.relation is Relation.RELATIVE, against_yesterday(spec)
    canary, before = _CANARY, []
    since = max(former.until, look.begin)
    given_since = _unnamed_since(look, traffic) if reporter == "source" else None
    if given_since is not None:
        canary = _CANARY | {Whose.UNKNOWN}
        unnamed = error_rows(traffic, reporter, frozenset({Whose.UNKNOWN}), _NOBODY)
        before = [replace(one, seconds=0.0) for one in cut(unnamed, max(given_since, former.unnamed_until), since, inf)]
        former = replace(former, unnamed_until=traffic.counted.settled_at or former.until)
    return _Case(
        spec=spec,
        former=former,
        rows=error_rows(traffic, reporter, canary, _NOBODY if past else _STABLE),
        counted=traffic.counted,
        alpha=alpha,
        fraction=None if relative else spec.limit,
        ratio=spec.limit if relative else None,
        others=_past_errors(look, reporter) if past else NO_ROWS,
        before=before,
    )


def _past_errors(look: Look, reporter: str) -> Rows:
    past = look.past_traffic
    return error_rows(past, reporter, _NOBODY, _EVERYONE) if isinstance(past, Traffic) else NO_ROWS


def _unnamed_since(look: Look, traffic: Traffic) -> float | None:
    """The beginning of the longest window in which requests without a side can only be the canary's."""
    if not traffic.names("source", Whose.UNKNOWN):
        return None
    for window in look.windows(traffic.counted.newest_at or look.begin):
        if attribute(traffic.tally(window.begin, window.end, "source"), look.share)[1] > 0:
            return window.begin
    return None


def _slowness(look: Look, spec: GateSpec, reporter: str, alpha: float) -> _Case | None:
    latencies = look.latencies
    assert isinstance(latencies, Latencies)
    former = _former(look, spec, reporter)
    relative, past = spec.relation is Relation.RELATIVE, against_yesterday(spec)
    limit_ms = spec.limit
    if relative:
        found = baseline_histogram(look, spec, look.begin, latencies.counted.settled_at or look.begin, reporter)
        p99_ms = found.quantile(QUANTILE) if found.requests >= needed(spec) else None
        newest_ms = former.boundary_ms if p99_ms is None else spec.limit * p99_ms
        limit_ms = former.boundary_ms or newest_ms
        if not limit_ms:
            return None
        former = replace(former, boundary_ms=newest_ms)
    yesterday = look.past_latencies if past else None
    return _Case(
        spec=spec,
        former=former,
        rows=latency_rows(latencies, reporter, limit_ms, _CANARY, _NOBODY if past else _STABLE),
        counted=latencies.counted,
        alpha=alpha,
        fraction=TAIL,
        ratio=1.0 if relative else None,
        others=latency_rows(yesterday, reporter, limit_ms, _NOBODY, _EVERYONE)
        if isinstance(yesterday, Latencies)
        else NO_ROWS,
    )


def _weighed(look: Look, case: _Case, horizon_s: float) -> Weighed:
    former, interval_s = case.former, case.counted.interval_s
    since = max(former.until, look.begin)
    until = max(since, case.counted.settled_at or since)
    seen = cut(case.rows, since, until, interval_s, case.others, DAY_S)
    scatter = former.scatter
    known = seen if scatter.intervals else [*_before(look, case), *seen]
    sums = statistics.scattered((scatter.intervals, scatter.requests, scatter.bad, scatter.squares), known)
    clump = statistics.clump(sums)
    everything = [*case.before, *seen] if case.before else seen
    new = statistics.thinned(everything, clump) if clump > 1 else everything
    limit = former_limit = _evidence(former.limit)
    stable = _evidence(former.stable) if case.ratio is not None else statistics.NONE
    if look.begin > former.until:
        stable = replace(stable, waiting=statistics.EMPTY)
    logs = []
    if case.fraction is not None:
        fraction = min(case.fraction, _MOST)
        limit = statistics.against_limit(limit, new, fraction, horizon_s, former.elapsed_s)
        logs.append(limit.log_e)
    if case.ratio is not None:
        if alone(look, case.spec):
            fraction = min(case.ratio * past_rate(former), _MOST)
            stable = statistics.against_limit(stable, new, fraction, horizon_s, former.elapsed_s)
        else:
            stable = statistics.against_stable(stable, new, case.ratio, horizon_s, former.elapsed_s)
        logs.append(stable.log_e)
    log_e, excused = min(logs), False
    new_ones = _together(everything)
    if case.ratio is None and new_ones.bad > 0 and log_e > (former_log_e := former_limit.log_e):
        span = _shared(case, new_ones, max(look.begin, until - RECENT_S), until)
        if span is not None:
            overwhelming = log_e >= -log(case.alpha)
            limit = former_limit if former_log_e <= 0 else statistics.NONE
            log_e = limit.log_e
            excused = span.bad > (case.fraction or 0.0) * span.requests and (
                overwhelming or span.requests >= needed(case.spec)
            )
    evidence = GateEvidence(
        gate=former.gate,
        reporter=former.reporter,
        until=until,
        elapsed_s=former.elapsed_s + until - since,
        requests=former.requests + new_ones.requests,
        bad=former.bad + new_ones.bad if new_ones.bad else former.bad,
        stable_requests=former.stable_requests + new_ones.stable_requests,
        stable_bad=former.stable_bad + new_ones.stable_bad if new_ones.stable_bad else former.stable_bad,
        limit=_odds(limit) if case.fraction is not None else former.limit,
        stable=_odds(stable) if case.ratio is not None else former.stable,
        scatter=Scatter(*sums),
        boundary_ms=former.boundary_ms,
        unnamed_until=former.unnamed_until,
    )
    return Weighed(evidence, case.alpha, log_e, clump, excused)


def _before(look: Look, case: _Case) -> list[Interval]:
    """The intervals before the weight was set, as far as the samples go: whether requests fail together is known from
    the start, and not only when the first of them have been judged."""
    oldest = case.rows.columns.oldest(case.rows.places)
    if oldest is None:
        return []
    return cut(case.rows, oldest, look.begin, case.counted.interval_s, case.others, DAY_S)


def _shared(case: _Case, new: Interval, begin: float, until: float) -> Interval | None:
    """The requests of a span, the newest or the last two minutes, in which stable breaks the limit as well and the
    canary is not clearly worse; None when there is none."""
    fraction = min(case.fraction or 0.0, _MOST)
    for span in (new, *cut(case.rows, begin, until, inf)):
        if span.requests <= 0 or span.stable_requests <= 0:
            continue
        if span.stable_bad <= fraction * span.stable_requests:
            continue
        stable = Interval(1.0, span.stable_requests, span.stable_bad)
        broken = statistics.against_limit(statistics.NONE, (stable,), fraction, inf)
        if broken.fails(case.alpha) and not clearly_worse(
            span.bad, span.requests, span.stable_bad, span.stable_requests
        ):
            return span
    return None


def _together(intervals: Sequence[Interval]) -> Interval:
    if len(intervals) == 1:
        return intervals[0]
    seconds = requests = bad = stable_requests = stable_bad = 0.0
    for one in intervals:
        seconds += one.seconds
        requests += one.requests
        bad += one.bad
        stable_requests += one.stable_requests
        stable_bad += one.stable_bad
    return Interval(seconds, requests, bad, stable_requests, stable_bad)


def _evidence(odds: Odds) -> Evidence:
    """Carried odds; those of a version with other alternatives start again."""
    fresh = statistics.NONE
    if len(odds.whole) != len(fresh.whole) or len(odds.late) not in (0, len(fresh.late)):
        return fresh
    waiting = Interval(*odds.waiting) if odds.waiting else fresh.waiting
    return Evidence(odds.whole, odds.late or fresh.late, odds.spent, waiting)


def _odds(evidence: Evidence) -> Odds:
    waiting = evidence.waiting
    nothing = waiting is statistics.EMPTY or waiting == statistics.EMPTY
    return Odds(
        evidence.whole,
        () if -inf in evidence.late else evidence.late,
        evidence.spent,
        () if nothing else astuple(waiting),
    )
