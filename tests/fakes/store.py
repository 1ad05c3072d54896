"""The store in memory, for everything above the ports."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from bot.errors import Conflict, LeaseLost, NotFound, RouteTaken, Transient, Unreadable
from bot.ports.clock import Clock
from bot.ports.store import LEASE_FREED, Active, Lease, Letter, Outline, Posted
from bot.rollout.effects import Audit, Message, MessageKind
from bot.rollout.events import Request
from bot.rollout.model import Freeze, Rollout

_FINISHED_FLEET = 500
_FINISHED_SERVICE = 50
_SAVE_IDS = 8


@dataclass(slots=True)
class _Record:
    rollout: Rollout
    save_ids: tuple[str, ...]
    origin: Rollout | None


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class FakeStore:
    """Implements every protocol of `bot.ports.store`: `rollouts`, `inbox`, `leases`, `outbox`, `freezes`, `seen`.

    `down = True` makes every call raise Transient before it does anything. `lost_replies = n` lets the next n calls
    do their work and then raise Transient, as a connection cut after the write does. `calls` counts calls by name.
    `said` and `audits` keep everything ever written, whatever became of it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.down = False
        self.lost_replies = 0
        self.calls: Counter[str] = Counter()
        self.said: list[tuple[str, Message]] = []
        self.audits: list[Audit] = []
        self.rollouts = FakeRollouts(self)
        self.inbox = FakeInbox(self)
        self.leases = FakeLeases(self)
        self.outbox = FakeOutbox(self)
        self.freezes = FakeFreezes(self)
        self.seen = FakeSeen(self)

    def corrupt(self, rollout_id: str, reason: str = "schema 99 is newer than this bot knows") -> None:
        """Make a record unreadable."""
        self.rollouts.unreadable[rollout_id] = reason

    def mend(self, rollout_id: str) -> None:
        """Make a corrupted record readable again."""
        self.rollouts.unreadable.pop(rollout_id, None)

    def wipe(self) -> None:
        """Lose everything, as an empty replica or a FLUSHALL does; tokens go on rising by the server's clock."""
        parts = ((self.rollouts, FakeRollouts), (self.outbox, FakeOutbox), (self.freezes, FakeFreezes))
        for part, kind in parts:
            vars(part).update(vars(kind(self)))
        self.leases.token, self.leases.owner, self.leases.known = self.leases.token + 1_000_000, "", 0

    async def reach(self, call: str) -> None:
        """One call arrives at the store, or does not."""
        self.calls[call] += 1
        await asyncio.sleep(0)
        if self.down:
            raise Transient(f"store is down ({call})")

    def replied(self, call: str) -> None:
        """The reply leaves the store, or is lost."""
        if self.lost_replies > 0:
            self.lost_replies -= 1
            raise Transient(f"reply was lost ({call})")


