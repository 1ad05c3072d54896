"""The connections of a process to Redis, shared by all shards: one server, a Cluster, or the master Sentinels know.

Nothing is retried here: a lost reply would make a repeated script report a conflict with its own work. Repeating is for
those above, who give each save an id. The first call after a fail-over fails, the next one finds the new master.

Calls wait in line for a connection rather than fail for want of one, and those that keep a lease have a line of their
own: a process that is busy, with hundreds of saves under way, must not lose what it holds for it.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any, Protocol

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bot.adapters.hiding import credentials, hide
from bot.adapters.redis.address import Address, Kind, address
from bot.errors import Permanent, Transient

CALL_TIMEOUT_S = 1.0
CALL_WITHIN_S = 3.0
"""A whole call: waiting for a connection, opening it, loading a script, and its answer."""
SENTINEL_WITHIN_S = 0.5
"""One Sentinel's answer; the next one is asked after that."""
MAX_CONNECTIONS = 50
LEASE_CONNECTIONS = 16
SPARE_CONNECTIONS = 8

_PRELUDES = {
    "create": ("shards", "queue", "audit", "changes"),
    "save": ("queue", "audit", "changes"),
    "note": ("audit",),
    "outbox_add": ("queue",),
    "lease_acquire": ("shards", "changes"),
    "lease_renew": ("shards",),
    "quarantine": ("changes",),
}
_SCRIPTS = (
    "allowance",
    "beat",
    "changed",
    "claim",
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
_AWAY = (RedisConnectionError, RedisTimeoutError, InvalidResponse, TimeoutError, OSError, RedisClusterException)
_PASSING = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
_PASSING_CODES = re.compile(r"\b(OOM|LOADING|READONLY|BUSY|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b")


class _Client(Protocol):
    async def execute_command(self, *args: Any, **options: Any) -> Any: ...

    async def aclose(self) -> None: ...


class Server:
    """Runs scripts and commands; each names one key, by which a Cluster finds the node."""

    def __init__(self, url: str) -> None:
        self.secrets = credentials(url)
        self._url = url
        self._address = address(url)
        self._sentinel: Sentinel | None = None
        self._cluster: RedisCluster | None = None
        self._client: _Client = self._connected()
        self._scripts = {name: _Script(name) for name in _SCRIPTS}
        self._line = asyncio.Semaphore(MAX_CONNECTIONS)
        self._lease_line = asyncio.Semaphore(LEASE_CONNECTIONS)
        self._tried = 0

    def _connected(self) -> _Client:
        options: dict[str, Any] = {
            "socket_timeout": CALL_TIMEOUT_S,
            "socket_connect_timeout": CALL_TIMEOUT_S,
            "max_connections": MAX_CONNECTIONS + LEASE_CONNECTIONS + SPARE_CONNECTIONS,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
        }
        match self._address.kind:
            case Kind.SINGLE:
                return Redis.from_pool(ConnectionPool.from_url(self._url, **options))
            case Kind.CLUSTER:
                self._cluster = RedisCluster(
                    startup_nodes=[ClusterNode(host, port) for host, port in self._address.nodes],
                    require_full_coverage=False,
                    dynamic_startup_nodes=False,
                    reinitialize_steps=0,
                    **{**_of_cluster(self._address), **options},
                )
                return self._cluster
            case Kind.SENTINEL:
                self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                    self._address.nodes,
                    sentinel_kwargs={
                        "socket_timeout": SENTINEL_WITHIN_S,
                        "socket_connect_timeout": SENTINEL_WITHIN_S,
                        "retry": Retry(NoBackoff(), 0),
                        "decode_responses": True,
                        **{name: value for name, value in self._address.options.items() if name.startswith("ssl")},
                        **(self._address.of_sentinels or {}),
                    },
                )
                return self._master(options)

    def _master(self, options: dict[str, Any]) -> Redis:
        assert self._sentinel is not None
        master: Redis = self._sentinel.master_for(self._address.service, **{**self._address.options, **options})
        return master

    async def run(self, script: str, key: str, *args: str | int | float, lease: bool = False) -> Any:
        """Run one of the scripts of `lua/` about a key; `lease` calls do not wait behind others.

        Raises:
            Transient: the store is away, loading, read-only, full, busy, or fails over.
            Permanent: it refuses for good.
        """
        known = self._scripts[script]
        async with self._turn(script, lease):
            try:
                return await self._client.execute_command("EVALSHA", known.sha, 1, key, *args)
            except NoScriptError:
                return await self._client.execute_command("EVAL", known.source, 1, key, *args)

    async def command(self, name: str, key: str, *args: str | int | float, lease: bool = False) -> Any:
        """Send one command about a key. Errors as `run`."""
        async with self._turn(name, lease):
            return await self._client.execute_command(name, key, *args)

    async def info(self, section: str) -> dict[str, Any]:
        """One section of INFO, of any node. Errors as `run`."""
        async with self._turn("INFO", True):
            answer: dict[str, Any] = await self._client.execute_command("INFO", section)
            return answer

    @asynccontextmanager
    async def _turn(self, call: str, lease: bool) -> AsyncIterator[None]:
        """A connection's turn: the whole of it within `CALL_WITHIN_S`, and every error in our words."""
        with said_in_our_words(call, self.secrets):
            try:
                async with asyncio.timeout(CALL_WITHIN_S), self._lease_line if lease else self._line:
                    if self._cluster is not None:
                        # Before it knows its nodes the client would send calls that come together anywhere.
                        await self._cluster.initialize()
                    yield
            except TimeoutError as error:
                raise TimeoutError(str(error) or f"no answer within {CALL_WITHIN_S:g} s") from error

    def listener(self, key: str) -> Redis:
        """A client of its own for waiting on a subscription, which would hold a connection of the pool for good.

        In a Cluster every node hears what is published at any; the key's own is taken while it is known.
        """
        options: dict[str, Any] = {
            "socket_connect_timeout": CALL_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
        }
        match self._address.kind:
            case Kind.SINGLE:
                return Redis.from_url(self._url, **options)
            case Kind.CLUSTER:
                host, port = self._node(key)
                return Redis(host=host, port=port, **{**_of_cluster(self._address), **options})
            case Kind.SENTINEL:
                return self._master(options)

    def _node(self, key: str) -> tuple[str, int]:
        self._tried += 1
        if self._cluster is not None and self._tried % 2:
            try:
                node = self._cluster.get_node_from_key(key)
            except RedisClusterException:
                node = None
            if node is not None:
                return str(node.host), int(node.port)
        return self._address.nodes[self._tried // 2 % len(self._address.nodes)]

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class _Script:
    """A script's text and the name by which a server that has seen it knows it."""

    def __init__(self, name: str) -> None:
        folder = resources.files(__package__) / "lua"
        parts = (*_PRELUDES.get(name, ()), name)
        self.source = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def _of_cluster(where: Address) -> dict[str, Any]:
    return {name: value for name, value in where.options.items() if name != "db"}


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
