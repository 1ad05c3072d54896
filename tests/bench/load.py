"""What many rollouts cost: 1 to 10,000 of them, checked every 15 s by one bot.

The bot is a process of its own beside a real Redis, the sandbox's API server and Slack stand-in, and a metrics server
that answers from a formula; processor time and memory are the bot's alone. Everything is under way when the bot starts.
`ROLLOUTS=100,1000` chooses the sizes, `HOLDERS=2 SHARDS=8` how many bots share them (processor time and memory are then
those of the busiest and the largest), `PROFILE=folder` runs the bots under cProfile, which makes them much slower.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from bot.sandbox.process import Part, free_port
from bot.sandbox.redis import start_redis
from bot.sandbox.world import Options, new_world
from tests.bench.fleet import catalog, names, settle
from tests.bench.picture_load import draw
from tests.bench.rig import Rig
from tests.bench.table import Table, percentile

SIZES = (1, 100, 1000, 10_000)
QUICK_SIZES = (1, 100)
FIRST_WITHIN_S = 120.0
PER_S = 100
TURNED_BAD = 100
STARTED_WITHIN_S = 300.0
AS_THE_IMAGE = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}
REQUIRED = {
    "lateness_p99_s": 0.25,
    "verdict_to_zero_p99_s": 0.25,
    "queries_per_rollout_minute": 0.1,
    "cpu_fraction": 0.8,
    "rss_mib": 300.0,
    "start_s": 10.0,
}
"""Of the largest size."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: between looks and scrapes, before the window, the window itself, for the bad ones, and of the burst."""

    every_s: int = 15
    settle_s: float = 120.0
    window_s: float = 60.0
    bad_within_s: float = 60.0
    burst_s: float = 30.0


SHORT = Times(every_s=4, settle_s=0.0, window_s=6.0, bad_within_s=12.0, burst_s=2.0)


async def load(quick: bool) -> Table:
    """One row for each number of rollouts."""
    told = os.environ.get("ROLLOUTS", "")
    sizes = tuple(int(size) for size in told.split(",")) if told else QUICK_SIZES if quick else SIZES
    times = SHORT if quick else Times()
    table = Table(f"Rollouts under way, each checked every {times.every_s} s")
    for size in sizes:
        table.rows.append(await measured(size, times))
    if max(sizes) == SIZES[-1]:
        last = table.rows[-1]
        table.failures += [
            f"{last['rollouts']} rollouts: {name} {last[name]:.2f}, required below {most:g}"
            for name, most in REQUIRED.items()
            if not last[name] < most
        ]
    if not told and not quick:
        draw(table.rows)
    return table


async def measured(size: int, times: Times) -> dict[str, Any]:
    """The row of one size."""
    async with _running(size, times) as (fleet, start_s, looked_s):
        made, answers = fleet.rig, fleet.answers
        await asyncio.sleep(times.settle_s)
        before = await _counted(fleet)
        began = time.monotonic()
        await asyncio.sleep(times.window_s)
        after = await _counted(fleet)
        window_s = time.monotonic() - began
        rss_mib = max(one.rss_mib() for one in fleet.each)
        minutes = size * window_s / 60
        late = _between(before["late"], after["late"])
        to_zero = await _to_zero(made, answers, times.bad_within_s)
        acks = await _burst(made, times.burst_s)
        return {
            "rollouts": size,
            "lateness_p50_s": _quantile(late, 0.5),
            "lateness_p99_s": _quantile(late, 0.99),
            "verdict_to_zero_p99_s": percentile(to_zero, 99),
            "queries_per_rollout_minute": (after["queries"] - before["queries"]) / minutes,
            "api_calls_per_rollout_minute": (after["kube"] - before["kube"]) / minutes,
            "cpu_fraction": max(now - was for was, now in zip(before["cpu_s"], after["cpu_s"], strict=True)) / window_s,
            "rss_mib": rss_mib,
            "rss_burst_mib": max(one.rss_mib() for one in fleet.each),
            "start_s": start_s,
            "ack_p99_s": percentile(acks, 99),
            "looked_s": looked_s,
            "looks_per_rollout_minute": max(late.values(), default=0.0) / minutes,
            "holders": len(fleet.bots),
        }


