"""The chat: post, edit, whisper. One call each; delivery decides about retrying."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bot.errors import Permanent

Block = Mapping[str, Any]


class NoChannel(Permanent):
    """The channel is not there, archived, or closed to the bot."""


class Chat(Protocol):
    """Errors: Transient (with Retry-After as `delay_s`), NoChannel, Permanent, NotFound for a message that is gone.
    `key` makes a post idempotent as far as the chat allows it."""

    async def post(
        self, channel: str, text: str, blocks: Sequence[Block], *, thread: str = "", key: str = ""
    ) -> tuple[str, str]:
        """Post a message; (channel id, ts)."""

    async def update(self, channel: str, ts: str, text: str, blocks: Sequence[Block]) -> None: ...

    async def whisper(
        self, channel: str, user: str, text: str, blocks: Sequence[Block], *, thread: str = "", response_url: str = ""
    ) -> None:
        """Say something to one person only."""

    async def permalink(self, channel: str, ts: str) -> str: ...
