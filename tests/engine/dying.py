"""An engine that can be cut off at any of its calls, as a kill -9 would, and the world that another one then finds."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bot.catalog import load
from bot.engine.engine import Engine
from bot.rollout.effects import Direction, SetWeight
from bot.rollout.model import Phase, Rollout
from bot.usecases.requests import put
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, CATALOG, GRACE, HOST, Stage
from tests.fakes.timeline import FakeTimeline

COUNTED = {
    "rollouts": ("save", "create"),
    "pager": ("page",),
    "inbox": ("take", "done"),
    "leases": ("acquire",),
    "outbox": ("add", "take", "done", "delay", "set_posted"),
    "mesh": ("write", "read"),
    "chat": ("post", "update", "whisper"),
}
SILENT = frozenset({"inbox.take", "outbox.take", "mesh.read"})
"""Calls that change nothing: a cut after one of them is the cut after the call that went before."""


class Knife:
    """Counts calls and cuts at the n-th point; afterwards nothing gets through any more. Unless it is `armed` it does
    not count."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.armed = True
        self.points = 0
        self.where = ""
        self.fell = asyncio.Event()

    async def point(self, where: str) -> None:
        """A moment at which the process may die."""
        if self.armed and not self.fell.is_set():
            self.points += 1
            if self.points == self.at:
                self.where = where
                self.fell.set()
        await self.alive()

    async def alive(self) -> None:
        """Never returns in a dead process."""
        if self.fell.is_set():
            await asyncio.get_running_loop().create_future()


class Severed:
    """A port as a dying process sees it.

    It may die after each call that changes something. Dying before one leaves the world as dying after the last did,
    for what was in memory is gone either way.
    """

    def __init__(self, name: str, port: Any, knife: Knife) -> None:
        self._name, self._port, self._knife = name, port, knife

    def __getattr__(self, call: str) -> Any:
        found = getattr(self._port, call)
        if not asyncio.iscoroutinefunction(found):
            return found
        where = f"{self._name}.{call}"
        counted = call in COUNTED.get(self._name, ()) and where not in SILENT

        async def cut(*args: Any, **named: Any) -> Any:
            await self._knife.alive()
            answer = await found(*args, **named)
            if counted:
                await self._knife.point(f"after {where}")
            else:
                await self._knife.alive()
            return answer

        return cut


@dataclass(slots=True)
class Seen:
    """What the API server and the store saw: every write with its moment, every save that decided a raise."""

    writes: list[tuple[float, SetWeight]] = field(default_factory=list)
    raises: list[Rollout] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """One story that was cut once: the stage as it was left, what was seen, and where the knife fell ("" nowhere)."""

    made: Stage
    seen: Seen
    name: str
    cut: str
    points: int

    @property
    def rollout(self) -> Rollout:
        return self.made.store.rollouts.records[self.name].rollout


def _watch(made: Stage, seen: Seen) -> None:
    """Keep what arrives at mesh and store, whoever sends it."""
    write, save = made.mesh.write, made.store.rollouts.save

    async def written(target: Any, change: SetWeight) -> Any:
        before = len(made.mesh.writes)
        state = await write(target, change)
        if len(made.mesh.writes) > before:
            seen.writes.append((made.clock.now(), change))
        return state

    async def saved(rollout: Rollout, *args: Any, **named: Any) -> None:
        await save(rollout, *args, **named)
        if rollout.write is not None and rollout.write.raising:
            seen.raises.append(rollout)

    made.mesh.write = written  # type: ignore[method-assign]
    made.store.rollouts.save = saved  # type: ignore[method-assign]


