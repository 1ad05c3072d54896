"""Work that has been acknowledged and not yet done: tracked, each piece done once, drained before the process ends."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from bot.errors import Transient
from bot.ports.store import Seen
from bot.ports.telemetry import Telemetry

SEEN_S = 900.0


@dataclass(slots=True)
class Intake:
    """Tasks of acknowledged requests. Bolt's own tasks are not tracked and would be lost at the end."""

    seen: Seen
    telemetry: Telemetry
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _waiting: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this; `drain` waits for it."""
        self._keep(self._tasks, work)

    def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this if there is time; `drain` does not wait for it."""
        self._keep(self._waiting, work)

    @staticmethod
    def _keep(among: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)

    async def first_time(self, key: str) -> bool:
        """Whether this delivery is new within 15 minutes; repeats are counted. Raises Transient."""
        new = await self.seen.first_time(f"slack:{key}", SEEN_S)
        if not new:
            self.telemetry.count("slack_repeated")
        return new

    async def replayed(self, key: str) -> bool:
        """Whether a signed request was seen before; unknown means no, its id is looked at again later."""
        try:
            return not await self.seen.first_time(f"slack:{key}", SEEN_S)
        except Transient:
            return False

    @property
    def busy(self) -> int:
        """How many pieces of work are under way."""
        return len(self._tasks)

    async def idle(self) -> None:
        """Wait until all work is done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def drain(self, timeout_s: float) -> int:
        """Wait for the work under way, then give up on the rest; how many were given up."""
        for task in self._waiting:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, *self._waiting, return_exceptions=True)
        return len(left)
