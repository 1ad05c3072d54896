"""What one wake-up costs with the real adapters: processor time, and calls to Redis, API server and Prometheus."""

import asyncio

from redis.asyncio import Redis

from tests.bench.rig import Rig, rig
from tests.bench.table import Table

ROLLOUTS = 100


async def wake(quick: bool) -> Table:
    """Averages over all wake-ups of some time in which nothing but time happens."""
    window_s = 30.0 if quick else 90.0
    table = Table(f"One wake-up, {ROLLOUTS} rollouts baking, checked every 15 s, {window_s:.0f} s watched")
    async with rig("socket", ROLLOUTS) as made:
        await asyncio.sleep(15.0)
        before = await _counted(made)
        await asyncio.sleep(window_s)
        after = await _counted(made)
        spent = {name: after[name] - before[name] for name in before}
        wakes = max(1.0, spent["wakes"])
        table.rows.append(
            {
                "wake-ups": int(spent["wakes"]),
                "wall ms": 1000 * spent["wake_s"] / wakes,
                "CPU ms": 1000 * spent["cpu_s"] / wakes,
                "Redis commands": spent["redis"] / wakes,
                "API calls": spent["kube"] / wakes,
                "queries": spent["queries"] / wakes,
                "core in %": 100 * spent["cpu_s"] / window_s,
                "rss MiB": made.rss_mib(),
            }
        )
    return table


async def _counted(made: Rig) -> dict[str, float]:
    own = f"{made.world.bot_url}/metrics"
    redis = Redis.from_url(made.world.redis_url)
    try:
        commands = (await redis.info("stats"))["total_commands_processed"]
    finally:
        await redis.aclose()
    return {
        "wakes": await made.counter(own, "canary_bot_wake_seconds_count"),
        "wake_s": await made.counter(own, "canary_bot_wake_seconds_sum"),
        "cpu_s": made.cpu_s(),
        "redis": float(commands),
        "kube": await _requests(made),
        "queries": await _queries(made),
    }


async def _requests(made: Rig) -> float:
    """Calls the API server has answered."""
    told = await made.get(f"{made.world.url('kube')}/_sandbox/requests")
    return float(sum(one["count"] for one in told))


async def _queries(made: Rig) -> float:
    """Queries Prometheus has answered, by its own count; the embedded one does not count, then 0."""
    try:
        lines = (await made.text(f"{made.world.prometheus_url}/metrics")).splitlines()
    except OSError:
        return 0.0
    wanted = [line for line in lines if line.startswith("prometheus_http_requests_total{") and '/api/v1/query"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in wanted)
