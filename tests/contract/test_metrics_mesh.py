"""The gates on Envoy's own traffic: real proxies, real scrapes, real oddities of what they report."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bot.adapters.prometheus import Prometheus
from bot.analysis.assessment import assess, questions
from bot.rollout.gate import Assessment, GateSpec, Verdict
from bot.rollout.model import Bake, Rollout
from bot.sandbox.process import Part
from tests.fixtures.mesh import MeshWorld
from tests.unit.analysis.scene import ERROR_RATE, HOST, MISSING, P99, Scene, details

WEIGHT = 20
QUICK_P99 = replace(P99, min_requests=100)


@pytest.fixture(scope="module")
def prometheus_url(mesh_processes: MeshWorld) -> Iterator[str]:
    """A Prometheus that scrapes the mesh."""
    part = Part.module("prometheus", "--target", f"istio-mesh={mesh_processes.mesh.url}/metrics")
    try:
        part.wait_ready(30)
        yield part.url
    finally:
        part.stop()


@dataclass(frozen=True, slots=True)
class Judged:
    """The mesh, and a client to what was scraped of it."""

    mesh: MeshWorld
    metrics: Prometheus

    async def rollout(self, *gates: GateSpec, timeout: str = "1s", **faults: Any) -> Rollout:
        """v2 gets its weight and, at the same moment, its faults."""
        await asyncio.sleep(2.5)
        self.mesh.faults(workloads={"payments-v2": faults})
        routes = [
            {"destination": {"host": "payments", "subset": subset}, "weight": weight}
            for subset, weight in (("v1", 100 - WEIGHT), ("v2", WEIGHT))
        ]
        await self.mesh.http("payments", [{"route": routes, "timeout": timeout}])
        return Scene(*gates, weight=WEIGHT).rollout.with_(bake=Bake(confirmed_at=time.time()), started_at=time.time())

    async def until(self, rollout: Rollout, accept: Callable[[Assessment], bool], within_s: float = 30) -> Assessment:
        """Look, as the engine does, until a look is accepted."""
        until = time.monotonic() + within_s
        while True:
            answers = await self.metrics.ask(questions(rollout, time.time()))
            look = assess(rollout, time.time(), answers, None, None)
            if accept(look):
                return look
            assert time.monotonic() < until, f"{details(look.reports)}\n{look.share}"
            await asyncio.sleep(0.5)


@pytest.fixture
async def judged(mesh_world: MeshWorld, prometheus_url: str) -> AsyncIterator[Judged]:
    """The mesh as seeded, and a client of this test's own."""
    metrics = Prometheus(prometheus_url)
    yield Judged(mesh_world, metrics)
    await metrics.close()


def first(verdict: Verdict) -> Callable[[Assessment], bool]:
    return lambda look: bool(look.reports) and look.reports[0].verdict is verdict


async def test_a_good_release_passes_and_its_share_arrives(judged: Judged) -> None:
    """Every gate PASSes, on counts that grow, and the observed share is the weight."""
    rollout = await judged.rollout(ERROR_RATE, QUICK_P99, MISSING)
    look = await judged.until(rollout, lambda look: look.passed and look.share.arrived is True)
    assert rollout.target.host == HOST
    assert look.share.percent == pytest.approx(WEIGHT, abs=8)
    assert look.coverage is not None
    assert look.coverage.added_s > 1


@pytest.mark.parametrize(
    ("gate", "faults"),
    [
        (ERROR_RATE, {"fail_percent": 5}),
        (ERROR_RATE, {"refuse": True}),
        (ERROR_RATE, {"hang_percent": 100}),
        (QUICK_P99, {"slow_ms": 500, "slow_percent": 10}),
    ],
    ids=["5% errors", "connections refused", "time-outs", "a slow tail"],
)
async def test_bad_releases_fail_and_stable_is_not_blamed(
    judged: Judged, gate: GateSpec, faults: dict[str, Any]
) -> None:
    """Whatever is wrong with v2 is found on what the proxies report, and nothing is found wrong with v1."""
    look = await judged.until(await judged.rollout(gate, **faults), first(Verdict.FAIL))
    report = look.reports[0]
    assert not report.stable_fails, report.detail
    assert report.deciding is (faults.get("refuse") is True or "hang_percent" in faults), report.detail


async def test_a_canary_that_never_answers_patient_callers_is_missing_responses(judged: Judged) -> None:
    """Without time-outs nothing completes and nothing fails; only its share of the answers is missing."""
    rollout = await judged.rollout(MISSING, ERROR_RATE, timeout="0s")
    await judged.until(rollout, lambda look: look.share.arrived is True)
    judged.mesh.faults(workloads={"payments-v2": {"hang_percent": 100}})
    await asyncio.sleep(2.5)
    hanging = rollout.with_(bake=replace(rollout.bake, arrived_at=time.time(), seen=True))
    look = await judged.until(hanging, first(Verdict.FAIL))
    assert "its answers are missing" in look.reports[0].detail
