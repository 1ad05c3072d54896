"""Servers that accept a connection and never say a word: every adapter gives up, in the words of its port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from kubernetes.aio import client

from bot.adapters import cluster, pager
from bot.adapters.cluster import KubeCluster
from bot.adapters.kubernetes import Kube
from bot.adapters.mesh import istio, istio_api
from bot.adapters.mesh.istio import IstioMesh
from bot.adapters.pager import WebhookPager
from bot.adapters.redis import RedisStore, server
from bot.adapters.slack.api import TIMEOUT_S, SlackApi
from bot.adapters.slack.chat import SlackChat
from bot.engine.holder import LEASE_S
from bot.engine.wake import PATCH_TAKES_S
from bot.errors import CanaryError, Transient
from bot.rollout.effects import Page, SetWeight
from bot.rollout.model import Direction, Target
from bot.rollout.route import Mark
from tests.fakes.clock import FakeClock
from tests.fakes.mesh import FakeMesh

SHORT_S = 0.2
FOR_EVER_S = 20.0


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """The port of a server that accepts and never answers."""
    held: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in held:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            continue
    await server.wait_closed()


@asynccontextmanager
async def kube_at(port: int) -> AsyncIterator[Kube]:
    kube = Kube(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{port}")))
    try:
        yield kube
    finally:
        await kube.close()


async def given_up(call: Awaitable[object]) -> CanaryError:
    """The error with which a call ended, long before for ever."""
    async with asyncio.timeout(FOR_EVER_S):
        with pytest.raises(Transient) as raised:
            await call
    return raised.value


def target() -> Target:
    return FakeMesh().add("payments")


@pytest.mark.parametrize("direction", [Direction.RAISE, Direction.ZERO, Direction.MARK])
async def test_a_patch_is_given_up(direction: Direction, silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up, down and marking: Transient once the time for the whole write is over."""
    monkeypatch.setattr(istio, "RAISE_WITHIN_S", SHORT_S)
    monkeypatch.setattr(istio, "_ZERO_WITHIN_S", SHORT_S)
    async with kube_at(silent) as kube:
        change = SetWeight(direction, 0, Mark("payments-1", 1, 0, "Progressing"))
        error = await given_up(IstioMesh(kube).write(target(), change))
    assert "in time" in str(error)


async def test_a_reading_of_the_route_is_given_up(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look does not wait for an API server that has gone silent."""
    monkeypatch.setattr(istio, "_READ_TIMEOUT_S", SHORT_S)
    monkeypatch.setattr(istio_api, "READ_TIMEOUT_S", SHORT_S)
    async with kube_at(silent) as kube:
        await given_up(IstioMesh(kube).read(target()))


async def test_pods_and_nodes_are_given_up_and_ready_pods_are_unknown(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists end as Transient; the question before going to 0 as "nobody knows"."""
    monkeypatch.setattr(cluster, "READY_WITHIN_S", SHORT_S)
    async with kube_at(silent) as kube:
        nodes, pods, ready = await asyncio.gather(
            given_up(KubeCluster(kube).nodes()),
            given_up(KubeCluster(kube).pods("shop", (("app", "payments"),))),
            KubeCluster(kube).ready_pods("shop", (("app", "payments"),)),
        )
    assert isinstance(nodes, Transient)
    assert isinstance(pods, Transient)
    assert ready is None


STORE_CALLS: dict[str, Callable[[RedisStore], Awaitable[object]]] = {
    "active": lambda store: store.rollouts.active(),
    "outlines": lambda store: store.rollouts.outlines(),
    "load": lambda store: store.rollouts.load("payments-1"),
    "take": lambda store: store.inbox.take("payments-1"),
    "renew": lambda store: store.leases.acquire("one", 3.0),
    "letters": lambda store: store.outbox.take(0.0, 1),
    "freezes": lambda store: store.freezes.all(),
    "seen": lambda store: store.seen.first_time("x", 1.0),
}


async def test_every_kind_of_store_call_is_given_up(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records, inbox, lease, outbox, freezes, seen ids: none waits for a Redis that accepts and says nothing."""
    monkeypatch.setattr(server, "CALL_TIMEOUT_S", SHORT_S)
    store = RedisStore(f"redis://127.0.0.1:{silent}/0")
    try:
        await asyncio.gather(*(given_up(call(store)) for call in STORE_CALLS.values()))
    finally:
        await store.close()


async def test_a_chat_call_is_given_up(silent: int) -> None:
    """A message that is not taken is put off by its deliverer, and the next one can go."""
    api = SlackApi("xoxb-1", f"http://127.0.0.1:{silent}/api/", timeout_s=1)
    try:
        await given_up(api.call("chat.postMessage", channel="C1", text="hello"))
    finally:
        await api.close()


async def test_the_chat_uses_that_limit_for_all_it_does() -> None:
    """What `SlackApi` was given by default is what the client and its connections go by."""
    chat = SlackChat("xoxb-1", FakeClock())
    try:
        assert chat.api.client.timeout == TIMEOUT_S
        assert chat.api.session.timeout.total == TIMEOUT_S
    finally:
        await chat.close()


async def test_a_page_is_given_up(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook that hangs does not keep the next page waiting."""
    monkeypatch.setattr(pager, "TIMEOUT_S", SHORT_S)
    await given_up(WebhookPager(f"http://127.0.0.1:{silent}/hook", FakeClock()).page(Page("key", "summary")))


def test_limits_fit_into_the_lease() -> None:
    """A raise takes no longer than the holder keeps of its lease for one; a silent Redis is noticed within a lease."""
    assert istio.RAISE_WITHIN_S <= PATCH_TAKES_S < LEASE_S
    assert server.CALL_TIMEOUT_S < LEASE_S
