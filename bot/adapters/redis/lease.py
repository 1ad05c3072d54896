"""The lease of the one holder."""

import math
from dataclasses import replace

from bot.adapters.redis.link import Link
from bot.ports.clock import Clock
from bot.ports.store import Lease


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
        answer = await self._link.run("lease_acquire", owner, _ms(ttl_s))
        return Lease(int(answer[0]), asked_at + ttl_s, int(answer[1])) if answer else None

    async def renew(self, owner: str, lease: Lease, ttl_s: float) -> Lease | None:
        """The renewed lease, None when it was lost."""
        asked_at = self._clock.monotonic()
        ours = await self._link.run("lease_renew", owner, lease.token, _ms(ttl_s))
        return replace(lease, until=asked_at + ttl_s) if ours else None

    async def release(self, owner: str, lease: Lease) -> None:
        """Give it back; nothing happens when it is another's."""
        await self._link.run("lease_renew", owner, lease.token, 0)

    async def holder(self) -> str:
        """Who holds it, "" for nobody."""
        return str(await self._link.command("HGET", "lease", "owner") or "")


def _ms(seconds: float) -> int:
    return max(1, math.floor(seconds * 1000))
