"""The Kubernetes client: connecting, errors told apart, lists in pages, watches that heal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from kubernetes.aio import client

from bot.adapters.kubernetes import Change, Forbidden, Kube, Snapshot, Unknown, Unprocessable, path
from bot.errors import Conflict, NotFound, Permanent, Transient
from tests.fixtures.kube import KubeServer

PODS = path("", "v1", "pods", "shop")
ROUTE = path("networking.istio.io", "v1", "virtualservices", "shop", "payments")


@pytest_asyncio.fixture
async def kube(kube_server: KubeServer) -> AsyncIterator[Kube]:
    kube_server.reset()
    connected = Kube(client.ApiClient(kube_server.configuration()))
    yield connected
    await connected.close()


def kubeconfig(url: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
    )


async def test_a_kubeconfig_with_url_and_token_connects(kube_server: KubeServer, tmp_path: Path) -> None:
    """The file alone is enough."""
    file = tmp_path / "config"
    file.write_text(kubeconfig(kube_server.url, kube_server.token))
    kube = await Kube.connect(str(file))
    try:
        assert (await kube.version()).startswith("v1.")
    finally:
        await kube.close()


async def test_a_wrong_token_is_forbidden_and_not_told(kube_server: KubeServer, tmp_path: Path) -> None:
    """401 says what is wrong without the token."""
    file = tmp_path / "config"
    file.write_text(kubeconfig(kube_server.url, "s3cret-token"))
    kube = await Kube.connect(str(file))
    try:
        with pytest.raises(Forbidden, match="does not know our token") as raised:
            await kube.get(ROUTE)
        assert "s3cret" not in str(raised.value)
    finally:
        await kube.close()


@pytest.mark.parametrize("content", [None, "contexts: []", "{"])
async def test_no_usable_configuration_is_permanent(tmp_path: Path, content: str | None) -> None:
    """A missing, empty or broken kubeconfig is named."""
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Permanent, match="cannot connect to Kubernetes by kubeconfig"):
        await Kube.connect(str(file))


async def test_outside_a_pod_the_service_account_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kubeconfig and outside a cluster the error says what was tried."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Permanent, match="the pod's service account"):
        await Kube.connect()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Permanent),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, Unprocessable),
        *((status, Transient) for status in (429, 500, 503, 504)),
    ],
)
async def test_refusals_are_told_apart(
    kube_server: KubeServer, kube: Kube, status: int, error: type[Exception]
) -> None:
    """Each status becomes the error that says what to do about it, in the server's words."""
    fault = {"resource": "virtualservices", "status": status, "message": "said by the server"}
    kube_server.faults(requests=[fault])
    with pytest.raises(error, match="said by the server") as raised:
        await kube.get(ROUTE)
    assert type(raised.value) is error


async def test_nobody_listening_is_transient() -> None:
    """A refused connection may work later."""
    kube = Kube(client.ApiClient(client.Configuration(host="http://127.0.0.1:1")))
    try:
        with pytest.raises(Transient, match="does not answer"):
            await kube.get(ROUTE)
    finally:
        await kube.close()


async def test_a_deadline_is_kept(kube_server: KubeServer, kube: Kube) -> None:
    """A hanging server is given up."""
    kube_server.faults(requests=[{"resource": "virtualservices", "hang": True}])
    try:
        with pytest.raises(Transient, match=r"did not answer within 0\.1 s"):
            await kube.get(ROUTE, timeout_s=0.1)
    finally:
        kube_server.clear_faults()


async def test_lists_come_in_pages_and_items_keep_their_kind(
    kube_server: KubeServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More items than a page holds are all there."""
    whole = await kube.all(PODS)
    monkeypatch.setattr("bot.adapters.kubernetes._PAGE", 3)
    pages = await kube.all(PODS)
    assert [pod["metadata"]["name"] for pod in pages] == [pod["metadata"]["name"] for pod in whole]
    assert len(pages) == 8
    assert {(pod["kind"], pod["apiVersion"]) for pod in pages} == {("Pod", "v1")}


async def relabelled(kube: Kube, value: str) -> None:
    operation = {"op": "add", "path": "/metadata/labels", "value": {"count": value}}
    await kube.patch(ROUTE, [operation], field_manager="test")


async def told(following: AsyncIterator[Snapshot | Change | Unknown], value: str) -> None:
    """Follow until an object carries the label value, in a list or as a change."""
    async for one in following:
        shown = one.items if isinstance(one, Snapshot) else (one.object,) if isinstance(one, Change) else ()
        if any((item["metadata"].get("labels") or {}).get("count") == value for item in shown):
            return
    raise AssertionError("a watch never ends")


async def test_a_watch_heals_after_every_kind_of_break(kube_server: KubeServer, kube: Kube) -> None:
    """Cut, expired (410), refused and failing lists: what changed meanwhile is told each time."""
    collection = path("networking.istio.io", "v1", "virtualservices", "shop")
    async with asyncio.timeout(60), aclosing(kube.follow(collection)) as following:
        first = asyncio.create_task(told(following, "0"))
        while not first.done():
            await relabelled(kube, "start")
            await relabelled(kube, "0")
            await asyncio.wait({first}, timeout=0.1)
        breaks: list[dict[str, object]] = [
            {"drop_watches": True},
            {"drop_watches": True, "compact": True},
            {"drop_watches": True, "requests": [{"verbs": ["list", "watch"], "status": 500, "times": 2}]},
            {"drop_watches": True, "requests": [{"verbs": ["list", "watch"], "status": 403, "times": 1}]},
        ]
        for number, fault in enumerate(breaks, start=1):
            kube_server.faults(**fault)
            await relabelled(kube, str(number))
            await told(following, str(number))


async def test_a_watch_of_nothing_happening_does_not_spin(kube_server: KubeServer) -> None:
    """Empty answers are backed off from, longer each time."""
    waits: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) >= 5:
            enough.set()
            await asyncio.Event().wait()

    kube_server.reset()
    kube = Kube(client.ApiClient(kube_server.configuration()), sleep=sleep)
    kube_server.faults(requests=[{"verbs": ["watch", "list"], "resource": "pods", "status": 500}])
    watching = asyncio.create_task(told(kube.follow(PODS), "never"))
    try:
        async with asyncio.timeout(20):
            await enough.wait()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await kube.close()
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]
