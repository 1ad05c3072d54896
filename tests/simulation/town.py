"""The simulated world: one store, one API server, one Prometheus, one chat, and several bots on them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from math import inf
from random import Random
from typing import Any

from bot.adapters.mesh import annotation
from bot.analysis.facts import fingerprint
from bot.catalog import Catalog, load
from bot.engine import deliver, wake
from bot.engine.engine import Engine
from bot.engine.world import World
from bot.ports.store import Letter
from bot.rollout.effects import Decision
from bot.rollout.events import Event
from bot.rollout.model import Rollout
from bot.usecases.desk import Desk
from tests.fakes.chat import FakeChat
from tests.fakes.cluster import FakeCluster
from tests.fakes.pager import FakePager
from tests.fakes.people import FakeDirectory
from tests.fakes.store import FakeStore
from tests.fakes.telemetry import FakeTelemetry
from tests.simulation.history import History, canary_weight, copied
from tests.simulation.loop import PROCESS, WORLD, Process, VirtualLoop
from tests.simulation.machine import LoopTimeline, SkewedClock
from tests.simulation.servers import (
    LETTER,
    STORE_TIMEOUT_S,
    SimLeases,
    SimMesh,
    SimMetrics,
    Truth,
    WiredChat,
    WiredCluster,
    WiredInbox,
    WiredMetrics,
    WiredPager,
)
from tests.simulation.wire import Blade, Remote, Wire, at_once

CATALOG = """
defaults: {plan: short, channel: "#deploys", check_every: 5s, approval: {expires: 40s}}
plans:
  short: {steps: "10%:8s, 50%:8s:approve, 100%:8s"}
  free: {steps: "20%:6s, 60%:6s, 100%:6s"}
  two: {steps: "50%:8s, 100%:8s"}
gates: GATES
services:
  payments: {namespace: shop, mesh: istio, route: {name: payments}, subsets: [v1, v2], approvers: ["@release-leads"]}
  checkout: {namespace: shop, mesh: istio, route: {name: checkout}, subsets: [v1, v2]}
"""
GATES = {
    "threshold": "{error-rate: {max: 2%, min_requests: 20, judge: threshold}}",
    "sequential": "{error-rate: {max: 2%, min_requests: 20}}",
    "p99": "{error-rate: {max: 2%, min_requests: 20}, p99: {max: 250ms, min_requests: 20}}",
}
"""How releases are judged, by name; what is not said is the product's default, and so a sequential test."""
CHANGING = frozenset(
    ("save", "create", "note", "acquire", "renew", "release", "add", "done", "delay", "set_posted", "remove")
)
LATEST_LOOK_S = 6.0
"""No look is put off longer; a wake-up that lies beyond was written by a clock that was ahead."""
SCRAPE_S = 2.0
RATE = 60.0


class PlainTelemetry(FakeTelemetry):
    """Counts nothing and keeps only what failed and a few lines; runs are many."""

    def line(self, event: str, **fields: object) -> None:
        pass

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        pass

    def observe(self, name: str, seconds: float) -> None:
        pass

    def gauge(self, name: str, value: float) -> None:
        pass


@dataclass(slots=True)
class Bot:
    """One process of the bot."""

    name: str
    process: Process
    clock: SkewedClock
    timeline: LoopTimeline
    wire: Wire
    engine: Engine
    desk: Desk
    telemetry: FakeTelemetry
    stopping: bool = False

    @property
    def serves(self) -> bool:
        """Somebody can talk to it."""
        return not (self.process.dead or self.process.stopped or self.stopping)


