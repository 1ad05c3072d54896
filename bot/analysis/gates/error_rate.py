"""`error-rate`: the fraction of the canary's requests that a server fault answered, or stable's times a factor."""

from collections.abc import Mapping

from bot.analysis.findings import Finding, Told, cannot_measure, reported, where, worst
from bot.analysis.look import REQUESTS, Look, Window, past_questions, range_questions
from bot.analysis.requests import NOTHING, REPORTERS, Tally, Traffic, Whose, attribute
from bot.analysis.samples import Query
from bot.analysis.sentences import duration, number, percent, requests
from bot.analysis.statistics import clearly_worse
from bot.analysis.weighing import (
    NOT_WEIGHED,
    against_yesterday,
    alone,
    baseline_name,
    baseline_tally,
    doubtful,
    in_words,
    past_rate,
    sequential_numbers,
    verdict,
    windows,
)
from bot.rollout.gate import GateReport, GateSpec, Relation, Verdict
from bot.rollout.model import Rollout
from bot.values import replace

MIN_REQUESTS = 50
GROSS = 5


class ErrorRate:
    """Errors are 5xx, code 0 unless the client left, and gRPC statuses that mean a server fault."""

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """The raw samples of the service's requests."""
        asked = range_questions(REQUESTS, rollout, now)
        return (*asked, *past_questions(REQUESTS, rollout, now)) if against_yesterday(spec) else asked

    def judge(self, spec: GateSpec, look: Look) -> GateReport:
        """Judge every reporter in every window and report the worst."""
        query = look.queries.get(REQUESTS, "")
        traffic = look.traffic
        counted = traffic.counted if isinstance(traffic, Traffic) else traffic
        impossible = cannot_measure(look, spec, counted, query)
        if impossible or not isinstance(traffic, Traffic):
            return impossible or look.report(spec, Verdict.ERROR, "Cannot measure.")
        newest_at = traffic.counted.newest_at or look.begin
        findings = []
        unattributed = ""
        for window in windows(look, spec, newest_at):
            for reporter in REPORTERS:
                seen = traffic.tally(window.begin, window.end, reporter)
                if not seen:
                    continue
                tallies, given = attribute(seen, look.share) if reporter == "source" else (seen, 0.0)
                judge = _weighed if spec.sequential else _judge
                findings.append(judge(spec, look, window, reporter, tallies, given, traffic))
                if not unattributed and (unknown := tallies.get(Whose.UNKNOWN)) and unknown.judged:
                    lost = round(unknown.errors)
                    unattributed = f" {requests(unknown.judged)} more named neither side, {lost:,} of them failed"
        if not findings:
            return look.report(
                spec,
                Verdict.INCONCLUSIVE,
                "No data: the service's series name no reporter that we know.",
                query=query,
                limit=spec.limit,
            )
        finding = worst(findings)
        alpha, smallest_visible = sequential_numbers(look, spec, finding)
        report = reported(
            look,
            spec,
            finding,
            traffic.counted,
            needed=_needed(spec),
            query=query,
            unit="x" if spec.relation is Relation.RELATIVE else "%",
            alpha=alpha,
            smallest_visible=smallest_visible,
        )
        if unattributed:
            return replace(report, detail=f"{report.detail} Beside these,{unattributed}.")
        return report


def _needed(spec: GateSpec) -> int:
    return spec.min_requests or MIN_REQUESTS


def _judge(
    spec: GateSpec,
    look: Look,
    window: Window,
    reporter: str,
    tallies: Mapping[Whose, Tally],
    given: float,
    traffic: Traffic,
) -> Finding:
    canary = tallies.get(Whose.CANARY, NOTHING)
    stable = tallies.get(Whose.STABLE, NOTHING)
    needed = _needed(spec)
    relative = spec.relation is Relation.RELATIVE
    floor = 1 / canary.judged if canary.judged else 0.0
    limit = spec.limit * max(stable.error_rate, floor) if relative else spec.limit
    gross = canary.judged >= GROSS and canary.judged == round(canary.errors)
    stable_known = stable.judged >= needed
    over_limit = canary.error_rate > limit

    if gross and over_limit:
        verdict = Verdict.FAIL
    elif canary.judged < needed or (relative and not stable_known):
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.FAIL if over_limit else Verdict.PASS

    value = canary.error_rate if canary.judged else None
    stable_value = stable.error_rate if stable.judged else None

    def tell() -> Told:
        canary_label, stable_label = look.rollout.target.canary.label, look.rollout.target.stable.label
        stable_text = (
            f"; {stable_label}: {percent(stable.error_rate)} of {requests(stable.judged)}"
            if stable.judged
            else f"; {stable_label} had no requests"
        )
        limit_text = (
            f"limit {number(spec.limit)} times {stable_label}'s, here {percent(limit)}"
            if relative
            else f"limit {percent(spec.limit)}"
        )
        seen = f"{where(reporter)}, {window.name} ({duration(window.seconds)})"
        if verdict is Verdict.INCONCLUSIVE:
            short = canary.judged < needed
            who, have = (canary_label, canary.judged) if short else (stable_label, stable.judged)
            detail = (
                f"{have}/{needed} requests of {who}, {seen}; {round(canary.errors):,} of {canary_label} failed so far"
            )
        elif gross and verdict is Verdict.FAIL:
            detail = f"All {requests(canary.judged)} of {canary_label} failed ({limit_text}), {seen}{stable_text}"
        else:
            detail = (
                f"{percent(canary.error_rate)} of {canary_label}'s {requests(canary.judged)} failed ({limit_text}), "
                f"{seen}{stable_text}"
            )
        if given:
            detail += (
                f"; {requests(given)} of these named no side and were counted here, because they are what the weight's "
                "share is missing"
            )
        return Told(detail, value, stable_value, stable.judged, traffic.newest(reporter, *_sides(given)))

    return Finding(
        verdict=verdict,
        tell=tell,
        reporter=reporter,
        window=window,
        samples=canary.judged,
        badness=canary.error_rate - limit,
        deciding=gross and verdict is Verdict.FAIL,
        stable_fails=(
            verdict is Verdict.FAIL
            and not relative
            and stable_known
            and stable.error_rate > limit
            and not clearly_worse(canary.errors, canary.judged, stable.errors, stable.judged)
        ),
    )


