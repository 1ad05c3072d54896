"""The active rollouts of a shard as a process knows them, kept up to date by the shard's log of changes.

Outlines are read once; a further reading asks what the log (`lua/changes.lua`) has added since, and reads that. It is
as exact as reading everything (docs/adr/0018-read-what-has-changed.md):

- Every script that changes a record, or moves one in or out of the active, adds to the log in the same step.
- A reading goes on from the entry it saw last, which has to be there still, with its mark. Redis may lose the end of
  what it was told, never something in the middle: while that entry is there, all before it stands as it was seen. A
  fail-over or restart that lost the last second, an emptied store, and a log that was cut, have it no longer: then
  everything is read anew.
- A version that writes no log saves only under a lease of its own, whose token the log does not bear, and the next
  lease begins a new log. What it creates or sets aside without a lease shows in the number of active rollouts.

Records that were set aside are read each time: another version may be able to.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bot.adapters.redis.link import Link
from bot.adapters.redis.reader import Reader
from bot.errors import Unreadable
from bot.ports.store import Active, Outline
from bot.rollout.model import Rollout

CHUNK = 200
"""Records read at once: small enough that neither Redis nor the event loop is kept for long."""

_Told = TypeVar("_Told")


@dataclass(slots=True)
class _Known:
    """What is active after the entry of the log at `place`, "" for none: `unread` are those whose record cannot be
    read, with the reason. `whole` are the others with their wake time, while somebody wants them."""

    whole: dict[str, tuple[Rollout, float]] | None = None
    place: str = ""
    mark: str = ""
    outlines: dict[str, Outline] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    in_order: tuple[Outline, ...] | None = None

    def put(self, name: str, found: "Rollout | Unreadable", wake_at: float) -> None:
        """One active rollout as it is now. Most changes show in no outline."""
        if isinstance(found, Unreadable) or found.phase.final:
            self.drop(name)
            if isinstance(found, Unreadable):
                self.unread[name] = str(found)
            return
        self.unread.pop(name, None)
        if self.outlines.get(name) != (outline := Outline.of(found)):
            self.outlines[name] = outline
            self.in_order = None
        if self.whole is not None:
            self.whole[name] = found, wake_at

    def drop(self, name: str) -> None:
        """One that is active no more."""
        self.in_order = None
        self.outlines.pop(name, None)
        self.unread.pop(name, None)
        if self.whole is not None:
            self.whole.pop(name, None)


class Actives:
    """Reads for one `RedisRollouts`.

    Who asks while a reading is under way shares the next one: never older than the question, and a burst of commands
    costs two readings.
    """

    def __init__(self, link: Link, reader: Reader) -> None:
        self._link = link
        self._reader = reader
        self._known = _Known()
        self._one_reading = asyncio.Lock()
        self._next: dict[str, asyncio.Task[Any]] = {}

    async def outlines(self) -> tuple[Outline, ...]:
        """Of every readable one, by id."""
        return await self._shared("outlines", self._outlines)

    async def unreadable(self) -> tuple[tuple[str, str], ...]:
        """Ids of those that are not, with the reason."""
        return await self._shared("unreadable", self._unreadable)

    async def whole(self) -> Active:
        """Every record, read anew, by id; those that cannot be read are moved aside and told, each time."""
        return await self._shared("whole", self._whole)

    async def records(self, names: Iterable[str]) -> AsyncIterator[tuple[str, Rollout | Unreadable, float]]:
        """Id, record and wake time of each, by id."""
        in_order = sorted(names)
        for start in range(0, len(in_order), CHUNK):
            chunk = in_order[start : start + CHUNK]
            answer = await self._link.run("read", *chunk)
            for name, text, wake_at in zip(chunk, answer[::2], answer[1::2], strict=True):
                yield name, self._read(text), float(wake_at or 0.0)
            await asyncio.sleep(0)

    async def _shared(self, name: str, read: Callable[[], Awaitable[_Told]]) -> _Told:
        async def reading() -> _Told:
            async with self._one_reading:
                del self._next[name]
                return await read()

        if name not in self._next:
            self._next[name] = asyncio.create_task(reading())
            self._next[name].add_done_callback(_seen)
        told: _Told = await asyncio.shield(self._next[name])
        return told

    async def _outlines(self) -> tuple[Outline, ...]:
        back, _ = await self._brought_up()
        known = self._known
        if known.in_order is None:
            known.in_order = tuple(known.outlines[name] for name in sorted(known.outlines))
        return known.in_order + tuple(Outline.of(rollout) for rollout, _ in back)

    async def _unreadable(self) -> tuple[tuple[str, str], ...]:
        _, aside = await self._brought_up()
        return tuple(sorted(aside.items()))

    async def _whole(self) -> Active:
        back, aside = await self._brought_up(whole=True)
        whole, self._known.whole = self._known.whole or {}, None
        return Active((*(whole[name] for name in sorted(whole)), *back), tuple(sorted(aside.items())))

    async def _brought_up(self, *, whole: bool = False) -> tuple[list[tuple[Rollout, float]], dict[str, str]]:
        """Bring what is known up to now. Tells the rollouts that came back from those set aside, and ids and reasons of
        those that cannot be read."""
        aside = None if whole else await self._gone_on()
        if aside is None:
            found = await self._read_everything(_Known({} if whole else None))
            aside = await self._gone_on()
            aside = found if aside is None else aside
        known, unreadable = self._known, dict(self._known.unread)
        for name in unreadable:
            await self._move("in", name)
            known.drop(name)
        back: list[tuple[Rollout, float]] = []
        async for name, one, wake_at in self.records(set(aside)):
            if isinstance(one, Unreadable):
                unreadable[name] = str(one)
                continue
            if name not in known.outlines:
                back.append((one, wake_at))
            await self._move("out", name)
        return back, unreadable

    async def _gone_on(self) -> Sequence[str] | None:
        """Take in what has changed, and tell the ids of records set aside; None when everything has to be read."""
        known = self._known
        while known.place:
            answer = await self._link.run("changed", known.place, known.mark, CHUNK)
            if not answer:
                return None
            known.place, known.mark, more, active, aside, changed = answer
            for name, is_active, text, wake_at in _by_four(changed):
                if is_active:
                    known.put(name, self._read(text), float(wake_at or 0.0))
                else:
                    known.drop(name)
            if not more:
                all_there = int(active) == len(known.outlines) + len(known.unread)
                return aside if all_there and known.outlines.keys().isdisjoint(aside) else None
            await asyncio.sleep(0)
        return None

    async def _read_everything(self, known: _Known) -> Sequence[str]:
        """Begin anew; the ids of records set aside."""
        answer = await self._link.run("changed", "", "", 0)
        if answer:
            known.place, known.mark = answer
        before = await self._link.command("SMEMBERS", "quarantined")
        async for name, one, wake_at in self.records(await self._link.command("SMEMBERS", "active")):
            known.put(name, one, wake_at)
        self._known = known
        return [*before, *await self._link.command("SMEMBERS", "quarantined")]

    def _read(self, text: str) -> Rollout | Unreadable:
        try:
            return self._reader.rollout(text)
        except Unreadable as error:
            return error

    async def _move(self, way: str, name: str) -> None:
        """Set a record aside ("in"), or take it back among the active ("out")."""
        await self._link.run("quarantine", way, name)


def _seen(reading: asyncio.Task[Any]) -> None:
    """A failed reading that nobody waits for any more is no complaint of the event loop's."""
    if not reading.cancelled():
        reading.exception()


def _by_four(parts: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    return zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True)
