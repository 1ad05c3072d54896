"""What a plan can expect of today's traffic: whether the service is measured at all, and enough for its gates."""

from collections.abc import Mapping, Sequence

from bot.analysis.counts import count
from bot.analysis.look import REQUESTS
from bot.analysis.promql import over, selector
from bot.analysis.requests import NOTHING, REPORTERS, Whose, hosts, sort
from bot.analysis.samples import Answer, Query
from bot.analysis.statistics import requests_to_show
from bot.analysis.weighing import TAIL
from bot.errors import CannotMeasure
from bot.rollout.duration import spoken
from bot.rollout.gate import STABLE, Relation
from bot.rollout.model import Rollout, Target
from bot.values import dataclass

WINDOW_S = 300


@dataclass(frozen=True, slots=True)
class Expectation:
    """`measured` False: Prometheus has no series of the service; `error` why it could not be asked, "" when it was.

    `canary_seen` says that the canary has series of its own already; `per_s` requests per second of the whole route;
    `steps` the requests the canary can expect during each step's bake, None when unknown; `shows_s` how many seconds
    each step needs at that traffic to show a breach of twice the limit, by the slowest of its sequential gates, None
    when that cannot be told; `thin` sentences about steps whose gates cannot have enough, `slow` one about the first
    step that bakes for less than that, "" when none does.
    """

    measured: bool
    canary_seen: bool
    per_s: float | None
    steps: tuple[int | None, ...]
    shows_s: tuple[float | None, ...] = ()
    thin: tuple[str, ...] = ()
    slow: str = ""
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
    stable = [tally.get(Whose.STABLE, NOTHING) for tally in tallies]
    failing = max((tally.error_rate for tally in stable), default=0.0)
    shows_s = tuple(_shows_s(rollout, step.weight_percent / 100, per_s, failing) for step in rollout.plan.steps)
    return Expectation(
        True, Whose.CANARY in sides, per_s, steps, shows_s, tuple(_thin(rollout, per_s, steps)), _slow(rollout, shows_s)
    )


def _slow(rollout: Rollout, shows_s: Sequence[float | None]) -> str:
    for step, needed_s in zip(rollout.plan.steps, shows_s, strict=True):
        if needed_s is not None and needed_s > step.bake_s:
            return (
                f"At {step.weight_percent}% twice the limit shows in about {spoken(needed_s)}, after the bake of "
                f"{spoken(step.bake_s)}; evidence is carried into the next steps, and larger failures show sooner."
            )
    return ""


def _shows_s(rollout: Rollout, share: float, per_s: float, failing: float) -> float | None:
    """Seconds of the canary's share until a breach of twice the limit is expected to be called, from no evidence on.

    A relative limit needs stable's requests too: n of the canary beside m of stable say what n m / (n + m) would
    against a known limit. `failing` is the service's bad fraction today; without one a relative limit has no number.
    """
    sequential = [spec for spec in rollout.gates if spec.sequential]
    needed_s = []
    for spec in sequential:
        alpha = rollout.rules.alpha / (2 * len(sequential))
        relative = spec.relation is Relation.RELATIVE
        limit = TAIL if spec.kind == "p99" else spec.limit * failing if relative else spec.limit
        compared = 1 - share if relative and spec.against == STABLE and share < 1 else 1.0
        effective_per_s = per_s * share * compared
        if not 0 < limit < 0.5 or effective_per_s <= 0:
            return None
        needed_s.append(requests_to_show(2 * limit, limit, alpha) / effective_per_s)
    return max(needed_s, default=None)


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
