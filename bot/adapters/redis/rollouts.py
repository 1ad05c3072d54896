"""Records of rollouts: taken with their route, saved with everything that belongs to the step, kept when they end."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from bot.adapters.redis.letters import queued
from bot.adapters.redis.link import Link
from bot.errors import Conflict, LeaseLost, NotFound, Permanent, RouteTaken, Unreadable
from bot.ports.clock import Clock
from bot.ports.store import Active
from bot.rollout.effects import Audit, Message
from bot.rollout.model import Rollout
from bot.rollout.record import dump, load_audit, load_rollout

OLDEST_SERVER = (6, 2)
_CHUNK = 200
_SHARED = 1000
Value = TypeVar("Value")


class RedisRollouts:
    """Implements `Rollouts`.

    Ended rollouts are kept 90 days: the newest 500 of the fleet, and the newest 50 of each service. A record is read
    anew only when its text has changed: with 100 rollouts active, reading them was half of the time of a command.
    """

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._known: dict[str, tuple[int, Rollout]] = {}
        self._shared: dict[object, Any] = {}
        self._one_reading = asyncio.Lock()
        self._next_reading: asyncio.Task[Active] | None = None

    async def create(
        self, rollout: Rollout, wake_at: float, messages: Sequence[Message], audit: Sequence[Audit]
    ) -> None:
        """Take id and route together. The same creation repeated (its reply was lost) is success."""
        letters = queued(rollout.id, messages, self._clock.now())
        answer = await self._link.run(
            "create",
            rollout.id,
            dump(rollout),
            rollout.revision,
            rollout.target.route.key,
            rollout.target.service,
            repr(wake_at),
            len(letters) // 2,
            self._link.shards,
            *letters,
            *_lines(audit),
        )
        _judged(answer)

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
        """Record, wake time, audit and outbox in one step, by the holder of `token`."""
        letters = queued(rollout.id, messages, self._clock.now())
        final = rollout.phase.final
        ended_at = rollout.ended_at if rollout.ended_at is not None else self._clock.now()
        answer = await self._link.run(
            "save",
            rollout.id,
            dump(rollout),
            rollout.revision,
            rollout.target.route.key,
            rollout.target.service,
            "" if wake_at is None else repr(wake_at),
            len(letters) // 2,
            token,
            save_id,
            rollout.phase.value if final else "",
            repr(ended_at),
            *letters,
            *_lines(audit),
        )
        _judged(answer)

    async def load(self, rollout_id: str) -> Rollout:
        """One rollout, active or ended."""
        text = await self._link.command("HGET", f"rollout:{rollout_id}", "record")
        if text is None:
            raise NotFound(f"there is no rollout {rollout_id}")
        return load_rollout(text)

    async def exists(self, rollout_id: str) -> bool:
        """Whether there is a record of this id, active or ended."""
        return bool(await self._link.command("EXISTS", f"rollout:{rollout_id}"))

    async def active(self) -> Active:
        """Every rollout that has not ended. One that cannot be read is moved aside and reported, each time, until a
        version that can read it moves it back.

        Who asks while a reading is under way shares the next one: never older than the question, and a burst of
        commands costs two readings.
        """
        if self._next_reading is None:
            self._next_reading = asyncio.create_task(self._read_next())
            self._next_reading.add_done_callback(_seen)
        return await asyncio.shield(self._next_reading)

    async def _read_next(self) -> Active:
        async with self._one_reading:
            self._next_reading = None
            return await self._read_all()

    async def _read_all(self) -> Active:
        readable: list[tuple[Rollout, float]] = []
        quarantined: list[tuple[str, str]] = []
        names = {place: sorted(await self._link.command("SMEMBERS", place)) for place in ("active", "quarantined")}
        for place, chunk in _chunked(names):
            answer = await self._link.run("read", *chunk)
            for name, text, wake_at in zip(chunk, answer[::2], answer[1::2], strict=True):
                try:
                    rollout = self._read(name, text)
                except Unreadable as error:
                    quarantined.append((name, str(error)))
                    if place == "active":
                        await self._link.run("quarantine", "in", name)
                    continue
                readable.append((rollout, float(wake_at or 0.0)))
                if place == "quarantined":
                    await self._link.run("quarantine", "out", name)
            await asyncio.sleep(0)
        active = {rollout.id for rollout, _ in readable}
        for name in self._known.keys() - active:
            del self._known[name]
        return Active(tuple(readable), tuple(quarantined))

    def _read(self, name: str, text: str) -> Rollout:
        """A record, the one read before when its text is the same (told by 64 bits of it)."""
        known, digest = self._known.get(name), hash(text)
        if known is not None and known[0] == digest:
            return known[1]
        rollout = _read(text)
        rollout = rollout.with_(
            plan=self._same(rollout.plan), gates=self._same(rollout.gates), rules=self._same(rollout.rules)
        )
        self._known[name] = digest, rollout
        return rollout

    def _same(self, value: Value) -> Value:
        """The equal value that other rollouts have: there are few plans, and thousands of rollouts."""
        if len(self._shared) > _SHARED:
            self._shared.clear()
        found: Value = self._shared.setdefault(value, value)
        return found

    async def finished(self, service: str = "", limit: int = 20) -> tuple[Rollout, ...]:
        """Ended rollouts, newest first; unreadable ones are left out."""
        index = f"finished:{service}" if service else "finished"
        answer = await self._link.run("finished", index, limit)
        rollouts: list[Rollout] = []
        for text in answer[1::2]:
            with suppress(Unreadable):
                rollouts.append(load_rollout(text))
        return tuple(rollouts)

    async def due(self, now: float) -> tuple[str, ...]:
        """Ids whose wake-up has passed, longest overdue first."""
        return tuple(await self._link.command("ZRANGEBYSCORE", "wake", "-inf", repr(now)))

    async def note(self, audit: Sequence[Audit]) -> None:
        """Audit lines outside of a save."""
        if audit:
            await self._link.run("note", *_lines(audit))

    async def audited(self, rollout_id: str = "", limit: int = 200) -> tuple[Audit, ...]:
        """Audit lines, newest first: about the newest 10,000 of the fleet and 1,000 of each rollout are kept."""
        stream = f"audit:{rollout_id}" if rollout_id else "audit"
        entries = await self._link.command("XREVRANGE", stream, "+", "-", "COUNT", limit)
        lines: list[Audit] = []
        for _, fields in entries:
            with suppress(Unreadable):
                lines.append(load_audit(fields["line"]))
        return tuple(lines)

    async def ping(self) -> str:
        """The server's name and version.

        Raises:
            Transient: it does not answer.
            Permanent: it is older than 6.2.
        """
        server = await self._link.info("server")
        version = str(server["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise Permanent(f"Redis {version} is too old: 6.2 or newer is needed")
        valkey = server.get("valkey_version")
        return f"valkey {valkey}" if valkey else f"redis {version}"


def _seen(reading: asyncio.Task[Active]) -> None:
    """A failed reading that nobody waits for any more is no complaint of the event loop's."""
    if not reading.cancelled():
        reading.exception()


def _judged(answer: Sequence[str]) -> None:
    match answer:
        case ["ok"]:
            return
        case ["route", holder]:
            raise RouteTaken(holder)
        case ["lease", text]:
            raise LeaseLost(text)
        case ["conflict", text]:
            raise Conflict(text)
        case ["shards", known]:
            raise Permanent(f"the rollouts in Redis are spread over {known} shards now; this process is out of date")
        case _:
            raise Permanent(f"Redis answered {answer!r} to a save")


def _chunked(names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Parts small enough that neither Redis nor the event loop is kept for long."""
    for place, all_of_them in names.items():
        for start in range(0, len(all_of_them), _CHUNK):
            yield place, all_of_them[start : start + _CHUNK]


def _read(text: str) -> Rollout:
    if not text:
        raise Unreadable("its record is missing")
    return load_rollout(text)


def _lines(audit: Iterable[Audit]) -> list[str]:
    return [part for line in audit for part in (line.rollout, dump(line))]
