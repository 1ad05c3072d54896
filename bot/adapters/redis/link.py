"""One shard's keys on the connections of the process.

All keys of a shard start with `<prefix>:{<shard>}:`. The braces are Redis Cluster's hash tag: everything that a script
touches lies in one slot.
"""

from typing import Any

from redis.asyncio import Redis

from bot.adapters.redis.server import Server


class Link:
    """`run` a script on the shard, `command` a single command on one of its keys; `shards` is how many there are."""

    def __init__(self, server: Server, prefix: str, shard: int, shards: int) -> None:
        self.base = f"{prefix}:{{{shard}}}:"
        self.shards = shards
        self.secrets = server.secrets
        self._server = server

    async def run(self, script: str, *args: str | int | float, lease: bool = False) -> Any:
        """Run one of the scripts of `lua/`; the base of all keys is its first argument. Errors as `Server.run`."""
        return await self._server.run(script, self.base, self.base, *args, lease=lease)

    async def command(self, name: str, key: str, *args: str | int | float, lease: bool = False) -> Any:
        """Send one command about the key `<base><key>`. Errors as `run`."""
        return await self._server.command(name, self.base + key, *args, lease=lease)

    async def info(self, section: str) -> dict[str, Any]:
        """One section of INFO. Errors as `run`."""
        return await self._server.info(section)

    def listener(self) -> Redis:
        """A client of its own for waiting on a subscription."""
        return self._server.listener(self.base)
