"""The mesh part's own port: metrics to scrape, faults to set, and the truth to compare with."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from bot.sandbox.mesh import exposition
from bot.sandbox.mesh.faults import Faults
from bot.sandbox.mesh.ledger import Ledger, Request, counts, quantile_ms
from bot.sandbox.mesh.load import Load
from bot.sandbox.mesh.nodes import NODES, Nodes
from bot.sandbox.mesh.translator import Translator
from bot.sandbox.mesh.workloads import Workloads

MESH_EXPORTER = "istio-mesh"


class Control:
    """The faults in force, and the handlers that show and change them."""

    def __init__(self, nodes: Nodes) -> None:
        self.faults = Faults()
        self._nodes = nodes

    def present_faults(self) -> Faults:
        """Return the faults in force now."""
        return self.faults

    def app(self, ledger: Ledger, translator: Translator, workloads: Workloads, load: Load) -> web.Application:
        """Return the HTTP application."""

        async def metrics(request: web.Request) -> web.Response:
            if MESH_EXPORTER in self.faults.exporter_gone and request.transport is not None:
                request.transport.abort()
                return web.Response(status=503)
            ledger.drain()
            ledger.forget_workloads(workloads.present())
            text = exposition.istio(ledger.series())
            text += exposition.istiod(translator.convergence_s, translator.push_s, translator.rejects)
            return web.Response(body=text.encode(), headers={"Content-Type": exposition.CONTENT_TYPE})

        async def node_metrics(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            if name in self.faults.exporter_gone and request.transport is not None:
                request.transport.abort()
                return web.Response(status=503)
            self._pass_time()
            text = self._nodes.text(name)
            if text is None:
                raise web.HTTPNotFound(text=f"no node {name!r}; known: {list(NODES)}")
            return web.Response(body=text.encode(), headers={"Content-Type": exposition.CONTENT_TYPE})

        async def change(faults: Faults) -> web.Response:
            # Time so far passed under the old shares.
            self._pass_time()
            self.faults = faults
            await workloads.apply_faults()
            return web.json_response(faults.as_json())

        async def truth(request: web.Request) -> web.Response:
            ledger.drain()
            now_s = time.time()
            reply: dict[str, Any] = {"at": _iso(now_s), "at_s": now_s, "sent": dict(load.sent)}
            if "since" in request.query or "until" in request.query:
                since_s, until_s = _moment(request, "since", 0.0), _moment(request, "until", now_s)
                found = ledger.requests(after_s=since_s, before_s=until_s)
                reply |= {"since": _iso(since_s), "until": _iso(until_s), "services": _with_quantiles(found)}
            else:
                reply["services"] = ledger.totals()
            return web.json_response(reply)

        async def routes(_request: web.Request) -> web.Response:
            return web.json_response({"virtual_hosts": translator.in_force})

        async def requests(request: web.Request) -> web.Response:
            ledger.drain()
            found = ledger.requests(
                service=request.query.get("service"),
                version=request.query.get("version"),
                code=request.query.get("code"),
                after_s=_moment(request, "after", 0.0),
                before_s=_moment(request, "before", time.time()),
                by_start=request.query.get("by") == "start",
            )
            reply: dict[str, Any] = {"count": len(found), "p50_ms": quantile_ms(found, 0.5)}
            reply["p99_ms"] = quantile_ms(found, 0.99)
            reply["first"] = _iso(found[0].finished_s) if found else None
            reply["last"] = _iso(found[-1].finished_s) if found else None
            if request.query.get("details") == "1":
                reply["requests"] = [{**asdict(item), "finished": _iso(item.finished_s)} for item in found]
            return web.json_response(reply)

        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", metrics),
                web.get("/nodes/{name}/metrics", node_metrics),
                *fault_routes(self.present_faults, change),
                web.get("/_sandbox/truth", truth),
                web.get("/_sandbox/requests", requests),
                web.get("/_sandbox/routes", routes),
            ]
        )
        return app

    def _pass_time(self) -> None:
        self._nodes.advance_to(time.monotonic(), self.faults.steal, self.faults.iowait)


def fault_routes(
    present: Callable[[], Faults], change: Callable[[Faults], Awaitable[web.Response]]
) -> list[web.RouteDef]:
    """Return GET, PUT (merges) and DELETE (none any more) of `/_sandbox/faults`."""

    async def show(_request: web.Request) -> web.Response:
        return web.json_response(present().as_json())

    async def put(request: web.Request) -> web.Response:
        try:
            merged = present().merged(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return await change(merged)

    async def clear(_request: web.Request) -> web.Response:
        return await change(Faults())

    return [
        web.get("/_sandbox/faults", show),
        web.put("/_sandbox/faults", put),
        web.delete("/_sandbox/faults", clear),
    ]


def _with_quantiles(found: list[Request]) -> dict[str, dict[str, dict[str, Any]]]:
    result = counts(found)
    for service, versions in result.items():
        for version, numbers in versions.items():
            mine = [item for item in found if item.service == service and item.version == version]
            numbers["p50_ms"], numbers["p99_ms"] = quantile_ms(mine, 0.5), quantile_ms(mine, 0.99)
    return result


def _moment(request: web.Request, name: str, otherwise: float) -> float:
    """Read a moment of the query string: ISO 8601 with an offset (or Z), or Unix seconds."""
    text = request.query.get(name)
    if text is None:
        return otherwise
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # A plus sign that was not escaped arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{name}: {error}") from error
    if moment.tzinfo is None:
        raise web.HTTPBadRequest(text=f"{name} needs an offset or Z")
    return moment.timestamp()


def _iso(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds")
