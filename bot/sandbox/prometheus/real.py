"""The real Prometheus as a child process, and a reverse proxy in front of it so that faults work as embedded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml
from aiohttp import web

from bot.sandbox.process import Part, PartError, free_port
from bot.sandbox.prometheus.targets import Target

_KEPT_HEADERS = ("Content-Type", "Accept")
_RETENTION = "2h"


def config(targets: Iterable[Target], scrape_interval_s: float) -> dict[str, Any]:
    """Return a configuration with one job per job name; every target has its own path and instance."""
    interval = f"{round(scrape_interval_s * 1000)}ms"
    jobs: dict[str, list[dict[str, Any]]] = {}
    for item in targets:
        parts = urlsplit(item.url)
        labels = {"instance": item.instance, "__metrics_path__": parts.path or "/metrics"}
        jobs.setdefault(item.job, []).append({"targets": [parts.netloc], "labels": labels})
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": job, "static_configs": static} for job, static in jobs.items()],
    }


async def start(binary: str, folder: Path, targets: list[Target], scrape_interval_s: float) -> tuple[Part, str]:
    """Start Prometheus with its data in `folder`; return the process and its address.

    It answers queries from then on, but scrapes for the first time 5 s later: its discovery's interval, no option.

    Raises:
        PartError: it was not ready within 20 s.
    """
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config(targets, scrape_interval_s)))
    address = f"127.0.0.1:{free_port()}"
    argv = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    part = Part("prometheus", argv, cwd=folder)
    deadline = time.monotonic() + 20.0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while not await _is_ready(session, address):
            if part.returncode is not None or time.monotonic() > deadline:
                await part.stop_async(0.5)
                raise PartError(f"prometheus was not ready\n{part.stderr_tail}")
            await asyncio.sleep(0.05)
    return part, f"http://{address}"


async def _is_ready(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(f"http://{address}/-/ready") as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


class Proxy:
    """Hands every request on to the real server and its answer back."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def lifetime(self, _app: web.Application) -> Any:
        """Keep one client session while the application runs."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60.0)) as session:
            self._session = session
            yield

    def routes(self) -> list[web.RouteDef]:
        """Return a catch-all route."""
        return [web.route("*", "/{path:.*}", self._forward)]

    async def _forward(self, request: web.Request) -> web.Response:
        assert self._session is not None
        headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
        body = await request.read()
        try:
            async with self._session.request(
                request.method, f"{self._upstream}{request.path_qs}", data=body, headers=headers, allow_redirects=False
            ) as reply:
                kept = {name: reply.headers[name] for name in ("Content-Type", "Location") if name in reply.headers}
                return web.Response(body=await reply.read(), status=reply.status, headers=kept)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"{error}\n")
