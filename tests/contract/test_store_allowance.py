"""The chat's allowance when the clock that asks is set back."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from bot.adapters.redis import RedisStore
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore
from tests.fixtures.redis import RedisServer
from tests.fixtures.rollouts import NOW

HOUR = 3600.0


@pytest.fixture(params=["fake", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[FakeStore | RedisStore]:
    if request.param == "fake":
        yield FakeStore(FakeClock())
        return
    redis = RedisStore(cast(RedisServer, request.getfixturevalue("redis_server")).url)
    yield redis
    await redis.close()


async def test_a_clock_set_back_by_an_hour_waits_no_hour(store: FakeStore | RedisStore) -> None:
    """An empty bucket fills at its own pace from the new time on."""
    take = store.outbox.allowance
    assert await take("post:C1", 1, 1.0, NOW) == 0.0
    assert await take("post:C1", 1, 1.0, NOW - HOUR) == pytest.approx(1.0)
    assert await take("post:C1", 1, 1.0, NOW - HOUR + 1) == 0.0
