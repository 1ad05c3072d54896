"""The HTTP door: Slack's signed requests, health, readiness and metrics."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.handlers.unreadable import UNREADABLE
from bot.ports.telemetry import Telemetry

BODY_LIMIT_BYTES = 1024 * 1024
SLOWEST_S = 10.0
IDLE_S = 75.0
"""Longer than the 60 s after which proxies close a connection they keep, so that it is never us who close first."""
LINGERING_S = 1.0
"""How long the rest of a body that was refused is read, so that its sender sees the answer."""
CONNECTIONS = 200
"""At most at a time: what is open here is not open to Redis and the API server, by which the bot rolls back."""
_STAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Problems = Callable[[], Awaitable[Sequence[str]]]
Metrics = Callable[[], tuple[bytes, str]]


class HttpDoor:
    """Serves `/healthz`, `/readyz`, `/metrics`, and `/slack/events` when it is given an app.

    `alive` and `ready` name what is wrong, nothing when all is well; `metrics` gives a body and its content type.
    Requests to `/slack/events` that are not signed, stale or replayed get 401 and are counted, malformed ones 400,
    longer ones than 1 MiB 413, slower ones than `slowest_s` 408, and while the process ends all of them 503. A
    connection over which no request is complete within `idle_s` is closed, one beyond `connections` at once.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        alive: Problems,
        ready: Problems,
        metrics: Metrics,
        telemetry: Telemetry,
        app: AsyncApp | None = None,
        slowest_s: float = SLOWEST_S,
        idle_s: float = IDLE_S,
        lingering_s: float = LINGERING_S,
        connections: int = CONNECTIONS,
    ) -> None:
        self._host = host
        self._port = port
        self._closed = False
        self.address = ""
        self._alive = alive
        self._ready = ready
        self._metrics = metrics
        self._telemetry = telemetry
        self._app = app
        self._slowest_s = slowest_s
        self._idle_s = idle_s
        self._lingering_s = lingering_s
        self._connections = connections
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; `address` then has the port that was given out for port 0."""
        server = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[self._edge])
        server.add_routes(
            [
                web.get("/healthz", self._healthz, expect_handler=_continue),
                web.get("/readyz", self._readyz, expect_handler=_continue),
                web.get("/metrics", self._serve_metrics, expect_handler=_continue),
                web.post("/slack/events", self._events, expect_handler=_continue),
                web.route("*", "/{elsewhere:.*}", _nothing_here, expect_handler=_continue),
            ]
        )
        log = logging.getLogger("aiohttp.server.door")
        log.addFilter(self._says_something)
        self._runner = web.AppRunner(
            server,
            access_log=None,
            logger=log,
            shutdown_timeout=3.0,
            keepalive_timeout=self._idle_s,
            lingering_time=self._lingering_s,
        )
        await self._runner.setup()
        self._listening = await asyncio.get_running_loop().create_server(self._connection, self._host, self._port)
        where = self._listening.sockets[0].getsockname()
        name = f"[{where[0]}]" if ":" in where[0] else where[0]
        self.address = f"http://{name}:{where[1]}"

    @property
    def connected(self) -> int:
        """Connections that are open."""
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    def open_events(self, app: AsyncApp) -> None:
        """Take Slack's requests from now on."""
        self._app = app

    def close_events(self) -> None:
        """Take no more of Slack's requests; health and metrics go on."""
        self._closed = True

    async def stop(self) -> None:
        """Stop listening; requests under way are finished first."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _connection(self) -> asyncio.BaseProtocol:
        server = self._runner.server if self._runner is not None else None
        if server is None or self.connected >= self._connections:
            self._telemetry.count("slack_refused", reason="crowded")
            return _TurnedAway()
        return server()

    def _says_something(self, record: logging.LogRecord) -> bool:
        """False for what aiohttp says, with a traceback, of bytes that are no HTTP: that is counted."""
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError):
            self._telemetry.count("slack_refused", reason="malformed")
            return False
        return True

    @web.middleware
    async def _edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            self._telemetry.failed("http-request", error, path=request.path[:100])
            return web.Response(status=500, text="something went wrong")

    async def _healthz(self, request: web.Request) -> web.Response:
        return _verdict(await self._alive(), "alive")

    async def _readyz(self, request: web.Request) -> web.Response:
        return _verdict(await self._ready(), "ready")

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _events(self, request: web.Request) -> web.Response:
        if self._app is None or self._closed:
            return web.Response(status=503, text="not taking requests")
        try:
            async with asyncio.timeout(self._slowest_s):
                asked = await to_bolt_request(request)
        except TimeoutError:
            self._telemetry.count("slack_refused", reason="slow")
            return web.Response(status=408, text="slow request")
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:
            # Bolt takes the body apart before it looks at the signature, and what it trips over is of every kind.
            self._telemetry.count("slack_refused", reason="malformed")
            return web.Response(status=400, text="malformed request")
        if not _looks_signed(asked):
            self._telemetry.count("slack_refused", reason="unsigned")
            return web.Response(status=401, text="unsigned request")
        try:
            answer = await self._app.async_dispatch(asked)
        except UNREADABLE:
            self._telemetry.count("slack_refused", reason="malformed")
            return web.Response(status=400, text="malformed request")
        if answer.status == 401 and answer.body != "replayed request":
            self._telemetry.count("slack_refused", reason="unsigned")
        return await to_aiohttp_response(answer)


async def _continue(request: web.Request) -> None:
    """Answer `Expect`. aiohttp's own handler repeats what it was sent, and breaks on bytes that are no text."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0


async def _nothing_here(request: web.Request) -> web.Response:
    raise web.HTTPNotFound


class _TurnedAway(asyncio.Protocol):
    """Closes its connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


def _looks_signed(asked: AsyncBoltRequest) -> bool:
    """Whether time-stamp and signature have their form: Bolt's comparison raises for others."""
    stamp = asked.headers.get("x-slack-request-timestamp", [""])[0]
    signature = asked.headers.get("x-slack-signature", [""])[0]
    return bool(_STAMP.fullmatch(stamp) and _SIGNATURE.fullmatch(signature))


def _verdict(problems: Sequence[str], well: str) -> web.Response:
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text=f"{well}\n")
