"""Answers to people: in a queue of their own, because they do not share the channel's rate limit."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from bot.adapters.redis.store import RedisStore
from bot.rollout.effects import MessageKind
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore
from tests.fixtures.redis import RedisServer
from tests.fixtures.rollouts import NOW, message

FAR = NOW + 60


@pytest.fixture(params=["fake", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[FakeStore | RedisStore]:
    if request.param == "fake":
        yield FakeStore(FakeClock())
        return
    redis = RedisStore(cast(RedisServer, request.getfixturevalue("redis_server")).url)
    yield redis
    await redis.close()


async def test_an_answer_does_not_wait_behind_an_urgent_message_that_was_put_off(store: FakeStore | RedisStore) -> None:
    """The channel takes one message a second; a person who asked is whispered to all the same, and once."""
    await store.outbox.add("payments-1", [message("card", MessageKind.CARD, urgent=True)], NOW)
    (card,) = await store.outbox.take(NOW, 10)
    await store.outbox.delay(card, FAR)
    await store.outbox.add("payments-1", [message("held", MessageKind.ANSWER, urgent=True)], NOW)
    (answer,) = await store.outbox.take(NOW, 10)
    assert (answer.message.text, answer.rollout) == ("held", "payments-1")
    await store.outbox.delay(answer, NOW + 5)
    assert await store.outbox.take(NOW + 4, 10) == ()
    (again,) = await store.outbox.take(NOW + 5, 10)
    assert again.attempts == 1
    await store.outbox.done(again)
    assert [letter.message.text for letter in await store.outbox.take(FAR, 10)] == ["card"]
    assert await store.outbox.depth() == 1
