"""Where Redis is: one server, a Redis Cluster, or a master that Sentinels know."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import parse_url

REDIS_PORT = 6379
SENTINEL_PORT = 26379
_OF_SENTINELS = ("sentinel_username", "sentinel_password")


class Kind(StrEnum):
    """How the server of a key is found."""

    SINGLE = ""
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class Address:
    """An address taken apart.

    `nodes` are those to ask first (cluster nodes or Sentinels), `service` is the master's name at the Sentinels.
    `options` are redis-py's connection arguments without host and port; `ssl` is among them. `of_sentinels` are user
    and password that the Sentinels themselves want.
    """

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    options: Mapping[str, Any]
    service: str = ""
    of_sentinels: Mapping[str, str] | None = None


def address(url: str) -> Address:
    """Take `redis://`, `redis+cluster://` or `redis+sentinel://` apart, or the same with `rediss` for TLS.

    ValueError when a port is no number or a Sentinel's address names no master.
    """
    parts = urlsplit(url)
    scheme, _, way = parts.scheme.partition("+")
    kind = Kind(way)
    if kind is Kind.SINGLE:
        return Address(kind, (), {})
    userinfo, found, hosts = parts.netloc.rpartition("@")
    default = SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT
    nodes = tuple(_node(host, default) for host in hosts.split(",") if host)
    if not nodes:
        raise ValueError("an address of Redis names at least one host")
    segments = [segment for segment in parts.path.split("/") if segment]
    service = unquote(segments.pop(0)) if kind is Kind.SENTINEL and segments else ""
    if kind is Kind.SENTINEL and not service:
        raise ValueError(
            "an address of Sentinels ends with the name of the master: redis+sentinel://host:26379/mymaster"
        )
    query = parse_qsl(parts.query)
    plain = urlunsplit(
        (
            scheme,
            f"{userinfo}{found}{_written(nodes[0])}",
            "/".join(("", *segments)),
            urlencode([pair for pair in query if pair[0] not in _OF_SENTINELS]),
            "",
        )
    )
    options = {name: value for name, value in parse_url(plain).items() if name not in ("host", "port")}
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    of_sentinels = {name.removeprefix("sentinel_"): value for name, value in query if name in _OF_SENTINELS}
    return Address(kind, nodes, options, service, of_sentinels)


def _node(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or default


def _written(node: tuple[str, int]) -> str:
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
