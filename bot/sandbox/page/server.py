"""The page's own server: the files, and everything the browser needs from the parts, from one origin."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.sandbox.page.switches import SWITCHES
from bot.sandbox.page.watch import Json, Watch
from bot.sandbox.page.world import World

STATIC = Path(__file__).parent / "static"
PART_TIMEOUT_S = 10.0
SLACK_ACTS = frozenset({"command", "message", "mention", "dm", "home", "click", "submit", "close"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' https: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

logger = logging.getLogger(__name__)


class Page:
    """The application; `app` is to be served."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session: aiohttp.ClientSession | None = None
        self._watch: Watch | None = None
        self.app = web.Application(middlewares=[_same_origin])
        self.app.add_routes(
            [
                web.get("/", self._index),
                web.static("/static", STATIC),
                web.get("/api/slack/stream", self._slack_stream),
                web.get("/api/mesh/stream", self._mesh_stream),
                web.get("/api/files/{file_id}/{name}", self._file),
                web.post("/api/act/{kind}", self._act),
                web.get("/api/switches", self._switches),
                web.post("/api/switches/{id}", self._flip),
                web.post("/api/bot/{what:kill|start}", self._bot),
            ]
        )
        self.app.cleanup_ctx.append(self._connected)

    async def _connected(self, app: web.Application) -> AsyncIterator[None]:
        del app
        self._session = aiohttp.ClientSession()
        self._watch = Watch(self._world, self._session)
        yield
        await self._watch.close()
        await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the application has not started"
        return self._session

    async def _index(self, request: web.Request) -> web.StreamResponse:
        del request
        return web.FileResponse(STATIC / "index.html")

    async def _slack_stream(self, request: web.Request) -> web.StreamResponse:
        """Slack's own stream of changes, passed through."""
        response = await _event_stream(request)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=PART_TIMEOUT_S)
        try:
            async with self._http.get(f"{self._world.slack}/_sandbox/stream", timeout=timeout) as stream:
                async for chunk in stream.content.iter_any():
                    await response.write(chunk)
        except (aiohttp.ClientError, ConnectionError) as error:
            logger.info("the stream of Slack ended: %r", error)
        return response

    async def _mesh_stream(self, request: web.Request) -> web.StreamResponse:
        """First `history`, then a `sample` every second."""
        assert self._watch is not None
        response = await _event_stream(request)
        samples = self._watch.subscribe()
        try:
            await _send(response, "history", {"samples": list(self._watch.samples)})
            while True:
                await _send(response, "sample", await samples.get())
        except ConnectionError:
            return response
        finally:
            self._watch.unsubscribe(samples)

    async def _file(self, request: web.Request) -> web.Response:
        where = f"{self._world.slack}/_sandbox/files/{request.match_info['file_id']}/{request.match_info['name']}"
        async with self._http.get(where) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    async def _act(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        if kind not in SLACK_ACTS:
            raise web.HTTPNotFound
        return await self._pass_on("POST", f"{self._world.slack}/_sandbox/act/{kind}", await request.json())

    async def _switches(self, request: web.Request) -> web.Response:
        del request
        rows = [
            {"id": switch.id, "group": switch.group, "label": switch.label, "push": switch.push}
            for switch in SWITCHES.values()
            if self._address(switch.part) is not None
        ]
        return web.json_response({"switches": rows, "control": self._world.control is not None})

    async def _flip(self, request: web.Request) -> web.Response:
        """Turn a switch: `{"on": true}`."""
        switch = SWITCHES.get(request.match_info["id"])
        if switch is None:
            raise web.HTTPNotFound
        base = self._address(switch.part)
        if base is None:
            raise web.HTTPNotFound
        on = bool((await request.json()).get("on"))
        path = "/_sandbox/nodes/node-2" if switch.part == "node" else "/_sandbox/faults"
        async with self._http.get(base + path) as answer:
            state = await answer.json()
        return await self._pass_on("PUT", base + path, switch.change(state, on))

    def _address(self, part: str) -> str | None:
        return {
            "mesh": self._world.mesh,
            "kube": self._world.kube,
            "node": self._world.kube,
            "prometheus": self._world.prometheus,
            "slack": self._world.slack,
        }[part]

    async def _bot(self, request: web.Request) -> web.Response:
        if self._world.control is None:
            raise web.HTTPNotFound
        return await self._pass_on("POST", f"{self._world.control}/bot/{request.match_info['what']}", {})

    async def _pass_on(self, method: str, url: str, body: Json) -> web.Response:
        timeout = aiohttp.ClientTimeout(total=PART_TIMEOUT_S)
        try:
            async with self._http.request(method, url, json=body, timeout=timeout) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.json_response({"ok": False, "error": f"no answer: {error!r}"}, status=502)


@web.middleware
async def _same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what another site could make a browser send: a foreign Host or Origin, and writes that are not JSON."""
    host = urlsplit(f"//{request.host}").hostname
    origin = request.headers.get("Origin")
    if host not in ("127.0.0.1", "localhost") or (origin and urlsplit(origin).netloc != request.host):
        raise web.HTTPForbidden(text="only from this machine's own page")
    if request.method not in ("GET", "HEAD") and request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="JSON only")
    response = await handler(request)
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


async def _event_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def _send(response: web.StreamResponse, kind: str, data: Json) -> None:
    await response.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())
