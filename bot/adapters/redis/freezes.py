"""Freezes, and the ids seen already."""

import math

from bot.adapters.redis.link import Link
from bot.errors import Unreadable
from bot.ports.clock import Clock
from bot.rollout.model import Actor, Freeze, Source
from bot.rollout.record import dump, load_freeze

_REMEMBERED_S = 7 * 86_400.0


class RedisFreezes:
    """Implements `Freezes`. One that ended more than 7 days ago is forgotten when the next is added."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def add(self, freeze: Freeze) -> None:
        """Put a freeze in force."""
        await self._link.command("HSET", "freezes", _field(freeze), dump(freeze))
        long_ago = self._clock.now() - _REMEMBERED_S
        past = [_field(old) for old in await self.all() if old.until is not None and old.until < long_ago]
        if past:
            await self._link.command("HDEL", "freezes", *past)

    async def remove(self, scope: str) -> tuple[Freeze, ...]:
        """Lift the freezes of a scope; two people who lift the same one are not both told that they did."""
        answer = await self._link.run("unfreeze", scope)
        return _in_order([_read(field, text) for field, text in zip(answer[::2], answer[1::2], strict=True)])

    async def all(self) -> tuple[Freeze, ...]:
        """Every freeze, also ended ones; `Freeze.covers` says which binds. One that cannot be read binds its scope."""
        found: dict[str, str] = await self._link.command("HGETALL", "freezes")
        return _in_order([_read(field, text) for field, text in found.items()])


class RedisSeen:
    """Implements `Seen`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def first_time(self, key: str, ttl_s: float) -> bool:
        """True the first time a key is seen within `ttl_s`."""
        return bool(await self._link.command("SET", f"seen:{key}", "1", "NX", "PX", max(1, math.ceil(ttl_s * 1000))))


def _field(freeze: Freeze) -> str:
    return f"{freeze.scope}|{freeze.id}"


def _read(field: str, text: str) -> Freeze:
    try:
        return load_freeze(text)
    except Unreadable:
        scope, _, freeze_id = field.rpartition("|")
        return Freeze(freeze_id, scope, "a freeze that this version cannot read", Actor(Source.BOT), 0.0)


def _in_order(freezes: list[Freeze]) -> tuple[Freeze, ...]:
    return tuple(sorted(freezes, key=lambda freeze: (freeze.since, freeze.id)))
