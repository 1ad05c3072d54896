"""Several engines in one process, and several processes of them: shards are shared, and what is the fleet's is said
once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from bot.adapters.redis.shards import shard_of
from bot.engine.fleet import Fleet
from bot.engine.share import SETTLED_AFTER_S
from bot.engine.world import World
from bot.errors import Transient
from bot.ports.store import Active, Replica
from bot.rollout.effects import MessageKind
from bot.rollout.plan import parse_steps
from bot.rollout.start import opening, scheduled
from tests.engine.stage import ADA, Stage
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeRollouts, FakeStore
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.timeline import FakeTimeline

SHARDS = 3


class FakeReplicas:
    """Implements `Replicas`."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.down = False
        self._seen: dict[str, tuple[float, float, int]] = {}

    async def beat(self, name: str, held: int, gone_after_s: float) -> tuple[Replica, ...]:
        now = self._clock.monotonic()
        if self.down:
            raise Transient("store is down (beat)")
        self._seen = {one: seen for one, seen in self._seen.items() if seen[0] > now - gone_after_s}
        self._seen[name] = (now, self._seen.get(name, (0.0, now, 0))[1], held)
        return tuple(Replica(one, count, now - since) for one, (_, since, count) in self._seen.items())

    async def leave(self, name: str) -> None:
        self._seen.pop(name, None)


class OneOfMany(FakeTimeline):
    """One engine's timeline over the one that is driven."""

    def __init__(self, driven: FakeTimeline, name: str, rings: dict[str, Callable[[str], Awaitable[None]]]) -> None:
        self._driven = driven
        self._name = name
        self._rings = rings

    async def start(self, on_ring: Callable[[str], Awaitable[None]]) -> None:
        self._rings[self._name] = on_ring

    async def stop(self) -> None:
        self._rings.pop(self._name, None)

    def at(self, key: str, when: float) -> None:
        self._driven.at(f"{self._name}|{key}", when)

    def cancel(self, key: str) -> None:
        self._driven.cancel(f"{self._name}|{key}")


class Everywhere(FakeRollouts):
    """What use cases see: every shard's active rollouts."""

    def __init__(self, stores: Sequence[FakeStore]) -> None:
        super().__init__(stores[0])
        self._stores = stores

    async def active(self) -> Active:
        found = [await store.rollouts.active() for store in self._stores]
        return Active(tuple(pair for one in found for pair in one.rollouts))


