"""The lease of a shard's one holder, and the replicas that there are to hold them."""

import math
from dataclasses import replace

from bot.adapters.redis.link import Link
from bot.errors import Permanent
from bot.ports.clock import Clock
from bot.ports.store import Lease, Replica


class RedisLeases:
    """Implements `Leases`.

    `Lease.until` counts from before the call was sent: the server began to count later, so that the lease is never
    trusted for longer than the server keeps it.
    """

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def acquire(self, owner: str, ttl_s: float) -> Lease | None:
        """Take the lease when nobody else holds it; the token is higher than any before."""
        asked_at = self._clock.monotonic()
        answer = await self._link.run("lease_acquire", owner, _ms(ttl_s), self._link.shards, lease=True)
        if answer and answer[0] == "shards":
            raise Permanent(f"the rollouts in Redis are spread over {answer[1]} shards, not {self._link.shards}")
        return Lease(int(answer[0]), asked_at + ttl_s, int(answer[1])) if answer else None

    async def renew(self, owner: str, lease: Lease, ttl_s: float) -> Lease | None:
        """The renewed lease, None when it was lost."""
        asked_at = self._clock.monotonic()
        ours = await self._link.run("lease_renew", owner, lease.token, _ms(ttl_s), self._link.shards, lease=True)
        return replace(lease, until=asked_at + ttl_s) if ours else None

    async def release(self, owner: str, lease: Lease) -> None:
        """Give it back; nothing happens when it is another's."""
        await self._link.run("lease_renew", owner, lease.token, 0, self._link.shards, lease=True)

    async def holder(self) -> str:
        """Who holds it, "" for nobody."""
        return str(await self._link.command("HGET", "lease", "owner", lease=True) or "")


class RedisReplicas:
    """Implements `Replicas`; the server's clock says who is silent for too long."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def beat(self, name: str, held: int, gone_after_s: float) -> tuple[Replica, ...]:
        """Say that this one is there and what it holds; who else is."""
        answer = await self._link.run("beat", name, held, gone_after_s, lease=True)
        triples = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return tuple(Replica(one, int(count), int(there_ms) / 1000) for one, count, there_ms in triples)

    async def leave(self, name: str) -> None:
        """This one takes nothing more."""
        await self._link.run("beat", name, 0, 60, "leave", lease=True)


def _ms(seconds: float) -> int:
    return max(1, math.floor(seconds * 1000))