class FakeRollouts:
    """Implements `Rollouts`."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.records: dict[str, _Record] = {}
        self.routes: dict[str, str] = {}
        self.wake: dict[str, float] = {}
        self.unreadable: dict[str, str] = {}
        self._finished: list[str] = []

    async def create(
        self, rollout: Rollout, wake_at: float, messages: Sequence[Message], audit: Sequence[Audit]
    ) -> None:
        await self._store.reach("create")
        known = self.records.get(rollout.id)
        if known is not None:
            if known.origin != rollout:
                raise Conflict(f"rollout {rollout.id} exists already")
            return
        holder = self.routes.get(rollout.target.route.key)
        if holder is not None:
            raise RouteTaken(holder)
        self.records[rollout.id] = _Record(rollout, (), rollout)
        self.routes[rollout.target.route.key] = rollout.id
        self.wake[rollout.id] = wake_at
        self._store.outbox.queue(rollout.id, messages)
        self._store.audits.extend(audit)
        self._store.replied("create")

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
        await self._store.reach("save")
        known = self.records.get(rollout.id)
        if known is not None and save_id in known.save_ids:
            return
        if token != self._store.leases.token:
            raise LeaseLost(f"the store knows token {self._store.leases.token}, not {token}")
        if known is not None and known.rollout.phase.final and rollout.phase is not known.rollout.phase:
            raise Conflict(f"rollout {rollout.id} has ended as {known.rollout.phase}")
        if known is not None and known.rollout.revision > rollout.revision:
            raise Conflict(f"rollout {rollout.id} is at revision {known.rollout.revision}, not {rollout.revision}")
        self.records[rollout.id] = _Record(
            rollout, (save_id, *(known.save_ids if known else ())[: _SAVE_IDS - 1]), known.origin if known else None
        )
        self._index(rollout, wake_at)
        self._store.outbox.queue(rollout.id, messages)
        self._store.audits.extend(audit)
        self._store.replied("save")

    def _index(self, rollout: Rollout, wake_at: float | None) -> None:
        key = rollout.target.route.key
        if wake_at is None or rollout.phase.final:
            self.wake.pop(rollout.id, None)
        else:
            self.wake[rollout.id] = wake_at
        if not rollout.phase.final:
            self.routes.setdefault(key, rollout.id)
            return
        if self.routes.get(key) == rollout.id:
            del self.routes[key]
        if rollout.id not in self._finished:
            self._finished.append(rollout.id)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        newest = sorted(self._finished, key=lambda name: self.records[name].rollout.ended_at or 0.0, reverse=True)
        kept_of_service: Counter[str] = Counter()
        keep: list[str] = []
        for place, name in enumerate(newest):
            service = self.records[name].rollout.target.service
            kept_of_service[service] += 1
            if place < _FINISHED_FLEET or kept_of_service[service] <= _FINISHED_SERVICE:
                keep.append(name)
            else:
                del self.records[name]
        self._finished = keep

    async def load(self, rollout_id: str) -> Rollout:
        await self._store.reach("load")
        if rollout_id in self.unreadable:
            raise Unreadable(self.unreadable[rollout_id])
        if rollout_id not in self.records:
            raise NotFound(f"there is no rollout {rollout_id}")
        return self.records[rollout_id].rollout

    async def active(self) -> Active:
        await self._store.reach("active")
        readable: list[tuple[Rollout, float]] = []
        quarantined: list[tuple[str, str]] = []
        for name, record in sorted(self.records.items()):
            if record.rollout.phase.final:
                continue
            if name in self.unreadable:
                quarantined.append((name, self.unreadable[name]))
            else:
                readable.append((record.rollout, self.wake.get(name, 0.0)))
        return Active(tuple(readable), tuple(quarantined))

    async def loaded(self, rollout_ids: Sequence[str]) -> tuple[Rollout, ...]:
        await self._store.reach("loaded")
        there = sorted(name for name in set(rollout_ids) if name in self.records and name not in self.unreadable)
        return tuple(self.records[name].rollout for name in there)

    async def outlines(self) -> tuple[Outline, ...]:
        return tuple(Outline.of(rollout) for rollout, _ in (await self.active()).rollouts)

    async def quarantined(self) -> tuple[tuple[str, str], ...]:
        return (await self.active()).quarantined

    async def finished(self, service: str = "", limit: int = 20) -> tuple[Rollout, ...]:
        await self._store.reach("finished")
        all_of_them = [self.records[name].rollout for name in self._finished if name not in self.unreadable]
        newest = sorted(all_of_them, key=lambda rollout: rollout.ended_at or 0.0, reverse=True)
        return tuple(rollout for rollout in newest if service in ("", rollout.target.service))[:limit]

    async def due(self, now: float) -> tuple[str, ...]:
        await self._store.reach("due")
        due = [(when, name) for name, when in self.wake.items() if when <= now and name not in self.unreadable]
        return tuple(name for _, name in sorted(due))

    async def note(self, audit: Sequence[Audit]) -> None:
        await self._store.reach("note")
        self._store.audits.extend(audit)

    async def audited(self, rollout_id: str = "", limit: int = 200) -> tuple[Audit, ...]:
        await self._store.reach("audited")
        newest = reversed(self._store.audits)
        return tuple(itertools.islice((line for line in newest if rollout_id in ("", line.rollout)), limit))

    async def ping(self) -> str:
        await self._store.reach("ping")
        return "fake 1.0"


class FakeInbox:
    """Implements `Inbox`. Every reader of `rings` hears every ring from its first `anext` on."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._waiting: dict[str, dict[str, Request]] = {}
        self._listeners: list[asyncio.Queue[str]] = []

    async def put(self, request: Request) -> None:
        await self._store.reach("put")
        self._waiting.setdefault(request.rollout, {}).setdefault(request.id, request)
        self._ring(request.rollout)
        self._store.replied("put")

    async def take(self, rollout_id: str) -> tuple[Request, ...]:
        await self._store.reach("take")
        return tuple(self._waiting.get(rollout_id, {}).values())

    async def done(self, rollout_id: str, request_ids: Sequence[str]) -> None:
        await self._store.reach("done")
        waiting = self._waiting.get(rollout_id, {})
        for request_id in request_ids:
            waiting.pop(request_id, None)
        if not waiting:
            self._waiting.pop(rollout_id, None)
        self._store.replied("done")

    async def waiting(self) -> tuple[str, ...]:
        await self._store.reach("waiting")
        return tuple(sorted(self._waiting))

    async def ring(self, rollout_id: str) -> None:
        await self._store.reach("ring")
        self._ring(rollout_id)

    async def rings(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def _ring(self, rollout_id: str) -> None:
        for queue in self._listeners:
            queue.put_nowait(rollout_id)


class FakeLeases:
    """Implements `Leases`. `owner` is who holds it; `expire()` takes it away as a lapse would."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.token = 0
        self.known = 0
        self.owner = ""
        self.until = 0.0

    def expire(self) -> None:
        """Let the lease lapse now."""
        self.until = self._store.clock.monotonic()

    def steal(self, owner: str = "another", ttl_s: float = 3.0) -> None:
        """Let somebody else take the lease after a lapse."""
        self.token += 1
        self.known = self.token
        self.owner, self.until = owner, self._store.clock.monotonic() + ttl_s

    @property
    def _held(self) -> bool:
        return bool(self.owner) and self._store.clock.monotonic() < self.until

    async def acquire(self, owner: str, ttl_s: float) -> Lease | None:
        asked_at = self._store.clock.monotonic()
        await self._store.reach("acquire")
        if self._held and self.owner != owner:
            return None
        self.token += 1
        previous, self.known = self.known, self.token
        self.owner, self.until = owner, self._store.clock.monotonic() + ttl_s
        self._store.replied("acquire")
        return Lease(self.token, asked_at + ttl_s, previous)

    async def renew(self, owner: str, lease: Lease, ttl_s: float) -> Lease | None:
        asked_at = self._store.clock.monotonic()
        await self._store.reach("renew")
        if not self._held or self.owner != owner or self.token != lease.token:
            return None
        self.until = self._store.clock.monotonic() + ttl_s
        self._store.replied("renew")
        return replace(lease, until=asked_at + ttl_s)

    async def release(self, owner: str, lease: Lease) -> None:
        await self._store.reach("release")
        if self.owner == owner and self.token == lease.token:
            self.owner = ""
            self._store.inbox._ring(LEASE_FREED)
        self._store.replied("release")

    async def holder(self) -> str:
        await self._store.reach("holder")
        return self.owner if self._held else ""


class FakeOutbox:
    """Implements `Outbox`. A rollout's answers to people wait in a queue of their own, as they do in Redis."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._letters: dict[tuple[str, bool], list[Letter]] = {}
        self._posted: dict[str, Posted] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._ids = itertools.count(1)

    @property
    def waiting(self) -> int:
        """Letters that are still in it."""
        return sum(len(letters) for letters in self._letters.values())

    def queue(self, rollout_id: str, messages: Sequence[Message]) -> None:
        """What a save does with its messages."""
        for message in messages:
            self._store.said.append((rollout_id, message))
            letters = self._letters.setdefault(_queue(rollout_id, message), [])
            if not (_plain_card(message) and any(_plain_card(letter.message) for letter in letters[1:])):
                letters.append(Letter(f"{next(self._ids):012d}", rollout_id, message, self._store.clock.now()))

    async def add(self, rollout_id: str, messages: Sequence[Message], now: float) -> None:
        await self._store.reach("add")
        self.queue(rollout_id, messages)
        self._store.replied("add")

    async def take(self, now: float, limit: int) -> tuple[Letter, ...]:
        await self._store.reach("take_letters")
        lanes = [letters for letters in self._letters.values() if letters]
        firsts = [next((letter for letter in letters if letter.message.urgent), None) for letters in lanes]
        urgent = sorted((letter for letter in firsts if letter and letter.due <= now), key=_by_turn)
        heads = sorted((letters[0] for letters in lanes if letters[0].due <= now), key=_by_turn)
        return tuple(dict.fromkeys([*urgent, *heads]))[:limit]

    async def done(self, letter: Letter) -> None:
        await self._store.reach("done_letter")
        queue = _queue(letter.rollout, letter.message)
        letters = self._letters.get(queue, [])
        letters[:] = [other for other in letters if other.id != letter.id]
        if not letters:
            self._letters.pop(queue, None)
        self._store.replied("done_letter")

    async def delay(self, letter: Letter, until: float) -> None:
        await self._store.reach("delay")
        letters = self._letters.get(_queue(letter.rollout, letter.message), [])
        letters[:] = [
            replace(other, due=until, attempts=other.attempts + 1) if other.id == letter.id else other
            for other in letters
        ]
        self._store.replied("delay")

    async def posted(self, key: str) -> Posted | None:
        await self._store.reach("posted")
        return self._posted.get(key)

    async def set_posted(self, key: str, posted: Posted) -> None:
        await self._store.reach("set_posted")
        self._posted[key] = posted
        self._store.replied("set_posted")

    async def allowance(self, bucket: str, limit: int, window_s: float, now: float) -> float:
        await self._store.reach("allowance")
        held = self._buckets.setdefault(bucket, _Bucket(float(limit), now))
        rate = limit / window_s
        held.at = now if held.at > now + window_s else held.at
        held.tokens = min(float(limit), held.tokens + max(0.0, now - held.at) * rate)
        held.at = max(held.at, now)
        if held.tokens < 1.0 - 1e-9:
            return (1.0 - held.tokens) / rate
        held.tokens -= 1.0
        return 0.0

    async def depth(self) -> int:
        await self._store.reach("depth")
        return self.waiting


class FakeFreezes:
    """Implements `Freezes`."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._freezes: dict[str, Freeze] = {}

    async def add(self, freeze: Freeze) -> None:
        await self._store.reach("freeze")
        self._freezes[freeze.id] = freeze
        self._store.replied("freeze")

    async def remove(self, scope: str) -> tuple[Freeze, ...]:
        await self._store.reach("unfreeze")
        lifted = tuple(freeze for freeze in await self.all() if freeze.scope == scope)
        for freeze in lifted:
            del self._freezes[freeze.id]
        self._store.replied("unfreeze")
        return lifted

    async def all(self) -> tuple[Freeze, ...]:
        await self._store.reach("freezes")
        return tuple(sorted(self._freezes.values(), key=lambda freeze: (freeze.since, freeze.id)))


class FakeSeen:
    """Implements `Seen`."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._until: dict[str, float] = {}

    async def first_time(self, key: str, ttl_s: float) -> bool:
        await self._store.reach("first_time")
        now = self._store.clock.now()
        if self._until.get(key, float("-inf")) > now:
            return False
        self._until[key] = now + ttl_s
        return True


def _queue(rollout_id: str, message: Message) -> tuple[str, bool]:
    return rollout_id, message.kind is MessageKind.ANSWER


def _plain_card(message: Message) -> bool:
    return message.kind is MessageKind.CARD and not message.urgent


def _by_turn(letter: Letter) -> tuple[float, str]:
    return (letter.due, letter.id)
