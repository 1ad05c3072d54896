"""What only a real Redis can show: how it fails, what lies in it, and that a connection comes back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from bot.adapters.redis import RedisStore, server
from bot.adapters.redis.shards import shard_of
from bot.errors import Conflict, LeaseLost, Permanent, Transient, Unreadable
from bot.ports.store import Posted
from bot.rollout.effects import MessageKind
from tests.fakes.clock import FakeClock
from tests.fixtures.redis import RedisServer, running_redis, token_of
from tests.fixtures.rollouts import NOW, audit, ended, freeze, message, request, rollout


async def test_an_unreadable_record_is_moved_aside_and_comes_back(store: RedisStore, redis_server: RedisServer) -> None:
    """The others load, the bad one is reported each time and not due; once readable again it is active and due."""
    await store.rollouts.create(rollout("a-1", "a"), NOW, (), ())
    await store.rollouts.create(rollout("b-1", "b"), NOW, (), ())
    key = "canary-bot:{0}:rollout:a-1"
    good = redis_server.say("HGET", key, "record").split("\r\n", 1)[1].removesuffix("\r\n")
    redis_server.say("HSET", key, "record", "{not json")
    for _ in range(2):
        found = await store.rollouts.active()
        assert [one.id for one, _ in found.rollouts] == ["b-1"]
        assert [name for name, _ in found.quarantined] == ["a-1"]
        assert await store.rollouts.due(NOW) == ("b-1",)
    with pytest.raises(Unreadable):
        await store.rollouts.load("a-1")
    with pytest.raises(Conflict):
        await store.rollouts.create(rollout("a-2", "a"), NOW, (), ())
    redis_server.say("HSET", key, "record", good)
    assert [one.id for one, _ in (await store.rollouts.active()).rollouts] == ["b-1", "a-1"]
    assert set(await store.rollouts.due(NOW)) == {"a-1", "b-1"}
    assert (await store.rollouts.active()).quarantined == ()


async def test_a_record_that_vanished_is_reported(store: RedisStore, redis_server: RedisServer) -> None:
    """An id without record is quarantined, not forgotten."""
    await store.rollouts.create(rollout("a-1", "a"), NOW, (), ())
    redis_server.say("DEL", "canary-bot:{0}:rollout:a-1")
    assert (await store.rollouts.active()).quarantined == (("a-1", "its record is missing"),)


async def test_unreadable_letters_requests_block_nothing(store: RedisStore, redis_server: RedisServer) -> None:
    """What nobody can read is dropped, and the next in line comes."""
    await store.outbox.add("a-1", (message("one"), message("two")), NOW)
    redis_server.say("HSET", "canary-bot:{0}:letters", "000000000001", '["a-1", 0, 0, 0, "{"]')
    assert await store.outbox.take(NOW, 5) == ()
    assert [letter.message.text for letter in await store.outbox.take(NOW, 5)] == ["two"]
    await store.inbox.put(request("q1", "a-1"))
    await store.inbox.put(request("q2", "a-1"))
    redis_server.say("HSET", "canary-bot:{0}:asked:a-1", "q1", "{")
    assert [one.id for one in await store.inbox.take("a-1")] == ["q2"]
    await store.inbox.done("a-1", ("q2",))
    assert await store.inbox.waiting() == ()


async def test_an_unreadable_freeze_binds_and_can_be_lifted(store: RedisStore, redis_server: RedisServer) -> None:
    """What a newer version froze stays frozen for an older one, until somebody lifts it."""
    redis_server.say("HSET", "canary-bot:{0}:freezes", "payments|f9", '{"schema": 99}')
    (found,) = await store.freezes.all()
    assert found.covers("payments", NOW)
    assert not found.covers("checkout", NOW)
    assert [one.id for one in await store.freezes.remove("payments")] == ["f9"]
    assert await store.freezes.all() == ()


async def test_history_is_bounded(store: RedisStore, redis_server: RedisServer) -> None:
    """The newest 500 of the fleet and the newest 50 of each service stay; records of the others are gone."""
    token = await token_of(store)
    for number in range(60):
        done = ended(f"rare-{number}", "rare", at=NOW + number)
        await store.rollouts.save(done, None, (), (audit(done.id),), token=token, save_id=done.id)
    for number in range(560):
        service = f"busy{number % 20}"
        done = ended(f"x-{number}", service, at=NOW + 1000 + number)
        await store.rollouts.save(done, None, (), (), token=token, save_id=done.id)
    fleet = await store.rollouts.finished(limit=1000)
    assert [one.id for one in fleet] == [f"x-{number}" for number in range(559, 59, -1)]
    rare = await store.rollouts.finished("rare", limit=1000)
    assert [one.id for one in rare] == [f"rare-{number}" for number in range(59, 9, -1)]
    assert await store.rollouts.audited("rare-0") == ()
    assert redis_server.say("EXISTS", "canary-bot:{0}:rollout:rare-0", "canary-bot:{0}:rollout:rare-9") == ":0\r\n"
    assert redis_server.say("EXISTS", "canary-bot:{0}:rollout:rare-10", "canary-bot:{0}:rollout:x-0") == ":2\r\n"
    assert int(redis_server.say("TTL", "canary-bot:{0}:rollout:rare-59").strip(":\r\n")) > 89 * 86_400


async def test_all_keys_of_a_shard_lie_in_one_slot_under_the_prefix(redis_server: RedisServer) -> None:
    """Whatever is written about a rollout starts with prefix and its shard's hash tag, what belongs to the fleet with
    the first one's: Redis Cluster keeps a shard together."""
    store = RedisStore(redis_server.url, prefix="team-a", shards=8)
    shard = store.of(shard_of(rollout().target.route.key, 8))
    assert shard.number != 0
    lease = await shard.leases.acquire("one", 30.0)
    assert lease is not None
    await store.rollouts.create(rollout(), NOW, (message(kind=MessageKind.CARD),), (audit(),))
    final = ended("payments-7f3a")
    await store.rollouts.save(final, None, (message(urgent=True),), (), token=lease.token, save_id="s")
    await store.inbox.put(request())
    await store.outbox.set_posted("card:payments-7f3a", Posted("C1", "1.0"))
    (letter, *_) = await store.outbox.take(NOW, 5)
    await store.outbox.delay(letter, NOW + 5)
    of_rollout = _keys(redis_server)
    await store.freezes.add(freeze())
    await store.seen.first_time("x", 30.0)
    await store.outbox.allowance("edits", 1, 60.0, NOW)
    await store.replicas.beat("one", 1, 3.0)
    assert len(of_rollout) > 15
    assert [key for key in of_rollout if not key.startswith(f"team-a:{{{shard.number}}}:")] == []
    of_fleet = [key for key in _keys(redis_server) if key not in of_rollout]
    assert len(of_fleet) > 4
    assert [key for key in of_fleet if not key.startswith("team-a:{0}:")] == []
    await store.close()


