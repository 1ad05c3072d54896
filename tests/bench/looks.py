"""What asking, reading and judging cost one bot for each look, and what it remembers of each rollout.

Everything but the wake-up itself: the engine's `Measure` over questions asked together, over HTTP, from the metrics
server of the load bench in a process of its own. Time is made up, so that a look every 15 s needs no waiting.
"""

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import Any

import aiohttp

from bot.adapters.prometheus import Prometheus
from bot.analysis.facts import PodFacts
from bot.analysis.samples import Answer, Query
from bot.engine.measure import Measure
from bot.engine.together import Together
from bot.errors import CannotMeasure
from bot.rollout.events import Looked
from bot.rollout.gate import GateSpec, Verdict, parse_gate
from bot.rollout.model import Bake, Destination, Rollout, RouteRef, Side, Target
from bot.rollout.plan import Plan, Step
from bot.rollout.route import RouteState
from bot.sandbox.process import Part
from tests.bench.table import Table
from tests.unit.analysis.scene import MISSING, PODS, Scene

EVERY_S = 15
TOGETHER = 100
"""Looks at one moment, as the engine paces 10,000 rollouts."""
GATES = (parse_gate("error-rate<1%"), parse_gate("p99<250ms"), PODS, MISSING, GateSpec("nodes", "nodes"))


class Moved:
    """Both clock and metrics: asks the server as if it were `at`."""

    def __init__(self, metrics: Prometheus) -> None:
        self._metrics = metrics
        self.at = float(int(time.time()))

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]:
        moved = {query: replace(query, at=self.at) if query.at is None else query for query in queries}
        told = await self._metrics.ask(tuple(moved.values()))
        return {query: self._moved(told[other]) for query, other in moved.items()}

    def _moved(self, answer: Answer | CannotMeasure) -> Answer | CannotMeasure:
        return replace(answer, server_time=self.at) if isinstance(answer, Answer) else answer

    async def ready(self) -> str:
        return await self._metrics.ready()


class Steady:
    """Cluster, mesh and freezes that know already and never change."""

    async def pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        return self.known_pods(namespace, selector)

    def known_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        return (PodFacts("a", namespace, True, 0, False, "node-1", "abc", ("sha256:1",)),)

    async def state(self, mesh: object, target: Target) -> RouteState:
        return self.known(target)

    def known(self, target: Target) -> RouteState:
        return RouteState("", "1", 95, 5)

    async def all(self) -> tuple[object, ...]:
        return ()


def rollouts(count: int, began: float) -> list[Rollout]:
    """One rollout for each service of the metrics server, at 5% since `began`."""
    return [_rollout(f"svc-{number:05d}", began) for number in range(count)]


def _rollout(name: str, began: float) -> Rollout:
    host = f"{name}.shop.svc.cluster.local"
    sides = [Side(one, Destination(host, one), (f"{name}-{one}",), one, (("app", name),)) for one in ("v1", "v2")]
    of = Target(name, "shop", host, RouteRef("istio", "shop", name, route="primary"), sides[0], sides[1])
    rollout = Scene(*GATES, weight=5, of=of).rollout
    return rollout.with_(
        id=f"{name}-b0b0",
        plan=Plan("", (Step(5, 14400), Step(100, 14400))),
        rules=replace(rollout.rules, check_every_s=EVERY_S),
        created_at=began,
        started_at=began,
        scheduled_at=began,
        bake=Bake(confirmed_at=began, arrived_at=began + 5, seen=True, covered_until=began + 5),
    )


