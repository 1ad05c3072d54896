"""The connection: one bounded pool, scripts beside the code, every error said in the project's words.

All keys of a shard start with `<prefix>:{<shard>}:`. The braces are Redis Cluster's hash tag: everything that a script
touches lies in one slot.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bot.adapters.hiding import credentials, hide
from bot.errors import Permanent, Transient

CALL_TIMEOUT_S = 1.0
CALL_WITHIN_S = 3.0
"""A whole call: waiting for a connection, opening it, loading a script, and its answer."""
MAX_CONNECTIONS = 50

_PRELUDES = {
    "create": ("queue", "audit"),
    "save": ("queue", "audit"),
    "note": ("audit",),
    "outbox_add": ("queue",),
}
_SCRIPTS = (
    "allowance",
    "create",
    "finished",
    "inbox_done",
    "inbox_put",
    "inbox_take",
    "lease_acquire",
    "lease_renew",
    "note",
    "outbox_add",
    "outbox_done",
    "outbox_take",
    "quarantine",
    "read",
    "save",
    "unfreeze",
)
_AWAY = (RedisConnectionError, RedisTimeoutError, InvalidResponse, TimeoutError, OSError)
_PASSING = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
_PASSING_CODES = re.compile(r"\b(OOM|LOADING|READONLY|BUSY|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b")


class Link:
    """One Redis: `run` a script, `command` a single command.

    Nothing is retried here: a lost reply would make a repeated script report a conflict with its own work. Repeating is
    for those above, who give each save an id.
    """

    def __init__(self, url: str, prefix: str, shard: int) -> None:
        self.base = f"{prefix}:{{{shard}}}:"
        self._url = url
        self.secrets = credentials(url)
        self._pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
            timeout=CALL_TIMEOUT_S,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._redis = Redis(connection_pool=self._pool)
        self._scripts = {name: self._redis.register_script(_source(name)) for name in _SCRIPTS}

    async def run(self, script: str, *args: str | int | float) -> Any:
        """Run one of the scripts of `lua/`; the base of all keys is its first argument.

        Raises:
            Transient: the store is away, loading, read-only, full, or busy.
            Permanent: it refuses for good.
        """
        with said_in_our_words(script, self.secrets):
            async with asyncio.timeout(CALL_WITHIN_S):
                return await self._scripts[script](keys=[self.base], args=[self.base, *args])

    async def command(self, name: str, key: str, *args: str | int | float) -> Any:
        """Send one command about the key `<base><key>`. Errors as `run`."""
        with said_in_our_words(name, self.secrets):
            async with asyncio.timeout(CALL_WITHIN_S):
                return await self._redis.execute_command(name, self.base + key, *args)  # type: ignore[no-untyped-call]

    async def info(self, section: str) -> dict[str, Any]:
        """One section of INFO. Errors as `run`."""
        with said_in_our_words("INFO", self.secrets):
            answer: dict[str, Any] = await self._redis.execute_command("INFO", section)  # type: ignore[no-untyped-call]
            return answer

    def listener(self) -> Redis:
        """A client of its own for waiting on a subscription, which would hold a connection of the pool for good."""
        return Redis.from_url(
            self._url,
            socket_connect_timeout=CALL_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
        await self._pool.aclose()


@contextmanager
def said_in_our_words(call: str, secrets: Sequence[str]) -> Iterator[None]:
    """Translate redis-py's errors: Transient for what may pass, Permanent for the rest; `secrets` are taken out.

    Old servers, and proxies without ACLs, refuse a log-in by repeating it, password and all.
    """
    try:
        yield
    except _AWAY as error:
        raise Transient(f"Redis is away ({call}): {_short(error, secrets)}") from error
    except NoPermissionError as error:
        raise Permanent(f"Redis forbids {call}: {_short(error, secrets)}") from error
    except UnicodeEncodeError as error:
        raise Permanent(f"Redis cannot be told ({call}): {error.reason}") from error
    except RedisError as error:
        if isinstance(error, _PASSING) or _PASSING_CODES.search(str(error)):
            raise Transient(f"Redis cannot do {call} now: {_short(error, secrets)}") from error
        raise Permanent(f"Redis refuses {call}: {_short(error, secrets)}") from error


def _short(error: BaseException, secrets: Sequence[str]) -> str:
    return hide(str(error) or type(error).__name__, secrets)[:200]


def _source(name: str) -> str:
    folder = resources.files(__package__) / "lua"
    parts = (*_PRELUDES.get(name, ()), name)
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