def _keys(server: RedisServer) -> list[str]:
    return [line for line in server.say("KEYS", "*").split("\r\n") if line[:1] not in ("*", "$", "")]


async def test_prefixes_do_not_mix(redis_server: RedisServer) -> None:
    """Two prefixes are two stores."""
    for store in (RedisStore(redis_server.url), RedisStore(redis_server.url, "x")):
        await store.rollouts.create(rollout(), NOW, (), ())
        assert await store.leases.acquire("one", 30.0) is not None
        await store.close()


async def test_tokens_rise_over_a_wiped_server(store: RedisStore, redis_server: RedisServer) -> None:
    """A Redis that lost everything hands out higher tokens still, and refuses the old holder's saves."""
    old = await token_of(store)
    redis_server.wipe()
    with pytest.raises(LeaseLost):
        await store.rollouts.save(rollout(), NOW, (), (), token=old, save_id="s1")
    assert await token_of(store, "two") > old


async def test_a_lease_is_counted_from_before_the_call(redis_server: RedisServer) -> None:
    """However long the reply takes, `until` is reckoned from when the call was sent."""
    clock = FakeClock(monotonic=100.0)
    store = RedisStore(redis_server.url, clock=clock)
    acquiring = asyncio.create_task(store.leases.acquire("one", 30.0))
    await asyncio.sleep(0)
    clock.advance(5.0)
    lease = await acquiring
    assert lease is not None
    assert lease.until == 130.0
    renewing = asyncio.create_task(store.leases.renew("one", lease, 30.0))
    await asyncio.sleep(0)
    clock.advance(5.0)
    renewed = await renewing
    assert renewed is not None
    assert renewed.until == 135.0
    await store.close()


