"""How rollouts are spread over shards, and one store over all of them for whoever does not hold any.

A rollout belongs to the shard of its route, so that two starts on one route meet in one place. What belongs to nobody's
rollout (freezes, ids seen already, allowances, messages about nodes, replicas) is kept in the first shard.
"""

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bot.adapters.redis.inbox import RedisInbox
from bot.adapters.redis.lease import RedisLeases
from bot.adapters.redis.link import Link
from bot.adapters.redis.outbox import RedisOutbox
from bot.adapters.redis.rollouts import RedisRollouts
from bot.errors import Conflict, NotFound
from bot.ports.store import Active, Letter, Outline, Posted
from bot.rollout.effects import Audit, Message
from bot.rollout.events import Request
from bot.rollout.model import Rollout

HOME = 0
KNOWN = 50_000

_T = TypeVar("_T")


def shard_of(route_key: str, shards: int) -> int:
    """The shard of a route (`RouteRef.key`): CRC-32 of its UTF-8 bytes, modulo. It must never change."""
    return zlib.crc32(route_key.encode()) % shards


@dataclass(frozen=True, slots=True)
class RedisShard:
    """One shard's ports."""

    number: int
    link: Link
    rollouts: RedisRollouts
    inbox: RedisInbox
    leases: RedisLeases
    outbox: RedisOutbox


class Spread:
    """Where each rollout lives. An id is looked for in every shard once (one small call each, side by side)."""

    def __init__(self, shards: Sequence[RedisShard], active_in: int) -> None:
        self.shards = shards
        self.active_in = active_in
        self._known: OrderedDict[str, int] = OrderedDict()

    @property
    def home(self) -> RedisShard:
        """The shard of what belongs to the fleet."""
        return self.shards[HOME]

    @property
    def active(self) -> Sequence[RedisShard]:
        """Shards that rollouts are spread over; the others keep what ended while there were more."""
        return self.shards[: self.active_in]

    def of_route(self, route_key: str) -> RedisShard:
        return self.shards[shard_of(route_key, self.active_in)]

    def remember(self, rollout: Rollout) -> None:
        """A rollout's home is its route's, whoever asks by its id."""
        self.learn(rollout.id, shard_of(rollout.target.route.key, self.active_in))

    def learn(self, rollout_id: str, number: int) -> None:
        self._known[rollout_id] = number
        self._known.move_to_end(rollout_id)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def met(self, shard: RedisShard, outlines: Sequence[Outline]) -> None:
        """These lie in this shard: nobody has to look for them."""
        if len(self.shards) > 1:
            for outline in outlines:
                if outline.id not in self._known:
                    self.learn(outline.id, shard.number)

    async def of_id(self, rollout_id: str) -> RedisShard | None:
        """The shard that has a record of this id, None when none has. Raises Transient when that cannot be told."""
        if len(self.shards) == 1:
            return self.home
        if ":" in rollout_id:
            return None
        known = self._known.get(rollout_id)
        if known is not None:
            return self.shards[known]
        found = await asyncio.gather(*(_there(shard, rollout_id) for shard in self.shards), return_exceptions=True)
        for one in found:
            if isinstance(one, RedisShard):
                self.learn(rollout_id, one.number)
                return one
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return None

    async def of_id_or_home(self, rollout_id: str) -> RedisShard:
        return await self.of_id(rollout_id) or self.home


class SpreadRollouts:
    """Implements `Rollouts` over every shard, for use cases; holders use their own shard's."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread

    async def create(
        self, rollout: Rollout, wake_at: float, messages: Sequence[Message], audit: Sequence[Audit]
    ) -> None:
        """Take id and route together in the shard of the route."""
        mine = self._spread.of_route(rollout.target.route.key)
        elsewhere = await self._spread.of_id(rollout.id)
        if elsewhere is not None and elsewhere is not mine:
            raise Conflict(f"rollout {rollout.id} exists already")
        await mine.rollouts.create(rollout, wake_at, messages, audit)
        self._spread.remember(rollout)

    async def save(
        self,
        rollout: Rollout,
        wake_at: float | None,
        messages: Sequence[Message],
        audit: Sequence[Audit],
        *,
        token: int,
        save_id: str,
    ) -> None:
        """Save in the shard of the route, whose token it takes."""
        shard = self._spread.of_route(rollout.target.route.key)
        await shard.rollouts.save(rollout, wake_at, messages, audit, token=token, save_id=save_id)

    async def load(self, rollout_id: str) -> Rollout:
        """One rollout, from whichever shard has it."""
        shard = await self._spread.of_id(rollout_id)
        if shard is None:
            raise NotFound(f"there is no rollout {rollout_id}")
        return await shard.rollouts.load(rollout_id)

    async def active(self) -> Active:
        """Every rollout that has not ended, of all shards."""
        found = await _each(self._spread.active, lambda one: one.rollouts.active())
        return Active(
            tuple(pair for one in found for pair in one.rollouts),
            tuple(pair for one in found for pair in one.quarantined),
        )

    async def outlines(self) -> tuple[Outline, ...]:
        """Every readable rollout that has not ended, of all shards, in outline."""
        found = await _each(self._spread.active, lambda one: one.rollouts.outlines())
        for shard, one in zip(self._spread.active, found, strict=True):
            self._spread.met(shard, one)
        return found[0] if len(found) == 1 else tuple(outline for one in found for outline in one)

    async def loaded(self, rollout_ids: Sequence[str]) -> tuple[Rollout, ...]:
        """These rollouts of any shard, active or ended, by id; those that are missing or unreadable are left out."""
        by_shard: dict[int, list[str]] = {}
        for name in rollout_ids:
            shard = await self._spread.of_id(name)
            if shard is not None:
                by_shard.setdefault(shard.number, []).append(name)
        found = await asyncio.gather(
            *(self._spread.shards[number].rollouts.loaded(names) for number, names in by_shard.items())
        )
        return tuple(sorted((rollout for one in found for rollout in one), key=lambda rollout: rollout.id))

    async def quarantined(self) -> tuple[tuple[str, str], ...]:
        """Ids of records of all shards that cannot be read, with the reason."""
        found = await _each(self._spread.active, lambda one: one.rollouts.quarantined())
        return tuple(pair for one in found for pair in one)

    async def finished(self, service: str = "", limit: int = 20) -> tuple[Rollout, ...]:
        """Ended rollouts of all shards, newest first."""
        found = await _each(self._spread.shards, lambda one: one.rollouts.finished(service, limit))
        together = [rollout for one in found for rollout in one]
        return tuple(sorted(together, key=lambda one: one.ended_at or 0.0, reverse=True)[:limit])

    async def due(self, now: float) -> tuple[str, ...]:
        """Ids whose wake-up has passed, shard by shard."""
        found = await _each(self._spread.active, lambda one: one.rollouts.due(now))
        return tuple(name for one in found for name in one)

    async def note(self, audit: Sequence[Audit]) -> None:
        """Audit lines, each beside its rollout's; those about no rollout lie in the first shard."""
        by_shard: dict[int, list[Audit]] = {}
        for line in audit:
            shard = await self._spread.of_id_or_home(line.rollout) if line.rollout else self._spread.home
            by_shard.setdefault(shard.number, []).append(line)
        for number, lines in by_shard.items():
            await self._spread.shards[number].rollouts.note(lines)

    async def audited(self, rollout_id: str = "", limit: int = 200) -> tuple[Audit, ...]:
        """Audit lines of one rollout, or of all shards by their time, newest first."""
        if rollout_id:
            return await (await self._spread.of_id_or_home(rollout_id)).rollouts.audited(rollout_id, limit)
        found = await _each(self._spread.shards, lambda one: one.rollouts.audited("", limit))
        lines = [line for one in found for line in one]
        return tuple(sorted(lines, key=lambda line: line.at, reverse=True)[:limit])

    async def ping(self) -> str:
        """The server's name and version, when every shard's server answers."""
        return (await _each(self._spread.active, lambda one: one.rollouts.ping()))[0]


