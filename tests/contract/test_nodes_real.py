"""Node health on the real thing: Debian's node exporter on this machine, read by a real Prometheus."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from bot.adapters.prometheus import Prometheus
from bot.analysis.facts import NodeFacts
from bot.analysis.nodes import (
    HISTORY_S,
    HISTORY_STEP_S,
    PRESSURE,
    SAMPLED,
    UP,
    NodeHealth,
    judge_node_history,
    judge_nodes,
    node_history_questions,
    node_questions,
)
from bot.analysis.promql import over
from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure
from bot.sandbox.process import Part
from tests.fixtures.requirements import needs_binary

NODE = "this-machine"
FACTS = (NodeFacts(NODE, (("Ready", "True", 0.0),)),)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PSI = Path("/proc/pressure/cpu")


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel says now, in seconds over all CPUs."""

    steal: float
    iowait: float
    waited: float

    @classmethod
    def read(cls) -> "Counters":
        line = Path("/proc/stat").read_text().splitlines()[0].split()
        some = re.search(r"some .*total=(\d+)", PSI.read_text()) if PSI.exists() else None
        return cls(int(line[8]) * TICK_S, int(line[5]) * TICK_S, int(some[1]) / 1e6 if some else 0.0)


@pytest.fixture(scope="module")
def prometheus_url() -> Iterator[str]:
    """A real Prometheus that scrapes a real node exporter of this machine every second."""
    prometheus, exporter = needs_binary("prometheus"), needs_binary("prometheus-node-exporter")
    collectors = ("--collector.disable-defaults", "--collector.cpu", "--collector.pressure")
    argv = [exporter, "--web.listen-address=127.0.0.1:0", *collectors]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as running:
        part: Part | None = None
        try:
            assert running.stderr is not None
            listening = (re.search(r"Listening on.*address=(\S+)", line) for line in running.stderr)
            address = next(found[1] for found in listening if found)
            target = f"node-exporter/{NODE}=http://{address}/metrics"
            part = Part.module("prometheus", "--binary", prometheus, "--target", target)
            part.wait_ready(30)
            yield part.url
        finally:
            if part is not None:
                part.stop()
            running.terminate()


@pytest.fixture
async def metrics(prometheus_url: str) -> AsyncIterator[Prometheus]:
    """A client of this test's own, once the exporter has been scraped."""
    client = Prometheus(prometheus_url)
    async with asyncio.timeout(30):
        while not await _scraped(client):
            await asyncio.sleep(0.2)
    yield client
    await client.close()


async def _scraped(client: Prometheus) -> bool:
    answer = (await client.ask([SAMPLED]))[SAMPLED]
    return isinstance(answer, Answer) and bool(answer.series)


def sampled_values(answers: Mapping[Query, Answer | CannotMeasure]) -> list[float]:
    """The moments of the samples that were seen."""
    answer = answers[SAMPLED]
    assert isinstance(answer, Answer), answer
    return [series.points[-1][1] for series in answer.series]


async def judged(client: Prometheus, previous: Mapping[str, NodeHealth], newer_than: float) -> dict[str, NodeHealth]:
    """Judge once samples newer than a moment are there; answers between which a scrape came in are asked again."""
    async with asyncio.timeout(20):
        while True:
            before, answers, after = [await client.ask(node_questions(time.time())) for _ in range(3)]
            if sampled_values(before) == sampled_values(after):
                healths = judge_nodes(previous, FACTS, answers, time.time())
                if (healths[NODE].sampled_at or 0.0) > newer_than:
                    return healths
            await asyncio.sleep(0.1)


async def test_steal_iowait_and_pressure_are_what_the_kernel_counted(metrics: Prometheus) -> None:
    """Each reading lies between what /proc said before and after it, and the fractions are its growth per core."""
    healths: dict[str, NodeHealth] = {}
    readings: list[NodeHealth] = []
    for _ in range(4):
        before, asked_at = Counters.read(), time.time()
        healths = await judged(metrics, healths, asked_at + 0.1)
        after = Counters.read()
        known = healths[NODE].counters
        assert before.steal - 3 * TICK_S <= known["steal"] <= after.steal + 3 * TICK_S
        assert before.iowait - 3 * TICK_S <= known["iowait"] <= after.iowait + 3 * TICK_S
        if PSI.exists():
            assert before.waited - 0.01 <= known["CPU pressure"] <= after.waited + 0.01
        readings.append(healths[NODE])
    for earlier, later in pairwise(readings):
        assert earlier.sampled_at is not None
        assert later.sampled_at is not None
        core_s = (later.sampled_at - earlier.sampled_at) * (os.cpu_count() or 1)
        grown = (later.counters["steal"] - earlier.counters["steal"]) / core_s
        assert later.value("steal") == pytest.approx(min(1.0, grown), abs=1e-6)
    assert readings[-1].lost is not None
    assert "steal" in readings[-1].measured
    assert "exporter" in readings[-1].signals
    assert "does not answer" not in " ".join(readings[-1].reasons)


async def test_the_last_minutes_can_be_asked_for_at_once(metrics: Prometheus) -> None:
    """The history's questions mean the same on a real server: a moment of a sample is its own, not the step's."""
    sampled = Query(over(SAMPLED.promql, HISTORY_S, HISTORY_STEP_S))
    async with asyncio.timeout(60):
        while True:
            answers = await metrics.ask(node_history_questions())
            told = answers[sampled]
            assert isinstance(told, Answer), told
            if told.series and len(told.series[0].points) >= 2:
                break
            await asyncio.sleep(1.0)
    assert all(isinstance(answer, Answer) for answer in answers.values())
    for step, moment in told.series[0].points:
        assert step % HISTORY_STEP_S == 0
        assert step - 5 < moment <= step
    health = judge_node_history(FACTS, answers, time.time())[NODE]
    assert health.value("steal") is not None
    if PSI.exists():
        assert health.value("CPU pressure") is not None
    assert set(health.counters) >= {"steal", "iowait"}
    assert Query(over(UP.promql, HISTORY_S, HISTORY_STEP_S)) in answers
    assert all(Query(over(query.promql, HISTORY_S, HISTORY_STEP_S)) in answers for query in PRESSURE.values())
