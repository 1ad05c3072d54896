"""A rollout of payments from v1 to v2 beside a made-up mesh, and one look at it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from bot.analysis.assessment import assess, questions
from bot.analysis.facts import PodFacts
from bot.rollout.gate import Assessment, GateReport, GateSpec, Relation
from bot.rollout.model import Actor, Bake, Destination, Phase, Rollout, RouteRef, Rules, Side, Source, Target
from bot.rollout.plan import Plan, Step
from tests.fakes.clock import FakeClock
from tests.fakes.metrics import FakeMetrics

HOST = "payments.shop.svc.cluster.local"
ERROR_RATE = GateSpec("error-rate", "error-rate", limit=0.01, unit="%")
P99 = GateSpec("p99", "p99", limit=250.0, unit="ms")
PODS = GateSpec("pods", "pods")
MISSING = GateSpec("missing-responses", "missing-responses")
RELATIVE_ERRORS = GateSpec("error-rate", "error-rate", limit=2.0, relation=Relation.RELATIVE, unit="x")
RELATIVE_P99 = GateSpec("p99", "p99", limit=1.2, relation=Relation.RELATIVE, unit="x")


def target(**changes: object) -> Target:
    """Subsets v1 and v2 of one host, by workload and version."""
    return replace(
        Target(
            service="payments",
            namespace="shop",
            host=HOST,
            route=RouteRef("istio", "shop", "payments", route="primary"),
            stable=Side("v1", Destination(HOST, "v1"), ("payments-v1",), "v1"),
            canary=Side("v2", Destination(HOST, "v2"), ("payments-v2",), "v2"),
        ),
        **changes,  # type: ignore[arg-type]
    )


def pod(name: str, *, ready: bool = True, restarts: int = 0, looping: bool = False, node: str = "node-2") -> PodFacts:
    return PodFacts(name, "shop", ready, restarts, looping, node, template="abc", images=("sha256:1",))


class Scene:
    """Time, a mesh with traffic, and a rollout whose weight was just confirmed."""

    def __init__(
        self, *gates: GateSpec, rate: float = 100.0, weight: int = 10, scrape_s: float = 1.0, of: Target | None = None
    ) -> None:
        self.clock = FakeClock()
        self.metrics = FakeMetrics(self.clock.now, scrape_s=scrape_s)
        self.metrics.serve(HOST, rate=rate)
        self.clock.advance(150)
        self.canary_pods: tuple[PodFacts, ...] | None = (pod("payments-v2-a"), pod("payments-v2-b"))
        self.stable_pods: tuple[PodFacts, ...] | None = (pod("payments-v1-a"), pod("payments-v1-b"))
        self.pinned: tuple[PodFacts, ...] | None = self.canary_pods
        self.rollout = Rollout(
            id="payments-1",
            revision=1,
            target=of or target(),
            plan=Plan("", tuple(Step(percent, 600) for percent in (weight, 100) if percent <= weight or weight < 100)),
            gates=gates,
            rules=Rules(check_every_s=5),
            phase=Phase.PROGRESSING,
            created_at=self.clock.now(),
            started_by=Actor(Source.PERSON, "U1", "Ada"),
            scheduled_at=self.clock.now(),
            step=0,
            weight_percent=weight,
            started_at=self.clock.now(),
            bake=Bake(confirmed_at=self.clock.now()),
        )
        self.metrics.weight(HOST, weight)

    def arrive(self, *, seen: bool = True) -> None:
        """The weight is in the traffic since now, as measured or only as waited for."""
        self.rollout = self.rollout.with_(bake=replace(self.rollout.bake, arrived_at=self.clock.now(), seen=seen))

    def look(self, after_s: float = 0.0) -> Assessment:
        """One look, whose evidence the next one goes on from."""
        self.clock.advance(after_s)
        now = self.clock.now()
        answers = asyncio.run(self.metrics.ask(questions(self.rollout, now)))
        look = assess(self.rollout, now, answers, self.canary_pods, self.stable_pods, self.pinned)
        self.rollout = self.rollout.with_(evidence=look.evidence)
        return look

    def report(self, after_s: float = 0.0) -> GateReport:
        """The first gate's report of a look."""
        return self.look(after_s).reports[0]


def details(reports: Sequence[GateReport]) -> str:
    return "\n".join(f"{report.gate} {report.verdict}: {report.detail}" for report in reports)
