"""Addresses of Redis: what is read out of one, what is refused, and that no password shows."""

import pytest

from bot.adapters.hiding import credentials
from bot.adapters.redis.address import Kind, address


def test_one_server_is_left_to_the_library() -> None:
    """`redis://`, `rediss://` and `unix://` are redis-py's own."""
    for url in ("redis://h:1/0", "rediss://u:p@h:1/2?ssl_ca_certs=/x", "unix:///run/redis.sock"):
        assert address(url).kind is Kind.SINGLE


def test_a_cluster_names_its_nodes() -> None:
    """Hosts stand with commas between them, each with or without a port."""
    found = address("redis+cluster://bot:p%2Fw@one:7000,two,[::1]:7002")
    assert (found.kind, found.nodes) == (Kind.CLUSTER, (("one", 7000), ("two", 6379), ("::1", 7002)))
    assert found.options == {"username": "bot", "password": "p/w"}


def test_sentinels_name_the_master_they_watch() -> None:
    """The first part of the path is the master's name, the second the database; theirs is another password."""
    found = address("rediss+sentinel://:pw@s1,s2:26380/mymaster/3?sentinel_password=spw&ssl_ca_certs=/ca.pem")
    assert (found.kind, found.nodes) == (Kind.SENTINEL, (("s1", 26379), ("s2", 26380)))
    assert (found.service, found.of_sentinels) == ("mymaster", {"password": "spw"})
    assert found.options == {"password": "pw", "db": 3, "ssl": True, "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize("url", ["redis+sentinel://s1:26379", "redis+cluster://", "redis+cluster://h:port"])
def test_what_cannot_be_meant_is_refused(url: str) -> None:
    """No master, no host, no port."""
    with pytest.raises(ValueError):  # noqa: PT011
        address(url)


def test_both_passwords_are_known_as_secrets() -> None:
    """That of Redis and that of the Sentinels are cut out of whatever is said."""
    assert {"hunter2", "hunter3"} <= set(credentials("redis+sentinel://:hunter2@a,b:1/m?sentinel_password=hunter3"))
