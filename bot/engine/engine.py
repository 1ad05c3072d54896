"""The engine of one shard: keeps its lease, and while it is ours works on every active rollout of the shard."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bot.analysis.nodes import NodeHealth
from bot.engine.backlog import Backlog
from bot.engine.book import Book
from bot.engine.deliver import Deliver
from bot.engine.ends import Ends
from bot.engine.holder import Holder
from bot.engine.keep import Keep
from bot.engine.measure import Measure
from bot.engine.nodewatch import NodeWatch
from bot.engine.outage import Outage
from bot.engine.pace import first_looks, pressing
from bot.engine.paging import Paging
from bot.engine.recovery import Recovery
from bot.engine.routes import Routes
from bot.engine.takeup import TakeUp
from bot.engine.wake import Wake
from bot.engine.workers import Workers
from bot.engine.world import World
from bot.errors import Permanent, Transient
from bot.ports.store import LEASE_FREED
from bot.rollout.effects import Page
from bot.rollout.model import Rollout, RouteRef

SWEEP_S = 1.0
DUE_EVERY_ROUNDS = 5
UNREADABLE_EVERY_ROUNDS = 60
LATE_S = 2.0
STOP_GRACE_S = 8.0
RESTART_S = 1.0
BROKEN_AFTER = 3
"""Wake-ups of one rollout, or runs of one loop, that fail in a row before people are paged."""
STEADY_S = 60.0
"""A loop that ran for longer than this before it failed does not fail in a row."""
LAST_WORDS_S = 3.0
CANCEL_TRIES = 4
CANCEL_WAITS_S = 0.3


@dataclass(frozen=True, slots=True)
class Crew:
    """What the engines of one process share; an engine alone has all of it to itself.

    `store_page` takes the pages about the store, which is away for all of them at once. `freed` is told that a lease
    was given back, `mine` says whether a route belongs to the engine's shard, `active` counts the rollouts of all.
    """

    paging: Paging
    store_page: Callable[[Page], None]
    healths: Callable[[], Mapping[str, NodeHealth]]
    freed: Callable[[], Awaitable[None]]
    mine: Callable[[RouteRef], bool]
    active: Callable[[], int]


class Engine:
    """Start with `start`, end with `stop`; `leading` says whether this process works on the shard's rollouts."""

    def __init__(self, world: World, crew: Crew | None = None) -> None:
        self._world = world
        self._book = Book()
        self._routes = Routes(world.clock)
        self._paging = crew.paging if crew else Paging(world.pager, world.clock, world.telemetry)
        self._deliver = Deliver(world, self._in_memory, self._paging.send)
        self._nodes = None if crew else NodeWatch(world, self._active_here, self._deliver.ring)
        healths = crew.healths if crew else self._nodes.healths if self._nodes else dict
        self._holder = Holder(
            world.leases,
            world.clock,
            world.telemetry,
            world.owner,
            self,
            crew.store_page if crew else self._paging.send,
            alone=crew is None,
        )
        active = crew.active if crew else self._book.__len__
        self._freed = crew.freed if crew else self._holder.round
        self._keep = Keep(world.rollouts, world.telemetry, lambda: self._holder.token, world.new_id)
        self._measure = Measure(world, self._routes, healths, lambda: self._holder.store_away, active)
        self._mail: set[str] = set()
        self._wake = Wake(
            world,
            self._book,
            self._holder,
            self._keep,
            self._measure,
            self._routes,
            self._paging,
            self._mail,
            self._deliver.ring,
            self._quarantine,
            active,
        )
        self._take_up = TakeUp()
        self._pressing = TakeUp()
        self._workers = Workers(self._work, self._worker_failed)
        self._recovery = Recovery(
            world,
            self._book,
            self._paging.send,
            self._ring_in_turn,
            self._deliver.ring,
            crew.mine if crew else lambda route: True,
        )
        self._outage = None if crew else Outage(world, lambda: self.store_away, self.cut_off)
        self._backlog = Backlog(world, self._book.pages, self._paging.send)
        self._ends = Ends(world, self._workers.busy)
        self._broken: dict[str, int] = {}
        self._rounds = 0
        self._quarantined: set[str] = set()
        self._always: list[asyncio.Task[None]] = []
        self._while_leading: list[asyncio.Task[None]] = []

    @property
    def leading(self) -> bool:
        """This process holds the lease, or did when the store went away."""
        return self._holder.leading

    @property
    def active(self) -> int:
        """Rollouts in memory."""
        return len(self._book)

    @property
    def store_away(self) -> bool:
        return self._holder.store_away

    @property
    def holds(self) -> bool:
        """The shard's lease is ours, its rollouts loaded or about to be."""
        return self._holder.holds

    def cut_off(self) -> Sequence[Rollout]:
        """Rollouts that are watched from memory while the store is away."""
        return self._book.rollouts() if self.leading and self.store_away else ()

    def ring_deliver(self) -> None:
        """Something was put into the shard's outbox."""
        self._deliver.ring()

    async def take(self) -> bool:
        """Try for the shard's lease, and whether it is ours."""
        return await self._holder.take()

    async def start(self) -> None:
        """Begin to try for the lease; returns at once."""
        await self._world.timeline.start(self._ring)
        self._always = [
            self.keep_running("lease", self._holder.run),
            self.keep_running("sweep", self._sweep),
            self.keep_running("rings", self._hear_rings),
            self.keep_running("ends", self._ends.run),
        ]
        if self._outage is not None:
            self._always += [
                self.keep_running("pages", self._paging.run),
                self.keep_running("outage", self._outage.run),
            ]

    async def stop(self) -> None:
        """Take no new wake-ups, finish the running ones, give the lease back."""
        self._holder.retire()
        await self._world.timeline.stop()
        await self._workers.close(STOP_GRACE_S)
        await self._say_last_words()
        await self.end(self._while_leading)
        await self.end(self._always)
        await self._holder.release()

    async def hand_over(self) -> None:
        """Give the lease to another as a clean stop does, and stay ready to take it again."""
        self._holder.retire()
        try:
            for rollout in self._book.rollouts():
                self._world.timeline.cancel(rollout.id)
            await self._workers.close(STOP_GRACE_S)
            await self._say_last_words()
            await self.end(self._while_leading)
            await self._holder.release()
            self._forget()
        finally:
            self._workers.reopen()
            self._holder.stay()

    async def idle(self) -> None:
        """Wait until no worker runs."""
        await self._workers.idle()

    async def gained(self) -> None:
        """The lease is ours: load everything, and set its wake-ups, at which it is fenced where that is needed."""
        await self.end(self._while_leading)
        active = await self._world.rollouts.active()
        self._forget()
        for rollout, _ in active.rollouts:
            self._book.open(rollout, None, taken_over=not rollout.touched)
            self._quarantine(rollout.id, "")
        for rollout_id, reason in active.quarantined:
            self._quarantine(rollout_id, reason)
        self._while_leading = [
            self.keep_running("deliver", self._deliver.run),
            self.keep_running("recovery", self._recovery.run),
            *((self.keep_running("nodes", self._nodes.run),) if self._nodes else ()),
            *(self.keep_running(f"routes-{name}", self._watcher(name)) for name in self._world.meshes),
        ]
        now = self._world.clock.now()
        for rollout, at in first_looks([rollout for rollout, _ in active.rollouts], now):
            if at <= now:
                self._ring_in_turn(rollout.id)
            elif (page := self._book.page(rollout.id)) is not None:
                page.due_at = at
                self._world.timeline.at(rollout.id, at)

    async def lost(self) -> None:
        """Another process decides now: forget everything."""
        await self.end(self._while_leading)
        self._forget()

    async def wiped(self) -> None:
        """The store has lost its data while we held the lease: all that is in memory is held, and saved again."""
        self._deliver.forget()
        self._recovery.wiped()

    def _forget(self) -> None:
        self._ends.keep(self._book.pages())
        for rollout in self._book.rollouts():
            self._world.timeline.cancel(rollout.id)
        self._book.clear()
        self._take_up.clear()
        self._pressing.clear()
        self._broken.clear()
        self._routes.clear()
        self._measure.clear()
        self._deliver.forget()
        if self._nodes is not None:
            self._nodes.forget()
        self._recovery.forget()
        self._backlog.forget()
        self._world.telemetry.gauge("active_rollouts", 0)

    async def _sweep(self) -> None:
        """Look after what no ring announced, for ever, beside the lease: its calls must not hold up a renewal."""
        while True:
            if self._holder.leading and not self._holder.store_away:
                await self._each_round()
            await self._world.clock.sleep(SWEEP_S)

    async def _each_round(self) -> None:
        """Every second: inboxes whose ring was lost; every fifth: wake-ups that were missed, and how many are late;
        every minute: records that could not be read."""
        self._rounds += 1
        self._world.telemetry.gauge("active_rollouts", len(self._book))
        if self._rounds % DUE_EVERY_ROUNDS == 0:
            self._backlog.round()
        try:
            waiting = set(await self._world.inbox.waiting())
            self._mail |= waiting
            if self._rounds % DUE_EVERY_ROUNDS == 0:
                late = self._world.clock.now() - LATE_S
                waiting.update(name for name in await self._world.rollouts.due(late) if self._missed(name, late))
        except (Transient, Permanent) as error:
            self._world.telemetry.line("sweep-failed", error=str(error))
            return
        waiting -= self._quarantined
        if self._rounds % UNREADABLE_EVERY_ROUNDS == 0:
            waiting |= self._quarantined
        for rollout_id in sorted(waiting):
            self._ring_in_turn(rollout_id)

    def _missed(self, rollout_id: str, late: float) -> bool:
        """A wake-up that changed nothing was not written, so memory knows better than the store when one is due; one
        that is under way is not missed."""
        if self._workers.busy(rollout_id):
            return False
        page = self._book.page(rollout_id)
        return page is None or page.due_at is None or page.due_at < late

    def _quarantine(self, rollout_id: str, reason: str) -> None:
        """Tell once that a record cannot be read and why, and once that it can be again (`reason` "")."""
        if bool(reason) == (rollout_id in self._quarantined):
            return
        key = f"quarantined:{rollout_id}"
        self._world.telemetry.line("quarantined", rollout=rollout_id, reason=reason)
        if reason:
            self._quarantined.add(rollout_id)
            text = f"The record of rollout {rollout_id} cannot be read; it is set aside and nothing acts on it"
            self._paging.send(Page(key, text, reason))
        else:
            self._quarantined.discard(rollout_id)
            self._paging.send(Page(key, f"The record of rollout {rollout_id} can be read again", resolved=True))

    async def _ring(self, key: str) -> None:
        self._ring_in_turn(key)

    def _ring_in_turn(self, rollout_id: str) -> None:
        """Wake a rollout up; at its turn when that is its first time under the lease, unless somebody asks something of
        it. What is on its way back waits for no look of others, but thousands of them would keep each other from the
        API server."""
        page = self._book.page(rollout_id)
        if page is None or page.taken_over or rollout_id in self._mail:
            self._workers.ring(rollout_id)
            return
        turns = self._pressing if pressing(page.rollout) else self._take_up
        if turns.may_begin(rollout_id):
            self._workers.ring(rollout_id)

    async def _hear_rings(self) -> None:
        async for key in self._world.inbox.rings():
            if key == LEASE_FREED:
                await self._freed()
            elif self._holder.leading:
                self._mail.add(key)
                self._workers.ring(key)
                self._deliver.ring()

    def _watcher(self, name: str) -> Callable[[], Awaitable[None]]:
        async def watch() -> None:
            async for route in self._world.meshes[name].changes(self._world.namespaces):
                self._routes.changed(route)
                for rollout_id in self._book.on_route(route.namespace, route.name):
                    self._ring_in_turn(rollout_id)

        return watch

    async def _active_here(self) -> Sequence[Rollout]:
        return self._book.rollouts()

    def _in_memory(self, rollout_id: str) -> Rollout | None:
        page = self._book.page(rollout_id)
        return page.rollout if page else None

    async def _work(self, rollout_id: str) -> None:
        try:
            await self._wake(rollout_id)
        finally:
            for turns in (self._pressing, self._take_up):
                if following := turns.ended(rollout_id):
                    self._workers.ring(following)
        if self._broken.pop(rollout_id, 0) >= BROKEN_AFTER:
            self._paging.send(Page(f"{rollout_id}:broken", f"{rollout_id} is watched again", resolved=True))

    def _worker_failed(self, key: str, error: BaseException) -> None:
        """A fault of ours: tried again each second, and told when it stays, for the canary keeps its traffic."""
        self._world.telemetry.failed("wake-failed", error, rollout=key)
        self._world.telemetry.count("wake_failures")
        self._world.timeline.at(key, self._world.clock.now() + RESTART_S)
        self._broken[key] = self._broken.get(key, 0) + 1
        if self._broken[key] == BROKEN_AFTER:
            summary = f"{key} is not watched: canary-bot fails to work on it, and its canary keeps its weight"
            detail = f"{type(error).__name__} {BROKEN_AFTER} times in a row. `rollback {key}` still works; see the log."
            self._paging.send(Page(f"{key}:broken", summary, detail))

    def keep_running(self, name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """A task that is started again when it fails: no failure may end the engine's loops. People are paged when it
        keeps failing, and told when it has run steadily since."""

        async def steady() -> None:
            await self._world.clock.sleep(STEADY_S)
            summary = f"canary-bot does this part of its work again: {name}"
            self._paging.send(Page(f"loop:{name}", summary, resolved=True))

        async def again() -> None:
            failures = 0
            while True:
                begun = self._world.clock.monotonic()
                resolving = asyncio.create_task(steady()) if failures >= BROKEN_AFTER else None
                try:
                    await run()
                except Exception as error:
                    self._world.telemetry.failed("loop-failed", error, loop=name)
                    self._world.telemetry.count("loop_failures", loop=name)
                    failures = 1 if self._world.clock.monotonic() - begun >= STEADY_S else failures + 1
                    if failures == BROKEN_AFTER:
                        summary = f"canary-bot fails to do a part of its work: {name}"
                        times = f"{type(error).__name__} {failures} times in a row"
                        detail = f"{times}; see the log. Every card has the line to 0 by hand."
                        self._paging.send(Page(f"loop:{name}", summary, detail))
                finally:
                    if resolving is not None:
                        resolving.cancel()
                await self._world.clock.sleep(RESTART_S)

        return asyncio.create_task(again(), name=f"engine:{name}")

    async def _say_last_words(self) -> None:
        """Letters of the last wake-ups go out before the lease does; none is cut short while the chat takes it."""
        if not self._holder.leading:
            return
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._deliver.finish()
        except (TimeoutError, Transient, Permanent) as error:
            self._world.telemetry.line("letters-left", error=str(error))

    async def end(self, tasks: list[asyncio.Task[None]]) -> None:
        """End tasks. A cancellation can be swallowed on its way (by a time-out of the same moment): it is repeated, and
        a task that will not end holds up neither the lease nor the stop."""
        pending = list(tasks)
        tasks.clear()
        for _ in range(CANCEL_TRIES):
            if not pending:
                return
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_WAITS_S)
            pending = [task for task in pending if not task.done()]
            if pending:
                self._world.telemetry.line("task-goes-on", tasks=sorted(task.get_name() for task in pending))
