"""The real bot beside Redis, the sandbox's API server, Slack stand-in and Prometheus, with many rollouts under way.

Envoy is left out: the request series come from an exporter here, so that the figures are the bot's own.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from bot.adapters.mesh import virtualservice
from bot.adapters.redis.store import RedisStore
from bot.catalog import load
from bot.rollout.model import Actor, Destination, Rollout, RouteRef, Side, Source, Target
from bot.rollout.plan import parse_steps
from bot.rollout.start import opening, scheduled
from bot.sandbox.process import Part, free_port
from bot.sandbox.redis import start_redis
from bot.sandbox.world import Options, World, new_world

SETTLED_S = 120.0
SCRAPE_S = 5.0
REQUESTS_PER_S = 100.0
CANARY_SHARE = 0.05
BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000)
CHANNELS = ("#deploys", "#payments", "#checkout")
CATALOG = """
defaults: {plan: long, channel: "#deploys"}
plans:
  long: {steps: "5%:4h, 100%:4h"}
gates:
  error-rate: {max: 1%, min_requests: 50}
  p99: {max: 250ms, min_requests: 500}
services:
  payments: {namespace: shop, mesh: istio, route: {name: payments, http: primary}, subsets: [v1, v2]}
"""


@dataclass(slots=True)
class Rig:
    """A running bot with `names` of the services under way; `folder` of the world goes with it."""

    world: World
    session: aiohttp.ClientSession
    names: list[str] = field(default_factory=list)
    bot: Part | None = None

    @property
    def pid(self) -> int:
        """Of `bot`, else of the world's."""
        bot = self.bot or self.world.bot
        assert bot is not None
        return bot.pid

    def cpu_s(self) -> float:
        """Seconds of processor time the bot has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Resident memory of the bot."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def get(self, url: str) -> Any:
        async with self.session.get(url) as answer:
            return await answer.json()

    async def text(self, url: str) -> str:
        async with self.session.get(url) as answer:
            return await answer.text()

    async def counter(self, url: str, start: str) -> float:
        """The sum of all lines of an exposition that begin so."""
        lines = (await self.text(url)).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    async def command(self, user: str, text: str) -> dict[str, Any]:
        """Type a slash command; the answer has `ack_ms` and `error`."""
        what = {"user": user, "channel": "C0DEPLOYS", "text": text}
        async with self.session.post(f"{self.world.url('slack')}/_sandbox/act/command", json=what) as answer:
            said: dict[str, Any] = await answer.json()
            return said

    async def private_answers(self, since: float) -> list[float]:
        """When answers that only one person sees were posted, as epoch seconds."""
        messages = (await self.get(f"{self.world.url('slack')}/_sandbox/messages"))["messages"]
        times = [float(one["ts"]) for one in messages if one["ephemeral_to"]]
        return [at for at in times if at > since]

    async def under_way(self) -> int:
        """Routes whose canary has its first weight."""
        url = f"{self.world.url('kube')}/apis/networking.istio.io/v1/namespaces/shop/virtualservices"
        headers = {"Authorization": f"Bearer {self.world.kube_token}"}
        async with self.session.get(url, headers=headers) as answer:
            items = (await answer.json())["items"]
        return sum(
            item["metadata"]["name"] in self.names and item["spec"]["http"][0]["route"][1].get("weight") == 5
            for item in items
        )

    async def begin(self, count: int) -> float:
        """Create rollouts directly and wait until the bot has raised all of them; seconds it took."""
        self.names = [f"svc-{number:03d}" for number in range(count)]
        manifests = [_virtual_service(name) for name in self.names]
        async with self.session.post(f"{self.world.url('kube')}/_sandbox/store", json=manifests) as answer:
            assert answer.status == 200, await answer.text()
        url = f"{self.world.url('kube')}/apis/networking.istio.io/v1/namespaces/shop/virtualservices"
        headers = {"Authorization": f"Bearer {self.world.kube_token}"}
        async with self.session.get(url, headers=headers) as answer:
            objects = {item["metadata"]["name"]: item for item in (await answer.json())["items"]}
        store = RedisStore(self.world.redis_url)
        began = time.monotonic()
        try:
            for number, name in enumerate(self.names):
                rollout = _rollout(objects[name], CHANNELS[number % len(CHANNELS)])
                first = opening(rollout, time.time())
                await store.rollouts.create(first.rollout, time.time(), first.messages, first.audit)
                await store.inbox.ring(rollout.id)
        finally:
            await store.close()
        while (standing := await self.under_way()) < count:
            if time.monotonic() - began > SETTLED_S:
                raise RuntimeError(f"only {standing} of {count} rollouts are under way after {SETTLED_S:.0f} s")
            await asyncio.sleep(0.5)
        return time.monotonic() - began


@asynccontextmanager
async def rig(mode: str, rollouts: int) -> AsyncIterator[Rig]:
    """A bot with this many rollouts under way; `mode` is `socket` or `http`."""
    exporter, url = await _exporter([f"svc-{number:03d}" for number in range(rollouts)] + ["payments"])
    redis = await asyncio.to_thread(start_redis)
    world = new_world(Options(redis=redis.url, slack_mode=mode, with_page=False))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60.0)) as session:
        try:
            world.bot_port = free_port()
            (world.folder / "catalog.yaml").write_text(CATALOG)
            http = ("--mode", "http", "--bot-url", world.bot_url) if mode == "http" else ()
            parts = {
                "kube": ("--token", world.kube_token),
                "slack": (*http, "--rate-limits", "off"),
                "prometheus": ("--target", f"istio-mesh={url}", "--scrape-interval", str(SCRAPE_S)),
            }
            starts = (Part.start(name, *args, ready_within_s=30) for name, args in parts.items())
            started = await asyncio.gather(*starts)
            world.parts.update(zip(parts, started, strict=True))
            await world.start_bot()
            made = Rig(world, session)
            await made.begin(rollouts)
            yield made
        finally:
            await world.stop()
            await asyncio.to_thread(redis.stop)
            await exporter.cleanup()


@dataclass(slots=True)
class _Traffic:
    """Counters of every service since the start: all to stable, a share to the canary once it has weight."""

    services: Sequence[str]
    began: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        lines = []
        total = REQUESTS_PER_S * (time.monotonic() - self.began)
        for service in self.services:
            for version, share in (("v1", 1 - CANARY_SHARE), ("v2", CANARY_SHARE)):
                for reporter in ("source", "destination"):
                    labels = (
                        f'reporter="{reporter}",source_workload="loadgen",destination_workload="payments-{version}",'
                        f'destination_version="{version}",destination_service="{service}.shop.svc.cluster.local",'
                        'request_protocol="http",response_code="200",response_flags="-",grpc_response_status=""'
                    )
                    count = int(total * share)
                    lines.append(f"istio_requests_total{{{labels}}} {count}")
                    name = "istio_request_duration_milliseconds"
                    lines += [
                        f'{name}_bucket{{{labels},le="{bound}"}} {int(count * min(1.0, 0.6 + number / 10))}'
                        for number, bound in enumerate(BUCKETS_MS)
                    ]
                    lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {count}')
        return "\n".join(lines) + "\n"


async def _exporter(services: Sequence[str]) -> tuple[web.AppRunner, str]:
    traffic = _Traffic(services)

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text=traffic.text())

    app = web.Application()
    app.add_routes([web.get("/metrics", serve)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"


def _virtual_service(name: str) -> dict[str, Any]:
    host = f"{name}.shop.svc.cluster.local"
    route = [
        {"destination": {"host": host, "subset": subset}, "weight": weight}
        for subset, weight in (("v1", 100), ("v2", 0))
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": [host], "http": [{"name": "primary", "retries": {"attempts": 2}, "route": route}]},
    }


def _rollout(manifest: dict[str, Any], channel: str) -> Rollout:
    """As a start would make it; the pods of payments stand for everybody's."""
    name = manifest["metadata"]["name"]
    host = f"{name}.shop.svc.cluster.local"
    place = virtualservice.places(manifest)[0]
    catalog = load(CATALOG)
    entry = catalog.entry(name, "shop")

    def side(version: str) -> Side:
        selector = (("app", "payments"), ("version", version))
        return Side(version, Destination(host, version), (f"payments-{version}",), version, selector)

    route = RouteRef(
        "istio", "shop", name, "http", "primary", virtualservice.match_digest(place.route), manifest["metadata"]["uid"]
    )
    return scheduled(
        id=f"{name}-b0b0",
        target=Target(name, "shop", host, route, side("v1"), side("v2")),
        plan=parse_steps("5%:4h, 100%:4h"),
        gates=entry.gates_for("http"),
        rules=replace(entry.rules, channel=channel),
        by=Actor(Source.PERSON, "U0ADA", "Ada", "slash"),
        now=time.time(),
    )
