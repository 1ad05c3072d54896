"""What contract tests of the store share."""

from collections.abc import AsyncIterator

import pytest

from bot.adapters.redis import RedisStore
from tests.fixtures.redis import RedisServer


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """The store over a real server; modules that try others say so themselves."""
    store = RedisStore(redis_server.url)
    yield store
    await store.close()
