"""All ports of the store over one connection pool."""

from bot.adapters.clock import SystemClock
from bot.adapters.redis.freezes import RedisFreezes, RedisSeen
from bot.adapters.redis.inbox import RedisInbox
from bot.adapters.redis.lease import RedisLeases
from bot.adapters.redis.link import Link
from bot.adapters.redis.outbox import RedisOutbox
from bot.adapters.redis.rollouts import RedisRollouts
from bot.ports.clock import Clock


class RedisStore:
    """One shard's state in Redis or Valkey: `rollouts`, `inbox`, `leases`, `outbox`, `freezes`, `seen`.

    `url` as redis-py knows it (`redis://`, `rediss://`, `unix://`). Nothing is sent before the first call. `close` it.
    """

    def __init__(self, url: str, prefix: str = "canary-bot", shard: int = 0, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._link = Link(url, prefix, shard)
        self.rollouts = RedisRollouts(self._link, clock)
        self.inbox = RedisInbox(self._link, clock)
        self.leases = RedisLeases(self._link, clock)
        self.outbox = RedisOutbox(self._link)
        self.freezes = RedisFreezes(self._link, clock)
        self.seen = RedisSeen(self._link)

    async def advice(self) -> tuple[str, ...]:
        """What should be set otherwise on the server, a sentence each: it must neither forget nor evict.

        Raises:
            Transient: the server does not answer.
        """
        sentences: list[str] = []
        if str((await self._link.info("persistence")).get("aof_enabled", "1")) == "0":
            sentences.append("appendonly is off: a restart of Redis loses what was not snapshotted; set appendonly yes")
        policy = (await self._link.info("memory")).get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            sentences.append(f"maxmemory-policy is {policy}: Redis may evict a rollout; set it to noeviction")
        return tuple(sentences)

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()