async def test_old_freezes_are_forgotten(redis_server: RedisServer) -> None:
    """One that ended more than a week ago goes when the next is added; a younger one stays."""
    clock = FakeClock(NOW)
    store = RedisStore(redis_server.url, clock=clock)
    await store.freezes.add(freeze("old", until=NOW + 60))
    await store.freezes.add(freeze("young", until=NOW + 86_400))
    clock.advance(7 * 86_400 + 120)
    await store.freezes.add(freeze("new"))
    assert {one.id for one in await store.freezes.all()} == {"young", "new"}
    await store.close()


async def test_a_stopped_server_is_transient_and_comes_back(redis_binary: str) -> None:
    """Every call says Transient while the server is away, and the same store works when it is back."""
    with running_redis(redis_binary) as server:
        store = RedisStore(server.url)
        await store.rollouts.create(rollout(), NOW, (), ())
        server.part.stop()
        for call in (
            store.rollouts.active(),
            store.rollouts.ping(),
            store.rollouts.due(NOW),
            store.inbox.put(request()),
            store.leases.acquire("one", 3.0),
            store.outbox.take(NOW, 5),
            store.freezes.all(),
            store.seen.first_time("x", 1.0),
        ):
            with pytest.raises(Transient):
                await call
        with running_redis(redis_binary, port=server.port):
            assert await store.rollouts.ping()
        await store.close()


