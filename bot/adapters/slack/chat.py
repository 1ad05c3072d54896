"""Posting, editing and whispering through the Web API."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bot.adapters.slack.api import SlackApi, SlackRefused
from bot.adapters.slack.groups import Groups
from bot.errors import Permanent
from bot.ports.chat import Block
from bot.ports.clock import Clock

_LOG = logging.getLogger(__name__)
_BAD_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"})


@dataclass(frozen=True, slots=True)
class Self:
    """The bot itself, as `auth.test` tells."""

    user_id: str
    bot_id: str
    team_id: str
    team: str
    scopes: frozenset[str]


class SlackChat:
    """Implements `Chat`, and opens modals. Nothing is sent twice by itself: who calls decides about that.

    Slack has no key against repeats, so `key` is not used. A whisper goes by `response_url` while that lives, then as
    an ephemeral message, and where the person is not in the channel as a direct one. A group that is called by its
    handle (`<!subteam^@release-leads>`) is called by its id here, where Slack can be asked.
    """

    def __init__(self, token: str, clock: Clock, *, base_url: str = "") -> None:
        self.api = SlackApi(token, base_url)
        self.groups = Groups(self.api, clock)
        self._self: Self | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()

    async def myself(self) -> Self:
        """Who the token belongs to; asked once."""
        if self._self is None:
            answer, headers = await self.api.headers_of("auth.test")
            scopes = frozenset(scope.strip() for scope in headers.get("x-oauth-scopes", "").split(",") if scope.strip())
            self._self = Self(
                str(answer["user_id"]),
                str(answer.get("bot_id", "")),
                str(answer["team_id"]),
                str(answer.get("team", "")),
                scopes,
            )
        return self._self

    async def post(
        self, channel: str, text: str, blocks: Sequence[Block], *, thread: str = "", key: str = ""
    ) -> tuple[str, str]:
        """Post a message; (channel id, ts)."""
        more = {"thread_ts": thread} if thread else {}
        answer = await self._say("chat.postMessage", blocks, channel=channel, text=text, unfurl_links=False, **more)
        return str(answer["channel"]), str(answer["ts"])

    async def update(self, channel: str, ts: str, text: str, blocks: Sequence[Block]) -> None:
        """Edit a message; text and blocks go together, because Slack keeps old blocks otherwise."""
        await self._say("chat.update", blocks, channel=channel, ts=ts, text=text)

    async def whisper(
        self, channel: str, user: str, text: str, blocks: Sequence[Block], *, thread: str = "", response_url: str = ""
    ) -> None:
        """Say something to one person only."""
        if response_url and await self._answered(response_url, text, blocks, thread):
            return
        if channel.startswith("D") or not channel:
            await self.post(channel or user, text, blocks, thread=thread)
            return
        more = {"thread_ts": thread} if thread else {}
        try:
            await self._say("chat.postEphemeral", blocks, channel=channel, user=user, text=text, **more)
        except Permanent:
            await self.post(user, text, blocks)

    async def _answered(self, response_url: str, text: str, blocks: Sequence[Block], thread: str) -> bool:
        body: dict[str, Any] = {
            "text": text,
            "blocks": [dict(block) for block in blocks],
            "response_type": "ephemeral",
            "replace_original": False,
        }
        if thread:
            body["thread_ts"] = thread
        try:
            await self.api.post_to(response_url, body)
        except SlackRefused as error:
            _LOG.info("response_url is used up or refused: %s", error.code)
            return False
        return True

    async def _say(self, method: str, blocks: Sequence[Block], **arguments: Any) -> dict[str, Any]:
        arguments["text"] = await self.groups.called(arguments["text"])
        shown = await self.groups.called([dict(block) for block in blocks])
        try:
            return await self.api.call(method, blocks=shown, **arguments)
        except SlackRefused as error:
            if error.code not in _BAD_BLOCKS:
                raise
            _LOG.warning("blocks were refused, the text alone is sent: %s", error)
        return await self.api.call(method, blocks=[], **arguments)

    async def permalink(self, channel: str, ts: str) -> str:
        """A link to a message."""
        return str((await self.api.read("chat.getPermalink", channel=channel, message_ts=ts))["permalink"])

    async def channels(self, page: int = 1000) -> frozenset[str]:
        """Ids and names (`#deploys`) of the channels there are: public ones, and private ones that the bot is in.

        Asked for `page` at a time.
        """
        found: set[str] = set()
        following = ""
        while True:
            answer = await self.api.read(
                "conversations.list",
                types="public_channel,private_channel",
                exclude_archived=True,
                limit=page,
                **({"cursor": following} if following else {}),
            )
            for channel in answer["channels"]:
                found |= {str(channel["id"]), f"#{channel['name']}"}
            following = str((answer.get("response_metadata") or {}).get("next_cursor") or "")
            if not following:
                return frozenset(found)

    async def open_view(self, trigger_id: str, view: Block) -> None:
        """Open a modal, within 3 s of the click that gave `trigger_id`."""
        await self.api.call("views.open", trigger_id=trigger_id, view=dict(view))
