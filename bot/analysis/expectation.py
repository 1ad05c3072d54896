"""What a plan can expect of today's traffic: whether the service is measured at all, and enough for its gates."""

from collections.abc import Mapping
from dataclasses import dataclass

from bot.analysis.counts import count
from bot.analysis.look import REQUESTS
from bot.analysis.promql import over, selector
from bot.analysis.requests import REPORTERS, Whose, hosts, sort
from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure
from bot.rollout.duration import spoken
from bot.rollout.model import Rollout, Target

WINDOW_S = 300


@dataclass(frozen=True, slots=True)
class Expectation:
    """`measured` False: Prometheus has no series of the service; `error` why it could not be asked, "" when it was.

    `canary_seen` says that the canary has series of its own already; `per_s` requests per second of the whole route;
    `steps` the requests the canary can expect during each step's bake, None when unknown; `thin` sentences about
    steps whose gates cannot have enough.
    """

    measured: bool
    canary_seen: bool
    per_s: float | None
    steps: tuple[int | None, ...]
    thin: tuple[str, ...] = ()
    error: str = ""


def baseline_question(target: Target) -> Query:
    """The service's requests of the last five minutes."""
    return Query(over(selector(REQUESTS, {"destination_service": hosts(target)}), WINDOW_S))


def expect(rollout: Rollout, answers: Mapping[Query, Answer | CannotMeasure]) -> Expectation:
    """Read the baseline's answer for a rollout's plan and gates."""
    unknown: tuple[None, ...] = (None,) * len(rollout.plan.steps)
    answer = answers.get(baseline_question(rollout.target))
    if not isinstance(answer, Answer):
        return Expectation(False, False, None, unknown, error=str(answer or "the question was not asked"))
    if not answer.series:
        return Expectation(False, False, None, unknown)
    traffic = sort(rollout.target, count(answer))
    sides = {line.whose for line in traffic.lines}
    times = traffic.counted.raw_times
    if len(times) < 2:
        return Expectation(True, Whose.CANARY in sides, None, unknown)
    tallies = [traffic.tally(times[0], times[-1], reporter) for reporter in REPORTERS]
    per_s = max(sum(tally.all for tally in sides.values()) for sides in tallies) / (times[-1] - times[0])
    steps = tuple(int(per_s * step.weight_percent / 100 * step.bake_s) for step in rollout.plan.steps)
    return Expectation(True, Whose.CANARY in sides, per_s, steps, tuple(_thin(rollout, per_s, steps)))


def _thin(rollout: Rollout, per_s: float, steps: tuple[int, ...]) -> list[str]:
    told = []
    for gate in rollout.gates:
        short = [
            (step, requests)
            for step, requests in zip(rollout.plan.steps, steps, strict=True)
            if gate.min_requests and requests < gate.min_requests
        ]
        if not short:
            continue
        step, requests = short[0]
        at_weight = per_s * step.weight_percent / 100
        needs = (
            f"it needs about {spoken(gate.min_requests / at_weight)}" if at_weight > 0 else "there is no traffic now"
        )
        told.append(
            f"{gate.name} wants {gate.min_requests} requests a step; at {step.weight_percent}% about {requests} come "
            f"in {spoken(step.bake_s)}: {needs}."
        )
    return told