class Fleet:
    """Looks at many rollouts, moment after moment."""

    def __init__(self, metrics: Prometheus, count: int) -> None:
        self.time = Moved(metrics)
        steady: Any = Steady()
        telemetry = SimpleNamespace(line=lambda *_, **__: None)
        world: Any = SimpleNamespace(
            clock=self.time,
            metrics=Together(self.time, self.time),
            cluster=steady,
            meshes={"istio": steady},
            freezes=steady,
            telemetry=telemetry,
        )
        self.measure = Measure(world, steady, dict, lambda: False, lambda: count)
        self.rollouts = rollouts(count, self.time.at - 100)

    async def look(self) -> None:
        """All rollouts once, a hundred at a moment."""
        for begin in range(0, len(self.rollouts), TOGETHER):
            some = self.rollouts[begin : begin + TOGETHER]
            seen = await asyncio.gather(*(self.measure.look(one) for one in some))
            for index, (one, event) in enumerate(zip(some, seen, strict=True), begin):
                assert isinstance(event, Looked)
                look = event.assessment
                until = look.coverage.until if look.coverage else one.bake.covered_until
                bake = replace(one.bake, covered_until=until)
                self.rollouts[index] = one.with_(
                    assessment=replace(look, evidence=()), evidence=look.evidence or one.evidence, bake=bake
                )

    def verdicts(self) -> dict[str, int]:
        """How many gates say what."""
        found: dict[str, int] = {}
        for one in self.rollouts:
            for report in one.assessment.reports if one.assessment else ():
                found[report.verdict] = found.get(report.verdict, 0) + 1
        return found


async def looks(quick: bool) -> Table:
    """Per look: CPU of this process, bytes and queries; memory of what is remembered after half an hour."""
    count, times = (200, 12) if quick else (1000, 24)
    table = Table(f"asking, reading and judging, {count} rollouts (each look)")
    server = Part("answers", [sys.executable, "-m", "tests.bench.answers", str(EVERY_S)])
    await asyncio.to_thread(server.wait_ready, 20.0)
    try:
        async with aiohttp.ClientSession() as session:

            async def stats() -> dict[str, float]:
                async with session.get(f"{server.url}/stats") as answer:
                    told: dict[str, float] = await answer.json()
                    return told

            metrics = Prometheus(server.url)
            fleet = Fleet(metrics, count)
            rows = []
            for _ in range(times):
                before, cpu_s = await stats(), time.process_time()
                await fleet.look()
                cpu_s, after = time.process_time() - cpu_s, await stats()
                rows.append((cpu_s, after["bytes"] - before["bytes"], after["queries"] - before["queries"]))
                fleet.time.at += EVERY_S
            first = _row("first", rows[:1], count)
            table.rows.append(first)
            further = _row("further", rows[2:], count)
            table.rows.append(further)
            verdicts = fleet.verdicts()
            if set(verdicts) != {Verdict.PASS}:
                table.failures.append(f"verdicts of a good fleet: {verdicts}")
            first["remembered, KiB"] = ""
            further["remembered, KiB"] = await _remembered(metrics, count=100, looks=24 if quick else 120)
            await metrics.close()
    finally:
        await server.stop_async()
    return table


def _row(name: str, rows: Sequence[tuple[float, float, float]], count: int) -> dict[str, object]:
    return {
        "look": name,
        "CPU, ms": 1000 * median(cpu_s for cpu_s, _, _ in rows) / count,
        "mean CPU, ms": 1000 * sum(cpu_s for cpu_s, _, _ in rows) / len(rows) / count,
        "bytes": sum(sent for _, sent, _ in rows) / len(rows) / count,
        "queries": sum(asked for _, _, asked in rows) / len(rows) / count,
    }


async def _remembered(metrics: Prometheus, count: int, looks: int) -> float:
    """KiB of each rollout's memory after so many looks."""
    fleet = Fleet(metrics, count)
    await fleet.look()
    gc.collect()
    fleet.measure.clear()
    tracemalloc.start()
    for _ in range(looks):
        await fleet.look()
        fleet.time.at += EVERY_S
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    fleet.measure.clear()
    gc.collect()
    held -= tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / 1024 / count


__all__ = ["Fleet", "looks"]
if __name__ == "__main__":
    print(asyncio.run(looks(True)).rows)
