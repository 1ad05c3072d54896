"""Pods from a watch: what the API server shows, without asking it at every look."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio
from kubernetes.aio import client

from bot.adapters.cluster import UNWATCHED_AFTER_S, KubeCluster, WatchedCluster
from bot.adapters.kubernetes import Kube
from bot.adapters.mesh.istio import RBAC_RULES
from bot.analysis.facts import PodFacts
from tests.fakes.clock import FakeClock
from tests.fixtures.kube import KubeServer

V1 = (("app", "payments"), ("version", "v1"))
V2 = (("app", "payments"), ("version", "v2"))
WITHIN_S = 30.0


class Counting(Kube):
    """Counts the lists that were asked for."""

    lists = 0

    async def all(self, path: str, **given: object) -> list[dict[str, object]]:
        self.lists += 1
        return await super().all(path, **given)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def kube(kube_server: KubeServer) -> AsyncIterator[Counting]:
    kube_server.reset()
    kube_server.clear_faults()
    connected = Counting(client.ApiClient(kube_server.configuration()))
    yield connected
    kube_server.clear_faults()
    await connected.close()


@pytest_asyncio.fixture
async def watched(kube: Counting) -> AsyncIterator[WatchedCluster]:
    cluster = WatchedCluster(kube, FakeClock())
    yield cluster
    await cluster.close()


async def _until(
    pods: Callable[[], Awaitable[tuple[PodFacts, ...]]], like: Callable[[tuple[PodFacts, ...]], bool]
) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not like(await pods()):
            await asyncio.sleep(0.02)


async def test_it_answers_what_a_fresh_reading_answers(kube: Counting, watched: WatchedCluster) -> None:
    """Every selector finds the same pods, and no further list is asked for however often one looks."""
    fresh = KubeCluster(kube)
    assert watched.known_pods("shop", V1) is None
    for selector in (V1, V2, (("app", "payments"),), (("app", "nobody"),), (*V1, ("version", "v2")), ()):
        assert await watched.pods("shop", selector) == await fresh.pods("shop", selector)
        assert watched.known_pods("shop", selector) == await fresh.pods("shop", selector)
    lists = kube.lists
    for _ in range(20):
        await watched.pods("shop", V2)
    assert kube.lists == lists


async def test_the_rights_that_the_chart_gives_are_enough_to_watch(
    kube_server: KubeServer, kube: Counting, watched: WatchedCluster
) -> None:
    """With the router's table and nothing else a change comes in by the watch, and no look asks for a list."""
    kube_server.faults(
        allow=[{"apiGroups": [group], "resources": [name], "verbs": [*verbs]} for group, name, verbs in RBAC_RULES]
    )
    await watched.pods("shop", V2)
    kube_server.put_workload("shop", "payments-v2", ready=0)
    await _until(lambda: watched.pods("shop", V2), lambda pods: not any(pod.ready for pod in pods))
    assert kube.lists == 0


async def test_a_change_of_the_pods_is_seen(kube_server: KubeServer, watched: WatchedCluster) -> None:
    """Crash loops and restarts come in by the watch."""
    assert all(pod.ready for pod in await watched.pods("shop", V2))
    kube_server.put_workload("shop", "payments-v2", ready=0, crash_loop=True, restarts=3)

    def crashing(pods: tuple[PodFacts, ...]) -> bool:
        return [(pod.ready, pod.crash_looping, pod.restarts) for pod in pods] == [(False, True, 3)] * 2

    await _until(lambda: watched.pods("shop", V2), crashing)


async def test_a_broken_watch_is_passed_by(kube_server: KubeServer, kube: Counting, watched: WatchedCluster) -> None:
    """Where no watch is allowed every look reads afresh, so nothing old is taken for new."""
    kube_server.faults(deny=[{"resource": "pods", "verb": "watch"}])
    assert len(await watched.pods("shop", V2)) == 2
    async with asyncio.timeout(WITHIN_S):
        while kube.lists == 0:
            await watched.pods("shop", V2)
            await asyncio.sleep(0.02)
    lists = kube.lists
    kube_server.put_workload("shop", "payments-v2", ready=0)
    assert [pod.ready for pod in await watched.pods("shop", V2)] == [False, False]
    assert kube.lists == lists + 1
    assert watched.known_pods("shop", V2) is None


async def test_ready_pods_are_always_read_afresh(kube_server: KubeServer, watched: WatchedCluster) -> None:
    """Whether stable can take the traffic is asked of the API server itself."""
    assert len(await watched.pods("shop", V1)) == 2
    kube_server.faults(requests=[{"status": 503}])
    assert await watched.ready_pods("shop", V1) is None


async def test_nobody_asks_nobody_watches(kube: Counting) -> None:
    """A namespace without active rollouts is left alone after a while, and watched again when there are some."""
    clock = FakeClock()
    cluster = WatchedCluster(kube, clock)
    try:
        await cluster.pods("shop", V1)
        assert cluster.watching == ("shop",)
        clock.advance(UNWATCHED_AFTER_S - 1)
        assert cluster.known_pods("shop", V1)
        clock.advance(2)
        cluster.look_round()
        await asyncio.sleep(0)
        assert cluster.watching == ("shop",)
        clock.advance(UNWATCHED_AFTER_S)
        cluster.look_round()
        await asyncio.wait_for(_gone(cluster), WITHIN_S)
        assert len(await cluster.pods("shop", V1)) == 2
    finally:
        await cluster.close()


async def _gone(cluster: WatchedCluster) -> None:
    while cluster.watching:
        await asyncio.sleep(0.01)
