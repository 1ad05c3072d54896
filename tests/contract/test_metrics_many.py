"""Looks that go on from a memory, on what both kinds of Prometheus stored; and sums of increments, on the real one."""

import asyncio
import time
from math import floor

import pytest

from bot.analysis.assessment import assess, questions
from bot.analysis.look import BUCKETS, REQUESTS
from bot.analysis.memory import MANY, SCRAPES_S, Memory, sizing
from bot.analysis.merging import LABEL, by_service, merged, part, shape
from bot.analysis.promql import selector
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sums import increments, sum_question
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


@pytest.mark.parametrize("running", ["prometheus"], indirect=True)
async def test_questions_of_many_services_answer_as_each_alone(world: World) -> None:
    """Samples, sums, few buckets and single numbers, by the real server's rules: the same rows for every service, also
    for one whose proxies restarted, one that is born in between, one that vanished and one that has nothing."""
    hosts = tuple(f"{name}.{world.host}" for name in ("steady", "restarted", "born", "vanished", "none"))
    for host in hosts[:2] + hosts[3:4]:
        for version in ("v1", "v2"):
            world.exporter.requests(500, host, version, slow=3)
    await world.scraped(4)
    await asyncio.sleep(1.1)
    begin = floor(time.time())
    world.exporter.reset(hosts[1])
    world.exporter.reset(hosts[3])
    for host in hosts[:3]:
        world.exporter.requests(40, host, "v2", slow=1)
        world.exporter.requests(7, host, "v2", response_code="503", response_flags="UF,URX")
    await world.scraped(6)
    await asyncio.sleep(1.1)
    end = floor(time.time())

    def asked(host: str) -> list[Query]:
        requests, buckets = (selector(metric, {LABEL: host}) for metric in (REQUESTS, BUCKETS))
        return [
            sum_question(REQUESTS, (host,), begin, end),
            sum_question(BUCKETS, (host,), begin, end),
            sum_question(BUCKETS, (host,), begin, end, ("250", "+Inf")),
            Query(f"{requests}[30s]", end),
            Query(f"{buckets}[30s]", end),
            Query(f"count({requests})", end),
            Query(f"count({requests} and on (job, instance) up)", end),
            Query(f"max(count_over_time({requests}[30s]))", end),
        ]

    for questions_alike in zip(*(asked(host) for host in hosts), strict=True):
        shapes = [shape(query) for query in questions_alike]
        found = shapes[0]
        assert found is not None
        assert [one and one[0] for one in shapes] == [found[0]] * len(hosts)
        together = merged(found[0], hosts)
        told = await world.metrics.ask([together, *questions_alike])
        answer = told[together]
        assert isinstance(answer, Answer), answer
        rows = by_service(answer)
        for host, query in zip(hosts, questions_alike, strict=True):
            alone = told[query]
            assert isinstance(alone, Answer), alone
            apart = part(found[0], (host,), answer, rows)
            assert sorted(map(_row, apart.series)) == sorted(map(_row, alone.series)), (host, query.promql)
    sums = (await world.metrics.ask([(one := sum_question(REQUESTS, hosts, begin, end))]))[one]
    assert isinstance(sums, Answer)
    counted = {
        (row.labels[LABEL].partition(".")[0], row.labels.get("response_code")): row.points[-1][1]
        for row in sums.series
        if row.labels.get("destination_version") == "v2"
    }
    assert {key: value for key, value in counted.items() if value} == {
        ("steady", "200"): 40,
        ("steady", "503"): 7,
        ("restarted", "200"): 40,
        ("restarted", "503"): 7,
        ("born", "200"): 40,
        ("born", "503"): 7,
    }


def _row(series: Series) -> tuple[list[tuple[str, str]], tuple[tuple[float, float], ...]]:
    return sorted(series.labels.items()), series.points
