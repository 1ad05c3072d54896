"""A store that is spread over shards: each rollout in the shard of its route, and one answer from all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import pytest

from bot.adapters.redis import RedisStore
from bot.adapters.redis.shards import shard_of
from bot.errors import Conflict, LeaseLost, NotFound, Permanent, RouteTaken
from bot.ports.store import Posted
from bot.rollout.model import Rollout
from tests.fixtures.redis import RedisServer
from tests.fixtures.redis_fleet import Servers, cluster
from tests.fixtures.requirements import needs_binary
from tests.fixtures.rollouts import NOW, audit, ended, freeze, message, request, rollout

SHARDS = 4
NAMES = [f"svc{number}" for number in range(12)]


@dataclass(frozen=True, slots=True)
class Place:
    """Where Redis is, and how it forgets everything."""

    url: str
    wipe: Callable[[], None]


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[Servers]:
    needs_binary("redis-cli")
    made = cluster(node_timeout_ms=30_000)
    yield made
    made.stop()


@pytest.fixture(params=["one server", "cluster"])
def place(request: pytest.FixtureRequest) -> Place:
    """One server, and a Cluster whose masters have a shard or two each; both empty."""
    if request.param == "one server":
        server = cast(RedisServer, request.getfixturevalue("redis_server"))
        return Place(server.url, server.wipe)
    servers = cast(Servers, request.getfixturevalue("redis_cluster"))

    def wipe() -> None:
        for node in servers.nodes:
            if "role:master" in node.say("INFO", "replication"):
                assert node.say("FLUSHALL") == "OK"

    wipe()
    return Place(servers.url, wipe)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[RedisStore]:
    store = RedisStore(place.url, shards=SHARDS)
    await store.claim()
    yield store
    await store.close()


@pytest.fixture
async def other(place: Place) -> AsyncIterator[RedisStore]:
    """Another process, which has seen none of the rollouts."""
    store = RedisStore(place.url, shards=SHARDS)
    yield store
    await store.close()


def _one(name: str) -> Rollout:
    return rollout(f"{name}-1", name)


async def _end(store: RedisStore, name: str, at: float) -> None:
    shard = store.of(shard_of(_one(name).target.route.key, SHARDS))
    lease = await shard.leases.acquire("one", 30.0)
    assert lease is not None
    over = replace(ended(f"{name}-1", name), ended_at=at)
    await shard.rollouts.save(over, None, (), (audit(f"{name}-1"),), token=lease.token, save_id=f"end-{name}")


def test_a_routes_shard_never_changes() -> None:
    """Records lie where this function says: another answer would lose them."""
    keys = ["istio/shop/payments/http/primary", "istio/shop/checkout/http/", "istio/münchen/x/http/"]
    assert [shard_of(key, 4) for key in keys] == [3, 0, 3]
    assert [shard_of(key, 16) for key in keys] == [15, 12, 7]
    assert [shard_of(key, 1) for key in keys] == [0, 0, 0]
    counts = [0] * 8
    for number in range(8000):
        counts[shard_of(f"istio/shop/service-{number}/http/primary", 8)] += 1
    assert min(counts) > 900


async def test_each_rollout_lies_in_the_shard_of_its_route(store: RedisStore, other: RedisStore) -> None:
    """Holders find their own only, everybody else finds all, by id too; a route is taken once wherever it is tried."""
    for name in NAMES:
        await store.rollouts.create(_one(name), NOW, (message(),), (audit(f"{name}-1"),))
    for number in range(SHARDS):
        here = {one.id for one, _ in (await store.of(number).rollouts.active()).rollouts}
        assert here == {f"{name}-1" for name in NAMES if shard_of(_one(name).target.route.key, SHARDS) == number}
        assert here
    for seen in (store, other):
        assert {one.id for one, _ in (await seen.rollouts.active()).rollouts} == {f"{name}-1" for name in NAMES}
        assert set(await seen.rollouts.due(NOW)) == {f"{name}-1" for name in NAMES}
        assert (await seen.rollouts.load("svc7-1")) == _one("svc7")
        assert await seen.outbox.depth() == len(NAMES)
    with pytest.raises(RouteTaken, match="svc3-1"):
        await other.rollouts.create(rollout("svc3-2", "svc3"), NOW, (), ())
    with pytest.raises(NotFound):
        await other.rollouts.load("nobody-1")


async def test_an_id_is_taken_once_in_the_fleet(store: RedisStore, other: RedisStore) -> None:
    """Two routes in different shards cannot have rollouts of the same id."""
    await store.rollouts.create(_one("svc0"), NOW, (), ())
    elsewhere = next(
        name
        for name in NAMES
        if shard_of(_one(name).target.route.key, SHARDS) != shard_of(_one("svc0").target.route.key, SHARDS)
    )
    with pytest.raises(Conflict):
        await other.rollouts.create(rollout("svc0-1", elsewhere), NOW, (), ())
    assert [one.id for one, _ in (await other.rollouts.active()).rollouts] == ["svc0-1"]


async def test_a_request_goes_to_the_holder_of_its_rollout(store: RedisStore, other: RedisStore) -> None:
    """Whoever puts it, the ring and the request come to that shard and to no other."""
    for name in NAMES:
        await store.rollouts.create(_one(name), NOW, (), ())
    for name in NAMES:
        mine = store.of(shard_of(_one(name).target.route.key, SHARDS))
        async with aclosing(mine.inbox.rings()) as rings:  # type: ignore[type-var]
            heard = asyncio.ensure_future(anext(rings))
            while not heard.done():
                await other.inbox.put(request(f"q-{name}", f"{name}-1"))
                await asyncio.sleep(0.005)
            assert await heard == f"{name}-1"
        assert [one.id for one in await mine.inbox.take(f"{name}-1")] == [f"q-{name}"]
        await mine.inbox.done(f"{name}-1", (f"q-{name}",))
    assert await other.inbox.waiting() == ()


async def test_a_request_for_nobody_waits_in_the_first_shard(other: RedisStore) -> None:
    """Its holder answers that there is no such rollout."""
    await other.inbox.put(request("q1", "nobody-1"))
    assert await other.of(0).inbox.waiting() == ("nobody-1",)


async def test_history_is_one_list(store: RedisStore, other: RedisStore) -> None:
    """Ended rollouts and audit lines of all shards come newest first, and no more than were asked for."""
    for age, name in enumerate(NAMES):
        await store.rollouts.create(_one(name), NOW, (), ())
        await _end(store, name, NOW + age)
    newest = [f"{name}-1" for name in reversed(NAMES)]
    assert [one.id for one in await other.rollouts.finished()] == newest
    assert [one.id for one in await other.rollouts.finished(limit=5)] == newest[:5]
    assert [one.id for one in await other.rollouts.finished("svc4")] == ["svc4-1"]
    assert {line.rollout for line in await other.rollouts.audited()} == set(newest)
    assert [line.rollout for line in await other.rollouts.audited("svc4-1")] == ["svc4-1"]
    await other.rollouts.note((audit("svc4-1", text="late"), audit("all", "freeze")))
    assert (await other.rollouts.audited("svc4-1"))[0].text == "late"
    assert (await other.of(0).rollouts.audited())[0].rollout == "all"


async def test_what_belongs_to_the_fleet_is_one(store: RedisStore, other: RedisStore) -> None:
    """Freezes, ids seen, allowances and messages about nodes are the same for the holder of any shard."""
    await store.freezes.add(freeze())
    assert len(await other.freezes.all()) == 1
    assert await store.seen.first_time("x", 30.0)
    assert not await other.seen.first_time("x", 30.0)
    assert await store.of(1).outbox.allowance("edits", 1, 60.0, NOW) == 0.0
    assert await other.of(3).outbox.allowance("edits", 1, 60.0, NOW) > 0.0
    await store.outbox.set_posted("node:node-1", Posted("C1", "1.0"))
    assert await other.of(0).outbox.posted("node:node-1") == Posted("C1", "1.0")


async def test_a_card_is_found_by_whoever_asks(store: RedisStore, other: RedisStore) -> None:
    """Where a rollout's messages stand lies with the rollout."""
    await store.rollouts.create(_one("svc1"), NOW, (), ())
    mine = store.of(shard_of(_one("svc1").target.route.key, SHARDS))
    await mine.outbox.set_posted("ask:svc1-1:2", Posted("C1", "2.0"))
    assert await other.outbox.posted("ask:svc1-1:2") == Posted("C1", "2.0")


