"""Ends that no record shows: reached behind a cut, forgotten with the lease, and forgotten by the store as well.

What a former holder could not save is found on the route by the next one, as long as there is a record to wake it for.
When the store has lost that, too, nobody but the former holder knows: it says so once the store can be asked, and also
when the route can no longer tell whether the canary arrived at 0. It also says when it sent to 0 what another holder
had already ended.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bot.engine.book import Page
from bot.engine.rest import rest
from bot.engine.world import World
from bot.errors import NotFound, Permanent, Transient
from bot.rollout.effects import Audit, Message
from bot.rollout.model import Phase, Rollout
from bot.rollout.recovery import ended_twice, ended_unsaved, unfollowed
from bot.rollout.route import RouteState

EVERY_S = 1.0
FOLLOWED_S = 60.0
"""A record that does not show the end for so long is somebody else's by now."""
SAVED_AGAIN_WITHIN_S = 3.0
"""A record that is missing for less may be in the memory of another holder, which tries to save it each second."""


@dataclass(slots=True, eq=False)
class _Left:
    """A page that was forgotten, and since when (monotonic seconds); since when its record is missing; `said` once its
    letter has been taken."""

    page: Page
    since: float
    missing_since: float | None = None
    said: bool = False


class Ends:
    """Follows forgotten pages until a record shows their end, or tells of it. `busy` says that a rollout's worker runs:
    it may be in the middle of the way to 0."""

    def __init__(self, world: World, busy: Callable[[str], bool]) -> None:
        self._world = world
        self._busy = busy
        self._left: list[_Left] = []
        self._rung = asyncio.Event()

    def keep(self, pages: Sequence[Page]) -> None:
        """Pages that are about to be forgotten: those are followed that may have an end nobody was told of."""
        now = self._world.clock.monotonic()
        left = [_Left(page, now) for page in pages if _may_end(page.rollout) or self._busy(page.rollout.id)]
        if left:
            self._left += left
            self._rung.set()

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            if not self._left:
                await self._rung.wait()
            self._rung.clear()
            await self.round()
            await rest(self._rung, self._world.clock, EVERY_S)

    async def round(self) -> None:
        """Look after each once."""
        for left in tuple(self._left):
            try:
                settled = await self._settled(left)
            except Transient:
                continue
            except Permanent as error:
                self._world.telemetry.line("end-unread", rollout=left.page.rollout.id, error=str(error))
                settled = True
            if settled:
                self._left.remove(left)

    async def _settled(self, left: _Left) -> bool:
        """True when there is nothing more to be told. Raises Transient and Permanent."""
        page = left.page
        if self._busy(page.rollout.id):
            return False
        saved = not page.dirty and page.unsure is None
        if not _may_end(page.rollout) or (page.rollout.phase.final and saved):
            return True
        try:
            known = await self._world.rollouts.load(page.rollout.id)
        except NotFound:
            now = self._world.clock.monotonic()
            left.missing_since = now if left.missing_since is None else left.missing_since
            if now - left.missing_since < SAVED_AGAIN_WITHIN_S:
                return False
            return await self._tell(left, await self._unrecorded(page.rollout))
        left.missing_since = None
        if known.phase.final:
            same = known.ended_at == page.rollout.ended_at
            return same or await self._tell(left, await self._once_more(page.rollout, known))
        return self._world.clock.monotonic() - left.since > FOLLOWED_S

    async def _tell(self, left: _Left, news: tuple[Message, Audit] | None) -> bool:
        """Say it and put it into the audit, if there is anything to say."""
        if news is None:
            return True
        page, (message, line) = left.page, news
        if not left.said:
            await self._world.outbox.add(page.rollout.id, [message], self._world.clock.now())
            left.said = True
        await self._world.rollouts.note([*page.audit, line])
        self._world.telemetry.line("end-told", rollout=page.rollout.id, phase=page.rollout.phase.value)
        return True

    async def _unrecorded(self, rollout: Rollout) -> tuple[Message, Audit] | None:
        """Of a rollout that has no record: its end, or that nobody can know it. None when its mark brings it back,
        which is told."""
        now = self._world.clock.now()
        if rollout.phase.final:
            return ended_unsaved(rollout, now)
        route = await self._route(rollout)
        mark = None if route is None else route.mark
        if route is None or mark is None or mark.rollout != rollout.id:
            return unfollowed(rollout, route, now)
        if mark.phase != Phase.ROLLED_BACK.value:
            return None
        return unfollowed(rollout, route, now) if route.canary_weight else ended_unsaved(rollout, now)

    async def _once_more(self, rollout: Rollout, known: Rollout) -> tuple[Message, Audit] | None:
        """Of a way to 0 that was written over the end that another holder brought about, as the record `known` shows;
        None when nothing was."""
        newest = _marked(known)
        written = rollout.phase.final and _marked(rollout) > newest
        if not written and not _at_zero(await self._route(rollout), rollout, newest):
            return None
        return ended_twice(rollout, known, self._world.clock.now())

    async def _route(self, rollout: Rollout) -> RouteState | None:
        try:
            return await self._world.meshes[rollout.target.route.mesh].read(rollout.target)
        except NotFound:
            return None


def _at_zero(route: RouteState | None, rollout: Rollout, newer_than: int) -> bool:
    """A way to 0 whose reply was lost has arrived: the mark is the rollout's, of a revision above `newer_than`, and the
    canary has nothing."""
    mark = None if route is None else route.mark
    if route is None or mark is None or mark.rollout != rollout.id or mark.revision <= newer_than:
        return False
    return mark.phase == Phase.ROLLED_BACK.value and not route.canary_weight


def _may_end(rollout: Rollout) -> bool:
    return rollout.phase.final or rollout.phase is Phase.ROLLING_BACK


def _marked(rollout: Rollout) -> int:
    return -1 if rollout.marked is None else rollout.marked
