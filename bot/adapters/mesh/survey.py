"""Preflight at the API server: resolve what a person named, read what it stands on, judge each item."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bot.adapters.cluster import pod_facts, selector_text, serving
from bot.adapters.kubernetes import Forbidden, Kube, path
from bot.adapters.mesh import choosing, ownership, preflight, virtualservice
from bot.adapters.mesh.annotation import label_of, mark_of
from bot.adapters.mesh.choosing import Sides, Steerable, refused
from bot.adapters.mesh.hosts import covers, fqdn, service_of
from bot.adapters.mesh.istio_api import GROUP, RESOURCE, IstioApi
from bot.analysis.facts import fingerprint
from bot.errors import CanaryError, Conflict, NotFound, Permanent
from bot.ports.mesh import Finding, Severity, Survey, Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Destination, Direction, RouteRef, Side, Target
from bot.rollout.route import Mark

ROOT_NAMESPACE = "istio-system"
_FLUX_KUSTOMIZE_VERSIONS = ("v1", "v1beta2")
_FLUX_HELM_VERSIONS = ("v2", "v2beta2")
_SECURITY_VERSIONS = ("v1", "v1beta1")


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
    def facts(self) -> tuple[Any, ...]:
        """As the gates see them."""
        return tuple(pod_facts(pod) for pod in self.manifests)


class Surveyor:
    """Examines a route for a start. Only an unreachable API server is an error; all else is a finding."""

    def __init__(self, kube: Kube, api: IstioApi, field_manager: str) -> None:
        self._kube = kube
        self._api = api
        self._field_manager = field_manager

    async def survey(self, wanted: Wanted, first_weight: int) -> Survey:
        """Every preflight item about route, pods and other writers. Raises Transient when the API server is away."""
        try:
            manifests = await self._manifests(wanted)
            found = self._found(manifests, wanted)
            return await self._examined(found, manifests, wanted, first_weight)
        except Stop as stop:
            return Survey(None, None, (stop.finding,))
        except Forbidden as error:
            finding = refused("permission", f"the API server forbids to look: {error}", "bind the chart's Role there")
            return Survey(None, None, (finding,))

    async def _manifests(self, wanted: Wanted) -> list[dict[str, Any]]:
        scopes = self._api.scopes()
        if wanted.namespace and "" not in scopes and wanted.namespace not in scopes:
            known = ", ".join(scopes)
            text = f"namespace {wanted.namespace} is not one that the bot may steer in ({known})"
            raise Stop(refused("permission", text, "add it to the bot's namespaces"))
        try:
            return await self._api.virtual_services()
        except Forbidden:
            raise
        except Permanent as error:
            raise Stop(refused("route", str(error), "name the service's mesh in the catalog")) from error

    def _found(self, manifests: Sequence[dict[str, Any]], wanted: Wanted) -> Steerable:
        chosen = choosing.chosen_object(manifests, wanted)
        if isinstance(chosen, Finding):
            raise Stop(chosen)
        route = choosing.chosen_route(choosing.steerables(chosen, manifests), wanted)
        if isinstance(route, Finding):
            raise Stop(route)
        return route

    async def _examined(
        self, found: Steerable, manifests: Sequence[dict[str, Any]], wanted: Wanted, first_weight: int
    ) -> Survey:
        namespace = str(found.manifest["metadata"]["namespace"])
        hosts = {fqdn(one.destination.host, namespace) for one in found.place.destinations}
        rules, services = await asyncio.gather(self._rules(namespace, hosts), self._services(hosts))
        heaviest = max(found.place.destinations, key=lambda one: one.weight)
        stable_host = fqdn(heaviest.destination.host, namespace)
        sides = choosing.chosen_sides(found.place, namespace, sorted(_subsets(rules, stable_host)), wanted)
        if isinstance(sides, Finding):
            raise Stop(sides)

        stable, stable_pods = await self._side(sides.stable.destination, namespace, rules, services)
        canary, canary_pods = await self._side(sides.canary, namespace, rules, services)
        target = _target(found, sides, wanted, stable, canary, namespace, stable_host, canary_pods)
        facts = (stable_pods.facts, canary_pods.facts)
        first = max(first_weight, min(100, sides.canary_weight + 1))
        findings = [
            Finding("route", Severity.OK, _described(found, target)),
            preflight.unmarked(found.manifest),
            *self._weights(target, sides, found),
            preflight.disjoint(stable, canary, *facts),
            preflight.ready(stable, canary, *facts),
            preflight.unshadowed(found),
            preflight.alone_on_host(found, manifests),
            preflight.unsteered(found, manifests, stable_host),
        ]
        if found.root is not found.manifest and found.root["metadata"].get("uid") != target.route.uid:
            findings += [_delegation_shadowed(found)]
        patches: tuple[str, ...] = ()
        late = await asyncio.gather(
            self._owner(found, target),
            self._gitops(found, sides),
            self._permission(namespace),
            self._mtls(namespace, stable_pods, canary_pods, target),
        )
        findings += [one for one in late if one is not None]
        findings.append(preflight.injected([*facts[0], *facts[1]]))
        if all(one.severity is not Severity.REFUSE for one in findings):
            dry_run, patches = await self._dry_run(target, sides, first)
            findings.append(dry_run)
        return Survey(
            target,
            virtualservice.state(found.manifest, target),
            tuple(findings),
            start_weight=sides.canary_weight,
            patches=patches,
        )

    def _weights(self, target: Target, sides: Sides, found: Steerable) -> list[Finding]:
        if sides.canary_weight:
            split = f"{target.stable.label} has {sides.stable.weight}, {target.canary.label} {sides.canary_weight}"
            text = f"adopting a split route: {split}"
        elif sides.inserted:
            text = f"{target.stable.label} has all the weight; {target.canary.label} will be put in beside it"
        else:
            text = f"{target.stable.label} has all the weight"
        findings = [Finding("weights", Severity.OK, text)]
        entry = found.place.route["route"][sides.stable.index]
        if sides.inserted and set(entry) - {"destination", "weight"}:
            extra = ", ".join(sorted(set(entry) - {"destination", "weight"}))
            findings.append(
                Finding(
                    "destinations",
                    Severity.WARN,
                    f"stable's destination has {extra} of its own, which the canary's will not have",
                    "write the canary's destination into the route with weight 0",
                )
            )
        return findings

    async def _rules(self, namespace: str, hosts: set[str]) -> list[dict[str, Any]]:
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

    async def _services(self, hosts: set[str]) -> dict[str, dict[str, Any] | None]:
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

    async def _side(
        self,
        destination: Destination,
        namespace: str,
        rules: Sequence[dict[str, Any]],
        services: dict[str, dict[str, Any] | None],
    ) -> tuple[Side, Pods]:
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
            subsets = _subsets(rules, host)
            if destination.subset not in subsets:
                raise Stop(
                    refused(
                        "destinations",
                        f"no DestinationRule for {host} has a subset {destination.subset}",
                        choosing.nearest(destination.subset, subsets) or "add it to the DestinationRule",
                    )
                )
            labels |= subsets[destination.subset]
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

    async def _owner(self, found: Steerable, target: Target) -> Finding:
        namespace = target.route.namespace
        unknown: list[str] = []
        canaries = await self._listed("flagger.app", ("v1beta1",), "canaries", namespace, unknown, "Flagger Canaries")
        rollouts = await self._listed("argoproj.io", ("v1alpha1",), "rollouts", namespace, unknown, "Argo Rollouts")
        workloads = (*target.stable.workloads, *target.canary.workloads)
        return ownership.owned_by_controller(found.manifest, target.service, workloads, canaries, rollouts, unknown)

    async def _listed(
        self, group: str, versions: Sequence[str], resource: str, namespace: str, unknown: list[str], called: str
    ) -> list[dict[str, Any]]:
        for version in versions:
            try:
                return await self._kube.all(path(group, version, resource, namespace))
            except NotFound:
                continue
            except Forbidden:
                unknown.append(called)
                return []
        return []

    async def _gitops(self, found: Steerable, sides: Sides) -> Finding | None:
        manifest = found.manifest
        labels = manifest["metadata"].get("labels") or {}
        kustomization = await self._flux(labels, ownership.FLUX_KUSTOMIZE, _FLUX_KUSTOMIZE_VERSIONS, "kustomizations")
        release = await self._flux(labels, ownership.FLUX_HELM, _FLUX_HELM_VERSIONS, "helmreleases")
        flux = ownership.reverted_by_flux(manifest, kustomization, release)
        if flux is not None and flux.severity is Severity.REFUSE:
            return flux
        belongs = ownership.argo_application(manifest)
        if belongs is None:
            return flux or Finding("gitops", Severity.OK, "no GitOps owner is named on the object")
        namespace, name, certain = belongs
        application = await self._application(namespace, name)
        if application is None and not certain:
            return flux or Finding("gitops", Severity.OK, "no GitOps owner is named on the object")
        return ownership.reverted_by_argo(
            manifest,
            application,
            name,
            protocol=found.place.protocol,
            index=found.place.index,
            inserted=sides.inserted,
            field_manager=self._field_manager,
        )

    async def _application(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Argo CD application of that name, None when there is none that may be read."""
        for where in dict.fromkeys((namespace or "argocd", "")):
            try:
                applications = await self._kube.all(path("argoproj.io", "v1alpha1", "applications", where))
            except (NotFound, Forbidden):
                continue
            for application in applications:
                if application["metadata"]["name"] == name:
                    return application
        return None

    async def _flux(
        self, labels: dict[str, str], prefix: str, versions: Sequence[str], resource: str
    ) -> dict[str, Any] | None:
        name, namespace = labels.get(f"{prefix}/name"), labels.get(f"{prefix}/namespace")
        if not name or not namespace:
            return None
        for version in versions:
            try:
                return await self._kube.get(path(prefix, version, resource, namespace, name))
            except (NotFound, Forbidden):
                continue
        return None

    async def _permission(self, namespace: str) -> Finding:
        if await self._kube.may(GROUP, RESOURCE, "patch", namespace):
            return Finding("permission", Severity.OK, f"the bot may patch VirtualServices in {namespace}")
        return refused(
            "permission",
            f"the bot may not patch VirtualServices in namespace {namespace}",
            f"add {namespace} to the chart's `namespaces`, or bind its Role there",
        )

    async def _mtls(self, namespace: str, stable: Pods, canary: Pods, target: Target) -> Finding:
        policies: list[dict[str, Any]] = []
        known = True
        for where in dict.fromkeys((namespace, ROOT_NAMESPACE)):
            unknown: list[str] = []
            policies += await self._listed(
                "security.istio.io", _SECURITY_VERSIONS, "peerauthentications", where, unknown, where
            )
            if unknown and where == ROOT_NAMESPACE:
                known = False
            elif unknown:
                return Finding(
                    "mtls",
                    Severity.WARN,
                    f"could not look at the PeerAuthentications of {namespace}",
                    "give the bot's role `list` on them",
                )
        sides = [
            (side.label, dict(pods.manifests[0]["metadata"].get("labels") or {}), _ports(pods.manifests[0]))
            for side, pods in ((target.stable, stable), (target.canary, canary))
            if pods.manifests
        ]
        return preflight.strict_mtls(policies, namespace, sides, root_namespace=ROOT_NAMESPACE, root_known=known)

    async def _dry_run(self, target: Target, sides: Sides, weight: int) -> tuple[Finding, tuple[str, ...]]:
        """Send the first raise with dryRun; return it and the way back as they would be sent."""
        mark = Mark("dry-run", 1, weight, "Progressing", service=target.service, inserted=sides.inserted)
        first = SetWeight(Direction.RAISE, weight, mark, from_percent=sides.canary_weight)
        where = await self._api.path_of(target.route.namespace, target.route.name)
        fresh = await self._kube.get(where)
        try:
            raised = virtualservice.patch(fresh, target, first)
            admitted = await self._kube.patch(where, raised, field_manager=self._field_manager, dry_run=True)
        except (Permanent, Conflict) as error:
            return refused("dry-run", f"the API server does not admit the first change: {error}"), ()
        finding = Finding("dry-run", Severity.OK, "the API server admits the first change")
        back = SetWeight(
            Direction.ZERO,
            0,
            replace(mark, revision=2, weight_percent=0, phase="RolledBack"),
            weight,
            remove_canary=sides.inserted,
        )
        try:
            lowered = virtualservice.patch(admitted if mark_of(admitted) else fresh, target, back)
        except CanaryError:
            lowered = []
        return finding, (json.dumps(raised), json.dumps(lowered))


