"""`missing-responses`: a canary that hangs answers nothing, and a request is counted only when it completes."""

from collections.abc import Mapping
from math import sqrt

from bot.analysis.findings import cannot_measure
from bot.analysis.look import REQUESTS, Look, range_questions
from bot.analysis.requests import NOTHING, Tally, Traffic, Whose, attribute
from bot.analysis.samples import Query
from bot.analysis.sentences import duration, percent, requests
from bot.rollout.gate import GateReport, GateSpec, Verdict
from bot.rollout.model import Rollout

MIN_EXPECTED = 50.0
Z_LIMIT = 4.0
FEW = 0.5
FEW_OF_SEEN = 0.8
NEVER_AFTER = 3.0


class MissingResponses:
    """Compares the canary's answered requests with what its weight explains of all that completed.

    The normal approximation of the binomial: with n completed requests and share w, z = (n w - c) / sqrt(n w (1 - w)).
    FAIL needs z above 4, at least 50 expected, and less than 80% of them answered; less than half where the weight was
    never seen in the traffic, since a route with other matches shifts the share without anything hanging. Requests
    whose client gave up are completed but not answered.
    """

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """The raw samples of the service's requests."""
        return range_questions(REQUESTS, rollout, now)

    def judge(self, spec: GateSpec, look: Look) -> GateReport:
        """Judge the callers' view, the canary's own when no caller has a proxy."""
        query = look.queries.get(REQUESTS, "")
        traffic = look.traffic
        counted = traffic.counted if isinstance(traffic, Traffic) else traffic
        impossible = cannot_measure(look, spec, counted, query)
        if impossible or not isinstance(traffic, Traffic):
            return impossible or look.report(spec, Verdict.ERROR, "Cannot measure.")
        end = traffic.counted.newest_at or look.begin
        scraped_since = look.arrived_at is not None and look.arrived_at < end
        begin = look.arrived_at if look.arrived_at is not None and scraped_since else look.begin
        label, weight = look.rollout.target.canary.label, look.rollout.weight_percent
        tallies, _ = attribute(traffic.tally(begin, end, "source"), look.share)
        completed = _both(tallies)
        if completed < 1:
            tallies = traffic.tally(begin, end, "destination")
            completed = _both(tallies)
        canary = tallies.get(Whose.CANARY, NOTHING)
        answered = canary.ok + canary.errors
        expected = look.share * completed
        few = FEW_OF_SEEN if look.rollout.bake.seen else FEW
        numbers: dict[str, object] = {
            "value": answered / expected if expected else None,
            "limit": few,
            "unit": "of expected",
            "samples": round(answered),
            "needed_samples": round(MIN_EXPECTED),
            "window_s": round(max(0.0, end - begin), 3),
            "query": query,
            "newest_sample_at": traffic.counted.newest_at,
        }
        seen = f"in {duration(end - begin)}"
        told = (
            f"{label} answered {requests(answered)} {seen} where {weight}% of {requests(completed)} "
            f"explain about {round(expected):,}"
        )
        if canary.aborted >= 1:
            told += f"; {requests(canary.aborted)} ended because the client gave up"
        if look.share >= 1:
            if answered >= 1:
                return look.report(
                    spec,
                    Verdict.PASS,
                    f"{label} answered {requests(answered)} {seen}; it takes all traffic.",
                    **numbers,
                )
            return look.report(
                spec, Verdict.INCONCLUSIVE, f"{label} takes all traffic and answered no request {seen}.", **numbers
            )
        if expected < MIN_EXPECTED:
            return look.report(
                spec,
                Verdict.PASS if answered >= few * expected and answered >= 1 else Verdict.INCONCLUSIVE,
                f"{told}; too few to tell hanging from chance.",
                **numbers,
            )
        z = (expected - answered) / sqrt(expected * (1 - look.share))
        if z <= Z_LIMIT or answered >= few * expected:
            return look.report(spec, Verdict.PASS, f"{told}.", **numbers)
        if look.arrived_at is not None:
            return look.report(
                spec,
                Verdict.FAIL,
                f"{told}: {percent(1 - answered / expected)} of its answers are missing, it hangs.",
                **numbers,
            )
        waited_s = end - look.begin
        if answered < 1 and waited_s >= NEVER_AFTER * look.rollout.rules.arrival_s:
            return look.report(
                spec,
                Verdict.FAIL,
                f"{told}: either it hangs, or the callers' proxies never got the weight.",
                **numbers,
            )
        return look.report(
            spec, Verdict.INCONCLUSIVE, f"{told}; the weight has not been seen in the traffic yet.", **numbers
        )


def _both(tallies: Mapping[Whose, Tally]) -> float:
    return tallies.get(Whose.CANARY, NOTHING).all + tallies.get(Whose.STABLE, NOTHING).all
