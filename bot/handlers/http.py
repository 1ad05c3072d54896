"""The HTTP door: Slack's signed requests, health, readiness and metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp

from bot.ports.telemetry import Telemetry

BODY_LIMIT_BYTES = 1024 * 1024
SLOWEST_S = 10.0
Problems = Callable[[], Awaitable[Sequence[str]]]
Metrics = Callable[[], tuple[bytes, str]]


class HttpDoor:
    """Serves `/healthz`, `/readyz`, `/metrics`, and `/slack/events` when it is given an app.

    `alive` and `ready` name what is wrong, nothing when all is well; `metrics` gives a body and its content type.
    Requests to `/slack/events` that are not signed, stale or replayed get 401 and are counted, malformed ones 400,
    longer ones than 1 MiB 413, and while the process ends all of them 503.
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
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; `address` then has the port that was given out for port 0."""
        server = web.Application(client_max_size=BODY_LIMIT_BYTES)
        server.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._serve_metrics),
            ]
        )
        server.add_routes([web.post("/slack/events", self._events)])
        self._runner = web.AppRunner(server, access_log=None, shutdown_timeout=3.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        where = self._runner.addresses[0]
        name = f"[{where[0]}]" if ":" in where[0] else where[0]
        self.address = f"http://{name}:{where[1]}"

    def open_events(self, app: AsyncApp) -> None:
        """Take Slack's requests from now on."""
        self._app = app

    def close_events(self) -> None:
        """Take no more of Slack's requests; health and metrics go on."""
        self._closed = True

    async def stop(self) -> None:
        """Stop listening; requests under way are finished first."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

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
            async with asyncio.timeout(SLOWEST_S):
                asked = await to_bolt_request(request)
        except (ValueError, LookupError):
            self._telemetry.count("slack_refused", reason="malformed")
            return web.Response(status=400, text="malformed request")
        except TimeoutError:
            self._telemetry.count("slack_refused", reason="slow")
            return web.Response(status=408, text="slow request")
        answer = await self._app.async_dispatch(asked)
        if answer.status == 401 and answer.body != "replayed request":
            self._telemetry.count("slack_refused", reason="unsigned")
        return await to_aiohttp_response(answer)


def _verdict(problems: Sequence[str], well: str) -> web.Response:
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text=f"{well}\n")
