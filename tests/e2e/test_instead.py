"""The sandbox on a Redis, an API server and a Prometheus that were there before it: `--redis`, `--kubeconfig`, ..."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from bot.sandbox.demo.routelog import RouteLog
from bot.sandbox.process import Part, PartError, free_port
from bot.sandbox.redis import start_redis
from bot.sandbox.world import Options, new_world
from tests.e2e.conftest import opened
from tests.e2e.town import Town, mark_of

TOKEN = "somebody-elses-token"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A world that starts none of the three by itself."""
    folder = tmp_path_factory.mktemp("instead")
    mesh_port = free_port()
    mesh = f"http://127.0.0.1:{mesh_port}"
    targets = [f"istio-mesh={mesh}/metrics", f"node-exporter/node-2={mesh}/nodes/node-2/metrics"]
    redis = start_redis()
    kube = Part.module("kube", "--token", TOKEN)
    prometheus = Part.module("prometheus", *(word for target in targets for word in ("--target", target)))
    try:
        kube.wait_ready(30)
        prometheus.wait_ready(30)
        options = Options(
            redis=redis.url,
            kubeconfig=str(_kubeconfig(folder, kube.url)),
            prometheus=prometheus.url,
            mesh_port=mesh_port,
            rate=60.0,
            with_page=False,
        )
        town = opened(options)
        yield town
        town.close()
    finally:
        prometheus.stop()
        kube.stop()
        redis.stop()


def _kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "kubeconfig.yaml"
    config = {
        "current-context": "theirs",
        "contexts": [
            {"name": "other", "context": {"cluster": "other", "user": "other"}},
            {"name": "theirs", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_rollout_on_what_was_there_before(town: Town) -> None:
    """Envoy follows the given API server, the gates ask the given Prometheus, and the watch sees every write."""
    assert set(town.world.parts) == {"slack", "mesh"}
    assert town.world.redis is None
    town.play(_rolled_back(town))


async def _rolled_back(town: Town) -> None:
    async with aiohttp.ClientSession() as session:
        log = RouteLog(session, town.world.kube_url, town.world.kube_token)
        following = asyncio.create_task(log.run())
        await asyncio.wait_for(log.following.wait(), 30)
        await town.clients.fault("mesh", workloads={"checkout-v2": {"fail_percent": 50.0}})
        run = await town.start("checkout", "v2 steps 50%:1m,100%:1m", channel="#checkout")
        await run.ended("RolledBack")
        seen = [mark_of(write["after"]) for write in log.writes["checkout"]]
        assert seen == [write["mark"] for write in await run.writes()]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_a_kubeconfig_without_a_token_is_refused(tmp_path: Path) -> None:
    """The sandbox says what it needs of a kubeconfig, and nothing of it stays."""
    config = tmp_path / "kubeconfig.yaml"
    config.write_text("current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: []\n")
    world = new_world(Options(kubeconfig=str(config), with_page=False))

    async def start() -> None:
        try:
            await world.start()
        finally:
            await world.stop()

    with pytest.raises(PartError, match="names a server and a user with a `token`"):
        asyncio.run(start())
    assert not world.folder.exists()
