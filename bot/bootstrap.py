"""The only place that picks adapters and wires them together."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bot.adapters.clock import SystemClock
from bot.adapters.cluster import KubeCluster, WatchedCluster
from bot.adapters.instruments import Instruments
from bot.adapters.kubernetes import Kube
from bot.adapters.mesh import ROUTERS
from bot.adapters.pager import WebhookPager
from bot.adapters.prometheus import Prometheus
from bot.adapters.redis.shards import shard_of
from bot.adapters.redis.store import RedisStore
from bot.adapters.slack.chat import SlackChat
from bot.adapters.slack.people import SlackDirectory
from bot.adapters.slack.sockets import Sockets
from bot.adapters.telemetry import ProcessTelemetry, ShardTelemetry
from bot.adapters.timeline import SchedulerTimeline
from bot.analysis.backtest import Backtest
from bot.catalog import Poll, Reloading
from bot.engine.engine import Engine
from bot.engine.fleet import Fleet
from bot.engine.together import Together
from bot.engine.world import World
from bot.errors import CanaryError, OtherShards
from bot.handlers.app import build_app
from bot.handlers.entrance import Entrance
from bot.handlers.http import HttpDoor
from bot.handlers.intake import Intake
from bot.handlers.socket import receiver
from bot.ports.mesh import Mesh
from bot.ports.telemetry import Telemetry
from bot.settings import Settings
from bot.usecases.backtest import BacktestAsk, Means, Progress, backtest
from bot.usecases.desk import Desk

INTRODUCE_EVERY_S = 2.0
CLAIM_EVERY_S = 2.0


@dataclass(slots=True)
class Parts:
    """Adapters of one process, each closed with it."""

    store: RedisStore
    kube: Kube
    chat: SlackChat
    metrics: Prometheus
    clock: SystemClock
    meshes: Mapping[str, Mesh]
    pods: WatchedCluster

    async def close(self) -> None:
        """Close every connection."""
        await self.pods.close()
        await asyncio.gather(self.store.close(), self.kube.close(), self.chat.close(), self.metrics.close())


@dataclass(slots=True)
class Bot:
    """Everything `run` starts and stops. `draining` makes the process not ready before the intake closes."""

    settings: Settings
    parts: Parts
    desk: Desk
    engine: Engine | Fleet
    intake: Intake
    telemetry: ProcessTelemetry
    catalog: Reloading
    http: HttpDoor = field(init=False)
    entrance: Entrance | None = None
    draining: bool = False
    _claiming: asyncio.Task[None] | None = None

    async def open_entrance(self) -> None:
        """Learn from Slack who we are, as soon as it answers, and let requests in; the engine works meanwhile."""
        while True:
            try:
                me = await self.parts.chat.myself()
                break
            except CanaryError as error:
                self.telemetry.failed("slack-away", error)
                await self.parts.clock.sleep(INTRODUCE_EVERY_S)
        secret = self.settings.slack_signing_secret
        app = build_app(
            self.desk,
            self.parts.chat,
            self.intake,
            self.telemetry,
            signing_secret=secret.get_secret_value() if secret else "",
            bot_user=me.user_id,
            bot_id=me.bot_id,
        )
        if secret:
            self.http.open_events(app)
        token = self.settings.slack_app_token
        sockets = (
            Sockets(self.parts.chat.api, token.get_secret_value(), receiver(app), self.telemetry) if token else None
        )
        self.entrance = Entrance(self.intake, self.telemetry, sockets=sockets, http=self.http)
        await self.entrance.start()

    async def close_entrance(self, timeout_s: float) -> None:
        """Let nothing more in and finish what was acknowledged."""
        if self.entrance is not None:
            await self.entrance.stop(timeout_s)

    async def not_ready(self) -> Sequence[str]:
        """Why requests should not be sent here now. Not that Redis is away: a roll back must still get in."""
        problems = []
        if self.draining:
            problems.append("the process is stopping")
        if self.entrance is None or not self.entrance.open:
            problems.append("Slack is not connected")
        return problems

    async def not_alive(self) -> Sequence[str]:
        """Nothing: a process that answers is alive; what is away is readiness."""
        return ()

    def reload_catalog(self) -> None:
        """Take over a changed catalog file; a bad one is reported and the former kept."""
        match self.catalog.poll():
            case Poll.RELOADED:
                self.telemetry.line("catalog-reloaded", services=len(self.catalog.current.services))
                self.telemetry.gauge("catalog_stale", 0)
            case Poll.REFUSED:
                self.telemetry.line("catalog-refused", errors=str(self.catalog.errors))
                self.telemetry.gauge("catalog_stale", 1)
            case Poll.UNCHANGED:
                pass

    async def claim(self) -> None:
        """Make sure that the records in Redis are spread over as many shards as this process is set to.

        Raises:
            OtherShards: they are not, and rollouts are active.
        """
        try:
            await self.parts.store.claim()
        except OtherShards:
            raise
        except CanaryError as error:
            self.telemetry.line("shards-unclaimed", error=str(error))
            self._claiming = asyncio.create_task(self._claim_later())

    async def _claim_later(self) -> None:
        """Redis was away when the process started; no lease is given before the numbers agree."""
        while True:
            await self.parts.clock.sleep(CLAIM_EVERY_S)
            try:
                await self.parts.store.claim()
            except OtherShards as error:
                self.telemetry.failed("shards-refused", error)
            except CanaryError:
                continue
            else:
                return

    async def close(self) -> None:
        """Close every connection."""
        if self._claiming is not None:
            self._claiming.cancel()
            await asyncio.gather(self._claiming, return_exceptions=True)
        await self.parts.close()


async def connect(settings: Settings) -> Parts:
    """Make the adapters; nothing is sent yet but what the kubeconfig needs. Raises Permanent for an unusable one."""
    kube = await Kube.connect(str(settings.kubeconfig or ""))
    clock = SystemClock()
    return Parts(
        store=RedisStore(settings.redis_url.get_secret_value(), settings.redis_prefix, settings.shards),
        kube=kube,
        chat=SlackChat(settings.slack_bot_token.get_secret_value(), clock, base_url=settings.slack_api_url),
        metrics=prometheus(settings),
        clock=clock,
        meshes={name: router.make(kube, settings.namespaces) for name, router in ROUTERS.items()},
        pods=WatchedCluster(kube, clock),
    )


def prometheus(settings: Settings) -> Prometheus:
    """The metrics as the settings say."""
    return Prometheus(
        settings.prometheus_url.get_secret_value(),
        token=_secret(settings.prometheus_token),
        username=settings.prometheus_username or "",
        password=_secret(settings.prometheus_password),
        ca_file=str(settings.prometheus_ca_file or ""),
        headers={name: value.get_secret_value() for name, value in settings.prometheus_headers.items()},
    )


async def build(settings: Settings) -> Bot:
    """Wire one process. Raises CatalogErrors for a bad catalog, Permanent for an unusable kubeconfig."""
    catalog = Reloading(settings.catalog)
    instruments = Instruments()
    telemetry = ProcessTelemetry(instruments)
    parts = await connect(settings)
    desk = _desk(settings, parts, catalog)
    world = World(
        rollouts=desk.rollouts,
        inbox=desk.inbox,
        leases=parts.store.leases,
        outbox=desk.outbox,
        freezes=desk.freezes,
        meshes=desk.meshes,
        cluster=parts.pods,
        metrics=Together(parts.metrics, parts.clock),
        clock=desk.clock,
        timeline=SchedulerTimeline(parts.clock),
        chat=parts.chat,
        pager=WebhookPager(_secret(settings.alert_webhook_url), parts.clock),
        telemetry=telemetry,
        catalog=desk.catalog,
        namespaces=desk.namespaces,
        owner=f"{socket.gethostname()}-{os.getpid()}-{new_id()[:4]}",
        new_id=desk.new_id,
    )
    engine = Engine(_of_shard(world, parts, 0, telemetry)) if settings.shards == 1 else _fleet(world, parts, telemetry)
    intake = Intake(parts.store.seen, telemetry)
    bot = Bot(settings, parts, desk, engine, intake, telemetry, catalog)
    bot.http = HttpDoor(
        settings.http_host,
        settings.http_port,
        alive=bot.not_alive,
        ready=bot.not_ready,
        metrics=lambda: (instruments.text(), instruments.content_type),
        telemetry=telemetry,
    )
    return bot


def _fleet(world: World, parts: Parts, telemetry: ProcessTelemetry) -> Fleet:
    shards, gauges = parts.store.shards, dict[str, dict[int, float]]()
    worlds = [
        _of_shard(world, parts, number, ShardTelemetry(telemetry, number, gauges), SchedulerTimeline(parts.clock))
        for number in range(shards)
    ]
    return Fleet(worlds, world, parts.store.replicas, lambda route: shard_of(route.key, shards))


def _of_shard(
    world: World, parts: Parts, number: int, telemetry: Telemetry, timeline: SchedulerTimeline | None = None
) -> World:
    """The world as the holder of one shard sees it."""
    shard = parts.store.of(number)
    return replace(
        world,
        rollouts=shard.rollouts,
        inbox=shard.inbox,
        leases=shard.leases,
        outbox=shard.outbox,
        timeline=timeline or world.timeline,
        telemetry=telemetry,
    )


async def simulate(settings: Settings, ask: BacktestAsk, progress: Progress) -> Backtest:
    """Try a service's gates on its past; only catalog, cluster and Prometheus are asked.

    Raises CatalogErrors, Permanent for an unusable kubeconfig, and what `backtest` raises.
    """
    catalog = Reloading(settings.catalog)
    parts = await connect(settings)
    try:
        return await backtest(_desk(settings, parts, catalog), ask, Means(), progress)
    finally:
        await parts.close()


def _desk(settings: Settings, parts: Parts, catalog: Reloading) -> Desk:
    return Desk(
        rollouts=parts.store.rollouts,
        inbox=parts.store.inbox,
        outbox=parts.store.outbox,
        freezes=parts.store.freezes,
        directory=SlackDirectory(parts.chat, parts.clock),
        meshes=parts.meshes,
        cluster=KubeCluster(parts.kube),
        metrics=parts.metrics,
        clock=parts.clock,
        catalog=lambda: catalog.current,
        namespaces=settings.namespaces,
        new_id=new_id,
    )


def new_id() -> str:
    """Random hexadecimal digits for ids."""
    return secrets.token_hex(8)


def _secret(value: Any) -> str:
    return value.get_secret_value() if value is not None else ""
