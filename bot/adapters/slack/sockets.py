"""Socket Mode with two connections kept open, so that one can be renewed without a gap.

Slack asks each connection to come back every few hours; the SDK's client closes the old one before it opens the new,
and acknowledges nothing meanwhile. Here the replacement is open before the old one is let go.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from bot.adapters.slack.api import SlackApi
from bot.errors import CanaryError, Transient
from bot.ports.telemetry import Telemetry

CONNECTIONS = 2
HEARTBEAT_S = 10.0
BACK_OFF_S = (0.2, 1.0, 2.0, 5.0, 10.0)
GRACE_S = 5.0
Receive = Callable[[dict[str, Any], dict[str, str]], Awaitable[tuple[bool, dict[str, Any] | None]]]


class Sockets:
    """Keeps connections open and gives each payload to `receive`, whose answer is the acknowledgement."""

    def __init__(
        self, api: SlackApi, app_token: str, receive: Receive, telemetry: Telemetry, *, connections: int = CONNECTIONS
    ) -> None:
        self._api = api
        self._app_token = app_token
        self._receive = receive
        self._telemetry = telemetry
        self._wanted = connections
        self._open: set[aiohttp.ClientWebSocketResponse] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._stopping = False

    @property
    def connected(self) -> bool:
        """At least one connection takes payloads."""
        return bool(self._open)

    async def start(self) -> None:
        """Open the connections in the background; Slack being away is no reason to fail."""
        for _ in range(self._wanted):
            self._keep(self._stay())

    async def wait_connected(self) -> None:
        """Return when the first connection takes payloads."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Take no more payloads; those being acknowledged are finished."""
        self._stopping = True
        for socket in list(self._open):
            await socket.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stay(self) -> None:
        """One connection for ever: opened again whenever it ends, handed over when Slack asks for it."""
        failures = 0
        while not self._stopping:
            try:
                if await self._connection():
                    self._telemetry.count("slack_sockets_renewed")
                    return
                failures = 0
                least_s = 0.0
            except (CanaryError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                self._telemetry.line("slack-socket-failed", error=f"{type(error).__name__}: {error}")
                least_s = error.delay_s if isinstance(error, Transient) else 0.0
            failures += 1
            await asyncio.sleep(max(least_s, BACK_OFF_S[min(failures - 1, len(BACK_OFF_S) - 1)]))

    async def _connection(self) -> bool:
        """Serve one connection until it ends; True when a replacement took over."""
        address = await self._api.socket_address(self._app_token)
        async with self._api.session.ws_connect(
            address, heartbeat=HEARTBEAT_S, timeout=aiohttp.ClientWSTimeout(ws_close=2.0)
        ) as socket:
            try:
                return await self._serve(socket)
            finally:
                self._open.discard(socket)
                if not self._open:
                    self._ready.clear()

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> bool:
        handed_over = False
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            envelope = json.loads(message.data)
            match envelope.get("type"):
                case "hello":
                    self._open.add(socket)
                    self._ready.set()
                case "disconnect":
                    self._open.discard(socket)
                    if envelope.get("reason") == "link_disabled":
                        self._telemetry.line("slack-socket-disabled")
                    if not handed_over and not self._stopping and envelope.get("reason") != "too_many_websockets":
                        handed_over = True
                        self._keep(self._stay())
                        self._keep(self._close_later(socket))
                case _ if envelope.get("envelope_id"):
                    self._keep(self._acknowledge(socket, envelope))
                case _:
                    pass
        return handed_over

    async def _close_later(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await asyncio.sleep(GRACE_S)
        await socket.close()

    async def _acknowledge(self, socket: aiohttp.ClientWebSocketResponse, envelope: dict[str, Any]) -> None:
        headers: dict[str, str] = {}
        if envelope.get("retry_attempt") is not None:
            headers["x-slack-retry-num"] = str(envelope["retry_attempt"])
            headers["x-slack-retry-reason"] = str(envelope.get("retry_reason", ""))
        try:
            taken, body = await self._receive(envelope.get("payload") or {}, headers)
        except Exception as error:
            self._telemetry.failed("slack-envelope", error, kind=str(envelope.get("type")))
            return
        if not taken:
            return
        answer: dict[str, Any] = {"envelope_id": envelope["envelope_id"]}
        if body is not None:
            answer["payload"] = body
        try:
            await socket.send_str(json.dumps(answer))
        except (ConnectionError, aiohttp.ClientError) as error:
            self._telemetry.line("slack-acknowledgement-lost", error=type(error).__name__)
