"""The processes of the fault bench: the sandbox's world, a Redis that can be tormented, links, and two bots."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from bot.adapters.redis.store import RedisStore
from bot.errors import CanaryError, Transient
from bot.sandbox.demo.clients import Clients
from bot.sandbox.process import Part, free_port
from bot.sandbox.redis import find_redis_server
from bot.sandbox.world import Options, World
from tests.chaos.link import Link, Way
from tests.chaos.record import Line
from tests.chaos.schedule import BOTS, LINKS, PLANS, SERVICES
from tests.e2e.town import another

Json = dict[str, Any]
RATE = 30.0
READY_S = 40.0
POOLED = 5
CHANNEL_OF = dict(zip(SERVICES, ("#payments", "#checkout", "#deploys"), strict=True))
CATALOG = f"""
defaults: {{namespace: shop, plan: short, channel: "#deploys", check_every: 1s, arrival: 4s, no_data_after: 8s}}
plans:
{chr(10).join(f'  {name}: {{steps: "{steps}"}}' for name, steps in PLANS.items())}
gates:
  error-rate: {{max: 20%, min_requests: 10, judge: threshold}}
services:
"""
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
OUT_OF_MEMORY_BYTES = 2_000_000


def clocks_can_be_stepped() -> bool:
    """libfaketime is there."""
    return Path(FAKETIME).exists()


def memory_can_run_out() -> bool:
    """A memory group of our own can be made, so that the kernel itself kills for want of memory."""
    return (MEMORY_GROUPS / "cgroup.procs").exists() and os.access(MEMORY_GROUPS, os.W_OK)


class Place(World):
    """The world with a second user of the API server, so that its history tells the two bots apart."""

    async def _start_kube(self) -> None:
        users = [word for name in BOTS for word in ("--user", f"bot-{name}={self.kube_token}-{name}")]
        seeds = [word for seed in self.options.seeds for word in ("--seed", seed)]
        await self._part("kube", "--token", self.kube_token, *users, *seeds)


class TormentedRedis:
    """A redis-server with an append-only file; killed, frozen, out of disk, or back without what it had last.

    `appendfsync everysec`, the usual setting: what a client has an answer for is then in the kernel's hands, so a
    killed server loses nothing, and one whose machine dies may lose a second; `cut_tail` plays that. It is started
    with SIGXFSZ ignored, so that a limit of file size looks to it as a full disk does: a write that fails.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._part: Part | None = None

    @property
    def pid(self) -> int:
        assert self._part is not None
        return self._part.pid

    def start(self) -> None:
        settings = {"save": "", "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        ignoring = 'trap "" XFSZ; exec "$0" "$@"'
        self._part = Part("redis-server", ["sh", "-c", ignoring, str(find_redis_server()), *place, *words])

    def signal(self, number: int) -> None:
        assert self._part is not None
        self._part.send_signal(number)

    async def kill(self) -> None:
        assert self._part is not None
        self._part.send_signal(signal.SIGKILL)
        await self._part.stop_async(2.0)

    def disk_is_full(self, full: bool) -> None:
        """No file may grow beyond what it has now, or any may again."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        soft = max((path.stat().st_size for path in self._files()), default=0) if full else hard
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def size(self) -> int:
        """Bytes of the newest append-only file."""
        newest = self._newest()
        return newest.stat().st_size if newest else 0

    def cut_tail(self, size: int) -> None:
        """Forget what was written beyond `size`."""
        if (newest := self._newest()) is not None and newest.stat().st_size > size:
            os.truncate(newest, size)

    def wipe(self) -> None:
        """Forget everything; the server must not run."""
        for path in list(self.folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*.aof*") if path.is_file()]

    def _newest(self) -> Path | None:
        growing = [path for path in self._files() if path.suffix == ".aof" and ".base." not in path.name]
        return max(growing, key=lambda path: path.stat().st_mtime, default=None)

    async def stop(self) -> None:
        if self._part is not None:
            self._part.send_signal(signal.SIGCONT)
            await self._part.stop_async(2.0)


class BotProcess:
    """One `canary-bot run`, every connection of which goes by a link of its own."""

    def __init__(self, name: str, world: World, redis_port: int, lines: list[Line]) -> None:
        self.name = name
        self.port = free_port()
        self.links: dict[str, Link] = {}
        self._world = world
        self._redis_port = redis_port
        self._lines = lines
        self._part: Part | None = None
        self._offset = world.folder / f"clock-{name}"

    @property
    def runs(self) -> bool:
        return self._part is not None and self._part.returncode is None

    @property
    def pid(self) -> int:
        assert self._part is not None
        return self._part.pid

    async def open(self) -> None:
        """Open the links."""
        world = self._world
        ends = {
            "redis": self._redis_port,
            "kube": int(world.url("kube").rpartition(":")[2]),
            "prometheus": int(world.prometheus_url.rpartition(":")[2]),
            "slack": int(world.url("slack").rpartition(":")[2]),
        }
        for name in LINKS:
            self.links[name] = link = Link(f"{self.name}-{name}", ends[name])
            await link.open()

    def step_clock(self, offset: str) -> None:
        """The process' wall clock is this far from the machine's, such as `-60s`; it is noticed within a second."""
        beside = self._offset.with_suffix(".new")
        beside.write_text(f"{offset}\n")
        beside.rename(self._offset)

    def start(self) -> None:
        """Start the process; does not wait for it."""
        world = self._world
        self.step_clock("+0s")
        settings = world.bot_environment()
        kubeconfig = world.folder / f"kubeconfig-{self.name}.yaml"
        direct = Path(settings["CANARY_BOT_KUBECONFIG"]).read_text()
        mine = direct.replace(world.kube_url, self._url("kube")).replace(
            f"token: {world.kube_token}", f"token: {world.kube_token}-{self.name}"
        )
        kubeconfig.write_text(mine)
        settings |= {
            "CANARY_BOT_KUBECONFIG": str(kubeconfig),
            "CANARY_BOT_REDIS_URL": f"redis://127.0.0.1:{self.links['redis'].port}/0",
            "CANARY_BOT_PROMETHEUS_URL": self._url("prometheus"),
            "CANARY_BOT_SLACK_API_URL": f"{self._url('slack')}/api/",
            "CANARY_BOT_HTTP_PORT": str(self.port),
        }
        if clocks_can_be_stepped():
            settings |= {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CANARY_", "SLACK_"))}
        argv = [sys.executable, "-m", "bot.cli", "run"]
        log = world.folder / f"bot-{self.name}.log"
        self._part = Part("canary-bot", argv, env={**inherited, **settings}, on_stderr=self._heard, log_path=log)

    def _url(self, link: str) -> str:
        return f"http://127.0.0.1:{self.links[link].port}"

    def _heard(self, line: bytes) -> None:
        at = time.time()
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            self._lines.append(Line(at, self.name, str(said.get("event", "")), said))

    def signal(self, number: int) -> None:
        if self._part is not None:
            self._part.send_signal(number)

    async def end(self, grace_s: float) -> None:
        """End it: SIGTERM, and SIGKILL after `grace_s`."""
        if self._part is not None:
            self._part.send_signal(signal.SIGCONT)
            await self._part.stop_async(grace_s)

    async def kill(self) -> None:
        """kill -9."""
        if self._part is not None:
            self._part.send_signal(signal.SIGKILL)
            await self._part.stop_async(2.0)

    async def run_out_of_memory(self, within_s: float) -> bool:
        """Move it into a memory group that is too small; True when the kernel has killed it."""
        group = MEMORY_GROUPS / f"canary-chaos-{self.pid}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(OUT_OF_MEMORY_BYTES))
            (group / "cgroup.procs").write_text(str(self.pid))
            deadline = time.monotonic() + within_s
            while self.runs and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            killed = not self.runs
            await self.kill()
            return killed
        finally:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End the process and the links."""
        await self.end(3.0)
        for link in self.links.values():
            await link.close()

    def heal(self) -> None:
        """Open every link."""
        for link in self.links.values():
            link.trap = None
            link.put(Way.OPEN)


class City:
    """Everything that a run needs. Expensive parts stay up from run to run; `lines` is what the bots have said."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="canary-chaos-"))
        self.lines: list[Line] = []
        self.session: aiohttp.ClientSession
        self.clients: Clients
        self.world: World
        self.redis: TormentedRedis
        self.store: RedisStore
        self.bots: dict[str, BotProcess] = {}
        self.kube_faults: dict[int, Json] = {}

    async def open(self) -> None:
        """Start everything and wait until both bots are ready."""
        catalog, seed, data, place = (self.folder / name for name in ("catalog", "seed.json", "redis", "world"))
        catalog.write_text(CATALOG + "".join(_entry(service) for service in SERVICES))
        seed.write_text(json.dumps([one for service in SERVICES for one in manifests(service)]))
        data.mkdir()
        place.mkdir()
        self.redis = TormentedRedis(data)
        self.redis.start()
        options = Options(
            redis=self.redis.url, catalog=str(catalog), rate=RATE, with_page=False, seeds=(str(seed),),
            services=",".join(SERVICES),
        )  # fmt: skip
        self.world = Place(options, place)
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30.0))
        await self.world.start()
        world = self.world
        self.clients = Clients(
            self.session, world.url("slack"), world.kube_url, world.url("mesh"), world.prometheus_url
        )
        self.store = RedisStore(self.redis.url)
        for name in BOTS:
            self.bots[name] = bot = BotProcess(name, world, self.redis.port, self.lines)
            await bot.open()
            bot.start()
        await self.ready()

    async def ready(self) -> None:
        """Wait until every bot is ready; those that do not run are started."""
        for bot in self.bots.values():
            if not bot.runs:
                bot.start()
        deadline = time.monotonic() + READY_S
        for bot in self.bots.values():
            while not await self._answers(f"http://127.0.0.1:{bot.port}/readyz"):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"bot {bot.name} is not ready {READY_S:g} s after the faults have ended")
                if not bot.runs:
                    bot.start()
                await asyncio.sleep(0.1)

    def waited_s(self) -> dict[int, float]:
        """Seconds that each process (its first thread) has waited for a processor since it began, by pid."""
        running = [bot.pid for bot in self.bots.values() if bot.runs]
        found: dict[int, float] = {}
        for pid in (*running, self.redis.pid, self.world.parts["kube"].pid, self.world.parts["mesh"].pid):
            with contextlib.suppress(OSError):
                found[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
        return found

    async def holder(self) -> str:
        """Whoever holds the lease; the first bot when nobody can tell."""
        try:
            owner = await self.store.leases.holder()
        except CanaryError:
            owner = ""
        return next((name for name, bot in self.bots.items() if bot.runs and f"-{bot.pid}-" in owner), BOTS[0])

    async def store_answers(self) -> None:
        """Wait until Redis serves us; connections that were pooled before it was killed are thrown away meanwhile."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                await self.store.rollouts.ping()
                await asyncio.gather(*(self.store.outbox.depth() for _ in range(POOLED)))
                return
            except Transient:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _answers(self, url: str) -> bool:
        try:
            async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=2.0)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def close(self) -> None:
        """End every process that was started here and remove their files."""
        with contextlib.suppress(Exception):
            self.redis.signal(signal.SIGCONT)
        await asyncio.gather(*(bot.close() for bot in self.bots.values()), return_exceptions=True)
        for name in ("session", "store"):
            if hasattr(self, name):
                await getattr(self, name).close()
        if hasattr(self, "world"):
            await self.world.stop()
        if hasattr(self, "redis"):
            await self.redis.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def kube(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API server's `/_sandbox/<path>`."""
        async with self.session.request(method, f"{self.world.kube_url}/_sandbox/{path}", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{path}: {await answer.text()}")
            return await answer.json()

    async def kube_requests(self) -> None:
        """Put the present faults of requests into the API server."""
        await self.kube("PUT", "faults", {"requests": list(self.kube_faults.values())})

    async def edit(self, service: str, weight: int, manager: str) -> None:
        """Somebody else writes the weights of a route."""
        url = f"{self.world.kube_url}/apis/networking.istio.io/v1/namespaces/shop/virtualservices/{service}"
        headers = {"Authorization": f"Bearer {self.world.kube_token}", "Content-Type": "application/merge-patch+json"}
        host = f"{service}.shop.svc.cluster.local"
        route = [
            {"destination": {"host": host, "subset": subset}, "weight": share}
            for subset, share in (("v1", 100 - weight), ("v2", weight))
        ]
        spec = {"spec": {"http": [{"route": route}]}}
        async with self.session.patch(url, json=spec, headers=headers, params={"fieldManager": manager}) as answer:
            if answer.status != 200:
                raise RuntimeError(await answer.text())

    async def restore(self, service: str) -> None:
        """Give a service the route and the pods of the beginning."""
        for version in ("v1", "v2"):
            state = await self.kube("GET", f"workloads/shop/{service}-{version}")
            image = f"registry.example/shop/{service}:{version}.0.0"
            if state.get("image") != image:
                await self.kube("PUT", f"workloads/shop/{service}-{version}", {"image": image})
            await self.kube("PUT", f"workloads/shop/{service}-{version}", {"ready": 2})
        routes = [one for one in manifests(service) if one["kind"] == "VirtualService"]
        await self.kube("POST", "store", routes)


def _entry(service: str) -> str:
    return (
        f"  {service}: {{mesh: istio, route: {{name: {service}}}, subsets: [v1, v2], "
        f'channel: "{CHANNEL_OF[service]}", approvers: ["@release-leads"], approval: {{expires: 20s}}}}\n'
    )


def manifests(service: str) -> Sequence[Json]:
    """A service of the shop with its two versions. The route of `cart` lacks the canary, those of the others have it
    at 0."""
    found = list(another(service, node="node-2"))
    for index, manifest in enumerate(found):
        if manifest["kind"] == "VirtualService" and service != "cart":
            host = f"{service}.shop.svc.cluster.local"
            route = [
                {"destination": {"host": host, "subset": subset}, "weight": share}
                for subset, share in (("v1", 100), ("v2", 0))
            ]
            found[index] = {**manifest, "spec": {"hosts": [host], "http": [{"route": route}]}}
    return found


def lines_since(lines: Sequence[Line], began: float) -> list[Line]:
    """What was said since a moment, oldest first."""
    return sorted((replace(line) for line in lines if line.at >= began), key=lambda line: line.at)
