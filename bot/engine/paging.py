"""Pages on their way out: the newest of each key, tried until it is taken."""

import asyncio

from bot.errors import Permanent, Transient
from bot.ports.clock import Clock
from bot.ports.pager import Pager
from bot.ports.telemetry import Telemetry
from bot.rollout.effects import Page

RETRY_S = 5.0


class Paging:
    """`send` never waits; `run` delivers. A newer page of the same key replaces one not yet sent."""

    def __init__(self, pager: Pager, clock: Clock, telemetry: Telemetry) -> None:
        self._pager = pager
        self._clock = clock
        self._telemetry = telemetry
        self._waiting: dict[str, Page] = {}
        self._rung = asyncio.Event()

    def send(self, page: Page) -> None:
        self._waiting[page.key] = page
        self._telemetry.line("page", key=page.key, summary=page.summary, resolved=page.resolved)
        self._rung.set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            if not self._waiting:
                await self._rung.wait()
            self._rung.clear()
            if not await self.flush():
                await self._clock.sleep(RETRY_S)

    async def flush(self) -> bool:
        """Send what waits, once; False when something is left."""
        for key, page in tuple(self._waiting.items()):
            try:
                await self._pager.page(page)
            except Transient as error:
                self._telemetry.failed("page-not-sent", error, key=key)
                continue
            except Permanent as error:
                self._telemetry.failed("page-refused", error, key=key)
            if self._waiting.get(key) is page:
                del self._waiting[key]
        return not self._waiting