def _weighed(
    spec: GateSpec,
    look: Look,
    window: Window,
    reporter: str,
    tallies: Mapping[Whose, Tally],
    given: float,
    traffic: Traffic,
) -> Finding:
    """The same by the evidence so far; the window is what is shown."""
    canary = tallies.get(Whose.CANARY, NOTHING)
    judged, rate = canary.judged, canary.error_rate
    weighed = look.weighed.get((spec.name, reporter), NOT_WEIGHED)
    relative = spec.relation is Relation.RELATIVE
    limit, known, known_rate, known_requests = spec.limit, True, 0.0, 0.0
    if relative:
        if alone(look, spec):
            known_rate, known_requests = past_rate(weighed.evidence), weighed.evidence.stable_requests
        else:
            stable = baseline_tally(look, spec, tallies, window, reporter)
            known_rate, known_requests = stable.error_rate, float(stable.judged)
        limit, known = spec.limit * known_rate, known_requests >= _needed(spec)
    outcome = verdict(weighed, value=rate, limit=limit, requests=judged, needed=_needed(spec), known=known)
    stable_fails = outcome is Verdict.FAIL and weighed.excused
    doubts = outcome is Verdict.INCONCLUSIVE and known and doubtful(weighed, rate, limit)

    def tell() -> Told:
        label, baseline = look.rollout.target.canary.label, baseline_name(look, spec)
        stable = baseline_tally(look, spec, tallies, window, reporter)
        limit_text = (
            f"limit {number(spec.limit)} times {baseline}'s, here {percent(limit)}"
            if relative
            else f"limit {percent(spec.limit)}"
        )
        beside = f"{percent(stable.error_rate)} of {requests(stable.judged)}" if stable.judged else "no requests"
        if alone(look, spec):
            beside = f"{percent(known_rate)} of {requests(known_requests)} before this step"
        seen = f"{where(reporter)}, {window.name} ({duration(window.seconds)}); {baseline}: {beside}"
        if outcome is Verdict.INCONCLUSIVE and not doubts:
            who, have = (baseline, known_requests) if not known else (label, float(judged))
            detail = (
                f"{round(have):,}/{_needed(spec)} requests of {who}, {seen}; "
                f"{round(canary.errors):,} of {label} failed so far"
            )
        elif outcome is Verdict.FAIL and 0 < judged == round(canary.errors):
            detail = f"All {requests(judged)} of {label} failed ({limit_text}), {seen}"
        else:
            detail = f"{percent(rate)} of {label}'s {requests(judged)} failed ({limit_text}), {seen}"
        if given:
            detail += (
                f"; {requests(given)} of these named no side and were counted here, because they are what the weight's "
                "share is missing"
            )
        return Told(
            detail + in_words(weighed, outcome, doubts=doubts),
            rate if judged else None,
            stable.error_rate if stable.judged else None,
            stable.judged,
            traffic.newest(reporter, *_sides(given)),
        )

    return Finding(
        verdict=outcome,
        tell=tell,
        reporter=reporter,
        window=window,
        samples=judged,
        badness=rate - limit,
        deciding=outcome is Verdict.FAIL and not stable_fails,
        stable_fails=stable_fails,
        doubtful=doubts,
        bound=limit,
    )


def _sides(given: float) -> tuple[Whose, ...]:
    """Whose requests are judged: the canary's, and with them those that were given to it."""
    return (Whose.CANARY, Whose.UNKNOWN) if given else (Whose.CANARY,)