class Town:
    """A stage whose store is spread over shards."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.stores = [FakeStore(self.stage.clock) for _ in range(SHARDS)]
        self.replicas = FakeReplicas(self.stage.clock)
        self.fleets: dict[str, Fleet] = {}
        self.telemetry: dict[str, FakeTelemetry] = {}
        self._rings: dict[str, Callable[[str], Awaitable[None]]] = {}

    async def ready(self) -> None:
        await self.stage.timeline.start(self._ring)
        self.stage.timeline.settle = self._idle
        await self.stage.add_service()

    async def join(self, name: str) -> Fleet:
        """One more process."""
        stage, home = self.stage, self.stores[0]
        telemetry = self.telemetry[name] = FakeTelemetry()
        whole = World(
            rollouts=Everywhere(self.stores),
            inbox=home.inbox,
            leases=home.leases,
            outbox=home.outbox,
            freezes=home.freezes,
            meshes={"istio": stage.mesh},
            cluster=stage.cluster,
            metrics=stage.metrics,
            clock=stage.clock,
            timeline=stage.timeline,
            chat=stage.chat,
            pager=stage.pager,
            telemetry=telemetry,
            catalog=lambda: stage.catalog,
            namespaces=(),
            owner=name,
            new_id=stage.new_id,
        )
        worlds = [
            replace(
                whole,
                rollouts=store.rollouts,
                inbox=store.inbox,
                leases=store.leases,
                outbox=store.outbox,
                timeline=OneOfMany(stage.timeline, f"{name}-{number}", self._rings),
            )
            for number, store in enumerate(self.stores)
        ]
        fleet = self.fleets[name] = Fleet(worlds, whole, self.replicas, lambda route: shard_of(route.key, SHARDS))
        await fleet.start()
        return fleet

    async def leave(self, name: str) -> None:
        await self.fleets.pop(name).stop()

    @property
    def owners(self) -> list[str]:
        return [store.leases.owner for store in self.stores]

    async def _ring(self, key: str) -> None:
        name, _, rollout_id = key.partition("|")
        if name in self._rings:
            await self._rings[name](rollout_id)

    async def _idle(self) -> None:
        for fleet in self.fleets.values():
            await fleet.idle()


@asynccontextmanager
async def town() -> AsyncIterator[Town]:
    made = Town()
    await made.ready()
    try:
        yield made
    finally:
        for name in tuple(made.fleets):
            await made.leave(name)


async def _begun(made: Town) -> FakeStore:
    """A rollout of payments that has reached its first step; the store of its shard."""
    stage = made.stage
    target = stage.mesh.targets["payments"]
    entry, now = stage.catalog.entry("payments"), stage.clock.now()
    begun = scheduled(
        id="payments-1",
        target=target,
        plan=parse_steps("10%:10m, 100%:10m"),
        gates=entry.gates,
        rules=entry.rules,
        by=ADA.actor,
        now=now,
    )
    first = opening(begun, now)
    store = made.stores[shard_of(target.route.key, SHARDS)]
    await store.rollouts.create(first.rollout, now, first.messages, first.audit)
    await store.inbox.ring("payments-1")
    await stage.play(8, until=lambda: stage.weights() == [10])
    assert stage.weights() == [10]
    return store


async def test_one_that_joins_gets_its_part_and_nothing_is_done_twice() -> None:
    """It is given shards one by one once it has settled, each cleanly, while a rollout goes on; and none comes back."""
    async with town() as made:
        await made.join("a")
        await made.stage.play(SETTLED_AFTER_S + 1)
        assert made.owners == ["a", "a", "a"]
        store = await _begun(made)
        await made.join("b")
        await made.stage.play(SETTLED_AFTER_S - 2)
        assert made.owners == ["a", "a", "a"]
        await made.stage.play(4)
        shared = made.owners
        assert sorted(shared) == ["a", "a", "b"]
        assert len(made.telemetry["a"].events("shard-given")) == 1
        await made.stage.play(5)
        assert made.owners == shared
        assert made.stage.weights() == [10]
        assert [change.weight_percent for change in made.stage.mesh.writes if change.direction.value == "raise"] == [10]
        assert (await store.rollouts.load("payments-1")).weight_percent == 10


async def test_a_process_that_stops_gives_all_it_has_at_once() -> None:
    """No time has to pass: the others hear it, and have counted it out."""
    async with town() as made:
        await made.join("a")
        await made.join("b")
        await made.stage.play(SETTLED_AFTER_S + 4)
        assert set(made.owners) == {"a", "b"}
        await made.leave("a")
        for _ in range(100):
            await asyncio.sleep(0)
        assert made.owners == ["b", "b", "b"]


async def test_one_that_dies_is_replaced_when_its_leases_are_over() -> None:
    """Nobody hands anything over; within five seconds the other has all."""
    async with town() as made:
        fleets = [await made.join("a"), await made.join("b")]
        await made.stage.play(SETTLED_AFTER_S + 4)
        assert set(made.owners) == {"a", "b"}
        dead = fleets[0]
        for task in asyncio.all_tasks():
            if task in {*dead._sharing, *(one for engine in dead._engines for one in engine._always)}:
                task.cancel()
        await made.stage.timeline.advance(5)
        assert made.owners == ["b", "b", "b"]


async def test_a_store_that_is_away_is_said_once() -> None:
    """One page and one notice for all shards, and one each when the last of them is back."""
    async with town() as made:
        await made.join("a")
        await made.stage.timeline.advance(2)
        await _begun(made)
        for store in made.stores:
            store.down = True
        made.replicas.down = True
        await made.stage.play(20)
        assert [page.key for page in made.stage.pager.pages] == ["store-away"]
        assert sum("cannot reach its Redis" in said.text for said in made.stage.chat.messages.values()) == 1
        made.replicas.down = False
        for store in made.stores[1:]:
            store.down = False
        await made.stage.play(3)
        assert len(made.stage.pager.pages) == 1
        made.stores[0].down = False
        await made.stage.play(3)
        assert [page.resolved for page in made.stage.pager.pages] == [False, True]
        assert sum("reaches its Redis again" in said.text for said in made.stage.chat.messages.values()) == 1


async def test_a_node_is_told_of_by_the_holder_of_the_first_shard() -> None:
    """Two processes judge it, one says it, and names rollouts of shards that it does not hold."""
    async with town() as made:
        await made.join("a")
        await made.join("b")
        await made.stage.play(SETTLED_AFTER_S + 4)
        await _begun(made)
        made.stage.cluster.set_node("node-2", since=made.stage.clock.now(), Ready="False")
        await made.stage.play(40)
        said = [
            message
            for store in made.stores
            for key, message in store.said
            if message.kind is MessageKind.NODE and key == "node:node-2"
        ]
        assert said
        assert all("payments-1" in message.text for message in said)
        assert sum(message is not None for message in said) == len({message.text for message in said})


async def test_marks_of_other_shards_are_left_to_their_holders() -> None:
    """A route whose record is lost is rebuilt in its own shard, by whoever holds that, and only there."""
    async with town() as made:
        await made.join("a")
        await made.stage.timeline.advance(2)
        store = await _begun(made)
        await made.leave("a")
        for one in made.stores:
            one.wipe()
        await made.join("b")
        await made.stage.play(6)
        assert [one is store for one in made.stores] == [bool(one.rollouts.records) for one in made.stores]
        assert (await store.rollouts.load("payments-1")).weight_percent == 10
        assert made.stage.pager.pages == []