@dataclass(slots=True)
class Fleet:
    """The bots of a measurement, where the metrics are, and the first bot's world."""

    rig: Rig
    answers: str
    bots: list[Part]
    urls: list[str]

    @property
    def each(self) -> list[Rig]:
        """Each bot by itself, for what its process uses."""
        return [replace(self.rig, bot=bot) for bot in self.bots]

    async def gauge(self, name: str) -> float:
        """The sum of a gauge over all bots; 0.0 for those that do not answer yet."""
        found = 0.0
        for url in self.urls:
            with suppress(aiohttp.ClientError):
                found += await self.rig.counter(f"{url}/metrics", f"canary_bot_{name} ")
        return found


@asynccontextmanager
async def _running(size: int, times: Times) -> AsyncIterator[tuple[Fleet, float, float]]:
    """Bots that have looked at each rollout once, and the seconds from their start until all rollouts were taken up
    (in memory, the next look of each set) and until each was looked at."""
    redis = await asyncio.to_thread(start_redis)
    answers = Part("answers", [sys.executable, "-m", "tests.bench.answers", str(times.every_s)])
    world = new_world(Options(redis=redis.url, slack_mode="socket", with_page=False))
    services = names(size)
    holders, shards = int(os.environ.get("HOLDERS", "1")), int(os.environ.get("SHARDS", "1"))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60.0)) as client:
        fleet = Fleet(Rig(world, client, services), "", [], [])
        try:
            await asyncio.to_thread(answers.wait_ready, 20.0)
            fleet.answers = answers.url
            world.options = Options(redis=redis.url, prometheus=answers.url, slack_mode="socket", with_page=False)
            (world.folder / "catalog.yaml").write_text(catalog(times.every_s))
            world.parts["kube"] = await Part.start("kube", "--token", world.kube_token, ready_within_s=30)
            world.parts["slack"] = await Part.start("slack", "--rate-limits", "off", ready_within_s=30)
            await settle(world.url("kube"), redis.url, services, times.every_s, shards)
            began = time.monotonic()
            for number in range(holders):
                _start(fleet, size, number, shards)
            start_s = await _until(lambda: fleet.gauge("active_rollouts"), size, began)
            looked_s = await _until(lambda: _looked_at(fleet), size, began)
            yield fleet, start_s, looked_s
        finally:
            for bot in fleet.bots[1:]:
                await bot.stop_async(12.0)
            await world.stop()
            await answers.stop_async()
            await asyncio.to_thread(redis.stop)


async def _looked_at(fleet: Fleet) -> float:
    return float((await fleet.rig.get(f"{fleet.answers}/stats"))["services"])


async def _until(figure: Callable[[], Awaitable[float]], size: int, began: float) -> float:
    while (found := await figure()) < size:
        if time.monotonic() - began > STARTED_WITHIN_S:
            raise RuntimeError(f"only {found:.0f} of {size} rollouts were taken up in {STARTED_WITHIN_S:.0f} s")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


def _start(fleet: Fleet, size: int, number: int, shards: int) -> None:
    folder = os.environ.get("PROFILE", "")
    profiler = ["-m", "cProfile", "-o", str(Path(folder) / f"load-{size}-{number}.prof")] if folder else []
    world = fleet.rig.world
    world.bot_port = free_port()
    bot = Part(
        f"canary-bot-{number}",
        [sys.executable, *profiler, "-m", "bot.cli", "run"],
        env=world.bot_environment() | AS_THE_IMAGE | {"CANARY_BOT_SHARDS": str(shards)},
        log_path=Path(folder) / f"load-{size}-{number}.log" if folder else None,
        on_stderr=world._bot_line,
    )
    fleet.bots.append(bot)
    fleet.urls.append(world.bot_url)
    world.bot = fleet.bots[0]


