"""Socket Mode: websockets to the bot, envelopes, acknowledgements.

Reference: https://docs.slack.dev/apis/events-api/using-socket-mode
"""

import asyncio
import contextlib
import json
import random
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from bot.sandbox.slack.blocks import Json
from bot.sandbox.slack.workspace import APP_ID, Workspace

MOST_CONNECTIONS = 10
TICKET_S = 30.0


@dataclass(frozen=True, slots=True)
class Ack:
    """How the bot answered a payload: `error` is what the person is told (None: acknowledged)."""

    error: str | None
    ms: float
    body: Any = None
    reason: str = ""
    no_retry: bool = False


@dataclass(slots=True, eq=False)
class _Connection:
    socket: web.WebSocketResponse
    waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    leaving: bool = False


class Sockets:
    """The open connections; each payload goes to any one of them."""

    def __init__(self, world: Workspace) -> None:
        self.world = world
        self.refuse = False
        self._connections: set[_Connection] = set()
        self._tickets: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many connections take payloads now."""
        return sum(not connection.leaving for connection in self._connections)

    def ticket(self) -> str:
        """A ticket for one connection, good for half a minute."""
        ticket = secrets.token_urlsafe(12)
        self._tickets[ticket] = time.monotonic()
        return ticket

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Serve one websocket until it ends."""
        issued = self._tickets.pop(request.query.get("ticket", ""), None)
        if self.refuse or issued is None or time.monotonic() - issued > TICKET_S:
            return web.Response(status=403, text="invalid ticket")
        socket = web.WebSocketResponse(heartbeat=30.0)
        await socket.prepare(request)
        if self.count >= MOST_CONNECTIONS:
            await socket.send_json({"type": "disconnect", "reason": "too_many_websockets"})
            await socket.close()
            return socket
        connection = _Connection(socket)
        self._connections.add(connection)
        await socket.send_json(
            {
                "type": "hello",
                "num_connections": self.count,
                "debug_info": {"host": "sandbox", "build_number": 1, "approximate_connection_time": 18060},
                "connection_info": {"app_id": APP_ID},
            }
        )
        self.world.publish("connections", {"count": self.count})
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._take(connection, message.data)
        finally:
            self._drop(connection)
        return socket

    def _take(self, connection: _Connection, data: str) -> None:
        try:
            answer = json.loads(data)
        except ValueError:
            return
        waiting = connection.waiting.pop(str(answer.get("envelope_id")), None) if isinstance(answer, dict) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.get("payload"))

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        for waiting in connection.waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError())
        self.world.publish("connections", {"count": self.count})

    async def send(self, kind: str, payload: Json, *, accepts: bool, within_s: float, extra: Json) -> Ack:
        """Send one envelope to any connection and wait for its acknowledgement.

        `kind` is slash_commands, interactive or events_api; an answer in the acknowledgement counts only if `accepts`.
        """
        began = time.monotonic()
        open_ones = [connection for connection in self._connections if not connection.leaving]
        if not open_ones:
            return Ack("dispatch_failed", 0.0, reason="connection_failed")
        connection = random.choice(open_ones)
        envelope_id = str(uuid.uuid4())
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection.waiting[envelope_id] = answered
        envelope = {"envelope_id": envelope_id, "type": kind, "accepts_response_payload": accepts, **extra}
        try:
            async with asyncio.timeout(within_s):
                await connection.socket.send_json({**envelope, "payload": payload})
                body = await answered
        except TimeoutError:
            return Ack("operation_timeout", _ms_since(began), reason="timeout")
        except ConnectionError:
            return Ack("dispatch_failed", _ms_since(began), reason="connection_failed")
        finally:
            connection.waiting.pop(envelope_id, None)
        return Ack(None, _ms_since(began), body if accepts else None)

    async def refresh(self, reason: str = "refresh_requested") -> int:
        """Ask every connection to come back on a new one, then close them; the number asked."""
        leaving = [connection for connection in self._connections if not connection.leaving]
        for connection in leaving:
            connection.leaving = True
            with contextlib.suppress(ConnectionError):
                await connection.socket.send_json({"type": "disconnect", "reason": reason})
        for connection in leaving:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.socket.close()
        return len(leaving)

    async def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections):
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(0.3):
                    await connection.socket.close()


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
