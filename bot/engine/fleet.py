"""The engines of one process, one for each shard, and its part among the replicas that share the shards.

What belongs to no shard is done here once: judging nodes, telling of an outage, paging. Of nodes the holder of the
first shard speaks, for their messages lie there.
"""

import asyncio
import zlib
from collections.abc import Callable, Sequence

from bot.engine.engine import Crew, Engine
from bot.engine.nodewatch import NodeWatch
from bot.engine.outage import Outage
from bot.engine.paging import Paging
from bot.engine.rest import rest
from bot.engine.share import GONE_AFTER_S, part
from bot.engine.world import World
from bot.errors import Permanent, Transient
from bot.ports.store import Replica, Replicas
from bot.rollout.effects import Page
from bot.rollout.model import Rollout, RouteRef

ROUND_S = 1.0
LEAVE_WITHIN_S = 1.0


class Fleet:
    """Engines for all shards: `worlds` has one world for each, in order, and `home` that of the whole fleet.

    `shard_of` says which shard a route belongs to.
    """

    def __init__(
        self, worlds: Sequence[World], home: World, replicas: Replicas, shard_of: Callable[[RouteRef], int]
    ) -> None:
        self._home = home
        self._replicas = replicas
        self._paging = Paging(home.pager, home.clock, home.telemetry)
        self._nodes = NodeWatch(home, self._everywhere, self._ring_home, lambda: self._engines[0].leading)
        self._outage = Outage(home, lambda: self.store_away, self._cut_off)
        self._engines = [
            Engine(
                world,
                Crew(
                    paging=self._paging,
                    store_page=self._of_store(number),
                    healths=self._nodes.healths,
                    freed=self._freed,
                    mine=lambda route, number=number: shard_of(route) == number,  # type: ignore[misc]
                    active=lambda: self.active,
                ),
            )
            for number, world in enumerate(worlds)
        ]
        self._away: set[int] = set()
        self._rung = asyncio.Event()
        self._giving: Engine | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sharing: list[asyncio.Task[None]] = []
        self._moving: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def leading(self) -> bool:
        """This process works on some shard."""
        return any(engine.leading for engine in self._engines)

    @property
    def active(self) -> int:
        """Rollouts in memory."""
        return sum(engine.active for engine in self._engines)

    @property
    def store_away(self) -> bool:
        """Some shard that is worked on here cannot reach the store, or none of all can."""
        led = [engine for engine in self._engines if engine.leading]
        return any(engine.store_away for engine in led) or all(engine.store_away for engine in self._engines)

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the shards whose lease is held here."""
        return tuple(number for number, engine in enumerate(self._engines) if engine.holds)

    async def start(self) -> None:
        """Begin to take a part of the shards; returns at once."""
        for engine in self._engines:
            await engine.start()
        keep = self._engines[0].keep_running
        self._tasks = [
            keep("pages", self._paging.run),
            keep("outage", self._outage.run),
            keep("nodes", self._watch_nodes),
        ]
        self._sharing = [keep("shares", self._share)]

    async def stop(self) -> None:
        """Take nothing more, and hand every shard over."""
        self._stopping = True
        await self._engines[0].end(self._sharing)
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self._replicas.leave(self._home.owner)
        except (TimeoutError, Transient, Permanent) as error:
            self._home.telemetry.line("not-left", error=str(error))
        if self._moving is not None:
            await asyncio.wait({self._moving})
        await asyncio.gather(*(engine.stop() for engine in self._engines))
        await self._engines[0].end(self._tasks)

    async def idle(self) -> None:
        """Wait until no worker of any shard runs."""
        for engine in self._engines:
            await engine.idle()

    async def round(self) -> None:
        """Say what is held here, take what is missing, and give back what is too much."""
        try:
            replicas = await self._beat()
        except (Transient, Permanent) as error:
            self._home.telemetry.line("replicas-unknown", error=str(error))
            await self._take(len(self._engines))
            return
        mine = part(self._home.owner, replicas, len(self._engines))
        await self._take(mine.take)
        if mine.give and self._moving is None:
            self._moving = asyncio.create_task(self._give_one(), name="hand-over")

    async def _beat(self) -> Sequence[Replica]:
        held = sum(engine.holds and engine is not self._giving for engine in self._engines)
        return await self._replicas.beat(self._home.owner, held, GONE_AFTER_S)

    async def _share(self) -> None:
        while True:
            self._rung.clear()
            await self.round()
            await rest(self._rung, self._home.clock, ROUND_S)

    async def _freed(self) -> None:
        self._rung.set()

    async def _take(self, wanted: int) -> None:
        """Try for shards until so many more are held, in an order of our own so that replicas do not meet at one."""
        free = [number for number, engine in enumerate(self._engines) if not engine.holds]
        free.sort(key=lambda number: zlib.crc32(f"{self._home.owner}/{number}".encode()))
        while wanted > 0 and free and not self._stopping:
            tried, free = free[:wanted], free[wanted:]
            wanted -= sum(await asyncio.gather(*(self._engines[number].take() for number in tried)))

    async def _give_one(self) -> None:
        """Hand over the shard with the fewest rollouts; what cannot be handed over now is tried again next round."""
        ready = [engine for engine in self._engines if engine.leading and not engine.store_away]
        try:
            if ready and not self._stopping:
                self._giving = min(ready, key=lambda engine: engine.active)
                await self._beat()
                await self._giving.hand_over()
                self._home.telemetry.line("shard-given", shard=self._engines.index(self._giving))
                self._rung.set()
        except Exception as error:
            self._home.telemetry.failed("shard-kept", error)
        finally:
            self._giving = None
            self._moving = None

    async def _watch_nodes(self) -> None:
        """Judge nodes while any shard is worked on."""
        while True:
            if self.leading:
                try:
                    await self._nodes.round()
                except (Transient, Permanent) as error:
                    self._home.telemetry.line("nodes-unread", error=str(error))
                await self._home.clock.sleep(self._home.catalog().fallback.rules.check_every_s)
            else:
                await self._home.clock.sleep(ROUND_S)

    async def _everywhere(self) -> Sequence[Rollout]:
        return [rollout for rollout, _ in (await self._home.rollouts.active()).rollouts]

    def _cut_off(self) -> Sequence[Rollout]:
        return [rollout for engine in self._engines for rollout in engine.cut_off()]

    def _ring_home(self) -> None:
        self._engines[0].ring_deliver()

    def _of_store(self, number: int) -> Callable[[Page], None]:
        """One page for all shards: sent with the first that is cut off, resolved with the last that is back."""

        def page(one: Page) -> None:
            before = bool(self._away)
            if one.resolved:
                self._away.discard(number)
            else:
                self._away.add(number)
            if before is not bool(self._away):
                self._paging.send(one)

        return page
