"""The machine or the release, and weights that do not arrive: the sandbox's faults through the real bot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.e2e.town import Town, another, spelled

CATALOG = Path(__file__).with_name("machine.yaml")
CANARY_NODES = {"starved": "node-2", "sluggish": "node-3", "late": "node-3"}
RATE = 60.0


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A world with one service for each story; only `starved` has its canary on node-2."""
    seed = tmp_path_factory.mktemp("seed") / "services.json"
    manifests = [one for name, node in CANARY_NODES.items() for one in another(name, node=node)]
    seed.write_text(json.dumps(manifests))
    services = ",".join(CANARY_NODES)
    made = opened(Options(catalog=str(CATALOG), rate=RATE, with_page=False, seeds=(str(seed),), services=services))
    yield made
    made.close()


async def steal_is_the_machines(town: Town) -> None:
    """p99 fails, the bot names node-2 and holds; when the steal is over the step bakes again and nothing went back."""
    run = await town.start("starved")
    await run.reaches(50)
    await run.says("50%")
    await town.clients.fault("mesh", steal={"node-2": 0.9})
    told = spelled(await run.says("Likely the machine, not the release"))
    assert "node-2 (v2) steal" in told, told
    await run.says("Holding: starved")
    await asyncio.sleep(5.0)
    assert await run.weights() == [50]
    await town.clients.fault("mesh", steal={"node-2": None})
    await run.says("begins again")
    await run.says("All gates pass")
    assert await run.weights() == [50]
    await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


async def slow_code_is_the_releases(town: Town) -> None:
    """The same gate, the same `on_machine: hold`, but the code is slow on a well node: back, and the reason says so."""
    await town.clients.fault("mesh", workloads={"sluggish-v2": {"slow_ms": 600, "slow_percent": 15}})
    run = await town.start("sluggish", channel="#payments")
    await run.ended("RolledBack")
    assert await run.weights() == [50, 0]
    told = spelled(await run.says("Rolled back: sluggish"))
    assert "Likely the release, not the machine" in told, told


def test_steal_and_slow_code_are_told_apart(town: Town) -> None:
    """Both at the same time, on different nodes."""

    async def both() -> None:
        await asyncio.gather(steal_is_the_machines(town), slow_code_is_the_releases(town))

    town.play(both())


def test_a_weight_that_does_not_arrive_holds_and_names_stale_proxies(town: Town) -> None:
    """Routes held back from the proxies: the weight is on the object and not in the traffic, and istiod shows why."""

    async def story() -> None:
        await town.clients.fault("mesh", push_delay_s=600)
        run = await town.start("late", channel="#checkout")
        await run.reaches(50)
        told = spelled(await run.says("Likely stale proxies"))
        assert "of the traffic reaches the canary instead of 50%" in told, told
        await asyncio.sleep(4.0)
        assert await run.weights() == [50]
        await town.clients.fault("mesh", push_delay_s=0)
        await run.says("The weight has arrived in the traffic")
        await run.ended("Promoted")
        assert await run.weights() == [50, 100]

    town.play(story())
