"""All ports of the store, over the connections of one process."""

from bot.adapters.clock import SystemClock
from bot.adapters.redis.freezes import RedisFreezes, RedisSeen
from bot.adapters.redis.inbox import RedisInbox
from bot.adapters.redis.lease import RedisLeases, RedisReplicas
from bot.adapters.redis.link import Link
from bot.adapters.redis.outbox import RedisOutbox
from bot.adapters.redis.rollouts import RedisRollouts
from bot.adapters.redis.server import Server
from bot.adapters.redis.shards import HOME, RedisShard, Spread, SpreadInbox, SpreadOutbox, SpreadRollouts
from bot.errors import OtherShards
from bot.ports.clock import Clock


class RedisStore:
    """The state of the fleet in Redis or Valkey.

    `rollouts`, `inbox` and `outbox` are those of all shards, for use cases; `of` gives one shard's, for its holder.
    `freezes`, `seen` and `replicas` belong to the fleet and lie in the first shard, `leases` is that shard's.
    `url` is as docs/settings.md says. Nothing is sent before the first call. `close` it.
    """

    def __init__(self, url: str, prefix: str = "canary-bot", shards: int = 1, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._prefix = prefix
        self._server = Server(url)
        self.shards = shards
        self._home = self._link(HOME)
        self._spread = Spread([self._shard(number) for number in range(shards)], shards)
        self.rollouts = SpreadRollouts(self._spread)
        self.inbox = SpreadInbox(self._spread)
        self.outbox = SpreadOutbox(self._spread)
        self.leases = self._spread.home.leases
        self.freezes = RedisFreezes(self._home, self._clock)
        self.seen = RedisSeen(self._home)
        self.replicas = RedisReplicas(self._home)

    def _link(self, number: int) -> Link:
        return Link(self._server, self._prefix, number, self.shards)

    def _shard(self, number: int) -> RedisShard:
        link = self._link(number)
        return RedisShard(
            number,
            link,
            RedisRollouts(link, self._clock),
            RedisInbox(link, self._clock),
            RedisLeases(link, self._clock),
            RedisOutbox(link, self._home),
        )

    def of(self, number: int) -> RedisShard:
        """One shard's ports."""
        return self._spread.shards[number]

    async def claim(self, *, only_look: bool = False) -> None:
        """Use the store with this number of shards, as soon as nothing is under way with another; what has ended under
        a greater number stays readable. With `only_look` nothing is written.

        Raises:
            Transient: the store does not answer.
            OtherShards: rollouts are active, or messages under way, with another number.
        """
        links = [self._link(number) for number in range(max(self.shards, await self._most_ever()))]
        busy = [answer for link in links if (answer := await link.run("claim", self.shards))]
        if busy:
            active, aside, letters = (sum(int(answer[place]) for answer in busy) for place in (1, 2, 3))
            raise OtherShards(_in_use(int(busy[0][0]), self.shards, active, aside, letters))
        if not only_look:
            for link in links:
                await link.run("claim", self.shards, "set")
            if len(links) > 1:
                await self._home.command("SET", "shards:most", len(links))
        self._spread.shards = [
            *self._spread.shards,
            *(self._shard(number) for number in range(len(self._spread.shards), len(links))),
        ]

    async def _most_ever(self) -> int:
        known = [await self._home.command("GET", name) for name in ("shards:most", "shards")]
        return max(int(text or 1) for text in known)

    async def advice(self) -> tuple[str, ...]:
        """What should be set otherwise on the server, a sentence each: it must neither forget nor evict.

        Raises:
            Transient: the server does not answer.
        """
        sentences: list[str] = []
        if str((await self._server.info("persistence")).get("aof_enabled", "1")) == "0":
            sentences.append("appendonly is off: a restart of Redis loses what was not snapshotted; set appendonly yes")
        policy = (await self._server.info("memory")).get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            sentences.append(f"maxmemory-policy is {policy}: Redis may evict a rollout; set it to noeviction")
        return tuple(sentences)

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()


def _in_use(known: int, wanted: int, active: int, aside: int, letters: int) -> str:
    what = [
        f"{count} {name}"
        for count, name in (
            (active, "active rollouts"),
            (aside, "records set aside"),
            (letters, "messages under way"),
        )
        if count
    ]
    return (
        f"Redis is in use with {known} shard{'s' if known > 1 else ''} ({', '.join(what)}), and CANARY_BOT_SHARDS is "
        f"{wanted}: let them end first, or set it back to {known}"
    )