async def test_each_shard_has_a_lease_of_its_own(store: RedisStore) -> None:
    """Two processes hold two shards side by side, and the token of one saves nothing in the other."""
    await store.rollouts.create(_one("svc0"), NOW, (), ())
    mine = shard_of(_one("svc0").target.route.key, SHARDS)
    one = await store.of(mine).leases.acquire("one", 30.0)
    two = await store.of((mine + 1) % SHARDS).leases.acquire("two", 30.0)
    assert one is not None
    assert two is not None
    saved = _one("svc0").with_(revision=5)
    with pytest.raises(LeaseLost):
        await store.of(mine).rollouts.save(saved, NOW, (), (), token=two.token, save_id="s1")
    await store.of(mine).rollouts.save(saved, NOW, (), (), token=one.token, save_id="s1")


async def test_replicas_see_each_other_until_they_are_silent(store: RedisStore, other: RedisStore) -> None:
    """Who beats is there with what it holds; who leaves is gone at once, who falls silent when its time is over."""
    await asyncio.gather(store.rollouts.ping(), other.rollouts.ping())
    await store.replicas.beat("one", 4, 2.0)
    both = await other.replicas.beat("two", 0, 2.0)
    assert [(one.name, one.held) for one in both] == [("one", 4), ("two", 0)]
    assert both[1].there_s == 0.0
    await asyncio.sleep(0.1)
    again = await store.replicas.beat("one", 3, 2.0)
    assert [one.there_s >= 0.1 for one in again] == [True, True]
    await store.replicas.leave("one")
    assert [one.name for one in await other.replicas.beat("two", 1, 2.0)] == ["two"]
    await asyncio.sleep(2.1)
    (only,) = await store.replicas.beat("one", 0, 2.0)
    assert (only.name, only.there_s) == ("one", 0.0)


