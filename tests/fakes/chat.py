"""The chat in memory: what stands in it, and how it came to stand there."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bot.errors import NotFound, Transient
from bot.ports.chat import Block, NoChannel


@dataclass(frozen=True, slots=True)
class Said:
    """One message as it stands; `edits` are its earlier texts, `to` the only person who sees it."""

    channel: str
    ts: str
    text: str
    blocks: tuple[Block, ...]
    thread: str = ""
    to: str = ""
    edits: tuple[str, ...] = field(default=())


class FakeChat:
    """Implements `Chat`.

    `down = True`: every call raises Transient. `limited = n`: the next n calls are rate-limited (`delay_s` 7).
    `lost_replies = n`: the next n calls do their work and then raise Transient. `unknown` are channels that are not
    there. `messages` keeps everything said, by (channel, ts), in order; a repeated `key` posts nothing new.
    """

    def __init__(self) -> None:
        self.down = False
        self.limited = 0
        self.lost_replies = 0
        self.unknown: set[str] = set()
        self.messages: dict[tuple[str, str], Said] = {}
        self.whispers: list[Said] = []
        self.calls: list[str] = []
        self._keys: dict[str, tuple[str, str]] = {}
        self._numbers = itertools.count(1)

    async def post(
        self, channel: str, text: str, blocks: Sequence[Block], *, thread: str = "", key: str = ""
    ) -> tuple[str, str]:
        self._reach("post", channel)
        if key and key in self._keys:
            return self._keys[key]
        place = (channel.removeprefix("#"), f"1700000000.{next(self._numbers):06d}")
        self.messages[place] = Said(*place, text, tuple(blocks), thread=thread)
        if key:
            self._keys[key] = place
        self._replied("post")
        return place

    async def update(self, channel: str, ts: str, text: str, blocks: Sequence[Block]) -> None:
        self._reach("update", channel)
        said = self.messages.get((channel, ts))
        if said is None:
            raise NotFound("message_not_found")
        self.messages[channel, ts] = replace(said, text=text, blocks=tuple(blocks), edits=(*said.edits, said.text))
        self._replied("update")

    async def whisper(
        self, channel: str, user: str, text: str, blocks: Sequence[Block], *, thread: str = "", response_url: str = ""
    ) -> None:
        self._reach("whisper", channel)
        self.whispers.append(Said(channel, "", text, tuple(blocks), thread=thread, to=user))
        self._replied("whisper")

    async def permalink(self, channel: str, ts: str) -> str:
        self._reach("permalink", channel)
        return f"https://sandbox.slack.com/archives/{channel}/p{ts.replace('.', '')}"

    def delete(self, channel: str, ts: str) -> None:
        """A person deletes a message."""
        del self.messages[channel, ts]

    @property
    def texts(self) -> list[str]:
        """The texts that stand in the chat now, oldest first."""
        return [said.text for said in self.messages.values()]

    def _reach(self, call: str, channel: str) -> None:
        self.calls.append(call)
        if self.down:
            raise Transient(f"Slack does not answer ({call})")
        if self.limited > 0:
            self.limited -= 1
            raise Transient(f"ratelimited ({call})", 7.0)
        if channel in self.unknown:
            raise NoChannel(f"channel_not_found: {channel}")

    def _replied(self, call: str) -> None:
        if self.lost_replies > 0:
            self.lost_replies -= 1
            raise Transient(f"reply was lost ({call})")
