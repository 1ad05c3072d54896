"""`p99`: at most 1% of the canary's requests may be slower than the limit, absolute or stable's p99 times a factor."""

from bot.analysis.findings import Finding, Told, cannot_measure, reported, where, worst
from bot.analysis.latency import Histogram, Latencies
from bot.analysis.look import BUCKETS, Look, Window, past_questions, range_questions
from bot.analysis.requests import Whose
from bot.analysis.samples import Query
from bot.analysis.sentences import duration, milliseconds, number, percent, requests
from bot.analysis.statistics import clearly_worse
from bot.analysis.weighing import (
    NOT_WEIGHED,
    QUANTILE,
    TAIL,
    against_yesterday,
    alone,
    baseline_histogram,
    baseline_name,
    doubtful,
    in_words,
    sequential_numbers,
    verdict,
    windows,
)
from bot.rollout.gate import GateReport, GateSpec, Relation, Verdict
from bot.rollout.model import Rollout

MIN_REQUESTS = 500
GROSS = 50
GROSS_FRACTION = 0.5


class P99:
    """Judges the fraction of requests above the limit; the value shown is the p99 by the same interpolation."""

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """The raw samples of the service's latency buckets."""
        asked = range_questions(BUCKETS, rollout, now)
        return (*asked, *past_questions(BUCKETS, rollout, now)) if against_yesterday(spec) else asked

    def judge(self, spec: GateSpec, look: Look) -> GateReport:
        """Judge every reporter in every window and report the worst."""
        query = look.queries.get(BUCKETS, "")
        latencies = look.latencies
        counted = latencies.counted if isinstance(latencies, Latencies) else latencies
        impossible = cannot_measure(look, spec, counted, query)
        if impossible or not isinstance(latencies, Latencies):
            return impossible or look.report(spec, Verdict.ERROR, "Cannot measure.")
        newest_at = latencies.counted.newest_at or look.begin
        findings = [
            (_weighed if spec.sequential else _judge)(spec, look, window, reporter, latencies)
            for window in windows(look, spec, newest_at)
            for reporter in latencies.reporters
        ]
        if not findings:
            return look.report(
                spec,
                Verdict.INCONCLUSIVE,
                "No data: the service's latency series name neither side.",
                query=query,
                limit=spec.limit,
            )
        finding = worst(findings)
        alpha, smallest_visible = sequential_numbers(look, spec, finding)
        return reported(
            look,
            spec,
            finding,
            latencies.counted,
            needed=_needed(spec),
            query=query,
            unit="x" if spec.relation is Relation.RELATIVE else "ms",
            alpha=alpha,
            smallest_visible=smallest_visible,
        )


def _needed(spec: GateSpec) -> int:
    return spec.min_requests or MIN_REQUESTS


def _judge(spec: GateSpec, look: Look, window: Window, reporter: str, latencies: Latencies) -> Finding:
    canary = latencies.histogram(window.begin, window.end, reporter, Whose.CANARY)
    stable = latencies.histogram(window.begin, window.end, reporter, Whose.STABLE)
    canary_label, stable_label = look.rollout.target.canary.label, look.rollout.target.stable.label
    needed = _needed(spec)
    relative = spec.relation is Relation.RELATIVE
    p99_ms = latencies.quantile(canary, QUANTILE, reporter, Whose.CANARY)
    stable_p99_ms = latencies.quantile(stable, QUANTILE, reporter, Whose.STABLE)
    stable_known = stable.requests >= needed
    limit_ms = spec.limit * (stable_p99_ms or 0.0) if relative else spec.limit
    slow, stable_slow = canary.above(limit_ms), stable.above(limit_ms)
    fraction = slow / canary.requests if canary.requests else 0.0
    stable_fraction = stable_slow / stable.requests if stable.requests else 0.0
    gross = canary.requests >= GROSS and fraction > GROSS_FRACTION

    if (relative and not stable_known) or (canary.requests < needed and not gross):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.FAIL if fraction > TAIL else Verdict.PASS

    def tell() -> Told:
        seen = f"{where(reporter)}, {window.name} ({duration(window.seconds)})"
        if verdict is Verdict.INCONCLUSIVE:
            short = canary.requests < needed
            who, have = (canary_label, canary.requests) if short else (stable_label, stable.requests)
            sofar = f"; p99 {milliseconds(p99_ms)} so far" if p99_ms is not None else ""
            detail = f"{have}/{needed} requests of {who}, {seen}{sofar}"
        else:
            limit_text = milliseconds(limit_ms)
            if relative:
                limit_text += f", {number(spec.limit)} times {stable_label}'s"
            stable_text = (
                f"; {stable_label}: p99 {milliseconds(stable_p99_ms)}, {percent(stable_fraction)} slower than that, "
                f"of {requests(stable.requests)}"
                if stable_p99_ms is not None
                else f"; {stable_label} had no requests"
            )
            detail = (
                f"{canary_label}'s p99 is {milliseconds(p99_ms or 0.0)} (limit {limit_text}): {percent(fraction)} of "
                f"{requests(canary.requests)} were slower than the limit where 1% may be, {seen}"
                f"{stable_text}{_interpolated(canary.bucket_of(limit_ms), limit_ms)}"
            )
        return Told(detail, p99_ms, stable_p99_ms, stable.requests, latencies.newest(reporter, Whose.CANARY))

    return Finding(
        verdict=verdict,
        tell=tell,
        reporter=reporter,
        window=window,
        samples=canary.requests,
        badness=fraction,
        stable_fails=(
            verdict is Verdict.FAIL
            and not relative
            and stable_known
            and stable_fraction > TAIL
            and not clearly_worse(slow, canary.requests, stable_slow, stable.requests)
        ),
    )


