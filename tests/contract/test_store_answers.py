"""Answers to people in Redis: in a queue of their own, because they do not share the channel's rate limit."""

from bot.adapters.redis.store import RedisStore
from bot.rollout.effects import MessageKind
from tests.fixtures.redis import RedisServer
from tests.fixtures.rollouts import NOW, message

FAR = NOW + 60


async def test_an_answer_does_not_wait_behind_an_urgent_message_that_was_put_off(redis_server: RedisServer) -> None:
    """The channel takes one message a second; a person who asked is whispered to all the same, and once."""
    store = RedisStore(redis_server.url)
    try:
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
    finally:
        await store.close()
