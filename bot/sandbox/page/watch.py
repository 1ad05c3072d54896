"""Looks at the parts once a second while somebody watches: weights, traffic, nodes, faults, who is up.

What Envoy itself counted is shown, not what Prometheus says, so that the page stays true when Prometheus is down.
"""

import asyncio
import logging
import math
import time
from collections import deque
from typing import Any

import aiohttp

from bot.sandbox.page.switches import SWITCHES
from bot.sandbox.page.world import World

Json = dict[str, Any]

EVERY_S = 1.0
WINDOW_S = 10.0
HISTORY = 300
LOOK_TIMEOUT_S = 2.0

STEAL_QUERY = (
    'sum by (instance) (rate(node_cpu_seconds_total{mode="steal"}[10s]))'
    " / sum by (instance) (rate(node_cpu_seconds_total[10s]))"
)

logger = logging.getLogger(__name__)


class Watch:
    """The present sample and the last five minutes of them, told to every subscriber."""

    def __init__(self, world: World, session: aiohttp.ClientSession) -> None:
        self._world = world
        self._session = session
        self._watchers: set[asyncio.Queue[Json]] = set()
        self._task: asyncio.Task[None] | None = None
        self.samples: deque[Json] = deque(maxlen=HISTORY)

    def subscribe(self) -> asyncio.Queue[Json]:
        """A queue of samples from now on; looking begins with the first subscriber."""
        queue: asyncio.Queue[Json] = asyncio.Queue(maxsize=100)
        self._watchers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Json]) -> None:
        """Stop; looking ends with the last subscriber."""
        self._watchers.discard(queue)

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._watchers:
            began = time.monotonic()
            sample = await self.look()
            self.samples.append(sample)
            for queue in list(self._watchers):
                if queue.full():
                    self._watchers.discard(queue)
                else:
                    queue.put_nowait(sample)
            await asyncio.sleep(max(0.05, EVERY_S - (time.monotonic() - began)))

    async def look(self) -> Json:
        """One sample of everything; what cannot be reached is None."""
        now_s = time.time()
        world = self._world
        (
            routes,
            truth,
            kube_world,
            kube_faults,
            mesh_faults,
            prometheus_faults,
            slack_faults,
            steal,
            bot,
        ) = await asyncio.gather(
            self._get(
                world.kube,
                f"/apis/networking.istio.io/v1/namespaces/{world.namespace}/virtualservices",
                _bearer(world.kube_token),
            ),
            self._get(world.mesh, "/_sandbox/truth", since=f"{now_s - WINDOW_S:.3f}"),
            self._get(world.kube, "/_sandbox/world"),
            self._get(world.kube, "/_sandbox/faults"),
            self._get(world.mesh, "/_sandbox/faults"),
            self._get(world.prometheus, "/_sandbox/faults"),
            self._get(world.slack, "/_sandbox/faults"),
            self._get(world.prometheus, "/api/v1/query", _bearer(world.prometheus_token), query=STEAL_QUERY),
            self._get(world.bot, "/healthz"),
        )
        states = {
            "kube": kube_faults,
            "node": kube_world,
            "mesh": mesh_faults,
            "prometheus": prometheus_faults,
            "slack": slack_faults,
        }
        return {
            "at": now_s,
            "services": services(routes, truth),
            "nodes": nodes(kube_world, steal),
            "switches": {
                name: None if (state := states[switch.part]) is None else switch.is_on(state)
                for name, switch in SWITCHES.items()
            },
            "up": {
                name: found is not None
                for name, address, found in (
                    ("Slack", world.slack, slack_faults),
                    ("API server", world.kube, routes),
                    ("Mesh", world.mesh, truth),
                    ("Prometheus", world.prometheus, steal),
                    ("Bot", world.bot, bot),
                )
                if address is not None
            },
        }

    async def _get(
        self, base: str | None, path: str, headers: dict[str, str] | None = None, **query: str
    ) -> Json | None:
        """The JSON at this address (an empty object for other text), None when there is no good answer."""
        if base is None:
            return None
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        try:
            async with self._session.get(base + path, params=query, headers=headers, timeout=timeout) as answer:
                if answer.status != 200:
                    return None
                if answer.content_type != "application/json":
                    return {}
                body = await answer.json()
                return body if isinstance(body, dict) else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            logger.debug("no answer from %s%s: %r", base, path, error)
            return None


def _bearer(token: str | None) -> dict[str, str] | None:
    return {"Authorization": f"Bearer {token}"} if token else None


def services(routes: Json | None, truth: Json | None) -> Json:
    """Per service: `weights` wanted by its VirtualService, and by version what Envoy counted in the last seconds.

    `versions[v]` has share_percent, error_percent, p99_ms (None without requests) and per_s.
    """
    found: Json = {}
    for route in (routes or {}).get("items", []):
        name = route["metadata"]["name"]
        annotations = route["metadata"].get("annotations") or {}
        found[name] = {
            "weights": _weights(route["spec"]),
            "annotation": next((text for key, text in annotations.items() if "canary" in key), None),
            "versions": {},
        }
    for name, versions in ((truth or {}).get("services") or {}).items():
        total = sum(counted["total"] for counted in versions.values())
        service = found.setdefault(name, {"weights": {}, "annotation": None, "versions": {}})
        for version, counted in versions.items():
            requests = counted["total"]
            bad = sum(count for code, count in counted["codes"].items() if code == "0" or code.startswith("5"))
            service["versions"][version or "none"] = {
                "share_percent": 100 * requests / total if total else None,
                "error_percent": 100 * bad / requests if requests else None,
                "p99_ms": _finite(counted.get("p99_ms")) if requests else None,
                "per_s": requests / WINDOW_S,
            }
    return found


def _weights(spec: Json) -> dict[str, int]:
    """The weights of the route that has two destinations, else of the last one; by subset."""
    candidates = [http.get("route") or [] for http in spec.get("http") or []]
    if not candidates:
        return {}
    chosen = max(reversed(candidates), key=len)
    alone = len(chosen) == 1
    return {
        part["destination"].get("subset") or part["destination"]["host"]: int(part.get("weight", 100 if alone else 0))
        for part in chosen
    }


def nodes(kube_world: Json | None, steal: Json | None) -> Json:
    """Per node: `ready`, `troubles` (bad conditions) and `steal_percent` of its CPU time (None: not measured)."""
    measured = {
        row["metric"].get("instance", ""): _finite(float(row["value"][1]))
        for row in ((steal or {}).get("data") or {}).get("result", [])
    }
    found: Json = {}
    for name, conditions in ((kube_world or {}).get("nodes") or {}).items():
        share = measured.get(name)
        found[name] = {
            "ready": conditions.get("Ready") == "True",
            "troubles": [kind for kind, value in conditions.items() if kind != "Ready" and value == "True"],
            "steal_percent": None if share is None else 100 * share,
        }
    return found


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