class Town:
    """Everything there is in one run."""

    def __init__(
        self, loop: VirtualLoop, random: Random, history: History, rates: dict[str, float], gates: str
    ) -> None:
        self.loop, self.random, self.history, self.rates = loop, random, history, rates
        self.clock = SkewedClock(loop, 0.0)
        self.catalog: Catalog = _catalog(gates)
        self.store = FakeStore(self.clock)
        self.store.leases = SimLeases(self.store, history.given)
        self.truth = Truth(self._stored)
        self.cluster = FakeCluster()
        self.cluster.watched = True
        self.metrics = SimMetrics(self.clock.now, scrape_s=SCRAPE_S, latency=gates == "p99")
        self.chat = FakeChat()
        self.pager = FakePager()
        self.directory = FakeDirectory()
        self.bots: list[Bot] = []
        self._applied: dict[str, dict[str, Any]] = {}
        self._removed: dict[str, list[Any]] = {}
        self._ids = itertools.count(0x7000)
        self._names = itertools.count(1)
        self._watch_store()
        history.store = self.store
        history.manifest_of = self.truth.objects.get
        history.weight_of = lambda target: self.weight(target.service)
        history.skew_of = lambda who: next(bot.clock.skew_s for bot in self.bots if bot.name == who)

    def add_service(self, name: str, *, missing: bool = False) -> None:
        """A service with a stable v1 and a canary v2, both with pods, and two minutes of traffic behind it."""
        target = self.truth.add(name, missing=missing)
        self._applied[name] = copied(self.truth.manifest(name))
        for version in ("v1", "v2"):
            self.cluster.add_workload(name, version, node="node-1" if version == "v1" else "node-2")
        pods = at_once(self.cluster.pods("shop", target.canary.selector))
        self.truth.targets[name] = replace(target, fingerprint=fingerprint(pods))
        for node in ("node-1", "node-2"):
            self.cluster.set_node(node)
        self.metrics.serve(f"{name}.shop.svc.cluster.local", rate=RATE)

    def start_bot(self, skew_s: float) -> Bot:
        """A new process."""
        process = Process(f"bot-{next(self._names)}")
        self.loop.enter(process)
        clock = SkewedClock(self.loop, skew_s)
        timeline = LoopTimeline(self.loop, clock, process)
        wire = Wire(
            self.loop,
            process,
            self.random,
            self.rates,
            told=lambda *fault: self.history.fault(process.name, *fault),
            died=lambda: self.fall(bot),
        )
        telemetry = PlainTelemetry()

        def remote(port: Any) -> Any:
            return Remote(port, wire, "store", STORE_TIMEOUT_S, CHANGING)

        ports = {
            "rollouts": remote(self.store.rollouts),
            "inbox": WiredInbox(self.store.inbox, wire),
            "outbox": remote(self.store.outbox),
            "freezes": remote(self.store.freezes),
            "meshes": {"istio": SimMesh(self.truth, wire, process.name, self.history)},
            "cluster": WiredCluster(self.cluster, wire),
            "metrics": WiredMetrics(self.metrics, wire),
            "clock": clock,
            "catalog": lambda: self.catalog,
            "namespaces": (),
            "new_id": self.new_id,
        }
        world = World(
            leases=remote(self.store.leases),
            timeline=timeline,
            chat=WiredChat(self.chat, wire, self.history),  # type: ignore[arg-type]
            pager=WiredPager(self.pager, wire),
            telemetry=telemetry,
            owner=process.name,
            **ports,
        )
        desk = Desk(directory=self.directory, **ports)
        bot = Bot(process.name, process, clock, timeline, wire, Engine(world), desk, telemetry)
        self.bots.append(bot)
        self.history.began(process.name, f"clock {skew_s:+.1f} s")
        self.loop.spawn(process, bot.engine.start())
        return bot

    def new_id(self) -> str:
        return f"{next(self._ids):x}"

    def kill(self, bot: Bot) -> None:
        """kill -9."""
        if not bot.process.dead:
            bot.process.dead = True
            bot.process.stopped = False
            bot.process.held.clear()
            self.history.disturb(bot.name, "killed", gone=True)

    def freeze(self, bot: Bot) -> None:
        """SIGSTOP."""
        if bot.serves:
            bot.process.stopped = True
            self.history.disturb(bot.name, "stopped", gone=True)

    def thaw(self, bot: Bot) -> None:
        """SIGCONT."""
        if bot.process.stopped:
            self.loop.go_on(bot.process)
            self.history.disturb(bot.name, "goes on")

    def step_clock(self, bot: Bot, by_s: float) -> None:
        """Somebody sets the wall clock."""
        bot.clock.skew_s += by_s
        bot.timeline.stepped()
        self.history.disturb(bot.name, f"clock stepped by {by_s:+.1f} s", to="clock")

    def cut(self, bot: Bot, services: set[str]) -> None:
        """Cut a process off from some servers."""
        bot.wire.cut |= services
        named = ", ".join(sorted(services))
        self.history.disturb(bot.name, f"cut off from {named}", to="links")

    def heal(self, bot: Bot) -> None:
        """Connect it again; its watches are opened anew and tell of everything."""
        if not bot.wire.cut:
            return
        self.history.disturb(bot.name, "connected again", to="links")
        bot.wire.cut.clear()
        for namespace, name in list(self.truth.objects):
            self.truth._tell(namespace, name)

    def arm(self, bot: Bot, *, stops_s: float = 0.0) -> None:
        """Let a process die at one of its next changing calls, or be stopped there for some seconds."""
        bot.wire.changes = 0
        bot.wire.blade = Blade(self.random.randint(1, 25), self.random.random() < 0.5, stops_s)

    def fall(self, bot: Bot) -> None:
        """The blade falls."""
        blade, bot.wire.blade = bot.wire.blade, None
        if blade is None or not blade.stops_s:
            self.kill(bot)
        else:
            self.freeze(bot)
            self.loop.call_later(blade.stops_s, self.thaw, bot, context=WORLD)

    def delete_route(self, service: str, manager: str) -> None:
        """Somebody deletes the object: the host sends to all ready pods then."""
        if ("shop", service) in self.truth.objects:
            before = self.truth.manifest(service)
            self.truth.delete(service)
            self.metrics.weight(_host(service), 50)
            self.history.removed(self.truth.targets[service], manager, before)

    def restore_route(self, service: str, manager: str) -> None:
        """The owner applies the object again: another one, as it was at first."""
        if ("shop", service) not in self.truth.objects:
            former, manifest = self.truth.targets[service], copied(self._applied[service])
            uid = manifest["metadata"]["uid"] = f"uid-{service}-{self.new_id()}"
            self.truth.targets[service] = replace(former, route=replace(former.route, uid=uid))
            self.truth._store(manifest, manager)

    def take_out(self, service: str, manager: str) -> None:
        """Somebody takes the canary's destination out of the route."""
        manifest = copied(self.truth.manifest(service))
        entries = manifest["spec"]["http"][0]["route"]
        subset = self.truth.targets[service].canary.destination.subset
        stays = [entry for entry in entries if entry["destination"].get("subset") != subset]
        if len(stays) < len(entries):
            stays[0]["weight"] = 100
            manifest["spec"]["http"][0]["route"] = stays
            self.truth._store(manifest, manager)

    def remove_pods(self, service: str, version: str) -> None:
        """Somebody deletes the workload, or sets it to 0 replicas: connections to it fail."""
        workload = f"{service}-{version}"
        gone = [one for one in self.cluster._pods if one[1].workload == workload]
        if gone:
            self._removed[workload] = gone
            self.cluster._pods = [one for one in self.cluster._pods if one not in gone]
            self.metrics.behave(_host(service), version, refuse=1.0)
            self.history.say("world", "pods gone", workload)

    def restore_pods(self, service: str, version: str) -> None:
        """The workload is there again, as it was."""
        gone = self._removed.pop(f"{service}-{version}", [])
        if gone:
            self.cluster._pods += gone
            self.metrics.behave(_host(service), version, refuse=0.0)

    def wipe_store(self) -> None:
        """The store forgets everything, as an empty replica or a FLUSHALL makes it."""
        ids = self.store.outbox._ids
        self.history.forgets(-inf)
        self.store.wipe()
        self.store.outbox._ids = ids
        self.store.inbox._waiting.clear()

    def rewind_store(self, lost_s: float) -> None:
        """A replica that is `lost_s` behind takes over: what was taken in that time is forgotten."""
        kept, since = _shot(self.store), self.loop.time()

        def rewind() -> None:
            self.history.forgets(since)
            for part, state in zip(_parts(self.store), kept, strict=True):
                vars(part).update(state)
            for name, when in self.store.rollouts.wake.items():
                if when - self.clock.now() > LATEST_LOOK_S:
                    self.history.put_off(name, when - self.clock.now())

        self.loop.call_later(lost_s, rewind, context=WORLD)

    def weight(self, service: str) -> int:
        """What the route gives to the canary; 0 without a route."""
        if ("shop", service) not in self.truth.objects:
            return 0
        return canary_weight(self.truth.manifest(service), self.truth.targets[service])

    @property
    def active(self) -> list[Rollout]:
        """Records that have not ended."""
        return [one.rollout for one in self.store.rollouts.records.values() if not one.rollout.phase.final]

    @property
    def quiet(self) -> bool:
        """Everything has ended and has been said, and no route waits for the rollout of its mark to be found again."""
        if self.active or at_once(self.store.outbox.depth()) or at_once(self.store.inbox.waiting()):
            return False
        marks = [annotation.mark_of(manifest) for manifest in self.truth.objects.values()]
        live = {mark.rollout for mark in marks if mark is not None and not annotation.is_final(mark.phase)}
        return live <= self.store.rollouts.records.keys()

    def _stored(self, before: dict[str, Any] | None, after: dict[str, Any], manager: str) -> None:
        name = after["metadata"]["name"]
        target = self.truth.targets.get(name)
        if target is None:
            return
        canary = canary_weight(after, target)
        self.metrics.weight(f"{name}.shop.svc.cluster.local", min(100, canary))
        if before is not None and manager.startswith("bot-"):
            self.history.landed(manager, target, before, after, self.store, self.clock.now())
        else:
            self.history.by_hand(target, manager, before, after)

    def _watch_store(self) -> None:
        """Hear of what is saved, said and asked, whoever does it."""
        history, store = self.history, self.store
        save, create, put, queue = store.rollouts.save, store.rollouts.create, store.inbox.put, store.outbox.queue
        add = store.freezes.add

        async def saved(rollout: Rollout, *args: Any, **named: Any) -> None:
            await save(rollout, *args, **named)
            history.saved(rollout)

        async def created(rollout: Rollout, *args: Any) -> None:
            await create(rollout, *args)
            history.created(rollout)

        async def asked(request: Any) -> None:
            await put(request)
            history.asked(request)

        async def frozen(freeze: Any) -> None:
            await add(freeze)
            history.frozen(freeze.id)

        def queued(rollout_id: str, messages: Any) -> None:
            known = {letter.id for lane in store.outbox._letters.values() for letter in lane}
            queue(rollout_id, messages)
            letters = [one for lane in store.outbox._letters.values() for one in lane if one.id not in known]
            history.queued(rollout_id, messages, letters)

        store.rollouts.save = saved  # type: ignore[method-assign]
        store.rollouts.create = created  # type: ignore[method-assign, assignment]
        store.inbox.put = asked  # type: ignore[method-assign]
        store.freezes.add = frozen  # type: ignore[method-assign]
        store.outbox.queue = queued  # type: ignore[method-assign]