def engine_under(made: Stage, knife: Knife, owner: str) -> Engine:
    """A new process of the bot whose every call goes past the knife; its timeline dies with it."""
    made.timeline = FakeTimeline(made.clock)
    engine = made.new_engine(owner)
    world = engine._world
    cut = replace(
        world,
        rollouts=Severed("rollouts", world.rollouts, knife),
        inbox=Severed("inbox", world.inbox, knife),
        leases=Severed("leases", world.leases, knife),
        outbox=Severed("outbox", world.outbox, knife),
        freezes=Severed("freezes", world.freezes, knife),
        meshes={"istio": Severed("mesh", made.mesh, knife)},
        cluster=Severed("cluster", world.cluster, knife),
        metrics=Severed("metrics", world.metrics, knife),
        chat=Severed("chat", world.chat, knife),
        pager=Severed("pager", world.pager, knife),
        timeline=made.timeline,
    )
    engine = Engine(cut)

    async def settle() -> None:
        idle, fell = asyncio.create_task(engine.idle()), asyncio.create_task(knife.fell.wait())
        await asyncio.wait({idle, fell}, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, fell):
            task.cancel()
        await asyncio.gather(idle, fell, return_exceptions=True)

    made.timeline.settle = settle
    return engine


Tick = Callable[[Stage, Rollout, set[str]], Awaitable[str]]
"""What people and others do when half a second has passed. The set is its memory: "armed" lets the knife count, "last"
says that the story is over when the rollout has ended. The answer is the rollout it is about from now on, or ""."""


async def approve(made: Stage, rollout: Rollout, done: set[str]) -> str:
    """Grace approves what is asked."""
    if rollout.phase is Phase.AWAITING_APPROVAL and "approved" not in done:
        done.add("approved")
        await put(made.desk, "approve", rollout.id, GRACE)
    return ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A story: its plan, what happens in it, how it ends. `late` counts cuts only from where the tick says so."""

    steps: str = "10%:1s, 50%:1s:approve, 100%:1s"
    bad: bool = False
    tick: Tick = approve
    late: bool = False
    last: bool = True
    weights: tuple[int, ...] = (10, 50, 100)
    phase: Phase = Phase.PROMOTED
    failures: frozenset[str] = frozenset()


async def story(cut_at: int, plot: Plot) -> Run:
    """Play a whole rollout, cut the process off at its `cut_at`-th point, and let another one finish it."""
    text = CATALOG.replace("10%:10s, 50%:10s:approve, 100%:10s", plot.steps)
    made = Stage(catalog=load(text.replace("check_every: 1s", "check_every: 1s, approval: {expires: 4s}")))
    await made.add_service()
    seen = Seen()
    _watch(made, seen)
    if plot.bad:
        made.metrics.behave(HOST, "v2", fail=0.3)
    knife = Knife(cut_at)
    knife.armed = not plot.late
    before = asyncio.all_tasks()
    engine = engine_under(made, knife, "bot-1")
    await engine.start()
    name = ""
    done = {"last"} if plot.last else set()

    def ended() -> bool:
        record = made.store.rollouts.records.get(name)
        return record is not None and record.rollout.phase.final and "last" in done

    async def act(seconds: float, until: Callable[[], bool]) -> None:
        nonlocal name
        end = made.clock.now() + seconds
        while made.clock.now() < end and not until():
            await made.play(0.5, until=until)
            if not name:
                answer = await start(made.desk, StartAsk("payments", steps=plot.steps), ADA)
                name = answer.rollout.id if answer.rollout else ""
            record = made.store.rollouts.records.get(name)
            if record is not None:
                name = await plot.tick(made, record.rollout, done) or name
            knife.armed = knife.armed or "armed" in done

    await act(90, lambda: knife.fell.is_set() or ended())
    if not knife.fell.is_set():
        await made.play(5, until=knife.fell.is_set)
    if knife.fell.is_set():
        doomed = asyncio.all_tasks() - before
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        cut, points = knife.where, knife.points
        engine = engine_under(made, Knife(0), "bot-2")
        await engine.start()
        await act(120, ended)
        await made.play(8, until=lambda: not made.store.outbox.waiting)
        await made.play(1)
    else:
        cut, points = "", knife.points
    await engine.stop()
    return Run(made, seen, name, cut, points)


def raised(run: Run) -> list[tuple[float, int]]:
    """Moment and weight of every raise that reached the API server."""
    return [(at, change.weight_percent) for at, change in run.seen.writes if change.direction is Direction.RAISE]