class TestAnotherNumber:
    async def test_is_refused_while_rollouts_run(self, store: RedisStore, place: Place) -> None:
        """The sentence says how many and under which number; nothing is written, and a holder of it gets no lease."""
        await store.rollouts.create(_one("svc0"), NOW, (), ())
        two = RedisStore(place.url, shards=2)
        with pytest.raises(Permanent, match=r"in use with 4 shards \(1 active rollouts\), and CANARY_BOT_SHARDS is 2"):
            await two.claim()
        for number in (0, 1):
            with pytest.raises(Permanent, match="spread over 4 shards, not 2"):
                await two.of(number).leases.acquire("two", 3.0)
        await store.claim()
        await two.close()

    async def test_records_of_before_shards_count_as_one(self, place: Place) -> None:
        """A store that never had a number was used with one."""
        former = RedisStore(place.url)
        await former.claim()
        await former.rollouts.create(_one("svc0"), NOW, (), ())
        four = RedisStore(place.url, shards=SHARDS)
        with pytest.raises(Permanent, match=r"in use with 1 shard \(1 active rollouts\)"):
            await four.claim()
        with pytest.raises(Permanent, match="spread over 1 shards"):
            await four.of(0).leases.acquire("one", 3.0)
        await former.close()
        await four.close()

    async def test_is_taken_when_nothing_runs_and_history_stays(self, store: RedisStore, place: Place) -> None:
        """What has ended is found under fewer shards as under more; processes of the former number start nothing."""
        for age, name in enumerate(NAMES):
            await store.rollouts.create(_one(name), NOW, (), ())
            await _end(store, name, NOW + age)
        lease = await store.of(0).leases.acquire("one", 30.0)
        assert lease is not None
        two = RedisStore(place.url, shards=2)
        await two.claim(only_look=True)
        assert await store.of(0).leases.renew("one", lease, 3.0) is not None
        await two.claim()
        assert len(await two.rollouts.finished()) == len(NAMES)
        assert (await two.rollouts.load("svc3-1")).phase.final
        with pytest.raises(Permanent, match="out of date"):
            await store.rollouts.create(_one("new"), NOW, (), ())
        assert await store.of(0).leases.renew("one", lease, 3.0) is None
        await store.of(0).leases.release("one", lease)
        assert await two.of(0).leases.acquire("two", 3.0) is not None
        await two.rollouts.create(_one("new"), NOW, (), ())
        again = RedisStore(place.url, shards=2)
        await again.claim()
        assert len(await again.rollouts.finished()) == len(NAMES)
        await two.close()
        await again.close()

    async def test_an_empty_store_takes_whatever_comes(self, store: RedisStore, place: Place) -> None:
        """A Redis that was wiped under running processes goes on with their number."""
        place.wipe()
        for number in range(SHARDS):
            assert await store.of(number).leases.acquire("one", 3.0) is not None
        await store.rollouts.create(_one("svc0"), NOW, (), ())
