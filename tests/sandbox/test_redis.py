"""The sandbox's own redis-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as Client

from bot.sandbox.redis import Redis, find_redis_server, start_redis


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the data."""
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Redis]:
    """A running server."""
    running = start_redis(folder=folder)
    yield running
    running.stop()


def test_it_keeps_what_is_written_and_evicts_nothing(server: Redis) -> None:
    """The settings that the bot's store needs are on: append-only file, no eviction."""
    with Client.from_url(server.url) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_data_outlives_the_server(folder: Path) -> None:
    """A server started again in the same folder, on the same port, has what was written."""
    first = start_redis(folder=folder)
    with Client.from_url(first.url) as client:
        client.set("key", "value")
    first.stop(keep_data=True)
    port = int(first.url.rpartition(":")[2].partition("/")[0])
    second = start_redis(port=port, folder=folder)
    try:
        assert second.url == first.url
        with Client.from_url(second.url) as client:
            assert client.get("key") == b"value"
    finally:
        second.stop()


def test_a_binary_is_found() -> None:
    """There is a redis-server, from the package or from PATH."""
    assert find_redis_server().name == "redis-server"
