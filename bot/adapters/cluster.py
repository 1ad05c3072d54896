"""Pods and nodes from the API server."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bot.adapters.kubernetes import Change, Kube, Snapshot, path
from bot.analysis.facts import NodeFacts, PodFacts
from bot.errors import CanaryError
from bot.ports.clock import Clock

READY_WITHIN_S = 0.3
UNWATCHED_AFTER_S = 120.0
PAST_A_BROKEN_WATCH = 8
"""Fresh readings at once while a watch is broken: thousands of looks may not become thousands of lists."""
SIDECAR = "istio-proxy"
_AMBIENT = "ambient.istio.io/redirection"


class KubeCluster:
    """Implements `Cluster` over the API server; every call reads afresh."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        """Pods that carry all labels, terminating and finished ones left out, by name."""
        if not selector:
            return ()
        found = await self._kube.all(path("", "v1", "pods", namespace), selector=selector_text(selector))
        return tuple(sorted((pod_facts(pod) for pod in found if serving(pod)), key=lambda pod: pod.name))

    def known_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...] | None:
        """Nothing is known without asking."""
        return None if selector else ()

    async def ready_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> int | None:
        """Ready pods, None when the API server does not say so within 300 ms or there is no selector to ask by."""
        return await _ready(self.pods, namespace, selector)

    async def nodes(self) -> tuple[NodeFacts, ...]:
        """All nodes, by name."""
        found = await self._kube.all(path("", "v1", "nodes"))
        return tuple(sorted((node_facts(node) for node in found), key=lambda node: node.name))

    async def allowed(self, rules: Sequence[tuple[str, str, str, str]]) -> tuple[bool, ...]:
        """May the bot (group, resource, verb, namespace)? One answer per rule."""
        return tuple(await asyncio.gather(*(self._kube.may(*rule) for rule in rules)))

    async def version(self) -> str:
        """The API server's version."""
        return await self._kube.version()


Label = tuple[str, str]
_FEW = 8


@dataclass(slots=True)
class _Pods:
    """Serving pods of one namespace as its watch tells them; `known` is False until it has, and while it is broken.

    Names are found by each of their labels, so that a selector costs no more than its rarest label has pods. Most
    labels have few: then a tuple, a quarter of a set, holds the names.
    """

    asked_at: float
    known: bool = False
    facts: dict[str, PodFacts] = field(default_factory=dict)
    labels: dict[str, tuple[Label, ...]] = field(default_factory=dict)
    by_label: dict[Label, tuple[str, ...] | set[str]] = field(default_factory=dict)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def replace_all(self, told: Snapshot) -> None:
        if told.first:
            self.known = False
            self.facts.clear()
            self.labels.clear()
            self.by_label.clear()
        for pod in told.items:
            self.put(pod)
        if told.last:
            self.known = True
            self.heard.set()

    def put(self, pod: Mapping[str, Any]) -> None:
        self.drop(pod)
        if not serving(pod):
            return
        facts = pod_facts(pod)
        self.facts[facts.name] = facts
        self.labels[facts.name] = tuple([self._put(label, facts.name) for label in _labels(pod)])

    def _put(self, label: Label, name: str) -> Label:
        """Enter a pod under a label; the label as other pods have it."""
        names = self.by_label.get(label, ())
        if names:
            other = next(iter(names))
            label = next((one for one in self.labels[other] if one == label), label)
        if isinstance(names, set):
            names.add(name)
        else:
            self.by_label[label] = (*names, name) if len(names) < _FEW else {*names, name}
        return label

    def drop(self, pod: Mapping[str, Any]) -> None:
        name = pod["metadata"]["name"]
        self.facts.pop(name, None)
        for label in self.labels.pop(name, ()):
            names = self.by_label[label]
            if isinstance(names, set):
                names.discard(name)
            else:
                names = self.by_label[label] = tuple(one for one in names if one != name)
            if not names:
                del self.by_label[label]

    def select(self, selector: Sequence[Label]) -> tuple[PodFacts, ...]:
        """By name, as `KubeCluster.pods`."""
        found = sorted((self.by_label.get(label, ()) for label in selector), key=len)
        names = [name for name in found[0] if all(name in others for others in found[1:])]
        return tuple(self.facts[name] for name in sorted(names))


