"""Pods and nodes from the API server."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bot.adapters.kubernetes import Kube, path
from bot.analysis.facts import NodeFacts, PodFacts
from bot.errors import CanaryError

READY_WITHIN_S = 0.3
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

    async def ready_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> int | None:
        """Ready pods, None when the API server does not say so within 300 ms or there is no selector to ask by."""
        if not selector:
            return None
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                return sum(pod.ready for pod in await self.pods(namespace, selector))
        except (CanaryError, TimeoutError):
            return None

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
        namespace=metadata.get("namespace", ""),
        ready=any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        ),
        restarts=sum(int(container.get("restartCount") or 0) for container in containers),
        crash_looping=any(
            ((container.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff"
            for container in [*containers, *(status.get("initContainerStatuses") or ())]
        ),
        node=str(spec.get("nodeName") or ""),
        template=str(labels.get("pod-template-hash") or labels.get("controller-revision-hash") or ""),
        images=tuple(
            sorted(
                str(container["imageID"])
                for container in containers
                if container.get("imageID") and container.get("name") != SIDECAR
            )
        ),
        workload=workload(pod),
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
    """One node: conditions with the moment they last changed (epoch seconds, 0.0 unknown), addresses, region, zone."""
    metadata, status = node["metadata"], node.get("status") or {}
    labels = metadata.get("labels") or {}
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
        region=str(labels.get("topology.kubernetes.io/region") or ""),
        zone=str(labels.get("topology.kubernetes.io/zone") or ""),
    )


def epoch(text: str) -> float:
    """RFC 3339 to epoch seconds, 0.0 when it cannot be read."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