async def _counted(fleet: Fleet) -> dict[str, Any]:
    made = fleet.rig
    stats = await made.get(f"{fleet.answers}/stats")
    requests = await made.get(f"{made.world.url('kube')}/_sandbox/requests")
    late: dict[float, float] = {}
    for url in fleet.urls:
        one = _histogram(await made.text(f"{url}/metrics"), "canary_bot_wake_late_seconds_bucket")
        late = {bound: count + late.get(bound, 0.0) for bound, count in one.items()}
    return {
        "queries": stats["queries"],
        "kube": sum(one["count"] for one in requests),
        "cpu_s": [one.cpu_s() for one in fleet.each],
        "late": late,
    }


def _histogram(exposition: str, name: str) -> dict[float, float]:
    found = {}
    for line in exposition.splitlines():
        if line.startswith(f'{name}{{le="'):
            found[float(line.partition('le="')[2].partition('"')[0])] = float(line.rpartition(" ")[2])
    return found


def _between(before: dict[float, float], after: dict[float, float]) -> dict[float, float]:
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def _quantile(histogram: dict[float, float], fraction: float) -> float:
    """Interpolated inside its bucket; buckets are half as wide again as the one before."""
    rank, lower, below = fraction * max(histogram.values(), default=0.0), 0.0, 0.0
    for bound, count in sorted(histogram.items()):
        if count >= rank and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return 0.0


async def _to_zero(made: Rig, answers: str, within_s: float) -> list[float]:
    """Make some canaries bad; seconds from each one's deciding verdict to weight 0 on the API server."""
    some = made.names[:: max(1, len(made.names) // TURNED_BAD)][:TURNED_BAD]
    version = max((int(one["resource_version"]) for one in await _changes(made, 0)), default=0)
    seen = len(made.world.bot_lines)
    async with made.session.put(f"{answers}/bad", json=some) as said:
        assert said.status == 200
    deadline = time.monotonic() + within_s
    while True:
        await asyncio.sleep(0.5)
        zeros = {
            one["name"]: _epoch(one["time"]) for one in reversed(await _changes(made, version)) if _shows_zero(one)
        }
        if len(zeros) == len(some) or (zeros and time.monotonic() > deadline):
            break
        if time.monotonic() > deadline + FIRST_WITHIN_S:
            raise RuntimeError("no bad canary was rolled back")
    verdicts = {
        line["rollout"].removesuffix("-b0b0"): line["at"]
        for line in made.world.bot_lines[seen:]
        if line.get("event") == "phase" and line.get("after") == "RollingBack"
    }
    missing = len(some) - len(zeros)
    if missing:
        print(f"{missing} of {len(some)} bad canaries were not rolled back in time", file=sys.stderr)
    return [zeros[name] - verdicts[name] for name in zeros if name in verdicts]


async def _changes(made: Rig, since: int) -> list[dict[str, Any]]:
    url = f"{made.world.url('kube')}/_sandbox/history?resource=virtualservices&since={since}"
    told: list[dict[str, Any]] = await made.get(url)
    return told


def _shows_zero(change: dict[str, Any]) -> bool:
    return any(one["path"].endswith("/route/1/weight") and one["after"] == 0 for one in change.get("diff", ()))


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def _burst(made: Rig, seconds: float) -> list[float]:
    """100 commands a second; seconds until each acknowledgement."""
    typed: list[asyncio.Task[dict[str, Any]]] = []
    began = time.monotonic()
    for number in range(int(seconds * PER_S)):
        await asyncio.sleep(max(0.0, began + number / PER_S - time.monotonic()))
        typed.append(asyncio.create_task(made.command(*_command(made.names, number))))
    return [float(one["ack_ms"]) / 1000 for one in await asyncio.gather(*typed)]


def _command(services: Sequence[str], number: int) -> tuple[str, str]:
    name = services[number * 37 % len(services)]
    kinds = (f"status {name}", "help", f"hold {name} bench {number}", f"history {name}", "version")
    return ("U0ADA", "U0GRACE")[number % 2], f"/canary {kinds[number % len(kinds)]}"
