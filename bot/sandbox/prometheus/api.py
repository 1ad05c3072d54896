"""Prometheus' HTTP API over the embedded one: the same paths, parameters, bodies and error statuses."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from aiohttp import web
from prombed import PrombedError

from bot.sandbox.prometheus.embedded import Embedded, duration_s

_EXECUTION = {"query_execution_error"}


class BadRequest(ValueError):
    """A parameter is missing or wrong; the text is what Prometheus would say."""


class Api:
    """Handlers of `/api/v1/` and the health paths."""

    def __init__(self, embedded: Embedded) -> None:
        self._embedded = embedded

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        both = {"query": self._query, "query_range": self._query_range, "labels": self._labels, "series": self._series}
        routes = [web.get(f"/api/v1/{name}", _answering(handler)) for name, handler in both.items()]
        routes += [web.post(f"/api/v1/{name}", _answering(handler)) for name, handler in both.items()]
        return [
            *routes,
            web.get("/api/v1/label/{name}/values", _answering(self._label_values)),
            web.get("/api/v1/targets", _answering(self._targets)),
            web.get("/api/v1/status/buildinfo", _answering(self._build)),
            web.get("/-/ready", _ready),
            web.get("/-/healthy", _ready),
            web.get("/", _ready),
        ]

    async def _query(self, parameters: Mapping[str, str], _request: web.Request) -> Any:
        body = self._embedded.engine.query(_required(parameters, "query"), _moment_ms(parameters, "time", time.time()))
        return body["data"]

    async def _query_range(self, parameters: Mapping[str, str], _request: web.Request) -> Any:
        query, start_ms, end_ms = (
            _required(parameters, "query"),
            _moment_ms(parameters, "start"),
            _moment_ms(parameters, "end"),
        )
        try:
            step_ms = round(duration_s(_required(parameters, "step")) * 1000)
        except ValueError as error:
            raise BadRequest(f'invalid parameter "step": {error}') from error
        if step_ms <= 0:
            raise BadRequest(
                'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
                "Try a positive integer"
            )
        if end_ms < start_ms:
            raise BadRequest('invalid parameter "end": end timestamp must not be before start time')
        return self._embedded.engine.query_range(query, start_ms, end_ms, step_ms)["data"]

    async def _labels(self, _parameters: Mapping[str, str], _request: web.Request) -> Any:
        return sorted({name for labels in self._embedded.series() for name in labels})

    async def _label_values(self, _parameters: Mapping[str, str], request: web.Request) -> Any:
        name = request.match_info["name"]
        return sorted({labels[name] for labels in self._embedded.series() if name in labels})

    async def _series(self, parameters: Mapping[str, str], _request: web.Request) -> Any:
        if "match[]" not in parameters:
            raise BadRequest("no match[] parameter provided")
        return self._embedded.select(parameters["match[]"])

    async def _targets(self, _parameters: Mapping[str, str], _request: web.Request) -> Any:
        return {"activeTargets": self._embedded.targets(), "droppedTargets": []}

    async def _build(self, _parameters: Mapping[str, str], _request: web.Request) -> Any:
        return {"version": "0.0.0-embedded", "revision": "", "goVersion": ""}


def _answering(
    handler: Callable[[Mapping[str, str], web.Request], Awaitable[Any]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        parameters: dict[str, str] = dict(request.query)
        if request.method == "POST":
            parameters |= {name: str(value) for name, value in (await request.post()).items()}
        try:
            return web.json_response({"status": "success", "data": await handler(parameters, request)})
        except BadRequest as error:
            return _error(400, "bad_data", str(error))
        except PrombedError as error:
            if error.code in _EXECUTION:
                return _error(422, "execution", str(error))
            return _error(400, "bad_data", f'invalid parameter "query": {error}')

    return answer


def _error(status: int, kind: str, text: str) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": text}, status=status)


async def _ready(_request: web.Request) -> web.Response:
    return web.Response(text="Prometheus Server is Ready.\n")


def _required(parameters: Mapping[str, str], name: str) -> str:
    value = parameters.get(name, "")
    if not value:
        detail = "unknown position: parse error: no expression found in input" if name == "query" else "missing"
        raise BadRequest(f'invalid parameter "{name}": {detail}')
    return value


def _moment_ms(parameters: Mapping[str, str], name: str, otherwise_s: float | None = None) -> int:
    text = parameters.get(name, "")
    if not text and otherwise_s is not None:
        return round(otherwise_s * 1000)
    try:
        return round(float(text) * 1000)
    except ValueError:
        pass
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise BadRequest(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp') from None