@contextmanager
def watched(history: History) -> Iterator[None]:
    """Hear of every decision and know every letter, in whichever process, while it lasts."""
    former_decide, former_deliver = vars(wake)["decide"], deliver.Deliver._deliver

    def hear(rollout: Rollout, event: Event, now: float) -> Decision:
        decision = former_decide(rollout, event, now)
        process = PROCESS.get(None)
        history.decided(process.name if process else "", rollout, event, decision, now)
        return decision

    async def known(self: deliver.Deliver, letter: Letter) -> bool:
        LETTER.set(letter.id)
        return await former_deliver(self, letter)

    setattr(wake, "decide", hear)  # noqa: B010
    deliver.Deliver._deliver = known  # type: ignore[method-assign]
    try:
        yield
    finally:
        setattr(wake, "decide", former_decide)  # noqa: B010
        deliver.Deliver._deliver = former_deliver  # type: ignore[method-assign]


_PARSED: dict[str, Catalog] = {}


def _catalog(gates: str) -> Catalog:
    """Parsed once: reading YAML takes longer than a run."""
    if gates not in _PARSED:
        _PARSED[gates] = load(CATALOG.replace("GATES", GATES[gates]))
    return _PARSED[gates]


def _host(service: str) -> str:
    return f"{service}.shop.svc.cluster.local"


def _parts(store: FakeStore) -> tuple[object, ...]:
    return store.rollouts, store.inbox, store.outbox, store.freezes, store.leases


def _shot(store: FakeStore) -> list[dict[str, Any]]:
    """All that the store knows now, but for who listens, and the numbers that its clock keeps rising."""
    shot = []
    for part in _parts(store):
        known = {
            name: value for name, value in vars(part).items() if name not in ("_store", "_listeners", "_ids", "issued")
        }
        shot.append({name: _copied(value) for name, value in known.items() if not callable(value)})
    return shot


def _copied(value: Any) -> Any:
    """Containers anew, and buckets; everything else in a store is a value."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return list(value)
    return replace(value) if is_dataclass(value) and not isinstance(value, type) else value
