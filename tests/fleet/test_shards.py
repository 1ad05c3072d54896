"""Shards over two processes, and what Redis runs on: a Cluster and Sentinels whose master is killed in mid-rollout.

Every story has the town's API server, Envoy, Prometheus and Slack, and a Redis of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.adapters.redis import RedisStore
from bot.adapters.redis.shards import shard_of
from bot.rollout.model import Phase
from bot.sandbox.process import free_port
from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.e2e.town import Run, Town, mark_of
from tests.fixtures.redis_fleet import Servers, cluster, master_of, sentinels
from tests.fixtures.requirements import needs_binary
from tests.fleet.conftest import CATALOG
from tests.fleet.replicas import PATIENCE_S, Fleet, Replica

SHARDS = 4


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Everything but the bot."""
    needs_binary("redis-cli")
    catalog: Path = tmp_path_factory.mktemp("shards") / "catalog.yaml"
    catalog.write_text(CATALOG)
    town = opened(Options(catalog=str(catalog), rate=60.0, with_page=False, slack_mode="http"), bot=False)
    yield town
    town.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Future[Servers]]]:
    """The Cluster and the Sentinels, which get ready while the town does and the first story is played."""
    with ThreadPoolExecutor(1) as beside:
        made = {make.__name__: beside.submit(make) for make in (cluster, sentinels)}
        yield made
        for one in made.values():
            one.result().stop()


