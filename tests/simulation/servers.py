"""The servers of the simulated world, and how a process reaches them: API server, store, metrics, chat, pager."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import floor, inf
from typing import Any

import jsonpatch

from bot.adapters.kubernetes import Change, Unprocessable
from bot.adapters.mesh.istio import IstioMesh
from bot.analysis.samples import Answer, Query
from bot.engine.routes import READ_AT_LEAST_EVERY_S
from bot.errors import CanaryError, CannotMeasure, Conflict, NotFound, Permanent, Transient
from bot.ports.mesh import Survey, Wanted
from bot.ports.store import Lease
from bot.rollout.effects import Page, SetWeight
from bot.rollout.model import Target
from bot.rollout.route import RouteState
from tests.fakes.mesh import FakeMesh
from tests.fakes.metrics import FakeMetrics
from tests.fakes.store import FakeLeases, FakeStore
from tests.simulation.history import History, copied
from tests.simulation.loop import WORLD
from tests.simulation.wire import LATENCY_S, SPREAD_S, Wire

LETTER: ContextVar[str] = ContextVar("letter", default="")
"""The letter that is being delivered, so that a repeated one is known."""

STORE_TIMEOUT_S = 1.0
METRICS_TIMEOUT_S = 5.0
CHAT_TIMEOUT_S = 5.0
PODS_TIMEOUT_S = 3.0
WATCH_BROKEN_EVERY_S = 60.0
READY_WITHIN_S = 0.3

KUBE_REFUSALS: dict[str, Callable[[], CanaryError]] = {
    "409": lambda: Conflict("409: the object has been modified"),
    "429": lambda: Transient("429: too many requests", 1.0),
    "500": lambda: Transient("500: etcdserver: leader changed"),
}
BUSY = {name: KUBE_REFUSALS[name] for name in ("429", "500")}
CHAT_REFUSALS: dict[str, Callable[[], CanaryError]] = {"429": lambda: Transient("ratelimited", 3.0)}


class Truth(FakeMesh):
    """The objects at the API server; `on_store` hears of every one that changes, before and after."""

    def __init__(self, on_store: Callable[[dict[str, Any] | None, dict[str, Any], str], None]) -> None:
        super().__init__()
        self._on_store = on_store

    def _store(self, manifest: dict[str, Any], manager: str) -> None:
        key = (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        before = self.objects.get(key)
        super()._store(manifest, manager)
        self._on_store(before, self.objects[key], manager)

    def patch(self, name: str, operations: Sequence[Mapping[str, Any]], manager: str) -> dict[str, Any]:
        """Apply a JSON Patch as the API server does: all of it or nothing."""
        manifest = self.objects.get(("shop", name))
        if manifest is None:
            raise NotFound(f"virtualservices {name!r} not found")
        try:
            patched = jsonpatch.apply_patch(copied(manifest), [dict(one) for one in operations], in_place=True)
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise Unprocessable(f"422: {error}") from error
        self._store(patched, manager)
        return copied(self.objects["shop", name])


class SimKube:
    """What the Istio router uses of the Kubernetes client."""

    def __init__(self, truth: Truth, wire: Wire, owner: str) -> None:
        self._truth, self._wire, self._owner = truth, wire, owner

    async def get(self, path: str, *, timeout_s: float = 3.0) -> dict[str, Any]:
        if path.count("/") <= 3:
            return {"resources": [{"name": "virtualservices"}]}
        name = path.rsplit("/", 1)[1]

        async def act() -> dict[str, Any]:
            if ("shop", name) not in self._truth.objects:
                raise NotFound(f"virtualservices {name!r} not found")
            return copied(self._truth.objects["shop", name])

        return await self._wire.call("api", "get", act, timeout_s, more=BUSY)

    async def all(self, path: str, *, selector: str = "", timeout_s: float = 3.0) -> list[dict[str, Any]]:
        async def act() -> list[dict[str, Any]]:
            return [copied(manifest) for _, manifest in sorted(self._truth.objects.items())]

        return await self._wire.call("api", "list", act, timeout_s, more=BUSY)

    async def patch(
        self,
        path: str,
        operations: Sequence[Mapping[str, Any]],
        *,
        field_manager: str,
        dry_run: bool = False,
        timeout_s: float = 3.0,
    ) -> dict[str, Any]:
        name = path.rsplit("/", 1)[1]

        async def act() -> dict[str, Any]:
            return self._truth.patch(name, operations, self._owner)

        return await self._wire.call("api", "patch", act, timeout_s, changes=True, more=KUBE_REFUSALS)

    def pages(self, path: str, *, timeout_s: float = 3.0) -> "OnePage":
        return OnePage(self.all(path, timeout_s=timeout_s))

    async def follow(self, path: str, *, selector: str = "") -> AsyncGenerator[Change, None]:
        """Changes only, and some of them lost: without a whole list nothing is read from it. No rule ever changes."""
        if path.endswith("destinationrules"):
            await asyncio.Event().wait()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._truth._watchers.append(Ear(self._wire, "api", queue))  # type: ignore[arg-type]
        while True:
            ref = await queue.get()
            manifest = self._truth.objects.get((ref.namespace, ref.name))
            shown = manifest or {"metadata": {"namespace": ref.namespace, "name": ref.name}}
            yield Change("MODIFIED", shown)


class OnePage:
    """A list in one page; no generator, for one that is cut off in the middle cannot be closed quietly."""

    def __init__(self, ask: Coroutine[Any, Any, list[dict[str, Any]]]) -> None:
        self._ask: Coroutine[Any, Any, list[dict[str, Any]]] | None = ask

    def __aiter__(self) -> "OnePage":
        return self

    async def __anext__(self) -> list[dict[str, Any]]:
        ask, self._ask = self._ask, None
        if ask is None:
            raise StopAsyncIteration
        return await ask

    async def aclose(self) -> None:
        if self._ask is not None:
            self._ask.close()


class Ear:
    """Hears of something over a wire: later, or never while it is cut."""

    def __init__(self, wire: Wire, service: str, queue: "asyncio.Queue[Any]") -> None:
        self._wire, self._service, self._queue = wire, service, queue

    def put_nowait(self, said: Any) -> None:
        wire = self._wire
        if wire.process.dead:
            return
        if self._service in wire.cut or wire.random.random() < wire.rates.get(self._service, 0.0):
            wire.told(f"{self._service} news", "hear", "unheard", READ_AT_LEAST_EVERY_S)
            return
        delay_s = LATENCY_S + SPREAD_S * wire.random.random()
        wire.loop.call_later(delay_s, self._queue.put_nowait, said, context=WORLD)


class SimMesh(IstioMesh):
    """The real router over the simulated API server; only preflight and what stands behind a side are the fake's."""

    def __init__(self, truth: Truth, wire: Wire, owner: str, history: History) -> None:
        super().__init__(SimKube(truth, wire, owner))  # type: ignore[arg-type]
        self._truth, self._wire, self._owner, self._history = truth, wire, owner, history

    async def survey(self, wanted: Wanted, first_weight: int) -> Survey:
        return await self._wire.call("api", "survey", lambda: self._truth.survey(wanted, first_weight), 3.0)

    async def resolved(self, target: Target) -> Target:
        return await self._wire.call("api", "resolved", lambda: self._truth.resolved(target), 3.0)

    async def write(self, target: Target, change: SetWeight) -> RouteState:
        self._history.sent(self._owner, target, change)
        return await super().write(target, change)


