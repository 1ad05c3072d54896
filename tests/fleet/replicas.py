"""Replicas of the bot as processes, who of them holds the lease, and a wire on which a patch can be held back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from bot.adapters.redis.store import RedisStore
from bot.rollout.events import Request
from bot.rollout.model import Actor, Rollout, Source
from bot.sandbox.process import Part, free_port
from tests.e2e.town import Town

PATIENCE_S = 60.0
ADA = Actor(Source.PERSON, "U0ADA", "Ada", "slash")
FIGURES = Path("build/fleet.json")


class Wire:
    """A TCP way to the API server. Armed, it keeps back the next PATCH until `let_go`."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._armed = False
        self._go = asyncio.Event()
        self._go.set()
        self.held = asyncio.Event()
        self._streams: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.url = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def arm(self) -> None:
        self.held.clear()
        self._go.clear()
        self._armed = True

    def let_go(self) -> None:
        self._armed = False
        self._go.set()

    async def close(self) -> None:
        self.let_go()
        self._server.close()
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thence = await asyncio.open_connection(*self._to)
        streams = {
            asyncio.create_task(self._carry(reader, thence, outward=True)),
            asyncio.create_task(self._carry(there, writer, outward=False)),
        }
        self._streams |= streams
        await asyncio.wait(streams)
        self._streams -= streams

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, outward: bool) -> None:
        try:
            while data := await reader.read(65536):
                if outward and self._armed and data.startswith(b"PATCH "):
                    self._armed = False
                    self.held.set()
                    await self._go.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                writer.close()


class Replica:
    """One process of the bot."""

    def __init__(self, name: str, port: int, settings: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.port = port
        self.settings = dict(settings or {})
        self.part: Part
        self.lines: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self.part.pid

    def said(self, event: str) -> bool:
        return any(line.get("event") == event for line in self.lines)


class Fleet:
    """The town's two replicas: `doored` is where Slack sends to, `wired` reaches the API server by the wire."""

    def __init__(self, town: Town) -> None:
        self.town = town
        world = town.world
        self.wired = Replica("wired", free_port())
        self.doored = Replica("doored", world.bot_port)
        self.store: RedisStore
        self.wire: Wire
        self.figures: dict[str, float] = {}

    async def open(self) -> None:
        world = self.town.world
        self.store = RedisStore(world.redis_url)
        host, _, port = world.kube_url.removeprefix("http://").partition(":")
        self.wire = Wire(host, int(port))
        await self.wire.open()
        self.wired.settings["CANARY_BOT_KUBECONFIG"] = self.kubeconfig_by_wire()
        await self.start(self.wired)
        await self.until_holds(self.wired)
        await self.start(self.doored)

    async def close(self) -> None:
        for replica in (self.wired, self.doored):
            if hasattr(replica, "part") and replica.part.returncode is None:
                replica.part.send_signal(signal.SIGCONT)
                await replica.part.stop_async(10.0)
        if hasattr(self, "wire"):
            await self.wire.close()
            await self.store.close()

    async def told(self) -> None:
        """Write what was measured where figures are kept, beside what others have."""
        FIGURES.parent.mkdir(exist_ok=True)
        former = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps(former | self.figures, indent=2) + "\n")

    def kubeconfig_by_wire(self) -> str:
        """Path of a kubeconfig whose API server is behind the wire."""
        world = self.town.world
        by_wire = world.folder / "kubeconfig-wired.yaml"
        direct = Path(world.bot_environment()["CANARY_BOT_KUBECONFIG"]).read_text()
        by_wire.write_text(direct.replace(world.kube_url, self.wire.url))
        return str(by_wire)

    async def start(self, replica: Replica) -> None:
        """Start a replica and wait until it is ready."""
        world = self.town.world
        settings = world.bot_environment() | {"CANARY_BOT_HTTP_PORT": str(replica.port)} | replica.settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CANARY_", "SLACK_"))}
        replica.lines = lines = []

        def heard(line: bytes) -> None:
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))

        argv = [sys.executable, "-m", "bot.cli", "run"]
        replica.part = Part("canary-bot", argv, env={**inherited, **settings}, on_stderr=heard)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:

            async def ready() -> bool:
                assert replica.part.returncode is None, replica.part.stderr_tail
                try:
                    async with session.get(f"http://127.0.0.1:{replica.port}/readyz") as answer:
                        return answer.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    return False

            await self.eventually(ready)

    async def eventually(self, ask: Any, within_s: float = PATIENCE_S, every_s: float = 0.02) -> Any:
        """The first true answer of a coroutine function."""
        deadline = time.monotonic() + within_s
        while not (found := await ask()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {ask.__qualname__}"
            await asyncio.sleep(every_s)
        return found

    async def until_holds(self, replica: Replica) -> float:
        """Wait until a replica holds the lease and has taken up its work; seconds that took."""
        began = time.monotonic()

        async def holds() -> bool:
            return f"-{replica.pid}-" in await self.store.leases.holder() and replica.said("lease-gained")

        await self.eventually(holds)
        return time.monotonic() - began

    async def rollout(self, rollout_id: str) -> Rollout:
        """The record in Redis."""
        return await self.store.rollouts.load(rollout_id)

    async def ask(self, verb: str, rollout_id: str) -> Request:
        """Put a request into the inbox, as a replica does that has taken it from Slack."""
        request = Request(f"{verb}-{time.time()}", rollout_id, verb, ADA, time.time())
        await self.store.inbox.put(request)
        return request

    async def wipe(self) -> None:
        """Redis forgets everything."""
        async with Redis.from_url(self.town.world.redis_url) as redis:
            await redis.flushall()

    async def patches(self, code: int) -> int:
        """How many patches of VirtualServices the API server has answered with this code."""
        counts = await self.town.kube_control("GET", "requests")
        return sum(
            one["count"]
            for one in counts
            if (one["verb"], one["resource"], one["code"]) == ("patch", "virtualservices", code)
        )
