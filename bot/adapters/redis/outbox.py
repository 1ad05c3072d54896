"""Letters on their way out, the messages that stand in the chat, and the shared allowance of its rate limits."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from bot.adapters.redis.letters import answers_of, body, opened, queue_of, queued
from bot.adapters.redis.link import Link
from bot.errors import Unreadable
from bot.ports.store import Letter, Posted
from bot.rollout.effects import Message

_POSTED_FOR_S = 100 * 86_400

_log = logging.getLogger(__name__)


class RedisOutbox:
    """Implements `Outbox`. A card that waits behind others stands for later ones: it is drawn when it is delivered.

    `shared` is where the allowances lie, which all shards draw on: the chat counts the whole workspace's messages.
    """

    def __init__(self, link: Link, shared: Link | None = None) -> None:
        self._link = link
        self._shared = shared or link

    async def add(self, rollout_id: str, messages: Sequence[Message], now: float) -> None:
        """Queue messages that are not part of a save."""
        if messages:
            await self._link.run("outbox_add", rollout_id, *queued(rollout_id, messages, now))

    async def take(self, now: float, limit: int) -> tuple[Letter, ...]:
        """The first urgent letter of each rollout, then the head of each queue; a letter that no version of ours wrote
        is dropped with a log line, for it would block its queue for ever."""
        answer = await self._link.run("outbox_take", repr(now), limit)
        letters: list[Letter] = []
        for letter_id, text in zip(answer[::2], answer[1::2], strict=True):
            try:
                letters.append(opened(letter_id, text))
            except (Unreadable, ValueError) as error:
                rollout_id = _rollout_of(text)
                _log.error("dropped letter %s of %s: %s", letter_id, rollout_id or "?", error)
                for queue in (rollout_id, answers_of(rollout_id)):
                    await self._link.run("outbox_done", queue, letter_id)
        return tuple(letters)

    async def done(self, letter: Letter) -> None:
        """Take a delivered letter out."""
        await self._link.run("outbox_done", queue_of(letter), letter.id)

    async def delay(self, letter: Letter, until: float) -> None:
        """Put a letter off and count the attempt."""
        later = replace(letter, due=until, attempts=letter.attempts + 1)
        await self._link.run("outbox_done", queue_of(letter), letter.id, repr(until), body(later))

    async def posted(self, key: str) -> Posted | None:
        """Where a message stands; remembered for 100 days."""
        text = await self._link.command("GET", f"posted:{key}")
        if text is None:
            return None
        channel, ts = json.loads(text)
        return Posted(channel, ts)

    async def set_posted(self, key: str, posted: Posted) -> None:
        """Remember where a message stands."""
        await self._link.command("SET", f"posted:{key}", json.dumps([posted.channel, posted.ts]), "EX", _POSTED_FOR_S)

    async def allowance(self, bucket: str, limit: int, window_s: float, now: float) -> float:
        """Take one of `limit` tokens per `window_s` seconds; 0.0 when granted, else the seconds to wait."""
        return float(await self._shared.run("allowance", bucket, limit, repr(window_s), repr(now)))

    async def depth(self) -> int:
        """Letters waiting."""
        return int(await self._link.command("HLEN", "letters"))


def _rollout_of(text: str) -> str:
    try:
        return str(json.loads(text)[0])
    except (ValueError, IndexError, KeyError, TypeError):
        return ""
