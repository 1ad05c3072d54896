"""State that outlives the process: records, inboxes, lease, outbox, freezes, seen ids."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from bot.rollout.effects import Audit, Message
from bot.rollout.events import Request
from bot.rollout.model import Freeze, Phase, Rollout

LEASE_FREED = ":lease"
"""Rung beside rollout ids when a lease is given back, so that the next process need not wait for its turn to ask."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Proof of being the holder: a fencing token, and until when (monotonic seconds) it is ours for certain.

    `previous` is the token that the store knew when this one was given, 0 when it knew none: it is new, or has lost its
    data.
    """

    token: int
    until: float
    previous: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """One message on its way out; `id` orders it within its rollout, `due` (epoch seconds) delays it."""

    id: str
    rollout: str
    message: Message
    created_at: float
    attempts: int = 0
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Posted:
    """A message that stands in the chat."""

    channel: str
    ts: str


@dataclass(frozen=True, slots=True)
class Active:
    """What a holder loads: readable rollouts with their wake-up, and the ids of unreadable records with the reason."""

    rollouts: tuple[tuple[Rollout, float], ...]
    quarantined: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """What tells one active rollout from another. Small: there are thousands, and every command looks through them.

    `route` is the `key` of its route.
    """

    id: str
    service: str
    namespace: str
    route: str
    phase: Phase
    created_at: float

    @classmethod
    def of(cls, rollout: Rollout) -> Self:
        """That of a rollout."""
        target = rollout.target
        return cls(rollout.id, target.service, target.namespace, target.route.key, rollout.phase, rollout.created_at)


@dataclass(frozen=True, slots=True)
class Replica:
    """A process of the bot: how many shards it holds, and for how long it has been there without a gap."""

    name: str
    held: int
    there_s: float


class Rollouts(Protocol):
    """Records. Errors: Transient (store away), Conflict, LeaseLost, RouteTaken, Unreadable, NotFound."""

    async def create(
        self, rollout: Rollout, wake_at: float, messages: Sequence[Message], audit: Sequence[Audit]
    ) -> None:
        """Take id and route together, or raise RouteTaken / Conflict and change nothing."""

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
        """Record, wake time, audit and outbox in one step, by the holder of `token`. A save repeated with the same
        `save_id` is success, also after a few others: it may arrive late. A final rollout gives its route free and
        moves to the finished."""

    async def load(self, rollout_id: str) -> Rollout: ...

    async def loaded(self, rollout_ids: Sequence[str]) -> tuple[Rollout, ...]:
        """These rollouts, active or ended, by id; those that are missing or unreadable are left out."""

    async def active(self) -> Active:
        """Every rollout that has not ended, whole and read anew: some seconds of work where there are thousands."""

    async def outlines(self) -> tuple[Outline, ...]:
        """Every readable rollout that has not ended, in outline: never older than the question, and cheap to ask."""

    async def quarantined(self) -> tuple[tuple[str, str], ...]:
        """Ids of records that cannot be read, with the reason; as cheap."""

    async def finished(self, service: str = "", limit: int = 20) -> tuple[Rollout, ...]:
        """Finished rollouts, newest first."""

    async def due(self, now: float) -> tuple[str, ...]:
        """Ids whose wake-up has passed."""

    async def note(self, audit: Sequence[Audit]) -> None:
        """Audit lines outside of a save: refusals, freezes, the catalog's reloads."""

    async def audited(self, rollout_id: str = "", limit: int = 200) -> tuple[Audit, ...]:
        """Audit lines, newest first."""

    async def ping(self) -> str:
        """Server version; raises Transient."""


class Inbox(Protocol):
    """Requests of people for the holder. Putting one rings the holder; a lost ring costs a second."""

    async def put(self, request: Request) -> None: ...

    async def take(self, rollout_id: str) -> tuple[Request, ...]:
        """Waiting requests in order; they stay until `done`."""

    async def done(self, rollout_id: str, request_ids: Sequence[str]) -> None: ...

    async def waiting(self) -> tuple[str, ...]:
        """Ids of rollouts whose inbox is not empty."""

    async def ring(self, rollout_id: str) -> None: ...

    def rings(self) -> AsyncIterator[str]:
        """Rollout ids as they are rung, and LEASE_FREED; reconnects by itself, never ends."""


class Leases(Protocol):
    """The lease of the one holder, of each shard where there are several."""

    async def acquire(self, owner: str, ttl_s: float) -> Lease | None: ...

    async def renew(self, owner: str, lease: Lease, ttl_s: float) -> Lease | None:
        """The renewed lease, None when it was lost; raises Transient when the store is away."""

    async def release(self, owner: str, lease: Lease) -> None:
        """Give it back and ring LEASE_FREED; nothing happens when it is another's."""

    async def holder(self) -> str:
        """Who holds it, "" for nobody."""


class Replicas(Protocol):
    """The processes that share the shards; raises Transient when the store is away."""

    async def beat(self, name: str, held: int, gone_after_s: float) -> tuple[Replica, ...]:
        """Say that this process is there and how many shards it holds; everybody who is, this one too."""

    async def leave(self, name: str) -> None:
        """This process takes nothing more: the others need not wait for it to fall silent."""


class Outbox(Protocol):
    """Letters in order, and the messages that stand in the chat for each rollout."""

    async def add(self, rollout_id: str, messages: Sequence[Message], now: float) -> None:
        """For what is not part of a save (answers, node messages)."""

    async def take(self, now: float, limit: int) -> tuple[Letter, ...]:
        """Letters due, urgent first, else oldest first, at most one per rollout at the head of its queue plus urgent
        ones; they stay until `done`."""

    async def done(self, letter: Letter) -> None: ...

    async def delay(self, letter: Letter, until: float) -> None:
        """Put a letter off; later letters of the same rollout wait behind it."""

    async def posted(self, key: str) -> Posted | None:
        """Where a message stands: key `card:<rollout>`, `ask:<rollout>:<step>`, `node:<name>`."""

    async def set_posted(self, key: str, posted: Posted) -> None: ...

    async def allowance(self, bucket: str, limit: int, window_s: float, now: float) -> float:
        """Take one from a shared token bucket; 0.0 when granted, else the seconds to wait."""

    async def depth(self) -> int: ...


class Freezes(Protocol):
    """Freezes in force, one per id; those that ran out are left out."""

    async def add(self, freeze: Freeze) -> None: ...

    async def remove(self, scope: str) -> tuple[Freeze, ...]:
        """Lift the freezes of a scope and tell which."""

    async def all(self) -> tuple[Freeze, ...]: ...


class Seen(Protocol):
    """Ids of requests already handled."""

    async def first_time(self, key: str, ttl_s: float) -> bool:
        """True the first time a key is seen within `ttl_s`; raises Transient when the store is away."""
