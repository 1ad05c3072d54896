"""Outlines of what is active are read by what has changed: they are what reading everything would tell, always."""

import random
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from bot.adapters.redis import RedisStore
from bot.adapters.redis.shards import shard_of
from bot.errors import Conflict, LeaseLost, Transient
from bot.ports.store import Outline
from bot.rollout.model import Phase, Rollout
from tests.fixtures.redis import RedisServer, running_redis, token_of
from tests.fixtures.redis_fleet import Servers, cluster, master_of
from tests.fixtures.requirements import needs_binary
from tests.fixtures.rollouts import NOW, ended, rollout

KEYS = "canary-bot:{0}:"

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
async def older(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """A version from before the log of changes, on the same store."""
    store = RedisStore(redis_server.url)
    for script in store._server._scripts.values():
        script.source = re.sub(r"^ *changes(_under)?\(.*$", "", script.source, flags=re.MULTILINE)
        script.sha = "0" * 40
    yield store
    await store.close()


async def _save(store: RedisStore, saved: Rollout, token: int, save_id: str = "") -> None:
    wake_at = None if saved.phase.final else NOW
    name = save_id or f"{saved.id}-{saved.revision}-{token}"
    await store.rollouts.save(saved, wake_at, (), (), token=token, save_id=name)


async def _anew(redis_server: RedisServer) -> tuple[Outline, ...]:
    """What a process tells that has read nothing yet."""
    fresh = RedisStore(redis_server.url)
    try:
        return await fresh.rollouts.outlines()
    finally:
        await fresh.close()


def _ids(outlines: tuple[Outline, ...]) -> list[str]:
    return [one.id for one in outlines]


def _read_records(server: RedisServer) -> int:
    """Hash fields read since the statistics were reset: each record is one."""
    told = re.search(r"cmdstat_hget:calls=(\d+)", server.say("INFO", "commandstats"))
    return int(told.group(1)) if told else 0


async def test_only_what_has_changed_is_read(store: RedisStore, redis_server: RedisServer) -> None:
    """After nothing has changed no record is read, after one has changed one."""
    for number in range(30):
        await store.rollouts.create(rollout(f"a{number:02}-1", f"a{number:02}"), NOW, (), ())
    before = await store.rollouts.outlines()
    assert len(before) == 30
    redis_server.say("CONFIG", "RESETSTAT")
    assert await store.rollouts.outlines() == before
    assert _read_records(redis_server) == 0
    token = await token_of(store)
    await _save(store, rollout("a07-1", "a07", phase=Phase.HOLDING, revision=4), token)
    redis_server.say("CONFIG", "RESETSTAT")
    after = await store.rollouts.outlines()
    assert _read_records(redis_server) == 1
    assert [one.id for one, was in zip(after, before, strict=True) if one != was] == ["a07-1"]
    assert after[7].phase is Phase.HOLDING


async def test_what_others_create_save_and_end_is_seen(store: RedisStore, redis_server: RedisServer) -> None:
    """A process is told at once what another did."""
    other = RedisStore(redis_server.url)
    assert await store.rollouts.outlines() == ()
    await other.rollouts.create(rollout("a-1", "a"), NOW, (), ())
    await other.rollouts.create(rollout("b-1", "b"), NOW, (), ())
    assert _ids(await store.rollouts.outlines()) == ["a-1", "b-1"]
    await _save(other, ended("a-1", "a"), await token_of(other))
    assert await store.rollouts.outlines() == (Outline.of(rollout("b-1", "b")),)
    await other.close()


async def test_more_changes_than_are_read_at_once(store: RedisStore, redis_server: RedisServer) -> None:
    """Hundreds of changes since the last reading are all taken in."""
    await store.rollouts.create(rollout("a-1", "a"), NOW, (), ())
    await store.rollouts.outlines()
    other = RedisStore(redis_server.url)
    token = await token_of(other)
    for number in range(450):
        await other.rollouts.create(rollout(f"b{number}-1", f"b{number}"), NOW, (), ())
    for number in range(0, 450, 2):
        await _save(other, ended(f"b{number}-1", f"b{number}"), token)
    found = await store.rollouts.outlines()
    assert _ids(found) == sorted(["a-1", *(f"b{number}-1" for number in range(1, 450, 2))])
    await other.close()


async def test_a_store_that_was_emptied(store: RedisStore, redis_server: RedisServer) -> None:
    """Nothing of before is told, whatever has been written since."""
    token = await token_of(store)
    for name in "abc":
        await store.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
    assert len(await store.rollouts.outlines()) == 3
    redis_server.wipe()
    assert await store.rollouts.outlines() == ()
    for name in "cde":
        await store.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
    assert await token_of(store) > token
    assert _ids(await store.rollouts.outlines()) == ["c-1", "d-1", "e-1"]


@pytest.mark.parametrize("words", [("DEL", "changes"), ("XTRIM", "changes", "MAXLEN", "1")])
async def test_a_log_that_was_cut(store: RedisStore, redis_server: RedisServer, words: tuple[str, ...]) -> None:
    """A process that was silent for longer than the log reaches back reads everything."""
    token = await token_of(store)
    for name in "abc":
        await store.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
    assert len(await store.rollouts.outlines()) == 3
    other = RedisStore(redis_server.url)
    await _save(other, ended("a-1", "a"), token)
    await other.rollouts.create(rollout("d-1", "d"), NOW, (), ())
    command, key, *rest = words
    redis_server.say(command, KEYS + key, *rest)
    assert _ids(await store.rollouts.outlines()) == ["b-1", "c-1", "d-1"]
    await other.close()


async def test_a_restart_that_lost_the_last_second(redis_binary: str) -> None:
    """What was seen and then lost is told no longer, also when the store has gone on since."""
    with running_redis(redis_binary) as server:
        store = RedisStore(server.url)
        token = await token_of(store)
        for name in "ab":
            await store.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
        folder = server.say("CONFIG", "GET", "dir").split("\r\n")[-2]
        assert server.say("SAVE") == "+OK\r\n"
        await _save(store, ended("a-1", "a"), token)
        await _save(store, rollout("b-1", "b", phase=Phase.HOLDING), token)
        await store.rollouts.create(rollout("c-1", "c"), NOW, (), ())
        assert [(one.id, one.phase) for one in await store.rollouts.outlines()] == [
            ("b-1", Phase.HOLDING),
            ("c-1", Phase.PROGRESSING),
        ]
        server.part.send_signal(signal.SIGKILL)
        server.part.stop()
        with running_redis(redis_binary, "--dir", folder, port=server.port) as back:
            other = RedisStore(back.url)
            back.say("DEL", f"{KEYS}lease")
            await token_of(other, "two")
            for name in "defg":
                await other.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
            with suppress(Transient):
                await store.rollouts.ping()
            found = await store.rollouts.outlines()
            assert _ids(found) == ["a-1", "b-1", "d-1", "e-1", "f-1", "g-1"]
            assert {one.phase for one in found} == {Phase.PROGRESSING}
            await other.close()
        await store.close()


async def test_an_older_version_writes_meanwhile(
    store: RedisStore, older: RedisStore, redis_server: RedisServer
) -> None:
    """In a rolling update what the other version saves, ends and creates is told, while it holds and after."""
    token = await token_of(store)
    for name in "abc":
        await store.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
    assert len(await store.rollouts.outlines()) == 3
    await older.rollouts.create(rollout("d-1", "d"), NOW, (), ())
    assert _ids(await store.rollouts.outlines()) == ["a-1", "b-1", "c-1", "d-1"]
    lease = await store.leases.acquire("one", 30.0)
    assert lease is not None
    await store.leases.release("one", lease)
    theirs = await older.leases.acquire("two", 30.0)
    assert theirs is not None
    assert theirs.token > token
    await _save(older, rollout("a-1", "a", phase=Phase.HOLDING), theirs.token)
    assert (await store.rollouts.outlines())[0].phase is Phase.HOLDING
    await _save(older, rollout("b-1", "b", phase=Phase.HOLDING), theirs.token)
    await _save(older, ended("c-1", "c"), theirs.token)
    await older.rollouts.create(rollout("e-1", "e"), NOW, (), ())
    await older.leases.release("two", theirs)
    await token_of(store)
    found = await store.rollouts.outlines()
    assert _ids(found) == ["a-1", "b-1", "d-1", "e-1"]
    assert [one.phase for one in found[:2]] == [Phase.HOLDING, Phase.HOLDING]
    assert found == await _anew(redis_server)


async def test_an_older_version_held_while_nobody_read(
    store: RedisStore, older: RedisStore, redis_server: RedisServer
) -> None:
    """What it saved between two leases of this version is told by who has read before the first and after the last."""
    token = await token_of(store)
    await store.rollouts.create(rollout("a-1", "a"), NOW, (), ())
    await store.rollouts.outlines()
    redis_server.say("DEL", f"{KEYS}lease")
    theirs = await token_of(older, "two")
    await _save(older, rollout("a-1", "a", phase=Phase.HOLDING), theirs)
    redis_server.say("DEL", f"{KEYS}lease")
    assert await token_of(store) > theirs > token
    (found,) = await store.rollouts.outlines()
    assert found.phase is Phase.HOLDING


async def test_records_set_aside_and_taken_back(
    store: RedisStore, older: RedisStore, redis_server: RedisServer
) -> None:
    """One that another process cannot read comes back to one that can, and is never told twice; one that nobody can
    read is told with the reason."""
    for name in "abc":
        await store.rollouts.create(rollout(f"{name}-1", name), NOW, (), ())
    assert len(await store.rollouts.outlines()) == 3
    for other in (store, older):
        await other.of(0).link.run("quarantine", "in", "b-1")
        assert sorted(_ids(await store.rollouts.outlines())) == ["a-1", "b-1", "c-1"]
        assert _ids(await store.rollouts.outlines()) == ["a-1", "b-1", "c-1"]
        assert await store.rollouts.quarantined() == ()
    await store.rollouts.create(rollout("d-1", "d"), NOW, (), ())
    redis_server.say("HSET", f"{KEYS}rollout:d-1", "record", "{not json")
    for _ in range(2):
        assert _ids(await store.rollouts.outlines()) == ["a-1", "b-1", "c-1"]
        assert [name for name, _ in await store.rollouts.quarantined()] == ["d-1"]
        assert [name for name, _ in (await store.rollouts.active()).quarantined] == ["d-1"]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_it_is_what_a_first_reading_tells(
    store: RedisStore, older: RedisStore, redis_server: RedisServer, seed: int
) -> None:
    """Creations, saves, ends, leases of both versions, records set aside, cut logs and emptied stores, in any order:
    who has read before tells the same as who reads for the first time."""
    draw = random.Random(seed)
    names = "abcdef"
    made: dict[str, Rollout] = {}
    tokens = {"one": 0, "two": 0}
    number = 0

    async def create(by: RedisStore) -> None:
        nonlocal number
        number += 1
        name = draw.choice(names)
        new = rollout(f"{name}-{number}", name)
        with suppress(Conflict):
            await by.rollouts.create(new, NOW, (), ())
            made[name] = new

    async def save(by: RedisStore, *, final: bool) -> None:
        nonlocal number
        number += 1
        if not made:
            return
        name = draw.choice(sorted(made))
        now = made[name].with_(revision=made[name].revision + 1, phase=draw.choice((Phase.HOLDING, Phase.PROGRESSING)))
        if final:
            now = ended(now.id, name, revision=now.revision)
        with suppress(Conflict, LeaseLost):
            await _save(by, now, tokens["two" if by is older else "one"], f"s{number}")
            made[name] = now
            if final:
                del made[name]

    async def take(by: RedisStore) -> None:
        owner = "two" if by is older else "one"
        redis_server.say("DEL", f"{KEYS}lease")
        tokens[owner] = await token_of(by, owner)

    async def aside(by: RedisStore) -> None:
        if made:
            name = made[draw.choice(sorted(made))].id
            await by.of(0).link.run("quarantine", draw.choice(("in", "out")), name)

    async def cut(_: RedisStore) -> None:
        redis_server.say("XTRIM", f"{KEYS}changes", "MAXLEN", str(draw.randrange(3)))

    async def wipe(_: RedisStore) -> None:
        redis_server.wipe()
        made.clear()

    steps: list[tuple[int, Callable[[RedisStore], Awaitable[None]]]] = [
        (6, create),
        (8, lambda by: save(by, final=False)),
        (4, lambda by: save(by, final=True)),
        (3, take),
        (2, aside),
        (1, cut),
        (1, wipe),
    ]
    happened = 0
    for _ in range(200):
        (step,) = draw.choices([step for _, step in steps], [often for often, _ in steps])
        await step(older if draw.random() < 0.3 else store)
        if draw.random() < 0.3:
            known = await store.rollouts.outlines()
            happened += bool(known)
            assert sorted(known, key=lambda one: one.id) == sorted(await _anew(redis_server), key=lambda one: one.id), (
                f"seed {seed}"
            )
    assert happened > 10


@pytest.fixture
def six_nodes() -> Iterator[Servers]:
    needs_binary("redis-cli")
    made = cluster()
    yield made
    made.stop()


async def test_a_masters_death_in_a_cluster(six_nodes: Servers) -> None:
    """After a replica has taken over a shard, its rollouts are told as the replica has them, the other shards' too."""
    store, other = RedisStore(six_nodes.url, shards=4), RedisStore(six_nodes.url, shards=4)
    await store.claim()
    for number in range(12):
        await store.rollouts.create(rollout(f"svc{number}-1", f"svc{number}"), NOW, (), ())
    before = await store.rollouts.outlines()
    assert len(before) == 12
    key = f"canary-bot:{{{shard_of(rollout('svc3-1', 'svc3').target.route.key, 4)}}}:active"
    master_of(six_nodes, key).kill()
    found: tuple[Outline, ...] = ()
    for _ in range(200):
        with suppress(Transient):
            await other.rollouts.create(rollout("new-1", "svc3b"), NOW, (), ())
            found = await store.rollouts.outlines()
            break
    assert found
    fresh = RedisStore(six_nodes.url, shards=4)
    assert set(found) == set(await fresh.rollouts.outlines())
    assert "new-1" in _ids(found)
    for one in (store, other, fresh):
        await one.close()