class WatchedCluster(KubeCluster):
    """The same, with pods from a watch of each namespace that is asked about; a broken watch is passed by.

    A namespace nobody has asked about for two minutes is no longer watched, from its next change on. `ready_pods` reads
    afresh: much hangs on it. A watch whose connection has silently died is found out after a minute.
    """

    def __init__(self, kube: Kube, clock: Clock) -> None:
        super().__init__(kube)
        self._clock = clock
        self._watched: dict[str, _Pods] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._past = asyncio.Semaphore(PAST_A_BROKEN_WATCH)

    async def pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        """Pods that carry all labels, terminating and finished ones left out, by name."""
        if not selector:
            return ()
        pods = self._watched.get(namespace)
        if pods is None:
            pods = self._watched[namespace] = _Pods(self._clock.monotonic())
            self._tasks[namespace] = asyncio.create_task(self._follow(namespace, pods), name=f"pods:{namespace}")
        pods.asked_at = self._clock.monotonic()
        if not pods.heard.is_set():
            await pods.heard.wait()
        if pods.known:
            return pods.select(selector)
        async with self._past:
            return await super().pods(namespace, selector)

    def known_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...] | None:
        """The same from the watch alone; None while it has not told them, or is broken."""
        pods = self._watched.get(namespace)
        if not selector or pods is None or not pods.known:
            return super().known_pods(namespace, selector)
        pods.asked_at = self._clock.monotonic()
        return pods.select(selector)

    async def ready_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> int | None:
        """Ready pods, None when the API server does not say so within 300 ms or there is no selector to ask by."""
        return await _ready(super().pods, namespace, selector)

    async def close(self) -> None:
        """End the watches."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def watching(self) -> tuple[str, ...]:
        """Namespaces that are watched now."""
        return tuple(self._tasks)

    def look_round(self) -> None:
        """End the watches that nobody has asked for lately."""
        now = self._clock.monotonic()
        for namespace, pods in self._watched.items():
            if now - pods.asked_at >= UNWATCHED_AFTER_S:
                self._tasks[namespace].cancel()

    async def _follow(self, namespace: str, pods: _Pods) -> None:
        """Keep a namespace's pods for as long as it lasts."""
        try:
            await self._keep(namespace, pods)
        finally:
            self._watched.pop(namespace, None)
            self._tasks.pop(namespace, None)
            pods.known = False
            pods.heard.set()

    async def _keep(self, namespace: str, pods: _Pods) -> None:
        async with aclosing(self._kube.follow(path("", "v1", "pods", namespace))) as following:
            async for told in following:
                match told:
                    case Snapshot():
                        pods.replace_all(told)
                    case Change(kind="DELETED"):
                        pods.drop(told.object)
                    case Change():
                        pods.put(told.object)
                    case _:
                        pods.known = False
                        pods.heard.set()
                self.look_round()


Listing = Callable[[str, Sequence[tuple[str, str]]], Awaitable[tuple[PodFacts, ...]]]


async def _ready(pods: Listing, namespace: str, selector: Sequence[tuple[str, str]]) -> int | None:
    if not selector:
        return None
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            return sum(pod.ready for pod in await pods(namespace, selector))
    except (CanaryError, TimeoutError):
        return None


def _labels(pod: Mapping[str, Any]) -> Iterator[Label]:
    for key, value in (pod["metadata"].get("labels") or {}).items():
        yield sys.intern(str(key)), sys.intern(str(value))


def selector_text(selector: Sequence[tuple[str, str]]) -> str:
    """Labels as the API server reads them."""
    return ",".join(f"{key}={value}" for key, value in selector)


def serving(pod: Mapping[str, Any]) -> bool:
    """False for pods that are on their way out or have finished."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return False
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    """One pod as the gates see it. Images and restarts of the sidecar do not count as the release's images."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels = metadata.get("labels") or {}
    containers = [*(status.get("containerStatuses") or ())]
    return PodFacts(
        name=metadata["name"],
        namespace=sys.intern(metadata.get("namespace", "")),
        ready=any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        ),
        restarts=sum(int(container.get("restartCount") or 0) for container in containers),
        crash_looping=any(
            ((container.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff"
            for container in [*containers, *(status.get("initContainerStatuses") or ())]
        ),
        node=sys.intern(str(spec.get("nodeName") or "")),
        template=sys.intern(str(labels.get("pod-template-hash") or labels.get("controller-revision-hash") or "")),
        images=tuple(
            sorted(
                sys.intern(str(container["imageID"]))
                for container in containers
                if container.get("imageID") and container.get("name") != SIDECAR
            )
        ),
        workload=sys.intern(workload(pod)),
        sidecar=in_mesh(pod),
    )


def workload(pod: Mapping[str, Any]) -> str:
    """The workload a pod belongs to, as Istio names it: a ReplicaSet's Deployment is its name without the hash."""
    metadata = pod["metadata"]
    template = str((metadata.get("labels") or {}).get("pod-template-hash") or "")
    for owner in metadata.get("ownerReferences") or ():
        if not owner.get("controller"):
            continue
        name = str(owner.get("name") or "")
        if owner.get("kind") == "ReplicaSet" and template and name.endswith(f"-{template}"):
            return name.removesuffix(f"-{template}")
        return name
    return str(metadata["name"])


def in_mesh(pod: Mapping[str, Any]) -> bool:
    """True when the mesh sees the pod's traffic: a sidecar (native ones are init containers), or ambient."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if any(container.get("name") == SIDECAR for container in containers):
        return True
    return (pod["metadata"].get("annotations") or {}).get(_AMBIENT) == "enabled"


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    """One node: conditions with the moment they last changed (epoch seconds, 0.0 unknown), addresses."""
    metadata, status = node["metadata"], node.get("status") or {}
    return NodeFacts(
        name=metadata["name"],
        conditions=tuple(
            (
                str(condition.get("type") or ""),
                str(condition.get("status") or ""),
                epoch(str(condition.get("lastTransitionTime") or "")),
            )
            for condition in status.get("conditions") or ()
        ),
        addresses=tuple(str(address["address"]) for address in status.get("addresses") or () if address.get("address")),
    )


def epoch(text: str) -> float:
    """RFC 3339 to epoch seconds, 0.0 when it cannot be read."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
