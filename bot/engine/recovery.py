"""Rollouts that the store has lost: kept from memory where this process held them, else rebuilt from their routes.

Redis was wiped, or a fail-over lost what was new. Each is held (`recovered`) and people are asked; gates go on.
"""

import asyncio
from collections.abc import Callable

from bot.engine.book import Book
from bot.engine.rest import rest
from bot.engine.world import World
from bot.errors import Conflict, NotFound, Permanent, Transient
from bot.ports.mesh import Steered
from bot.rollout import effects
from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.model import RouteRef
from bot.rollout.recovery import held_in_memory, held_rebuilt, rebuilt
from bot.rollout.wake import wake_at

EVERY_S = 300.0
AGAIN_S = 5.0
UNSOLVED_EVERY_S = 30.0


class Recovery:
    """Looks at the marks when the lease is gained, and every five minutes: at those of routes that are `mine`.

    A route that cannot be taken up again is told once and paged, and tried again each half minute.
    """

    def __init__(
        self,
        world: World,
        book: Book,
        page: Callable[[effects.Page], None],
        ring: Callable[[str], None],
        said: Callable[[], None],
        mine: Callable[[RouteRef], bool],
    ) -> None:
        self._world = world
        self._book = book
        self._page = page
        self._ring = ring
        self._said = said
        self._mine = mine
        self._told: dict[str, str] = {}
        self._look_now = asyncio.Event()

    def forget(self) -> None:
        """Another process looks now."""
        self._told.clear()

    def wiped(self) -> None:
        """The store has lost its data while we held the lease: each rollout in memory is held and has all of it saved
        again, and the marks are read for those that are not in it yet.

        Held at once, whatever its worker is doing: under the new lease the store takes what it is given, and who reads
        that after our death has to find the hold. So a save of before is not repeated either.
        """
        self._look_now.set()
        for page in self._book.pages():
            page.turn(held_in_memory(page.rollout, self._world.clock.now()))
            page.unsure = None
            page.dirty = True
            self._world.telemetry.line("kept-from-memory", rollout=page.rollout.id, weight=page.rollout.weight_percent)
            self._ring(page.rollout.id)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self._look_now.clear()
            try:
                await self.round()
            except (Transient, Permanent) as error:
                self._world.telemetry.line("marks-unread", error=str(error))
                seconds = AGAIN_S
            else:
                seconds = UNSOLVED_EVERY_S if self._told else EVERY_S
            await rest(self._look_now, self._world.clock, seconds)

    async def round(self) -> None:
        """Look once, and take up what is lost. Raises Transient and Permanent."""
        found = await asyncio.gather(*(mesh.steered(self._world.namespaces) for mesh in self._world.meshes.values()))
        unsolved = {}
        for one in (one for routes in found for one in routes if self._mine(one.target.route)):
            why = await self._why_lost(one)
            if why:
                unsolved[one.mark.rollout] = one
                if one.mark.rollout not in self._told:
                    await self._tell(one, why)
        for name in sorted(self._told.keys() - unsolved.keys()):
            self._page(effects.Page(f"{name}:lost", self._told.pop(name), resolved=True))

    async def _why_lost(self, one: Steered) -> str:
        """ "" when the rollout of a mark runs, or runs again now; else why it cannot, as a sentence."""
        name = one.mark.rollout
        if self._book.page(name) is not None:
            return ""
        try:
            rollout = await self._world.rollouts.load(name)
        except NotFound:
            return await self._rebuilt(one)
        except Permanent:
            return ""
        if not rollout.phase.final:
            self._ring(name)
            return ""
        ended = f"The record says {rollout.phase.value}, and the route was put back to before that."
        return ended if one.state.canary_weight else ""

    async def _rebuilt(self, one: Steered) -> str:
        mark, now = one.mark, self._world.clock.now()
        entry = self._world.catalog().entry(mark.service, one.target.namespace)
        try:
            target = await self._world.meshes[one.target.route.mesh].resolved(one.target)
        except Permanent as error:
            if not one.state.canary_weight:
                return ""
            return f"No record of it is left, and it cannot be rebuilt: {str(error).rstrip('.')}."
        made = rebuilt(
            mark=mark,
            target=target,
            plan=entry.plan,
            gates=entry.gates_for(target.route.protocol),
            rules=entry.rules,
            now=now,
        )
        decision = held_rebuilt(made, now)
        try:
            await self._world.rollouts.create(
                decision.rollout, wake_at(decision.rollout, now) or now, decision.messages, decision.audit
            )
        except Conflict as error:
            self._world.telemetry.line("not-rebuilt", rollout=mark.rollout, error=str(error))
            return f"No record of it is left, and it cannot be rebuilt: {error}."
        self._world.telemetry.line("rebuilt", rollout=mark.rollout, service=mark.service, weight=mark.weight_percent)
        self._ring(mark.rollout)
        self._said()
        return ""

    async def _tell(self, one: Steered, why: str) -> None:
        name, service = one.mark.rollout, one.mark.service
        summary = f"{service}: {one.state.canary_weight or 0}% goes to a canary that nobody watches"
        detail = (
            f"The route {one.target.route.namespace}/{one.target.route.name} bears the mark of rollout {name}. {why} "
            f"Its gates are not asked. `/canary rollback {name}` sends it to 0."
        )
        channel = self._world.catalog().entry(service, one.target.namespace).rules.channel
        message = Message(MessageKind.NOTICE, f"{summary}. {detail}", tone=Tone.BAD, urgent=True, channel=channel)
        self._page(effects.Page(f"{name}:lost", summary, detail))
        self._world.telemetry.line("route-lost", rollout=name, service=service, weight=one.state.canary_weight)
        await self._world.outbox.add(f"lost:{name}", [message], self._world.clock.now())
        self._told[name] = summary
        self._said()
