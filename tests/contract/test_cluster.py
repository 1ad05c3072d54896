"""One suite over every cluster: the fake, and the API server."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from kubernetes.aio import client

from bot.adapters import cluster
from bot.adapters.cluster import KubeCluster
from bot.adapters.kubernetes import Kube, path
from bot.errors import Permanent, Transient
from bot.ports.cluster import Cluster
from tests.fakes.cluster import FakeCluster
from tests.fixtures.kube import KubeServer

pytestmark = pytest.mark.usefixtures("patient")
V2 = (("app", "payments"), ("version", "v2"))


@dataclass
class World:
    """payments v1 and v2 with two pods each (v2 on node-2), three healthy nodes."""

    cluster: Cluster
    fake: FakeCluster | None = None
    server: KubeServer | None = None

    def crash_v2(self) -> None:
        """v2 crash-loops: no pod ready, three restarts each."""
        if self.fake is not None:
            self.fake.change("payments-v2", ready=False, crash_looping=True, restarts=3)
        if self.server is not None:
            self.server.put_workload("shop", "payments-v2", ready=0, crash_loop=True, restarts=3)

    def break_node(self) -> None:
        """node-2 is not ready."""
        if self.fake is not None:
            self.fake.set_node("node-2", since=1_700_000_000.0, Ready="False")
        if self.server is not None:
            self.server.put_node("node-2", Ready="False")

    def go_away(self) -> None:
        """The API server stops answering."""
        if self.fake is not None:
            self.fake.away = True
        if self.server is not None:
            self.server.faults(requests=[{"status": 503}])


@pytest_asyncio.fixture
async def kube(kube_server: KubeServer) -> AsyncIterator[Kube]:
    kube_server.reset()
    connected = Kube(client.ApiClient(kube_server.configuration()))
    yield connected
    await connected.close()


@pytest.fixture(params=["fake", "kubernetes"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "kubernetes":
        server = request.getfixturevalue("kube_server")
        return World(KubeCluster(request.getfixturevalue("kube")), server=server)
    fake = FakeCluster()
    fake.add_workload("payments", "v1")
    fake.add_workload("payments", "v2", node="node-2", template="hash-2")
    for name in ("node-1", "node-2", "node-3"):
        fake.set_node(name)
    return World(fake, fake=fake)


async def test_pods_are_found_by_all_labels_of_a_selector(world: World) -> None:
    """Two ready pods of v2, with node, workload, template and images."""
    pods = await world.cluster.pods("shop", V2)
    assert len(pods) == 2
    for pod in pods:
        assert (pod.workload, pod.node, pod.ready, pod.restarts, pod.crash_looping) == (
            "payments-v2", "node-2", True, 0, False,
        )  # fmt: skip
        assert pod.template
        assert pod.images
    assert len(await world.cluster.pods("shop", (("app", "payments"),))) == 4
    assert await world.cluster.pods("elsewhere", V2) == ()


async def test_pods_are_known_as_they_would_be_told_or_not_at_all(world: World) -> None:
    """What is known without asking is never something else, and an API server that is away tells nothing."""
    if world.fake is not None:
        world.fake.watched = True
    assert world.cluster.known_pods("shop", V2) in (None, await world.cluster.pods("shop", V2))
    world.go_away()
    assert world.cluster.known_pods("shop", V2) is None


async def test_crash_loops_and_restarts_are_told(world: World) -> None:
    """What the `pods` gate judges."""
    world.crash_v2()
    pods = await world.cluster.pods("shop", V2)
    assert [(pod.ready, pod.crash_looping, pod.restarts) for pod in pods] == [(False, True, 3)] * 2
    assert await world.cluster.ready_pods("shop", V2) == 0


async def test_ready_pods_are_unknown_when_the_api_server_is_away(world: World) -> None:
    """Unknown is not none: a rollback must not wait for it."""
    assert await world.cluster.ready_pods("shop", V2) == 2
    world.go_away()
    assert await world.cluster.ready_pods("shop", V2) is None
    with pytest.raises(Transient):
        await world.cluster.pods("shop", V2)


async def test_nodes_tell_conditions_and_since_when(world: World) -> None:
    """Three nodes; the broken one shows it with the moment it broke."""
    world.break_node()
    nodes = {node.name: node for node in await world.cluster.nodes()}
    assert sorted(nodes) == ["node-1", "node-2", "node-3"]
    assert ("Ready", "True") in [(kind, status) for kind, status, _ in nodes["node-1"].conditions]
    (broken,) = [one for one in nodes["node-2"].conditions if one[0] == "Ready"]
    assert broken[1] == "False"
    assert broken[2] >= 1_700_000_000.0
    assert "node-2" in nodes["node-2"].addresses


async def test_permissions_are_answered_in_order(world: World) -> None:
    """One answer for each rule."""
    if world.fake is not None:
        world.fake.denied.add(("", "nodes", "list"))
    if world.server is not None:
        world.server.faults(deny=[{"resource": "nodes"}])
    rules = (("", "pods", "list", "shop"), ("", "nodes", "list", ""))
    assert await world.cluster.allowed(rules) == (True, False)


async def test_the_version_is_told(world: World) -> None:
    """For `check`."""
    assert (await world.cluster.version()).startswith("v1.")


async def test_ready_pods_does_not_wait_for_a_slow_api_server(
    kube_server: KubeServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs costs 300 ms and is unknown."""
    monkeypatch.setattr(cluster, "READY_WITHIN_S", 0.3)
    kube_server.faults(requests=[{"resource": "pods", "hang": True}])
    try:
        assert await KubeCluster(kube).ready_pods("shop", V2) is None
    finally:
        kube_server.clear_faults()


async def test_without_a_selector_nobody_is_asked(kube_server: KubeServer, kube: Kube) -> None:
    """An empty selector would count every pod of the namespace."""
    cluster = KubeCluster(kube)
    assert await cluster.ready_pods("shop", ()) is None
    assert await cluster.pods("shop", ()) == ()


async def test_pods_on_their_way_out_do_not_count(kube_server: KubeServer, kube: Kube) -> None:
    """Terminating and finished pods serve nobody."""
    pods = await kube.all(path("", "v1", "pods", "shop"), selector="app=payments,version=v2")
    pods[0]["metadata"]["deletionTimestamp"] = "2026-01-12T09:00:00Z"
    pods[1]["status"]["phase"] = "Failed"
    kube_server.load(pods)
    assert await KubeCluster(kube).pods("shop", V2) == ()


async def test_a_forbidden_list_is_permanent(kube_server: KubeServer, kube: Kube) -> None:
    """403 is not for trying again."""
    kube_server.faults(deny=[{"resource": "pods"}])
    with pytest.raises(Permanent):
        await KubeCluster(kube).pods("shop", V2)
