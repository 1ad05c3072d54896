"""What one look at a rollout has to go by: the answers, counted and cut to the present step."""

from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from math import ceil, log
from typing import Protocol

from bot.analysis.facts import PodFacts
from bot.analysis.latency import Latencies
from bot.analysis.nodes import NodeHealth
from bot.analysis.promql import over, selector
from bot.analysis.requests import Traffic, hosts
from bot.analysis.samples import Answer, Query
from bot.analysis.windows import LADDER, LEAD_S, LONG, RECENT, RECENT_S, Rung, reaching
from bot.errors import CannotMeasure
from bot.rollout.gate import GateEvidence, GateReport, GateSpec, Verdict
from bot.rollout.model import Rollout, Target
from bot.values import dataclass

REQUESTS = "istio_requests_total"
BUCKETS = "istio_request_duration_milliseconds_bucket"
MAX_SKEW_S = 5.0
STALE_S = 60.0

DAY_S = 86_400.0

Answers = Mapping[Query, Answer | CannotMeasure]
Pods = tuple[PodFacts, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of Prometheus' time, epoch seconds; `name` says in words which."""

    begin: float
    end: float
    name: str

    @property
    def seconds(self) -> float:
        """Its length."""
        return max(0.0, self.end - self.begin)


@dataclass(frozen=True, slots=True)
class Weighed:
    """One gate's sequential tests at one reporter after this look.

    `log_e` is the logarithm of its e-process, FAIL at -log(alpha). `clump` is what counts were divided by because that
    many requests fail together. `excused` says that stable breaks the same limit now and the canary is not clearly
    worse: what was seen since the look before then does not count.
    """

    evidence: GateEvidence
    alpha: float
    log_e: float
    clump: float = 1.0
    excused: bool = False

    @property
    def fails(self) -> bool:
        """The evidence against the release has reached 1/alpha."""
        return self.log_e >= -log(self.alpha)

    @property
    def doubts(self) -> bool:
        """The evidence is halfway there (in orders of magnitude): no time to give the release more traffic."""
        return self.log_e >= -0.5 * log(self.alpha)


@dataclass(frozen=True, slots=True)
class Look:
    """One look: `traffic` and `latencies` are None when not asked for, or why they could not be had.

    `begin` is one scrape after the weight was confirmed, `arrived_at` when it was seen in the traffic, both on
    Prometheus' clock as nearly as it is known. `share` is the canary's weight as a fraction, `canary_pods` and
    `stable_pods` are None when the cluster cannot say, `pinned_pods` are the canary's at the start of the rollout.
    `past_traffic` and `past_latencies` are those of the same time yesterday, where a gate compares with them. `weighed`
    are the sequential tests by gate and reporter.
    """

    rollout: Rollout
    now: float
    begin: float
    arrived_at: float | None
    skew_s: float
    traffic: Traffic | CannotMeasure | None
    latencies: Latencies | CannotMeasure | None
    answers: Answers
    canary_pods: Pods | None = None
    stable_pods: Pods | None = None
    pinned_pods: Pods | None = None
    queries: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, NodeHealth] = field(default_factory=dict)
    past_traffic: Traffic | CannotMeasure | None = None
    past_latencies: Latencies | CannotMeasure | None = None
    weighed: Mapping[tuple[str, str], Weighed] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The canary's weight as a fraction of the route's."""
        return min(1.0, max(0.0, self.rollout.weight_percent / 100))

    def step(self, newest_at: float) -> Window:
        """The step so far."""
        return Window(self.begin, newest_at, "since the weight was set")

    def windows(self, newest_at: float) -> tuple[Window, ...]:
        """The step so far, and once that is long also its last two minutes, so that a long good past hides nothing."""
        step = self.step(newest_at)
        if step.seconds < 2 * RECENT_S:
            return (step,)
        return (step, Window(newest_at - RECENT_S, newest_at, "in the last 2 min"))

    def report(self, spec: GateSpec, verdict: Verdict, detail: str, **numbers: object) -> GateReport:
        """A report that already knows what every report of this look has in common. A sentence that many rollouts have
        in common is kept once."""
        return GateReport(
            gate=spec.name,
            verdict=verdict,
            detail=_same(detail),
            weight_percent=self.rollout.weight_percent,
            step=self.rollout.step,
            fail_after=spec.fail_after,
            fail_total=spec.fail_total,
            **numbers,  # type: ignore[arg-type]
        )


@lru_cache(maxsize=512)
def _same(sentence: str) -> str:
    """The equal sentence that other reports have."""
    return sentence


class Gate(Protocol):
    """One kind of gate: what it needs to know, and what it makes of it. Both pure."""

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]: ...

    def judge(self, spec: GateSpec, look: Look) -> GateReport: ...


def begin_of(rollout: Rollout) -> float | None:
    """When the present weight was confirmed (epoch seconds); None before the first weight is on the route."""
    if rollout.bake.confirmed_at is not None:
        return rollout.bake.confirmed_at
    if rollout.weight_percent > 0:
        return max(rollout.bake.covered_until, rollout.started_at or rollout.created_at)
    return None


def range_questions(metric: str, rollout: Rollout, now: float) -> tuple[Query, ...]:
    """Raw samples of a service's series since the weight was set; for a long bake coarser points and recent raw ones.

    The window reaches a minute further back than what is judged, for the baseline of each series, and to where the
    bake was last covered, so that a gap is filled in from Prometheus' history.
    """
    begin = begin_of(rollout)
    if begin is None:
        return ()
    series = selector(metric, {"destination_service": hosts(rollout.target)})
    rung = reaching(now - begin + LEAD_S)
    if not rung.resolution_s:
        return (Query(over(series, rung.window_s)),)
    return (Query(over(series, RECENT.window_s)), Query(over(series, rung.window_s, rung.resolution_s)))


def past_questions(metric: str, rollout: Rollout, now: float) -> tuple[Query, ...]:
    """The same questions of the same time yesterday; the moment in whole seconds, so that they can be shared."""
    return tuple(Query(query.promql, ceil(now) - DAY_S) for query in range_questions(metric, rollout, now))


def past_found(metric: str, rollout: Rollout, answers: Answers) -> tuple[Answer | CannotMeasure, ...]:
    """The answers about yesterday, raw samples first; none when no gate asked for them."""
    series = selector(metric, {"destination_service": hosts(rollout.target)})
    asked = [query for query in answers if query.at is not None and query.promql.startswith(f"{series}[")]
    return tuple(answers[query] for query in sorted(asked, key=lambda query: ":" in query.promql.rpartition("[")[2]))


def coverage_question(rollout: Rollout, now: float) -> Query | None:
    """The moments of all samples since the bake was last covered, when that is longer ago than the recent raw samples.

    One series whose values are the newest sample's time at every step of a subquery, so that a gap shows as a gap.
    """
    begin = begin_of(rollout)
    if begin is None:
        return None
    since = max(begin, rollout.bake.covered_until)
    reach_s = now - since + LEAD_S
    if reach_s <= RECENT.window_s or not reaching(now - begin + LEAD_S).resolution_s:
        return None
    rung = next((rung for rung in LONG if rung.window_s >= reach_s), LONG[-1])
    return _moments(rollout.target, rung)


def coverage_found(rollout: Rollout, answers: Answers) -> Answer | None:
    """The longest answer to a question about moments of samples, None when there is none."""
    if not any(query.promql.startswith("max(timestamp(") for query in answers):
        return None
    for rung in reversed(LONG):
        answer = answers.get(_moments(rollout.target, rung))
        if isinstance(answer, Answer):
            return answer
    return None


def _moments(target: Target, rung: Rung) -> Query:
    series = selector(REQUESTS, {"destination_service": hosts(target)})
    return Query(over(f"max(timestamp({series}))", rung.window_s, rung.resolution_s))


def found(metric: str, target: Target, preferred: tuple[Query, ...], answers: Answers) -> tuple[Query, ...]:
    """The questions among the answers that belong to this metric and target.

    Those preferred when they were asked; else whatever rungs were, since the moment of asking was a little earlier.
    """
    if preferred and all(query in answers for query in preferred):
        return preferred
    series = selector(metric, {"destination_service": hosts(target)})
    asked = [
        (rung, query) for rung in LADDER if (query := Query(over(series, rung.window_s, rung.resolution_s))) in answers
    ]
    raw = [query for rung, query in asked if not rung.resolution_s]
    coarse = [query for rung, query in asked if rung.resolution_s]
    return (*raw[-1:], *coarse[-1:]) if raw else ()