def _weighed(spec: GateSpec, look: Look, window: Window, reporter: str, latencies: Latencies) -> Finding:
    """The same by the evidence so far; the window is what is shown."""
    canary = latencies.histogram(window.begin, window.end, reporter, Whose.CANARY)
    weighed = look.weighed.get((spec.name, reporter), NOT_WEIGHED)
    relative = spec.relation is Relation.RELATIVE
    limit_ms = weighed.evidence.boundary_ms if relative else spec.limit
    fraction = _slow(canary, limit_ms)
    limit, known, known_requests = TAIL, True, 0.0
    if relative:
        stable = baseline_histogram(look, spec, window.begin, window.end, reporter)
        known_requests = weighed.evidence.stable_requests if alone(look, spec) else stable.requests
        known = limit_ms > 0 and known_requests >= _needed(spec)
        limit = max(TAIL, _slow(stable, limit_ms))
    outcome = verdict(weighed, value=fraction, limit=limit, requests=canary.requests, needed=_needed(spec), known=known)
    stable_fails = outcome is Verdict.FAIL and weighed.excused
    doubts = outcome is Verdict.INCONCLUSIVE and known and doubtful(weighed, fraction, limit)

    def tell() -> Told:
        label, baseline = look.rollout.target.canary.label, baseline_name(look, spec)
        stable = baseline_histogram(look, spec, window.begin, window.end, reporter)
        p99_ms = latencies.quantile(canary, QUANTILE, reporter, Whose.CANARY)
        stable_p99_ms = latencies.quantile(stable, QUANTILE, reporter, Whose.STABLE)
        seen = f"{where(reporter)}, {window.name} ({duration(window.seconds)})"
        if outcome is Verdict.INCONCLUSIVE and not doubts:
            who, have = (baseline, known_requests) if not known else (label, float(canary.requests))
            sofar = f"; p99 {milliseconds(p99_ms)} so far" if p99_ms is not None else ""
            detail = f"{round(have):,}/{_needed(spec)} requests of {who}, {seen}{sofar}"
        else:
            limit_text = milliseconds(limit_ms)
            if relative:
                limit_text += f", {number(spec.limit)} times {baseline}'s"
            beside = (
                f"p99 {milliseconds(stable_p99_ms)}, {percent(_slow(stable, limit_ms))} slower than that, "
                f"of {requests(stable.requests)}"
                if stable_p99_ms is not None
                else "no requests"
            )
            detail = (
                f"{label}'s p99 is {milliseconds(p99_ms or 0.0)} (limit {limit_text}): {percent(fraction)} of "
                f"{requests(canary.requests)} were slower than the limit where {percent(limit)} may be, {seen}; "
                f"{baseline}: {beside}{_interpolated(canary.bucket_of(limit_ms), limit_ms)}"
            )
        return Told(
            detail + in_words(weighed, outcome, doubts=doubts),
            p99_ms,
            stable_p99_ms,
            stable.requests,
            latencies.newest(reporter, Whose.CANARY),
        )

    return Finding(
        verdict=outcome,
        tell=tell,
        reporter=reporter,
        window=window,
        samples=canary.requests,
        badness=fraction,
        deciding=outcome is Verdict.FAIL and not stable_fails,
        stable_fails=stable_fails,
        doubtful=doubts,
        bound=limit,
    )


def _slow(histogram: Histogram, limit_ms: float) -> float:
    """The fraction above the limit; 0 without requests or without a limit yet."""
    requests = histogram.requests
    return histogram.above(limit_ms) / requests if requests and limit_ms else 0.0


def _interpolated(bucket: tuple[float, float], limit_ms: float) -> str:
    lower_ms, upper_ms = bucket
    if limit_ms == upper_ms:
        return ""
    if upper_ms == float("inf"):
        return f"; the limit lies above the highest bucket bound, {milliseconds(lower_ms)}, and is judged there"
    return (
        f"; the limit lies inside the bucket {milliseconds(lower_ms)} to {milliseconds(upper_ms)} "
        "and is interpolated as Prometheus does"
    )