def _subsets(rules: Sequence[dict[str, Any]], host: str) -> dict[str, dict[str, str]]:
    """Subsets of a host and their labels, over all DestinationRules that cover it."""
    return {
        str(subset["name"]): dict(subset.get("labels") or {})
        for rule in rules
        if covers(fqdn(str(rule["spec"].get("host") or ""), rule["metadata"]["namespace"]), host)
        for subset in rule["spec"].get("subsets") or ()
    }


def _target(
    found: Steerable,
    sides: Sides,
    wanted: Wanted,
    stable: Side,
    canary: Side,
    namespace: str,
    host: str,
    canary_pods: Pods,
) -> Target:
    metadata = found.manifest["metadata"]
    spot = service_of(host)
    return Target(
        service=wanted.service,
        namespace=spot[1] if spot else namespace,
        host=host,
        route=RouteRef(
            mesh="istio",
            namespace=namespace,
            name=metadata["name"],
            protocol=found.place.protocol,
            route=found.place.name,
            match=virtualservice.match_digest(found.place.route),
            uid=str(metadata["uid"]),
        ),
        stable=stable,
        canary=canary,
        canary_inserted=sides.inserted,
        total=100,
        fingerprint=fingerprint(canary_pods.facts),
    )


def _described(found: Steerable, target: Target) -> str:
    through = ""
    if found.root is not found.manifest:
        through = f", delegated to by {found.root['metadata']['name']}"
    return (
        f"{found.place.protocol} route {found.label} of VirtualService {target.route.namespace}/{target.route.name}"
        f"{through}: {target.stable.destination.text} and {target.canary.destination.text}"
    )


def _delegation_shadowed(found: Steerable) -> Finding:
    """The root's route that delegates to the steered object is reached."""
    spec = found.root.get("spec") or {}
    metadata = found.manifest["metadata"]
    for index, route in enumerate(spec.get("http") or ()):
        delegate = route.get("delegate") or {}
        where = delegate.get("namespace") or found.root["metadata"]["namespace"]
        if (where, delegate.get("name")) == (metadata["namespace"], metadata["name"]):
            place = virtualservice.Place("http", index, route, ())
            finding = preflight.unshadowed(Steerable(found.root, place, found.root))
            return replace(finding, text=f"in {found.root['metadata']['name']}: {finding.text}")
    return Finding("shadowing", Severity.OK, "the root delegates to it")


def _ports(pod: dict[str, Any]) -> tuple[int, ...]:
    return tuple(
        int(port["containerPort"])
        for container in pod["spec"].get("containers") or ()
        if container.get("name") != "istio-proxy"
        for port in container.get("ports") or ()
        if port.get("containerPort")
    )
