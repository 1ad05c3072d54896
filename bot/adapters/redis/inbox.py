"""Requests of people for the holder, and the ring that tells it."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from bot.adapters.redis.link import Link
from bot.adapters.redis.server import said_in_our_words
from bot.errors import Transient, Unreadable
from bot.ports.clock import Clock
from bot.rollout.events import Request
from bot.rollout.record import dump, load_request

_QUIET_S = 2.0
_AGAIN_S = (0.2, 0.5, 1.0)

_log = logging.getLogger(__name__)


class RedisInbox:
    """Implements `Inbox`. A request is kept once by its id, however often it is put."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    async def put(self, request: Request) -> None:
        """Keep a request for the holder and ring."""
        await self._link.run("inbox_put", request.rollout, request.id, dump(request))

    async def take(self, rollout_id: str) -> tuple[Request, ...]:
        """Waiting requests in order; one that cannot be read is dropped with a log line."""
        answer = await self._link.run("inbox_take", rollout_id)
        requests: list[Request] = []
        for request_id, text in zip(answer[::2], answer[1::2], strict=True):
            try:
                requests.append(load_request(text))
            except Unreadable as error:
                _log.error("dropped request %s of %s: %s", request_id, rollout_id, error)
                await self.done(rollout_id, (request_id,))
        return tuple(requests)

    async def done(self, rollout_id: str, request_ids: Sequence[str]) -> None:
        """Take answered requests out."""
        if request_ids:
            await self._link.run("inbox_done", rollout_id, *request_ids)

    async def waiting(self) -> tuple[str, ...]:
        """Ids of rollouts whose inbox is not empty."""
        return tuple(sorted(await self._link.command("SMEMBERS", "waiting")))

    async def ring(self, rollout_id: str) -> None:
        """Ring without a request."""
        await self._link.command("PUBLISH", "rings", rollout_id)

    async def rings(self) -> AsyncIterator[str]:
        """Rollout ids as they are rung, over a connection of its own that is pinged when it is quiet, so that a dead
        one is noticed within seconds. Rings sent while there is none are lost: `waiting` makes up for them."""
        failures = 0
        while True:
            client = self._link.listener()
            try:
                async with aclosing(self._heard(client)) as heard:
                    async for rollout_id in heard:
                        failures = 0
                        if rollout_id:
                            yield rollout_id
            except Transient as error:
                if failures == 0:
                    _log.warning("the ring is deaf until Redis is back: %s", error)
                failures += 1
            finally:
                await client.aclose()
            await self._clock.sleep(_AGAIN_S[min(failures, len(_AGAIN_S)) - 1])

    async def _heard(self, client: Redis) -> AsyncGenerator[str, None]:
        """Ids, and "" for every sign of life that is no ring; ends by raising Transient."""
        ring: PubSub = client.pubsub()
        channel = self._link.base + "rings"
        try:
            with said_in_our_words("SUBSCRIBE", self._link.secrets):
                await ring.subscribe(channel)
                asked = True
                while True:
                    message = await ring.get_message(timeout=_QUIET_S)
                    if message is not None:
                        asked = False
                        yield str(message["data"]) if message["type"] == "message" else ""
                    elif asked:
                        raise TimeoutError(f"no sign of life for {_QUIET_S:g} s")
                    else:
                        asked = True
                        await ring.ping()
        finally:
            await ring.aclose()  # type: ignore[no-untyped-call]