@dataclass(slots=True)
class Scraped:
    """The samples of one series so far, and the number of the newest scrape."""

    counter: Any
    until: int
    points: list[tuple[float, float]] = field(default_factory=list)


class SimMetrics(FakeMetrics):
    """Prometheus, with a few buckets only, and those only where a gate asks for them."""

    def __init__(self, now: Callable[[], float], *, scrape_s: float, latency: bool) -> None:
        super().__init__(now, scrape_s=scrape_s)
        self._latency = latency
        self._scraped: dict[int, Scraped] = {}

    def _add(self, flows: Any, labels: Mapping[str, str], per_s: float, behaviour: Any) -> None:  # type: ignore[override]
        if per_s <= 0:
            return
        key = tuple(sorted(labels.items()))
        series = "istio_requests_total", key
        flows[series] = flows.get(series, 0.0) + per_s
        if not self._latency:
            return
        for le, fraction in (("100", 1 - behaviour.slow), ("250", 1 - behaviour.slow), ("5000", 1.0), ("+Inf", 1.0)):
            bucket = "istio_request_duration_milliseconds_bucket", tuple(sorted({**labels, "le": le}.items()))
            flows[bucket] = flows.get(bucket, 0.0) + per_s * fraction

    def _points(self, counter: Any, at: float, window_s: float, resolution_s: float) -> tuple[tuple[float, float], ...]:
        """What was scraped stays as it was: every sample is worked out once."""
        if resolution_s not in (0.0, self.scrape_s):
            return super()._points(counter, at, window_s, resolution_s)
        known = self._scraped.get(id(counter))
        if known is None:
            known = self._scraped[id(counter)] = Scraped(counter, floor(self.started_at / self.scrape_s))
        newest = floor(at / self.scrape_s)
        if newest > known.until:
            span_s = (newest - known.until) * self.scrape_s
            known.points += super()._points(counter, newest * self.scrape_s, span_s, 0.0)
            known.until = newest
        oldest_s = (floor((at - window_s) / self.scrape_s) + 1) * self.scrape_s
        first = bisect_left(known.points, (oldest_s, 0.0))
        return tuple(known.points[first : bisect_right(known.points, (newest * self.scrape_s, inf))])

    def answer(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]:
        return {query: self._answer(query) for query in dict.fromkeys(queries)}


