"""A stage for engine tests: every port faked, one engine, time that moves when it is told to."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from bot.analysis.facts import fingerprint
from bot.catalog import Catalog, load
from bot.engine.engine import Engine
from bot.engine.world import World
from bot.errors import Permanent
from bot.rollout.model import Rollout
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from tests.fakes.chat import FakeChat
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster
from tests.fakes.mesh import FakeMesh
from tests.fakes.metrics import FakeMetrics
from tests.fakes.pager import FakePager
from tests.fakes.people import FakeDirectory
from tests.fakes.store import FakeStore
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.timeline import FakeTimeline

HOST = "payments.shop.svc.cluster.local"
ADA = Who("U0ADA", "C1", name="Ada")
GRACE = Who("U0GRACE", "C1", name="Grace", via="button")

CATALOG = """
defaults: {plan: short, channel: "#deploys", check_every: 1s}
plans:
  short: {steps: "10%:10s, 50%:10s:approve, 100%:10s"}
  free: {steps: "10%:10s, 50%:10s, 100%:10s"}
gates:
  error-rate: {max: 1%, min_requests: 20}
  p99: {max: 250ms, min_requests: 20}
services:
  payments:
    namespace: shop
    mesh: istio
    route: {name: payments}
    subsets: [v1, v2]
    approvers: ["@release-leads"]
    channel: "#payments"
"""


@dataclass(slots=True)
class Stage:
    """All fakes, and the engine that plays on them; `traffic_follows` makes the metrics follow the route's weights."""

    scrape_s: float = 1.0
    clock: FakeClock = field(default_factory=FakeClock)
    catalog: Catalog = field(default_factory=lambda: load(CATALOG))
    mesh: FakeMesh = field(default_factory=FakeMesh)
    cluster: FakeCluster = field(default_factory=FakeCluster)
    chat: FakeChat = field(default_factory=FakeChat)
    pager: FakePager = field(default_factory=FakePager)
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    store: FakeStore = field(init=False)
    metrics: FakeMetrics = field(init=False)
    timeline: FakeTimeline = field(init=False)
    engine: Engine = field(init=False)
    desk: Desk = field(init=False)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(0x7000))

    def __post_init__(self) -> None:
        self.store = FakeStore(self.clock)
        self.metrics = FakeMetrics(self.clock.now, scrape_s=self.scrape_s)
        self.timeline = FakeTimeline(self.clock)
        self.desk = Desk(
            rollouts=self.store.rollouts,
            inbox=self.store.inbox,
            outbox=self.store.outbox,
            freezes=self.store.freezes,
            directory=self.directory,
            meshes={"istio": self.mesh},
            cluster=self.cluster,
            metrics=self.metrics,
            clock=self.clock,
            catalog=lambda: self.catalog,
            namespaces=(),
            new_id=self.new_id,
        )
        self.engine = self.new_engine("bot-1")

    def new_id(self) -> str:
        return f"{next(self._ids):x}"

    def new_engine(self, owner: str) -> Engine:
        """Another process of the bot on the same world."""
        engine = Engine(
            World(
                rollouts=self.store.rollouts,
                inbox=self.store.inbox,
                leases=self.store.leases,
                outbox=self.store.outbox,
                freezes=self.store.freezes,
                meshes={"istio": self.mesh},
                cluster=self.cluster,
                metrics=self.metrics,
                clock=self.clock,
                timeline=self.timeline,
                chat=self.chat,
                pager=self.pager,
                telemetry=self.telemetry,
                catalog=lambda: self.catalog,
                namespaces=(),
                owner=owner,
                new_id=self.new_id,
            )
        )
        self.timeline.settle = engine.idle
        return engine

    async def add_service(self, service: str = "payments", **options: object) -> None:
        """A service with pods, traffic of 100 requests/s, and a route; two minutes of history already scraped."""
        host = f"{service}.shop.svc.cluster.local"
        target = self.mesh.add(service, **options)  # type: ignore[arg-type]
        for version in ("v1", "v2"):
            self.cluster.add_workload(service, version, node="node-1" if version == "v1" else "node-2")
        pods = await self.cluster.pods("shop", target.canary.selector)
        self.mesh.targets[service] = replace(target, fingerprint=fingerprint(pods))
        for node in ("node-1", "node-2"):
            self.cluster.set_node(node)
        self.metrics.serve(host, rate=100.0, stable="v1", canary="v2")
        self.clock.advance(120)

    async def play(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass in tenths of a second, traffic following the route's weights; stop early on `until`."""
        end = self.clock.now() + seconds
        while self.clock.now() < end and not until():
            for service in self.mesh.targets:
                with suppress(Permanent):
                    canary = self.mesh.weights(service)[1] or 0
                    self.metrics.weight(f"{service}.shop.svc.cluster.local", canary)
            await self.timeline.advance(0.1)

    async def rollout(self, rollout_id: str) -> Rollout:
        """The rollout as it is stored."""
        return await self.store.rollouts.load(rollout_id)

    def weights(self, service: str = "payments") -> list[int]:
        """Every canary weight that was written, in order, repeats left out."""
        return [weight for weight, _ in itertools.groupby(change.weight_percent for change in self.mesh.writes)]


async def breathe() -> None:
    """Stands for `Engine.idle` as a timeline's `settle` where a worker hangs: everybody who can go on does."""
    for _ in range(60):
        await asyncio.sleep(0)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A stage with a running engine and one service, `payments`."""
    made = Stage()
    await made.add_service()
    await made.engine.start()
    await made.timeline.advance(1.5)
    try:
        yield made
    finally:
        await made.engine.stop()