class Sharded(Fleet):
    """Two replicas on one Redis: `doored` is where Slack sends to."""

    def __init__(self, town: Town, redis_url: str, shards: int) -> None:
        super().__init__(town)
        settings = {"CANARY_BOT_REDIS_URL": redis_url, "CANARY_BOT_SHARDS": str(shards)}
        self.other = Replica("other", free_port(), settings)
        self.doored = Replica("doored", town.world.bot_port, settings)
        self.store = RedisStore(redis_url, shards=shards)

    async def holders(self) -> list[str]:
        """The name of each shard's holder, "" for nobody."""
        owners = [await self.store.of(number).leases.holder() for number in range(self.store.shards)]
        names = {f"-{one.pid}-": one.name for one in (self.other, self.doored) if hasattr(one, "part")}
        return [next((name for mark, name in names.items() if mark in owner), owner) for owner in owners]

    async def until_held(self, *counts: int) -> float:
        """Wait until `other` and `doored` hold so many shards each; seconds that took."""
        began = time.monotonic()

        async def so() -> bool:
            held = await self.holders()
            return tuple(held.count(name) for name in ("other", "doored")) == counts

        await self.eventually(so)
        return time.monotonic() - began

    async def refused(self, shards: int) -> str:
        """What a process says that is set to another number, and ends with status 1."""
        world = self.town.world
        settings = world.bot_environment() | self.other.settings | {"CANARY_BOT_SHARDS": str(shards)}
        settings["CANARY_BOT_HTTP_PORT"] = "0"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "run"),
            env={**os.environ, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 1
        return said.decode()

    async def close(self) -> None:
        for replica in (self.other, self.doored):
            if hasattr(replica, "part") and replica.part.returncode is None:
                await replica.part.stop_async(10.0)
        await self.store.close()


@asynccontextmanager
async def fleet(town: Town, redis_url: str, shards: int) -> AsyncIterator[Sharded]:
    made = Sharded(town, redis_url, shards)
    try:
        yield made
        await made.told()
    finally:
        await made.close()


def test_two_processes_share_the_shards_and_one_takes_over_the_others(
    servers: dict[str, Future[Servers]], town: Town
) -> None:
    """The second gets its half by clean hand-overs, every command works for every shard from either, and after kill -9
    the survivor has all: no weight changes, nothing is said twice."""
    assert servers
    town.play(_shared(town))


async def _shared(town: Town) -> None:
    async with fleet(town, f"{town.world.redis_url}", SHARDS) as made:
        await made.start(made.other)
        await made.until_held(SHARDS, 0)
        payments, checkout = await _two_at_ten(made)
        shards = {
            one.id: shard_of((await made.rollout(one.id)).target.route.key, SHARDS) for one in (payments, checkout)
        }
        assert len(set(shards.values())) == 2, "both rollouts are in one shard: the story shows less than it says"
        held = await made.holders()
        waits = [await _heard(made, run.id, verb) for run in (payments, checkout) for verb in ("hold", "resume") * 4]
        made.figures["sharded_request_to_holder_max_ms"] = round(max(waits), 1)
        table = await town.say("status")
        assert payments.id in table
        assert checkout.id in table
        assert "in use with 4 shards" in await made.refused(2)
        made.other.part.send_signal(signal.SIGKILL)
        began = time.monotonic()
        await made.until_held(0, SHARDS)
        made.figures["shards_moved_after_kill_s"] = round(time.monotonic() - began, 2)
        assert "other" in held
        await made.other.part.stop_async(1.0)
        for run in (payments, checkout):
            assert "olling back" in await town.say(f"rollback {run.id}")
        for run in (payments, checkout):
            await run.ended("RolledBack")
            assert await run.weights() == [10, 0]
            told = await run.thread()
            assert sum("is at 10%" in text for text in told) == 1, told
        past = await town.say("history")
        assert payments.id in past
        assert checkout.id in past


async def _two_at_ten(made: Sharded) -> tuple[Run, Run]:
    """The second replica joins and gets its half, and two rollouts are at their first step."""
    await made.start(made.doored)
    made.figures["shards_shared_after_join_s"] = round(await made.until_held(SHARDS // 2, SHARDS // 2), 2)
    words = "v2 steps 10%:10m,100%:10m"
    runs = [await made.town.start(name, words, channel=f"#{name}") for name in ("payments", "checkout")]
    for run in runs:
        await run.reaches(10)
        await run.says("is at 10%")
    return runs[0], runs[1]


async def _heard(made: Sharded, rollout_id: str, verb: str) -> float:
    """Milliseconds from putting a request to its decision by the holder."""
    request = await made.ask(verb, rollout_id)

    async def heard() -> bool:
        return request.id in (await made.rollout(rollout_id)).heard

    await made.eventually(heard, every_s=0.005)
    return 1000 * ((await made.rollout(rollout_id)).history[-1].at - request.at)


def test_a_rollout_goes_on_over_a_killed_master_of_a_cluster(servers: dict[str, Future[Servers]], town: Town) -> None:
    """kill -9 of the master that has the rollout's shard, while its first step bakes: the replica takes over, each
    weight is written once, each step said once, and it ends as it should."""
    town.play(_over_cluster(town, servers["cluster"].result()))


async def _over_cluster(town: Town, servers: Servers) -> None:
    async with fleet(town, servers.url, SHARDS) as made:
        await made.start(made.doored)
        await made.until_held(0, SHARDS)
        run = await town.start("payments", "v2 steps 10%:6s,100%:3s", channel="#payments")
        await run.reaches(10)
        await run.says("is at 10%")
        number = shard_of((await made.rollout(run.id)).target.route.key, SHARDS)
        await asyncio.to_thread(master_of(servers, f"canary-bot:{{{number}}}:").kill)
        began = time.monotonic()

        async def saved() -> bool:
            try:
                return (await made.rollout(run.id)).weight_percent == 100
            except Exception:
                return False

        await made.eventually(saved, within_s=40.0, every_s=0.2)
        made.figures["cluster_failover_to_next_step_s"] = round(time.monotonic() - began, 2)
        await _promoted_once(run)


def test_a_rollout_goes_on_over_a_fail_over_that_lost_its_last_step(
    servers: dict[str, Future[Servers]], town: Town
) -> None:
    """The replica has not heard of the last raise when the master dies, and the bot with it: the next one finds the
    older record, believes the mark on the route, and goes on from there. No weight is written twice."""
    town.play(_over_sentinels(town, servers["sentinels"].result()))


async def _over_sentinels(town: Town, servers: Servers) -> None:
    master, replica = servers.nodes[:2]
    async with fleet(town, servers.url, 1) as made:
        await made.start(made.doored)
        await made.until_held(0, 1)
        run = await town.start("checkout", "v2 steps 10%:4s,100%:3s", channel="#checkout")
        await run.reaches(10)
        await run.says("is at 10%")
        await asyncio.to_thread(replica.say, "REPLICAOF", "NO", "ONE")
        await run.reaches(100)
        await made.eventually(lambda: _saved(made, run, 100))
        made.doored.part.send_signal(signal.SIGKILL)
        await asyncio.to_thread(master.kill)
        await made.doored.part.stop_async(1.0)
        before = mark_of(await town.route("checkout"))["revision"]
        await made.eventually(lambda: _lost_step(made, run))
        await made.start(made.doored)
        await made.eventually(lambda: _believed(made, run, before))
        await _promoted_once(run)


async def _saved(made: Sharded, run: Run, weight: int) -> bool:
    return (await made.rollout(run.id)).weight_percent == weight


async def _lost_step(made: Sharded, run: Run) -> bool:
    """The new master answers, and knows nothing of the raise."""
    try:
        record = await made.rollout(run.id)
    except Exception:
        return False
    assert record.weight_percent == 10
    return True


async def _believed(made: Sharded, run: Run, revision: int) -> bool:
    record = await made.rollout(run.id)
    return record.weight_percent == 100 and record.revision > revision


async def _promoted_once(run: Run) -> None:
    await run.ended(Phase.PROMOTED.value)
    assert await run.weights() == [10, 100]
    told = await run.thread()
    assert sum("is at 10%" in text for text in told) == 1, told
    assert sum("is at 100%" in text for text in told) <= 2, told