class WiredMetrics:
    """Implements `Metrics` over a wire: what fails is an answer that cannot be had."""

    def __init__(self, metrics: SimMetrics, wire: Wire) -> None:
        self._metrics, self._wire = metrics, wire

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]:
        if not queries:
            return {}

        async def act() -> Mapping[Query, Answer | CannotMeasure]:
            return self._metrics.answer(queries)

        try:
            return await self._wire.call("metrics", "ask", act, METRICS_TIMEOUT_S)
        except Transient as error:
            return {query: CannotMeasure(str(error)) for query in queries}

    async def ready(self) -> str:
        return "simulated"


class WiredCluster:
    """Implements `Cluster` over a wire; the watch of pods is broken every other minute."""

    def __init__(self, cluster: Any, wire: Wire) -> None:
        self._cluster, self._wire = cluster, wire

    async def pods(self, namespace: str, selector: Any) -> Any:
        return await self._wire.call("api", "pods", lambda: self._cluster.pods(namespace, selector), PODS_TIMEOUT_S)

    def known_pods(self, namespace: str, selector: Any) -> Any:
        broken = "api" in self._wire.cut or self._wire.loop.time() // WATCH_BROKEN_EVERY_S % 2
        return None if broken else self._cluster.known_pods(namespace, selector)

    async def ready_pods(self, namespace: str, selector: Any) -> int | None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                pods = await self.pods(namespace, selector)
        except (TimeoutError, Transient, Permanent):
            return None
        return sum(pod.ready for pod in pods)

    async def nodes(self) -> Any:
        return await self._wire.call("api", "nodes", self._cluster.nodes, PODS_TIMEOUT_S)


class SimLeases(FakeLeases):
    """The lease's tokens rise whatever the store forgets: they come from its server's clock. `given` is told whom it is
    given to."""

    issued = 0

    def __init__(self, store: FakeStore, given: Callable[[str], None]) -> None:
        super().__init__(store)
        self._given = given

    async def acquire(self, owner: str, ttl_s: float) -> Lease | None:
        if not self._held or self.owner == owner:
            self.token = max(self.token, self.issued)
        lease = await super().acquire(owner, ttl_s)
        self.issued = max(self.issued, self.token)
        if lease is not None:
            self._given(owner)
        return lease


class WiredInbox:
    """Implements `Inbox` over a wire; rings can be lost."""

    def __init__(self, inbox: Any, wire: Wire) -> None:
        self._inbox, self._wire = inbox, wire

    async def put(self, request: Any) -> None:
        await self._wire.call("store", "put", lambda: self._inbox.put(request), STORE_TIMEOUT_S, changes=True)

    async def take(self, rollout_id: str) -> Any:
        return await self._wire.call("store", "take", lambda: self._inbox.take(rollout_id), STORE_TIMEOUT_S)

    async def done(self, rollout_id: str, request_ids: Sequence[str]) -> None:
        await self._wire.call(
            "store", "done", lambda: self._inbox.done(rollout_id, request_ids), STORE_TIMEOUT_S, changes=True
        )

    async def waiting(self) -> Any:
        return await self._wire.call("store", "waiting", self._inbox.waiting, STORE_TIMEOUT_S)

    async def ring(self, rollout_id: str) -> None:
        await self._wire.call("store", "ring", lambda: self._inbox.ring(rollout_id), STORE_TIMEOUT_S)

    async def rings(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._inbox._listeners.append(Ear(self._wire, "store", queue))
        while True:
            yield await queue.get()


class WiredChat:
    """Implements `Chat` over a wire; every post is known by its letter."""

    def __init__(self, chat: Any, wire: Wire, history: History) -> None:
        self._chat, self._wire, self._history = chat, wire, history

    async def post(self, channel: str, text: str, blocks: Any, *, thread: str = "", key: str = "") -> tuple[str, str]:
        letter = LETTER.get()

        async def act() -> tuple[str, str]:
            self._history.posted(letter, thread, text)
            return await self._chat.post(channel, text, blocks, thread=thread, key=key)

        return await self._call("post", act)

    async def update(self, channel: str, ts: str, text: str, blocks: Any) -> None:
        await self._call("update", lambda: self._chat.update(channel, ts, text, blocks))

    async def whisper(
        self, channel: str, user: str, text: str, blocks: Any, *, thread: str = "", response_url: str = ""
    ) -> None:
        letter = LETTER.get()

        async def act() -> None:
            self._history.whispered(letter, thread, text)
            await self._chat.whisper(channel, user, text, blocks, thread=thread, response_url=response_url)

        await self._call("whisper", act)

    async def _call(self, name: str, act: Any) -> Any:
        return await self._wire.call("chat", name, act, CHAT_TIMEOUT_S, changes=True, more=CHAT_REFUSALS)


class WiredPager:
    """Implements `Pager` over a wire."""

    def __init__(self, pager: Any, wire: Wire) -> None:
        self._pager, self._wire = pager, wire

    async def page(self, page: Page) -> None:
        await self._wire.call("pager", "page", lambda: self._pager.page(page), CHAT_TIMEOUT_S)
