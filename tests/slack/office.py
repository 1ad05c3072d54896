"""The whole bot but its store, mesh and metrics, at work in the sandbox's Slack: real listeners, real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from slack_bolt.async_app import AsyncApp

from bot.adapters.slack import SlackChat, SlackDirectory, Sockets
from bot.catalog import load
from bot.handlers.app import build_app
from bot.handlers.entrance import Entrance
from bot.handlers.http import HttpDoor
from bot.handlers.intake import Intake
from bot.handlers.socket import receiver
from tests.engine.stage import CATALOG, Stage
from tests.fixtures.slack import SlackServer

Json = dict[str, Any]
WITHIN_S = 30.0
MENTION = '    mention: "@release-leads"\n'


@dataclass(slots=True)
class Office:
    """`stage` is the world behind the bot; what people do goes through `slack`."""

    stage: Stage
    slack: SlackServer
    app: AsyncApp
    intake: Intake
    door: HttpDoor
    entrance: Entrance
    chat: SlackChat

    async def private(self, doing: Json) -> str:
        """The private answer to what somebody did: its text."""
        assert doing["ok"], doing
        assert doing["ephemeral"], doing
        return str(doing["ephemeral"][-1]["text"])

    async def command(self, text: str, user: str = "U0ADA", channel: str = "#payments") -> str:
        """Type `/canary <text>` and read the private answer."""
        done = await self.slack.act("command", user=user, channel=channel, text=f"/canary {text}", wait_s=WITHIN_S)
        return await self.private(done)

    async def start(self, words: str = "start payments v2 steps 10%:10s,50%:10s:approve,100%:10s") -> str:
        """Start a rollout; its id."""
        said = await self.command(words)
        assert "has been started" in said, said
        (name,) = self.stage.store.rollouts.routes.values()
        return name

    async def play(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let the world's time pass."""
        await self.stage.play(seconds, until=until)

    async def message(self, found: Callable[[Json], bool], channel: str = "#payments") -> Json:
        """The newest message that is as `found` says, letting the world's time pass until it is there."""
        for _ in range(200):
            for message in reversed(await self.slack.messages(channel)):
                if found(message):
                    return message
            await self.play(0.5)
        texts = [message["text"] for message in await self.slack.messages(channel)]
        raise AssertionError(f"no such message among {texts}")

    async def answered(self, user: str, words: str, channel: str = "#payments") -> str:
        """The private message to `user` that contains `words`, which the holder sends."""
        found = await self.message(
            lambda message: message.get("ephemeral_to") == user and words in message["text"], channel
        )
        return str(found["text"])


@asynccontextmanager
async def office(slack: SlackServer, *, mode: str = "socket", engine: bool = True) -> AsyncIterator[Office]:
    """The bot at work; `engine` False: no replica holds the lease."""
    await slack.put("settings", rate_limits=False)
    stage = Stage(catalog=load(CATALOG + MENTION))
    chat = SlackChat(slack.bot_token, stage.clock, base_url=slack.api_url)
    stage.chat = chat  # type: ignore[assignment]
    stage.desk = _with_directory(stage, chat)
    stage.engine = stage.new_engine("bot-1")
    intake = Intake(stage.store.seen, stage.telemetry)
    me = await chat.myself()
    app = build_app(
        stage.desk,
        chat,
        intake,
        stage.telemetry,
        signing_secret=slack.signing_secret if mode == "http" else "",
        bot_user=me.user_id,
        bot_id=me.bot_id,
    )

    async def well() -> tuple[str, ...]:
        return () if entrance.open else ("Slack's Socket Mode is not connected",)

    door = HttpDoor(
        "127.0.0.1",
        0,
        alive=well,
        ready=well,
        metrics=lambda: (b"up 1\n", "text/plain"),
        telemetry=stage.telemetry,
        app=app if mode == "http" else None,
    )
    sockets = None
    if mode == "socket":
        sockets = Sockets(chat.api, slack.app_token, receiver(app), stage.telemetry)
    entrance = Entrance(intake, stage.telemetry, sockets=sockets, http=door)
    await door.start()
    if mode == "http":
        await slack.put("settings", mode="http", bot_url=door.address)
    await entrance.start()
    await stage.add_service()
    try:
        if sockets is not None:
            await asyncio.wait_for(sockets.wait_connected(), WITHIN_S)
        if engine:
            await stage.engine.start()
            await stage.timeline.advance(1.5)
        yield Office(stage, slack, app, intake, door, entrance, chat)
    finally:
        await entrance.stop(2.0)
        if engine:
            await stage.engine.stop()
        await door.stop()
        await chat.close()


def _with_directory(stage: Stage, chat: SlackChat) -> Any:
    return replace(stage.desk, directory=SlackDirectory(chat, stage.clock))
