"""The whole world on one machine: starts the parts in order, and the bot beside them as in production."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from bot.sandbox.process import Part, PartError, free_port
from bot.sandbox.redis import Redis, start_redis

BOT_READY_S = 30.0
SCRAPED_S = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to use instead of the embedded parts ("" means embedded), and the traffic in requests/s per service.

    `seeds` are files of further manifests for the embedded API server, `services` those that get traffic (commas),
    `mesh_port` is where the mesh's metrics are (0: a free port), for a Prometheus that is not ours to configure.
    """

    redis: str = ""
    kubeconfig: str = ""
    prometheus: str = ""
    rate: float = 120.0
    catalog: str = ""
    page_port: int = 0
    slack_mode: str = "socket"
    with_page: bool = True
    seeds: tuple[str, ...] = ()
    services: str = "payments,checkout"
    mesh_port: int = 0


@dataclass(slots=True)
class World:
    """The running parts. `folder` holds catalog, kubeconfig and the bot's log; all of it goes with `stop`."""

    options: Options
    folder: Path
    parts: dict[str, Part] = field(default_factory=dict)
    redis: Redis | None = None
    bot: Part | None = None
    control: web.AppRunner | None = None
    control_url: str = ""
    bot_port: int = 0
    bot_lines: list[dict[str, Any]] = field(default_factory=list)
    kube_token: str = field(default_factory=lambda: secrets.token_hex(16))
    external_kube: str = ""

    @property
    def redis_url(self) -> str:
        return self.options.redis or (self.redis.url if self.redis else "")

    @property
    def prometheus_url(self) -> str:
        return self.options.prometheus or self.parts["prometheus"].url

    @property
    def bot_url(self) -> str:
        return f"http://127.0.0.1:{self.bot_port}"

    @property
    def kube_url(self) -> str:
        return self.external_kube or self.parts["kube"].url

    @property
    def page_url(self) -> str:
        return self.parts["page"].url if "page" in self.parts else ""

    def url(self, part: str) -> str:
        """The address of a part."""
        return self.parts[part].url

    async def start(self) -> None:
        """Start every part but the bot; independent ones at the same time.

        Raises:
            PartError: a part did not come up; those that did are stopped by `stop`.
        """
        self.bot_port = free_port()
        if not self.options.redis:
            folder = self.folder / "redis"
            folder.mkdir()
            self.redis = await asyncio.to_thread(start_redis, folder=folder)
        http_args = ["--mode", "http", "--bot-url", self.bot_url] if self.options.slack_mode == "http" else []
        await asyncio.gather(self._start_kube(), self._part("slack", *http_args))
        cluster = ("--kube", self.kube_url, "--token", self.kube_token)
        traffic = ("--rate", str(self.options.rate), "--services", self.options.services)
        own_port = ("--port", str(self.options.mesh_port))
        await self._part("mesh", *cluster, *traffic, *own_port, ready_within_s=30.0)
        if not self.options.prometheus:
            await self._part("prometheus", *(word for target in self.targets() for word in ("--target", target)))
        await self._start_control()
        await self._scraped()
        if self.options.with_page:
            world_file = self.folder / "world.json"
            world_file.write_text(json.dumps(self.addresses()))
            port = ("--port", str(self.options.page_port)) if self.options.page_port else ()
            await self._part("page", "--world", str(world_file), *port)

    def targets(self) -> list[str]:
        """What Prometheus has to scrape every second, as `JOB=URL` or `JOB/INSTANCE=URL`."""
        mesh = self.parts["mesh"].ready
        nodes = [f"node-exporter/{name}={url}" for name, url in mesh["nodes"].items()]
        return [f"istio-mesh={mesh['metrics']}", *nodes]

    async def _start_kube(self) -> None:
        """Start the embedded API server, or read where the given one is."""
        if self.options.kubeconfig:
            self.external_kube, self.kube_token = _server(Path(self.options.kubeconfig))
            return
        seeds = [word for seed in self.options.seeds for word in ("--seed", seed)]
        await self._part("kube", "--token", self.kube_token, *seeds)

    async def _scraped(self) -> None:
        """Wait until the metrics of the mesh have been scraped: a real Prometheus takes its time before the first."""
        deadline = time.monotonic() + SCRAPED_S
        timeout = aiohttp.ClientTimeout(total=2.0)
        query = {"query": 'istio_requests_total{reporter="source"}'}
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(f"{self.prometheus_url}/api/v1/query", params=query) as response:
                        if (await response.json())["data"]["result"]:
                            return
                except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
                    pass
                if time.monotonic() > deadline:
                    wanted = ", ".join(self.targets())
                    raise PartError(f"{self.prometheus_url} has not scraped the mesh; it has to scrape {wanted}")
                await asyncio.sleep(0.1)

    def addresses(self) -> dict[str, Any]:
        """Where everything is, as the page reads it."""
        return {
            "slack": self.url("slack"),
            "kube": self.kube_url,
            "kube_token": self.kube_token,
            "mesh": self.url("mesh"),
            "prometheus": self.prometheus_url,
            "bot": {"url": self.bot_url},
            "control": self.control_url,
        }

    async def _part(self, name: str, *args: str, ready_within_s: float = 30.0) -> None:
        log = self.folder / f"{name}.log"
        self.parts[name] = await Part.start(name, *args, ready_within_s=ready_within_s, log_path=log)

    def bot_environment(self) -> dict[str, str]:
        """The settings of a bot in this world; only these differ from production."""
        slack = self.parts["slack"].ready
        kubeconfig = self.folder / "kubeconfig.yaml"
        if not self.options.kubeconfig:
            kubeconfig.write_text(_kubeconfig(self.url("kube"), self.kube_token))
        catalog = self.folder / "catalog.yaml"
        if not catalog.exists():
            catalog.write_text(Path(self.options.catalog).read_text() if self.options.catalog else demo_catalog())
        door = (
            {"SLACK_SIGNING_SECRET": slack["signing_secret"]}
            if self.options.slack_mode == "http"
            else {"SLACK_APP_TOKEN": slack["app_token"]}
        )
        return {
            **door,
            "SLACK_BOT_TOKEN": slack["bot_token"],
            "CANARY_BOT_SLACK_API_URL": slack["api_url"],
            "CANARY_BOT_REDIS_URL": self.redis_url,
            "CANARY_BOT_PROMETHEUS_URL": self.prometheus_url,
            "CANARY_BOT_KUBECONFIG": self.options.kubeconfig or str(kubeconfig),
            "CANARY_BOT_CATALOG": str(catalog),
            "CANARY_BOT_NAMESPACES": "shop",
            "CANARY_BOT_HTTP_HOST": "127.0.0.1",
            "CANARY_BOT_HTTP_PORT": str(self.bot_port),
        }

    async def start_bot(self) -> None:
        """Start `canary-bot run` and wait until it is ready.

        Raises:
            PartError: it ended, or is not ready in time.
        """
        if self.bot is not None and self.bot.returncode is None:
            return
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CANARY_BOT_", "SLACK_", "CANARY_SANDBOX_"))
        }
        argv = [sys.executable, "-m", "bot.cli", "run"]
        bot = Part(
            "canary-bot",
            argv,
            env={**environment, **self.bot_environment()},
            log_path=self.folder / "bot.log",
            on_stderr=self._bot_line,
        )
        self.bot = bot
        deadline = time.monotonic() + BOT_READY_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            while not await _answers_ready(session, f"{self.bot_url}/readyz"):
                if bot.returncode is not None or time.monotonic() > deadline:
                    await bot.stop_async(1.0)
                    raise PartError(f"canary-bot run did not become ready\n{bot.stderr_tail}")
                await asyncio.sleep(0.05)

    def _bot_line(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if isinstance(said, dict):
            self.bot_lines.append(said)

    async def kill_bot(self, number: int = signal.SIGKILL) -> None:
        """End the bot by a signal, kill -9 by default, and wait until it is gone."""
        if self.bot is not None:
            await self.bot.stop_async(10.0, number)

    async def _start_control(self) -> None:
        """The page's way to kill and start the bot."""

        async def kill(_request: web.Request) -> web.Response:
            await self.kill_bot()
            return web.json_response({"running": False})

        async def start(_request: web.Request) -> web.Response:
            try:
                await self.start_bot()
            except PartError as error:
                return web.json_response({"running": False, "error": str(error)}, status=500)
            return web.json_response({"running": True})

        async def show(_request: web.Request) -> web.Response:
            running = self.bot is not None and self.bot.returncode is None
            return web.json_response({"running": running, "pid": self.bot.pid if running and self.bot else None})

        app = web.Application()
        app.add_routes([web.post("/bot/kill", kill), web.post("/bot/start", start), web.get("/bot", show)])
        self.control = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self.control.setup()
        await web.TCPSite(self.control, "127.0.0.1", 0).start()
        self.control_url = f"http://127.0.0.1:{self.control.addresses[0][1]}"

    async def stop(self) -> None:
        """End the bot, then the parts in reverse order, and remove the folder."""
        if self.bot is not None:
            await self.bot.stop_async(12.0)
        if self.control is not None:
            await self.control.cleanup()
        for part in reversed(self.parts.values()):
            await part.stop_async()
        if self.redis is not None:
            await asyncio.to_thread(self.redis.stop)
        shutil.rmtree(self.folder, ignore_errors=True)


def new_world(options: Options) -> World:
    """A world in a temporary folder, nothing started yet."""
    return World(options, Path(tempfile.mkdtemp(prefix="canary-demo-")))


def demo_catalog() -> str:
    """The catalog the sandbox's bot runs with."""
    return files("bot.sandbox").joinpath("demo/catalog.yaml").read_text()


async def _answers_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _server(kubeconfig: Path) -> tuple[str, str]:
    """Address and bearer token of a kubeconfig's current context; the sandbox's mesh has no other way to sign in.

    Raises:
        PartError: the file cannot be read, or says neither.
    """
    try:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config, "context", config["current-context"])
        server = str(_named(config, "cluster", context["cluster"])["server"]).rstrip("/")
        return server, str(_named(config, "user", context["user"])["token"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise PartError(
            f"{kubeconfig}: the sandbox needs a kubeconfig whose current context names a server and a user with a "
            f"`token` ({type(error).__name__}: {error})"
        ) from error


def _named(config: Any, kind: str, name: str) -> Any:
    return next(entry[kind] for entry in config[f"{kind}s"] if entry["name"] == name)


def _kubeconfig(url: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": {"server": url}}],
            "users": [{"name": "bot", "user": {"token": token}}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "bot"}}],
        }
    )
