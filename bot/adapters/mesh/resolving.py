"""What stands behind a destination: the DestinationRule's labels, the Service's selector, the pods they find."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bot.adapters.cluster import pod_facts, selector_text, serving
from bot.adapters.kubernetes import Kube, path
from bot.adapters.mesh import choosing
from bot.adapters.mesh.annotation import label_of
from bot.adapters.mesh.choosing import refused
from bot.adapters.mesh.hosts import covers, fqdn, service_of
from bot.adapters.mesh.istio_api import IstioApi
from bot.analysis.facts import PodFacts
from bot.errors import NotFound
from bot.ports.mesh import Finding
from bot.rollout.model import Destination, Side


class Stop(Exception):
    """A finding after which nothing more can be resolved."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of one side as sent by the API server."""

    manifests: tuple[dict[str, Any], ...]

    @property
    def facts(self) -> tuple[PodFacts, ...]:
        """As the gates see them."""
        return tuple(pod_facts(pod) for pod in self.manifests)


class Resolver:
    """Reads what destinations stand for; raises Stop with the finding when one stands for nothing."""

    def __init__(self, kube: Kube, api: IstioApi) -> None:
        self._kube = kube
        self._api = api

    async def rules(self, namespace: str, hosts: set[str]) -> list[dict[str, Any]]:
        """DestinationRules that cover one of the hosts, from the route's namespace and the services'."""
        wanted = {namespace} | {found[1] for host in hosts if (found := service_of(host)) is not None}
        scopes = self._api.scopes()
        namespaces = sorted(one for one in wanted if "" in scopes or one in scopes)
        rules = await self._api.destination_rules(namespaces)
        return [
            rule
            for rule in rules
            if any(
                covers(fqdn(str(rule["spec"].get("host") or ""), rule["metadata"]["namespace"]), host) for host in hosts
            )
        ]

    async def services(self, hosts: set[str]) -> dict[str, dict[str, Any] | None]:
        """The Services of hosts, None for a host that is none."""
        names = sorted(hosts)
        found = await asyncio.gather(*(self._service(host) for host in names))
        return dict(zip(names, found, strict=True))

    async def _service(self, host: str) -> dict[str, Any] | None:
        spot = service_of(host)
        if spot is None:
            return None
        try:
            return await self._kube.get(path("", "v1", "services", spot[1], spot[0]))
        except NotFound:
            return None

    async def side(
        self,
        destination: Destination,
        namespace: str,
        rules: Sequence[dict[str, Any]],
        services: dict[str, dict[str, Any] | None],
    ) -> tuple[Side, Pods]:
        """A destination as a side of a rollout, and its pods that serve."""
        host = fqdn(destination.host, namespace)
        service = services[host] if host in services else await self._service(host)
        if service is None or not (service["spec"].get("selector") or {}):
            raise Stop(
                refused(
                    "destinations",
                    f"{host} is no Service with pods of its own in the cluster",
                    "write the full name of a Service that selects pods, <service>.<namespace>.svc.cluster.local",
                )
            )
        labels: dict[str, str] = dict(service["spec"]["selector"])
        if destination.subset:
            known = subsets(rules, host)
            if destination.subset not in known:
                raise Stop(
                    refused(
                        "destinations",
                        f"no DestinationRule for {host} has a subset {destination.subset}",
                        choosing.nearest(destination.subset, known) or "add it to the DestinationRule",
                    )
                )
            labels |= known[destination.subset]
        selector = tuple(sorted(labels.items()))
        pods = await self._kube.all(
            path("", "v1", "pods", str(service["metadata"]["namespace"])), selector=selector_text(selector)
        )
        alive = Pods(tuple(pod for pod in pods if serving(pod)))
        versions = {str((pod["metadata"].get("labels") or {}).get("version") or "") for pod in alive.manifests}
        return (
            Side(
                label=label_of(destination),
                destination=destination,
                workloads=tuple(sorted({fact.workload for fact in alive.facts})),
                version=versions.pop() if len(versions) == 1 else "",
                selector=selector,
            ),
            alive,
        )


def subsets(rules: Sequence[dict[str, Any]], host: str) -> dict[str, dict[str, str]]:
    """Subsets of a host and their labels, over all DestinationRules that cover it."""
    return {
        str(subset["name"]): dict(subset.get("labels") or {})
        for rule in rules
        if covers(fqdn(str(rule["spec"].get("host") or ""), rule["metadata"]["namespace"]), host)
        for subset in rule["spec"].get("subsets") or ()
    }
