"""One look at a rollout: ask metrics and cluster at once, and hand the answers to the judge."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.analysis.assessment import assess, questions
from bot.analysis.facts import PodFacts
from bot.analysis.look import Answers, Pods
from bot.analysis.memory import Memory
from bot.analysis.nodes import NodeHealth
from bot.analysis.samples import Query
from bot.analysis.underneath import failing_latency, near_its_limit
from bot.engine.routes import Routes
from bot.engine.world import World
from bot.errors import CannotMeasure, Conflict, NotFound, Permanent, Transient
from bot.ports.mesh import Misplaced, RouteMissing
from bot.rollout.events import Clocked, Looked, Remains, RouteGone
from bot.rollout.gate import Assessment
from bot.rollout.model import Freeze, Rollout, Side
from bot.rollout.route import RouteState

FREEZES_HOLD_S = 1.0
DETAILED = 40
"""Rollouts whose latencies are asked for in samples at a time, although services are asked for sums."""
SUMMED_FROM = 200
SUMMED_BELOW = 100
"""Active rollouts from which on their services are asked for sums instead of samples, and below which no longer."""
BESIDE_S = 0.3
"""How long a look waits for pods, route and freezes once the metrics have answered: a deciding FAIL may not wait for
them longer. What comes later is unknown: unknown pods raise nothing, and an unknown stable stops no way to 0."""


@dataclass(slots=True)
class _Beside:
    """What a look wants besides the answers of the metrics, as far as it is known; a late reading may still fill it."""

    canary: Pods | None
    stable: Pods | None
    route: RouteState | RouteGone | None


class Measure:
    """Makes events from the world. `nodes` is the newest judgement of the node watch; while the store is known to be
    away it is not asked, so that no look waits for it to time out."""

    def __init__(
        self,
        world: World,
        routes: Routes,
        nodes: Callable[[], Mapping[str, NodeHealth]],
        store_away: Callable[[], bool],
        active: Callable[[], int],
    ) -> None:
        self._store_away = store_away
        self._active = active
        self._summed = False
        self._detailed: set[str] = set()
        self._world = world
        self._routes = routes
        self._nodes = nodes
        self._pinned: dict[str, tuple[PodFacts, ...]] = {}
        self._memories: dict[str, Memory] = {}
        self._freezes: tuple[Freeze, ...] = ()
        self._freezes_at = float("-inf")
        self._reading: asyncio.Task[tuple[Freeze, ...]] | None = None
        self._late: set[asyncio.Task[Any]] = set()

    async def look(self, rollout: Rollout) -> Looked:
        """Ask every gate of a rollout now, also while there is no route to steer by."""
        now = self._world.clock.now()
        memory = self._memory(rollout)
        asked = questions(rollout, now, memory)
        if asked and not memory.sized:
            asked = (*asked, *memory.unknown(rollout))
        answers, beside = await self._asked(rollout, asked)
        canary, stable, route, freezes = beside.canary, beside.stable, beside.route, self._freezes
        if canary:
            self._pinned.setdefault(rollout.id, canary)
        assessment = self._assessed(rollout, answers, canary, stable, memory)
        memory.size(rollout, answers)
        if memory.summed and not memory.detailed and failing_latency(rollout, assessment.reports):
            memory.detailed = self._may_be_detailed(rollout.id)
            if memory.detailed:
                detailed = await self._in_detail(rollout, memory)
                assessment = self._assessed(rollout, detailed, canary, stable, memory) if detailed else assessment
        if isinstance(route, RouteGone):
            return Looked(assessment, freezes, gone=route)
        return Looked(assessment, freezes, route)

    def _memory(self, rollout: Rollout) -> Memory:
        """What is remembered of a rollout; sums only while there are so many that samples would cost too much."""
        memory = self._memories.get(rollout.id)
        if memory is None:
            memory = self._memories[rollout.id] = Memory()
        many = SUMMED_BELOW if self._summed else SUMMED_FROM
        self._summed = self._active() >= many
        memory.summed = self._summed
        near = self._summed and near_its_limit(rollout)
        memory.detailed = near and self._may_be_detailed(rollout.id)
        if not near:
            self._detailed.discard(rollout.id)
        return memory

    async def _in_detail(self, rollout: Rollout, memory: Memory) -> Answers | None:
        """The samples of a failing gate's latencies, for what it is put down to; None when they do not come at once."""
        asked = questions(rollout, self._world.clock.now(), memory)
        try:
            answers = await asyncio.wait_for(self._world.metrics.ask(asked), BESIDE_S)
        except TimeoutError:
            return None
        return None if any(isinstance(answer, CannotMeasure) for answer in answers.values()) else answers

    def _may_be_detailed(self, rollout_id: str) -> bool:
        """Samples of all latencies for this one as well; when very many are slow at once the others go without."""
        if len(self._detailed) < DETAILED:
            self._detailed.add(rollout_id)
        return rollout_id in self._detailed

    def _assessed(
        self, rollout: Rollout, answers: Answers, canary: Pods | None, stable: Pods | None, memory: Memory
    ) -> Assessment:
        return assess(
            rollout,
            self._world.clock.now(),
            answers,
            canary_pods=canary,
            stable_pods=stable,
            canary_baseline=self._pinned.get(rollout.id),
            nodes=self._nodes(),
            memory=memory,
        )

    async def _asked(self, rollout: Rollout, asked: Sequence[Query]) -> tuple[Answers, _Beside]:
        """The answers of the metrics, and what else is known or came in time: None for the rest.

        Only what is not known is asked for. Late readings of route and freezes go on: both are kept for the next look.
        """
        beside = self._known(rollout)
        told = beside.canary is not None and beside.stable is not None
        pods = [] if told else [asyncio.create_task(self._both_pods(rollout, beside))]
        route = [] if beside.route is not None else [asyncio.create_task(self._read(rollout, beside))]
        freezes = [] if self._freezes_fresh() else [asyncio.create_task(self.freezes())]
        begun: list[asyncio.Task[Any]] = [*pods, *route, *freezes]
        try:
            answers = await self._world.metrics.ask(asked)
            late = {task for task in begun if not task.done()}
            if late:
                _, late = await asyncio.wait(late, timeout=BESIDE_S)
        except BaseException:
            for task in begun:
                task.cancel()
            raise
        if late:
            self._world.telemetry.line("look-incomplete", rollout=rollout.id, late=len(late))
            for task in late.intersection(pods):
                task.cancel()
            for task in late.difference(pods):
                self._late.add(task)
                task.add_done_callback(self._late.discard)
        for task in (*pods, *route):
            if task not in late:
                task.result()
        return answers, beside

    def _known(self, rollout: Rollout) -> _Beside:
        """What watches have told: nothing has to be asked for it."""
        target, known = rollout.target, self._world.cluster.known_pods
        return _Beside(
            known(target.namespace, target.canary.selector),
            known(target.namespace, target.stable.selector),
            self._routes.known(target),
        )

    async def clocked(self, rollout: Rollout) -> Clocked | RouteGone:
        """The same without the gates, for when only time has passed."""
        route, freezes, stable_ready = await asyncio.gather(
            self.route(rollout), self.freezes(), self._stable_ready(rollout)
        )
        return route if isinstance(route, RouteGone) else Clocked(freezes, route, stable_ready)

    def forget(self, rollout_id: str) -> None:
        """The rollout has ended."""
        self._pinned.pop(rollout_id, None)
        self._memories.pop(rollout_id, None)
        self._detailed.discard(rollout_id)

    def clear(self) -> None:
        """Another process decides now."""
        self._pinned.clear()
        self._memories.clear()
        self._detailed.clear()

    async def route(self, rollout: Rollout) -> RouteState | RouteGone | None:
        """The route as it is, None when it cannot be read now."""
        mesh = self._world.meshes[rollout.target.route.mesh]
        try:
            return await self._routes.state(mesh, rollout.target)
        except Misplaced as error:
            return RouteGone(str(error), Remains.TRAFFIC)
        except RouteMissing as error:
            return RouteGone(str(error), Remains.OBJECT)
        except NotFound as error:
            return RouteGone(str(error))
        except (Transient, Permanent, Conflict) as error:
            self._world.telemetry.line("route-unread", rollout=rollout.id, error=str(error))
            return None

    async def freezes(self) -> tuple[Freeze, ...]:
        """The freezes in force; those last known when the store is away (nothing goes up then anyway)."""
        if not self._freezes_fresh() and not self._store_away():
            if self._reading is None:
                self._reading = asyncio.create_task(self.freezes_now())
                self._reading.add_done_callback(self._was_read)
            try:
                await asyncio.shield(self._reading)
            except (Transient, Permanent) as error:
                self._world.telemetry.line("freezes-unread", error=str(error))
        return self._freezes

    def _was_read(self, reading: asyncio.Task[tuple[Freeze, ...]]) -> None:
        """The next who looks reads anew; a failure that nobody waits for any more is no complaint of the loop's."""
        self._reading = None
        if not reading.cancelled():
            reading.exception()

    def _freezes_fresh(self) -> bool:
        return self._world.clock.monotonic() - self._freezes_at < FREEZES_HOLD_S

    async def freezes_now(self) -> tuple[Freeze, ...]:
        """The freezes in force, read afresh. Raises Transient and Permanent."""
        self._freezes = await self._world.freezes.all()
        self._freezes_at = self._world.clock.monotonic()
        return self._freezes

    async def _stable_ready(self, rollout: Rollout) -> int | None:
        """Stable's ready pods, asked only where an expiring approval or a lost subset may roll back."""
        approval = rollout.approval
        expires = approval is not None and not rollout.granted and self._world.clock.now() >= approval.expires_at
        if not expires and not (rollout.found is not None and rollout.found.canary_lost):
            return None
        return await self._world.cluster.ready_pods(rollout.target.namespace, rollout.target.stable.selector)

    async def _both_pods(self, rollout: Rollout, beside: _Beside) -> None:
        """Read the canary's pods and then stable's; they come from one watch, so one waits for both or for none."""
        beside.canary = await self._pods(rollout, rollout.target.canary)
        beside.stable = await self._pods(rollout, rollout.target.stable)

    async def _read(self, rollout: Rollout, beside: _Beside) -> None:
        beside.route = await self.route(rollout)

    async def _pods(self, rollout: Rollout, side: Side) -> tuple[PodFacts, ...] | None:
        try:
            return await self._world.cluster.pods(rollout.target.namespace, side.selector)
        except (Transient, Permanent) as error:
            self._world.telemetry.line("pods-unread", rollout=rollout.id, side=side.label, error=str(error))
            return None
