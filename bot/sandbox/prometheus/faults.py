"""What can be made to go wrong between Prometheus and who asks it, for both kinds of Prometheus alike."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

WRONG = ("html", "nan", "empty", "cut")


@dataclass(frozen=True, slots=True)
class Faults:
    """`down` cuts every connection (true) or answers that status; `slow_s` delays; `wrong` spoils the answers.

    `wrong`: `html` is a login page with status 200, `nan` makes every value NaN, `empty` finds no series, and `cut`
    breaks the JSON off in the middle.
    """

    down: bool | int = False
    slow_s: float = 0.0
    wrong: str | None = None

    def merged(self, change: object) -> Faults:
        """Return the faults after a PUT.

        Raises:
            ValueError: an unknown key or value; the text names it.
        """
        if not isinstance(change, dict):
            raise ValueError("faults are a JSON object")
        unknown = sorted(set(change) - {item.name for item in fields(self)})
        if unknown:
            raise ValueError(f"unknown faults {unknown}; known: {sorted(item.name for item in fields(self))}")
        down: Any = change.get("down", self.down)
        slow_s: Any = change.get("slow_s", self.slow_s)
        wrong: Any = change.get("wrong", self.wrong)
        if not isinstance(down, bool) and not (isinstance(down, int) and 400 <= down <= 599):
            raise ValueError(f"down is true, false or a status from 400 to 599, not {down!r}")
        if isinstance(slow_s, bool) or not isinstance(slow_s, int | float) or slow_s < 0:
            raise ValueError(f"slow_s is a number of seconds, not {slow_s!r}")
        if wrong is not None and wrong not in WRONG:
            raise ValueError(f"wrong is null or one of {list(WRONG)}, not {wrong!r}")
        return Faults(down, slow_s, wrong)


class FaultSwitch:
    """The faults in force: a middleware that applies them, and the routes that show and change them."""

    def __init__(self) -> None:
        self.faults = Faults()

    def routes(self) -> list[web.RouteDef]:
        """Return GET, PUT (merges) and DELETE of `/_sandbox/faults`."""
        path = "/_sandbox/faults"
        return [web.get(path, self._show), web.put(path, self._put), web.delete(path, self._clear)]

    @property
    def middleware(self) -> Middleware:
        """The middleware; requests to `/_sandbox/` are left alone."""

        @web.middleware
        async def apply(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith("/_sandbox/"):
                return await handler(request)
            faults = self.faults
            if faults.slow_s:
                await asyncio.sleep(faults.slow_s)
            if faults.down is True:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response(status=503)
            if faults.down:
                return web.Response(status=faults.down, text="upstream is not available\n")
            if faults.wrong == "html":
                return web.Response(text="<html><body>Sign in to continue</body></html>", content_type="text/html")
            answer = await handler(request)
            if faults.wrong and request.path.startswith("/api/v1/query") and isinstance(answer, web.Response):
                return _spoiled(answer, faults.wrong)
            return answer

        return apply

    async def _show(self, _request: web.Request) -> web.Response:
        return web.json_response(asdict(self.faults))

    async def _put(self, request: web.Request) -> web.Response:
        try:
            self.faults = self.faults.merged(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(asdict(self.faults))

    async def _clear(self, _request: web.Request) -> web.Response:
        self.faults = Faults()
        return web.json_response(asdict(self.faults))


def _spoiled(answer: web.Response, how: str) -> web.Response:
    body = answer.body if isinstance(answer.body, bytes) else b""
    if how == "cut":
        return web.Response(body=body[: len(body) // 2], status=answer.status, content_type="application/json")
    content: dict[str, Any] = json.loads(body)
    if content.get("status") == "success":
        data = content["data"]
        if data["resultType"] in ("vector", "matrix"):
            data["result"] = [] if how == "empty" else [_nan(item) for item in data["result"]]
        elif how == "nan":
            data["result"] = [data["result"][0], "NaN"]
    return web.json_response(content, status=answer.status)


def _nan(item: dict[str, Any]) -> dict[str, Any]:
    changed = dict(item)
    if "value" in item:
        changed["value"] = [item["value"][0], "NaN"]
    if "values" in item:
        changed["values"] = [[moment, "NaN"] for moment, _ in item["values"]]
    return changed
