"""What it costs to read what is active from the store: everything, in outline, and what has changed since."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from bot.adapters.redis.store import RedisStore
from bot.catalog import load
from bot.rollout.model import Phase
from bot.sandbox.redis import start_redis
from tests.bench.fleet import catalog, names, rollouts_of
from tests.bench.table import Table

AT_ONCE = 50
REQUIRED_MS = 20.0
"""Of processor time, for a reading after which nothing or one thing has changed."""


async def reading(quick: bool) -> Table:
    """Milliseconds of this process' processor time and of waiting, and bytes sent by Redis, for each reading."""
    count = 1000 if quick else 10_000
    table = Table(f"Reading {count} active rollouts")
    redis = await asyncio.to_thread(start_redis)
    store = RedisStore(redis.url)
    try:
        made = rollouts_of(names(count), load(catalog(15)))
        for begin in range(0, count, AT_ONCE):
            some = made[begin : begin + AT_ONCE]
            await asyncio.gather(*(store.rollouts.create(one, time.time(), (), ()) for one in some))
        lease = await store.leases.acquire("bench", 600.0)
        assert lease is not None
        held = made[0].with_(phase=Phase.HOLDING, revision=made[0].revision + 1)

        async def save_and_read() -> None:
            await store.rollouts.save(held, time.time(), (), (), token=lease.token, save_id=str(time.time()))
            await store.rollouts.outlines()

        readings: tuple[tuple[str, Callable[[], Awaitable[Any]]], ...] = (
            ("everything", store.rollouts.active),
            ("in outline, nothing changed", store.rollouts.outlines),
            ("a save, and in outline", save_and_read),
        )
        async with Redis.from_url(redis.url) as client:
            for name, read in readings:
                table.rows.append({"reading": name, **await _cost(client, read)})
    finally:
        await store.close()
        await asyncio.to_thread(redis.stop)
    table.failures += [
        f"{row['reading']}: {row['CPU, ms']:.1f} ms, required {REQUIRED_MS:.0f} ms"
        for row in table.rows[1:]
        if row["CPU, ms"] > REQUIRED_MS
    ]
    return table


async def _cost(client: "Redis", read: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """The cheapest of five, so that neighbours on the machine count least."""
    found = []
    for _ in range(5):
        sent, cpu_s, began = await _sent(client), time.process_time(), time.monotonic()
        await read()
        cpu_s, took_s = time.process_time() - cpu_s, time.monotonic() - began
        found.append({"CPU, ms": 1000 * cpu_s, "ms": 1000 * took_s, "bytes": float(await _sent(client) - sent)})
    return min(found, key=lambda row: row["CPU, ms"])


async def _sent(client: "Redis") -> int:
    told: dict[str, Any] = await client.info("stats")
    return int(told["total_net_output_bytes"])
