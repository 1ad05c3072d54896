"""A real kill of the real bot in the middle of a bake, and a clean stop: what is lost (nothing) and what is doubled."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.e2e.town import PATIENCE_S, Run, Town, mark_of

CATALOG = """
defaults: {namespace: shop, channel: "#payments", check_every: 1s, arrival: 4s}
gates:
  error-rate: {max: 1%, min_requests: 20}
  p99: {max: 2s, min_requests: 20}
services:
  payments: {route: {name: payments, http: primary}}
  checkout: {channel: "#checkout"}
"""
BAKE_S = 15.0


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A world of its own: its bot is killed."""
    catalog: Path = tmp_path_factory.mktemp("kill") / "catalog.yaml"
    catalog.write_text(CATALOG)
    town = opened(Options(catalog=str(catalog), rate=60.0, with_page=False))
    yield town
    town.close()


def test_a_kill_in_mid_bake_loses_and_doubles_nothing(town: Town) -> None:
    """After kill -9 and a start the bake goes on where it was, each weight is written once, the card is the same."""
    town.play(_killed_in_mid_bake(town))


async def _killed_in_mid_bake(town: Town) -> None:
    run = await town.start("payments", f"v2 steps 50%:{BAKE_S:.0f}s,100%:1s", channel="#payments")
    await run.reaches(50)
    raised_at = time.time()
    await run.says("All gates pass at 50%")
    card = await run.card()
    # What was posted in the very moment of the kill may be posted again: its letter is not yet taken away.
    await asyncio.sleep(max(1.5, raised_at + 6.0 - time.time()))
    await town.world.kill_bot(signal.SIGKILL)
    edits_before = (await run.card())["edit_count"]
    await asyncio.sleep(3.0)
    seen = len(town.world.bot_lines)
    await town.world.start_bot()
    await run.reaches(100)
    first, full = await _raises(run)
    gained = next(line for line in town.world.bot_lines[seen:] if line["event"] == "lease-gained")
    # Shortened: less than the bake after the raise. Begun again: not over before a whole bake by who took over.
    assert full["at"] - first["at"] >= BAKE_S, await run.story()
    assert full["at"] - datetime.fromisoformat(gained["timestamp"]).timestamp() < BAKE_S, await run.story()
    await run.ended("Promoted")
    await run.says("Promoted: payments")

    async def told() -> bool:
        return any("✅ Promoted" in text for text in await run.thread())

    await run.eventually(told)
    assert await run.weights() == [50, 100], await run.story()
    await _one_card(run, card["ts"], edits_before)
    texts = await run.thread()
    for words in ("Started by", "is at 50%", "All gates pass at 50%", "is at 100%", "✅ Promoted"):
        assert sum(words in text for text in texts) == 1, (words, texts)


async def _raises(run: Run) -> list[dict]:
    """The first write of each weight, in order."""
    found: dict[int, dict] = {}
    for write in await run.writes():
        found.setdefault(write["mark"]["weight"], write)
    return list(found.values())


async def _one_card(run: Run, ts: str, edits_before: int) -> None:
    top = [one for one in await run.messages() if not one["thread_ts"]]
    assert [one["ts"] for one in top] == [ts]
    assert top[0]["edit_count"] > edits_before
    assert "Promoted" in top[0]["text"]


def test_a_clean_stop_gives_the_lease_back(town: Town) -> None:
    """SIGTERM ends the bot with status 0, and the next one has the lease and the rollout at once."""
    town.play(_stopped_cleanly(town))


async def _stopped_cleanly(town: Town) -> None:
    run = await town.start("checkout", "v2 steps 50%:5m,100%:5m", channel="#checkout")
    await run.reaches(50)
    await run.says("is at 50%")
    world = town.world
    assert world.bot is not None
    await world.kill_bot(signal.SIGTERM)
    assert world.bot.returncode == 0, world.bot.stderr_tail
    stopped = [line["event"] for line in world.bot_lines[-3:]]
    assert stopped[-1] == "stopped", stopped
    assert await _lease(town) == b":0"
    seen = len(world.bot_lines)
    await world.start_bot()

    async def taken_over() -> bool:
        return any(line["event"] == "wake" and line["rollout"] == run.id for line in world.bot_lines[seen:])

    await run.eventually(taken_over, PATIENCE_S)
    gained = [line for line in world.bot_lines[seen:] if line["event"] in ("started", "lease-gained")]
    assert {line["event"] for line in gained} == {"started", "lease-gained"}
    assert mark_of(await town.route("checkout"))["weight"] == 50
    await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


async def _lease(town: Town) -> bytes:
    """What Redis answers when asked whether anybody holds the lease."""
    host, port = town.world.redis_url.removeprefix("redis://").split("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"EXISTS canary-bot:{0}:lease\r\n")
    await writer.drain()
    answer = (await reader.readline()).rstrip()
    writer.close()
    await writer.wait_closed()
    return answer
