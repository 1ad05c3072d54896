"""The HTTP door of a bot whose world is faked, and everything that strangers can send to it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from bot.handlers.app import build_app
from bot.handlers.http import HttpDoor
from bot.handlers.intake import Intake
from bot.ports.chat import Block
from tests.engine.stage import Stage
from tests.fakes.chat import FakeChat
from tests.fakes.telemetry import FakeTelemetry

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
FORM = "application/x-www-form-urlencoded"


class Lobby(FakeChat):
    """A chat that opens modals as well, and keeps them in `views`."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[Block] = []

    async def open_view(self, trigger_id: str, view: Block) -> None:
        self.views.append(view)


class Tally(FakeTelemetry):
    """Counts refusals by their reason as well."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        super().count(name, amount, **labels)
        for value in labels.values():
            super().count(f"{name}:{value}", amount)


class Complaints(logging.Handler):
    """Everything at ERROR that any library logs, and every task that died unheard."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()} {record.exc_info[1]!r}" if record.exc_info else
                          f"{record.name}: {record.getMessage()}")  # fmt: skip


@dataclass(slots=True)
class Doorway:
    """`unhandled` names whatever was not foreseen: errors logged, dead tasks, failures of the bot's own."""

    stage: Stage
    telemetry: Tally
    intake: Intake
    door: HttpDoor
    complaints: Complaints

    @property
    def port(self) -> int:
        return int(self.door.address.rpartition(":")[2])

    @property
    def unhandled(self) -> list[str]:
        return [*self.complaints.lines, *(f"{event}: {error!r}" for event, error in self.telemetry.failures)]

    @property
    def untouched(self) -> bool:
        """No rollout, no request, no freeze, no write to a route, nothing said to anybody."""
        store = self.stage.store
        told = self.stage.chat.whispers or self.stage.chat.messages
        done = store.rollouts.records or self.stage.mesh.writes or store.calls["freeze"] or store.calls["put"]
        return not told and not done

    async def send(self, data: bytes, *, within_s: float = 10.0) -> bytes:
        """Send bytes over a connection of their own and read until it is closed; b"" for no answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(within_s):
                writer.write(data)
                await writer.drain()
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def status(self, data: bytes) -> int:
        """The status of the answer; 0 for a connection closed without one."""
        answer = await self.send(data)
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


@asynccontextmanager
async def doorway(**limits: float) -> AsyncIterator[Doorway]:
    """A door that listens; `limits` are those of HttpDoor."""
    telemetry, chat = Tally(), Lobby()
    stage = Stage(telemetry=telemetry, chat=chat)
    await stage.add_service()
    intake = Intake(stage.store.seen, telemetry)
    app = build_app(stage.desk, chat, intake, telemetry, signing_secret=SECRET, bot_user="U0CANARY", bot_id="B0CANARY")

    async def well() -> tuple[str, ...]:
        return ()

    door = HttpDoor(
        "127.0.0.1",
        0,
        alive=well,
        ready=well,
        metrics=lambda: (b"up 1\n", "text/plain"),
        telemetry=telemetry,
        app=app,
        **limits,  # type: ignore[arg-type]
    )
    complaints, loop = Complaints(), asyncio.get_running_loop()
    logging.getLogger().addHandler(complaints)
    former = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: complaints.lines.append(str(context)))
    await door.start()
    try:
        yield Doorway(stage, telemetry, intake, door, complaints)
    finally:
        await intake.drain(1.0)
        await door.stop()
        loop.set_exception_handler(former)
        logging.getLogger().removeHandler(complaints)


def signature(body: bytes, stamp: str, secret: str = SECRET) -> str:
    """What Slack puts into `X-Slack-Signature`."""
    return "v0=" + hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()


def signed(body: bytes, *, age_s: float = 0.0, secret: str = SECRET) -> dict[str, str]:
    """The two headers of a request signed `age_s` seconds ago."""
    stamp = str(int(time.time() - age_s))
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature(body, stamp, secret)}


def request(
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    content_type: str = FORM,
    path: str = "/slack/events",
    close: bool = True,
) -> bytes:
    """A POST as bytes."""
    lines = {"Host": "bot", "Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    if close:
        lines["Connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def slash(text: str, user: str = "U0ADA", trigger: str = "1.2.3", **more: str) -> bytes:
    """The body of `/canary <text>`."""
    fields = {
        "command": "/canary",
        "text": text,
        "user_id": user,
        "user_name": "ada",
        "channel_id": "C0PAYMENTS",
        "team_id": "T0SANDBOX",
        "trigger_id": trigger,
        "response_url": "",
    }
    return urlencode({**fields, **more}).encode()
