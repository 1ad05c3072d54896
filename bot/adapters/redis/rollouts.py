"""Records of rollouts: taken with their route, saved with everything that belongs to the step, kept when they end."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from bot.adapters.redis.actives import Actives
from bot.adapters.redis.letters import queued
from bot.adapters.redis.link import Link
from bot.adapters.redis.reader import Reader
from bot.errors import Conflict, LeaseLost, NotFound, Permanent, RouteTaken, Unreadable
from bot.ports.clock import Clock
from bot.ports.store import Active, Outline
from bot.rollout.effects import Audit, Message
from bot.rollout.model import Rollout
from bot.rollout.record import dump, load_audit, load_rollout

OLDEST_SERVER = (6, 2)


class RedisRollouts:
    """Implements `Rollouts`.

    Ended rollouts are kept 90 days: the newest 500 of the fleet, and the newest 50 of each service.
    """

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._reader = Reader()
        self._actives = Actives(link, self._reader)

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
        return self._reader.rollout(text)

    async def exists(self, rollout_id: str) -> bool:
        """Whether there is a record of this id, active or ended."""
        return bool(await self._link.command("EXISTS", f"rollout:{rollout_id}"))

    async def active(self) -> Active:
        """Every rollout that has not ended, read anew. One that cannot be read is moved aside and reported, each time,
        until a version that can read it moves it back."""
        return await self._actives.whole()

    async def outlines(self) -> tuple[Outline, ...]:
        """Every readable rollout that has not ended, in outline."""
        return await self._actives.outlines()

    async def quarantined(self) -> tuple[tuple[str, str], ...]:
        """Ids of records that cannot be read, with the reason."""
        return await self._actives.unreadable()

    async def loaded(self, rollout_ids: Sequence[str]) -> tuple[Rollout, ...]:
        """These rollouts, active or ended, by id; those that are missing or unreadable are left out."""
        found = [one async for _, one, _ in self._actives.records(rollout_ids)]
        return tuple(one for one in found if isinstance(one, Rollout))

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


def _lines(audit: Iterable[Audit]) -> list[str]:
    return [part for line in audit for part in (line.rollout, dump(line))]