class SpreadInbox:
    """Implements `Inbox` over every shard. A request for an id that nobody knows is answered by the first one's."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread

    async def put(self, request: Request) -> None:
        await (await self._spread.of_id_or_home(request.rollout)).inbox.put(request)

    async def take(self, rollout_id: str) -> tuple[Request, ...]:
        return await (await self._spread.of_id_or_home(rollout_id)).inbox.take(rollout_id)

    async def done(self, rollout_id: str, request_ids: Sequence[str]) -> None:
        await (await self._spread.of_id_or_home(rollout_id)).inbox.done(rollout_id, request_ids)

    async def waiting(self) -> tuple[str, ...]:
        found = await _each(self._spread.active, lambda one: one.inbox.waiting())
        return tuple(sorted(name for one in found for name in one))

    async def ring(self, rollout_id: str) -> None:
        await (await self._spread.of_id_or_home(rollout_id)).inbox.ring(rollout_id)

    async def rings(self) -> AsyncIterator[str]:
        """Every shard's rings."""
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def hear(shard: RedisShard) -> None:
            async for key in shard.inbox.rings():
                heard.put_nowait(key)

        ears = [asyncio.create_task(hear(shard)) for shard in self._spread.active]
        try:
            while True:
                yield await heard.get()
        finally:
            for ear in ears:
                ear.cancel()
            await asyncio.gather(*ears, return_exceptions=True)


class SpreadOutbox:
    """Implements `Outbox` over every shard. A letter lies where its rollout does, any other in the first shard."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread

    async def add(self, rollout_id: str, messages: Sequence[Message], now: float) -> None:
        await (await self._spread.of_id_or_home(rollout_id)).outbox.add(rollout_id, messages, now)

    async def take(self, now: float, limit: int) -> tuple[Letter, ...]:
        found = await _each(self._spread.active, lambda one: one.outbox.take(now, limit))
        return tuple(letter for one in found for letter in one)[:limit]

    async def done(self, letter: Letter) -> None:
        await (await self._spread.of_id_or_home(letter.rollout)).outbox.done(letter)

    async def delay(self, letter: Letter, until: float) -> None:
        await (await self._spread.of_id_or_home(letter.rollout)).outbox.delay(letter, until)

    async def posted(self, key: str) -> Posted | None:
        return await (await self._of_key(key)).outbox.posted(key)

    async def set_posted(self, key: str, posted: Posted) -> None:
        await (await self._of_key(key)).outbox.set_posted(key, posted)

    async def _of_key(self, key: str) -> RedisShard:
        """`card:<rollout>` and `ask:<rollout>:<step>` lie with the rollout."""
        kind, _, rest = key.partition(":")
        if kind not in ("card", "ask"):
            return self._spread.home
        return await self._spread.of_id_or_home(rest.partition(":")[0])

    async def allowance(self, bucket: str, limit: int, window_s: float, now: float) -> float:
        return await self._spread.home.outbox.allowance(bucket, limit, window_s, now)

    async def depth(self) -> int:
        return sum(await _each(self._spread.active, lambda one: one.outbox.depth()))


async def _there(shard: RedisShard, rollout_id: str) -> RedisShard | None:
    return shard if await shard.rollouts.exists(rollout_id) else None


async def _each(shards: Sequence[RedisShard], ask: Callable[[RedisShard], Awaitable[_T]]) -> list[_T]:
    """Ask every shard side by side; the failure of one is that of all."""
    return await asyncio.gather(*(ask(shard) for shard in shards))
