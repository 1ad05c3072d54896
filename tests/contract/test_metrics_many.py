"""Looks that go on from a memory, on what both kinds of Prometheus stored; and sums of increments, on the real one."""

import asyncio
import time
from math import floor

import pytest

from bot.analysis.assessment import assess, questions
from bot.analysis.memory import MANY, SCRAPES_S, Memory, sizing
from bot.analysis.promql import selector
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sums import increments
from bot.rollout.gate import Assessment, Verdict, parse_gate
from bot.rollout.model import Rollout
from tests.contract.test_metrics import INTERVAL_S, World, baking, running, world

__all__ = ["running", "world"]

ERRORS, SLOW = parse_gate("error-rate<1%"), parse_gate("p99<250ms")


async def look(world: World, rollout: Rollout, memory: Memory) -> Assessment:
    """One look with a memory, as the engine makes it."""
    if not memory.sized:
        memory.size(rollout, await world.metrics.ask(sizing(rollout)))
    answers = await world.metrics.ask(questions(rollout, time.time(), memory))
    return assess(rollout, time.time(), answers, None, None, memory=memory)


async def test_looks_with_a_memory_count_what_one_look_at_everything_counts(world: World) -> None:
    """Births of series, a restart of the proxies and looks between scrapes: the same requests, errors and slow ones."""
    for version in ("v1", "v2"):
        world.exporter.requests(5, world.host, version)
    await world.scraped(3)
    memory, rollout = Memory(), baking(world, ERRORS, SLOW)
    await world.scraped(3)
    for turn in range(4):
        for version in ("v1", "v2"):
            world.exporter.requests(100, world.host, version, slow=1)
        if turn == 2:
            world.exporter.requests(3, world.host, "v2", response_code="500")
        await world.scraped(2)
        if turn == 1:
            world.exporter.reset(world.host)
        after = await look(world, rollout, memory)
        rollout = rollout.with_(evidence=after.evidence)
    remembered = await look(world, rollout, memory)
    anew = await world.look(rollout)
    for one, other in zip(remembered.reports, anew.reports, strict=True):
        assert (one.verdict, one.samples) == (other.verdict, other.samples)
        assert one.value == pytest.approx(other.value)
    assert remembered.reports[0].samples == 403


@pytest.mark.parametrize("running", ["prometheus"], indirect=True)
async def test_increments_are_exact_for_births_and_resets(world: World) -> None:
    """Summed by Prometheus over pieces that meet: every request once, also of series born in between, and from 0 after
    a restart; nothing of what was counted before."""
    for version in ("v1", "v2"):
        world.exporter.requests(1000, world.host, version)
    await world.scraped(6)
    await asyncio.sleep(1.2)
    begin = floor(time.time())
    await asyncio.sleep(1)
    world.exporter.requests(40, world.host, "v2")
    world.exporter.requests(7, world.host, "v2", response_code="503")
    await world.scraped(4)
    await asyncio.sleep(1.2)
    middle = floor(time.time())
    await asyncio.sleep(1)
    world.exporter.reset(world.host)
    world.exporter.requests(30, world.host, "v2")
    await world.scraped(4)
    await asyncio.sleep(1.2)
    end = floor(time.time())
    series = selector("istio_requests_total", {"destination_service": world.host})
    kinds = "destination_version,response_code"
    found: dict[str, list[float]] = {}
    for since, until in ((begin, middle), (middle, end)):
        query = Query(increments(series, kinds, until - since), float(until))
        answer = (await world.metrics.ask([query]))[query]
        assert isinstance(answer, Answer), answer
        for one in answer.series:
            kind = f"{one.labels['destination_version']} {one.labels['response_code']}"
            found.setdefault(kind, []).append(one.points[-1][1])
    assert found["v2 200"] == [40, 30]
    assert found["v2 503"] == [7]
    assert sum(found["v1 200"]) == 0


@pytest.mark.parametrize("running", ["prometheus"], indirect=True)
async def test_a_service_of_many_series_is_judged_by_its_sums(world: World) -> None:
    """The same door, the other question: a good canary passes and fails once it is bad."""
    for version in ("v1", "v2"):
        world.exporter.requests(5, world.host, version)
    await world.scraped(6)
    memory, rollout = Memory(), baking(world, ERRORS, SLOW)
    sizes = (MANY + 1.0, MANY + 1.0, SCRAPES_S / INTERVAL_S)
    told = [Answer((Series({}, ((0.0, size),)),)) for size in sizes]
    memory.size(rollout, dict(zip(sizing(rollout), told, strict=True)))

    async def until(verdict: Verdict, code: str = "200") -> Assessment:
        nonlocal rollout
        for _ in range(60):
            for version in ("v1", "v2"):
                world.exporter.requests(200, world.host, version)
            if code != "200":
                world.exporter.requests(100, world.host, "v2", response_code=code)
            await world.scraped(1)
            seen = await look(world, rollout, memory)
            rollout = rollout.with_(evidence=seen.evidence)
            if seen.reports[0].verdict is verdict and (code != "200" or seen.passed):
                return seen
            await asyncio.sleep(0.2)
        raise AssertionError([report.detail for report in seen.reports])

    good = await until(Verdict.PASS)
    assert good.share.percent == pytest.approx(50, abs=5)
    bad = await until(Verdict.FAIL, "500")
    assert bad.reports[0].deciding
    assert not bad.reports[0].stable_fails
