"""Routes that carry a rollout's weight while no record knows it: Redis was wiped, or set back.

Nobody watches their gates. People are told which they are and how to send them to 0; nothing is done by itself.
"""

import asyncio
from collections.abc import Callable

from bot.engine.book import Book
from bot.engine.world import World
from bot.errors import NotFound, Permanent, Transient
from bot.ports.mesh import Steered
from bot.rollout.effects import Message, MessageKind, Page, Tone

EVERY_S = 300.0
AGAIN_S = 5.0


class LostRoutes:
    """Looks when the lease is gained and every five minutes; each lost route is told once, and again when it ends."""

    def __init__(
        self,
        world: World,
        book: Book,
        page: Callable[[Page], None],
        ring: Callable[[str], None],
        said: Callable[[], None],
    ) -> None:
        self._world = world
        self._book = book
        self._page = page
        self._ring = ring
        self._said = said
        self._told: dict[str, str] = {}

    def forget(self) -> None:
        """Another process looks now."""
        self._told.clear()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.round()
            except (Transient, Permanent) as error:
                self._world.telemetry.line("lost-routes-unread", error=str(error))
                await self._world.clock.sleep(AGAIN_S)
            else:
                await self._world.clock.sleep(EVERY_S)

    async def round(self) -> None:
        """Look once, and tell what is new. Raises Transient and Permanent."""
        found = await asyncio.gather(*(mesh.steered(self._world.namespaces) for mesh in self._world.meshes.values()))
        lost = {one.mark.rollout: one for routes in found for one in routes if await self._is_lost(one)}
        for name, one in lost.items():
            if name not in self._told:
                await self._tell(one)
        for name in self._told.keys() - lost.keys():
            self._page(Page(f"{name}:lost", self._told.pop(name), resolved=True))

    async def _is_lost(self, one: Steered) -> bool:
        if not one.state.canary_weight or self._book.page(one.mark.rollout) is not None:
            return False
        try:
            rollout = await self._world.rollouts.load(one.mark.rollout)
        except NotFound:
            return True
        except Permanent:
            return False
        if not rollout.phase.final:
            self._ring(rollout.id)
        return rollout.phase.final

    async def _tell(self, one: Steered) -> None:
        name, service = one.mark.rollout, one.mark.service
        summary = f"{service}: {one.state.canary_weight}% goes to a canary that nobody watches"
        detail = (
            f"The route {one.target.route.namespace}/{one.target.route.name} bears the mark of rollout {name}, and the "
            f"store has no running record of it. Its gates are not asked. `/canary rollback {name}` sends it to 0."
        )
        channel = self._world.catalog().entry(service, one.target.namespace).rules.channel
        message = Message(MessageKind.NOTICE, f"{summary}. {detail}", tone=Tone.BAD, urgent=True, channel=channel)
        self._page(Page(f"{name}:lost", summary, detail))
        self._world.telemetry.line("route-lost", rollout=name, service=service, weight=one.state.canary_weight)
        await self._world.outbox.add(f"lost:{name}", [message], self._world.clock.now())
        self._told[name] = summary
        self._said()