async def test_a_frozen_server_is_noticed(redis_binary: str) -> None:
    """A server that accepts and never answers costs a time-out, not a minute, and the connection heals."""
    with running_redis(redis_binary) as server:
        store = RedisStore(server.url)
        await store.rollouts.ping()
        os.kill(server.part.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(Transient):
                    await store.rollouts.create(rollout(), NOW, (), ())
        finally:
            os.kill(server.part.pid, signal.SIGCONT)
        await store.rollouts.create(rollout(), NOW, (), ())
        assert await store.rollouts.load("payments-7f3a") == rollout()
        await store.close()


async def test_a_full_server_is_transient_and_keeps_nothing_by_halves(redis_binary: str) -> None:
    """Out of memory refuses the whole save; afterwards it works."""
    with running_redis(redis_binary) as server:
        store = RedisStore(server.url)
        token = await token_of(store)
        server.say("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Transient):
            await store.rollouts.save(rollout(), NOW, (message(),), (audit(),), token=token, save_id="s1")
        server.say("CONFIG", "SET", "maxmemory", "0")
        assert (await store.rollouts.active()).rollouts == ()
        assert await store.outbox.depth() == 0
        await store.rollouts.save(rollout(), NOW, (message(),), (audit(),), token=token, save_id="s1")
        assert await store.outbox.depth() == 1
        await store.close()


async def test_a_replica_is_transient(redis_binary: str) -> None:
    """A server that became read-only in a fail-over refuses for now only."""
    with running_redis(redis_binary) as server:
        server.say("REPLICAOF", "127.0.0.1", "1")
        store = RedisStore(server.url)
        with pytest.raises(Transient):
            await store.rollouts.create(rollout(), NOW, (), ())
        await store.close()


async def test_foreign_data_is_permanent(store: RedisStore, redis_server: RedisServer) -> None:
    """A key of another type is nothing to try again."""
    redis_server.say("SET", "canary-bot:{0}:routes", "not a hash")
    with pytest.raises(Permanent):
        await store.rollouts.create(rollout(), NOW, (), ())


async def test_errors_keep_the_password_to_themselves(redis_binary: str) -> None:
    """A refused login says so without the credentials."""
    with running_redis(redis_binary, "--requirepass", "right") as server:
        store = RedisStore(f"redis://:hunter2@127.0.0.1:{server.port}/0")
        with pytest.raises(Transient) as refused:
            await store.rollouts.ping()
        assert "hunter2" not in str(refused.value)
        await store.close()


async def test_rings_come_back_after_a_cut(store: RedisStore, redis_server: RedisServer) -> None:
    """The subscription is made again when its connection is killed."""
    async with aclosing(store.inbox.rings()) as rings:  # type: ignore[type-var]
        heard = asyncio.ensure_future(anext(rings))
        while not heard.done():
            await store.inbox.ring("before")
            await asyncio.sleep(0.01)
        assert redis_server.say("CLIENT", "KILL", "TYPE", "pubsub") == ":1\r\n"
        heard = asyncio.ensure_future(_first(rings, "after"))
        while not heard.done():
            await store.inbox.ring("after")
            await asyncio.sleep(0.01)
        assert await heard == "after"


async def _first(rings: AsyncIterator[str], wanted: str) -> str:
    async for name in rings:
        if name == wanted:
            return name
    raise AssertionError("the rings ended")


async def test_a_quiet_subscription_stays(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet for longer than the ping's time, the same connection still hears the next ring."""
    monkeypatch.setattr("bot.adapters.redis.inbox._QUIET_S", 0.05)
    store = RedisStore(redis_server.url)
    async with aclosing(store.inbox.rings()) as rings:  # type: ignore[type-var]
        heard = asyncio.ensure_future(anext(rings))
        while "\r\n:1\r\n" not in redis_server.say("PUBSUB", "NUMSUB", "canary-bot:{0}:rings"):
            await asyncio.sleep(0.01)
        first = redis_server.say("CLIENT", "LIST", "TYPE", "pubsub").split("id=")[1].split()[0]
        await asyncio.sleep(0.4)
        assert redis_server.say("CLIENT", "LIST", "TYPE", "pubsub").split("id=")[1].split()[0] == first
        await store.inbox.ring("a-1")
        assert await heard == "a-1"
    await store.close()


@pytest.mark.usefixtures("patient")
async def test_fifty_requests_at_once_all_arrive(store: RedisStore) -> None:
    """More calls at once than connections wait for one instead of failing."""
    await asyncio.gather(*(store.inbox.put(request(f"q{number}")) for number in range(200)))
    assert len(await store.inbox.take("payments-7f3a")) == 200


async def test_what_keeps_a_lease_does_not_wait_behind_others(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with more saves under way than connections renews and beats all the same; what waits too long is
    Transient."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(server, "CALL_WITHIN_S", 0.3)
    store = RedisStore(redis_server.url)
    async with store._server._line:
        with pytest.raises(Transient, match=r"no answer within 0\.3 s"):
            await store.inbox.put(request())
        lease = await store.leases.acquire("one", 3.0)
        assert lease is not None
        assert await store.leases.renew("one", lease, 3.0) is not None
        assert len(await store.replicas.beat("one", 1, 3.0)) == 1
    await store.inbox.put(request())
    await store.close()


async def test_two_stores_share_everything(redis_server: RedisServer, store: RedisStore) -> None:
    """What one replica puts in, another takes out; its requests ring the other."""
    other = RedisStore(redis_server.url)
    async with aclosing(other.inbox.rings()) as rings:  # type: ignore[type-var]
        heard = asyncio.ensure_future(anext(rings))
        while not heard.done():
            await store.inbox.put(request())
            await asyncio.sleep(0.01)
        assert await heard == "payments-7f3a"
    assert await other.inbox.take("payments-7f3a") == (request(),)
    await other.close()


async def test_advice_names_what_would_lose_rollouts(store: RedisStore, redis_server: RedisServer) -> None:
    """A server without append-only file, or one that evicts, is spoken of."""
    assert [sentence.split()[0] for sentence in await store.advice()] == ["appendonly"]
    redis_server.say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert [sentence.split()[0] for sentence in await store.advice()] == ["appendonly", "maxmemory-policy"]
    finally:
        redis_server.say("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_closing_leaves_no_connection(redis_server: RedisServer) -> None:
    """After close the server sees no client of ours."""
    store = RedisStore(redis_server.url)
    await asyncio.gather(*(store.rollouts.ping() for _ in range(10)))
    await store.close()
    while redis_server.say("CLIENT", "LIST").count("id=") > 1:
        await asyncio.sleep(0.01)
