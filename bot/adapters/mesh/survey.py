"""Preflight at the API server: resolve what a person named, read what it stands on, judge each item."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bot.adapters.kubernetes import Forbidden, Kube
from bot.adapters.mesh import choosing, preflight, virtualservice, weighing
from bot.adapters.mesh.annotation import mark_of
from bot.adapters.mesh.choosing import Sides, Steerable, refused
from bot.adapters.mesh.hosts import fqdn, service_of
from bot.adapters.mesh.istio_api import GROUP, RESOURCE, IstioApi
from bot.adapters.mesh.neighbours import Neighbours
from bot.adapters.mesh.resolving import Pods, Resolver, Stop, subsets
from bot.analysis.facts import fingerprint
from bot.errors import CanaryError, Conflict, NotFound, Permanent
from bot.ports.mesh import Finding, Severity, Survey, Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, RouteRef, Side, Target
from bot.rollout.route import Mark


class Surveyor:
    """Examines a route for a start. Only an unreachable API server is an error; all else is a finding."""

    def __init__(self, kube: Kube, api: IstioApi, field_manager: str) -> None:
        self._kube = kube
        self._api = api
        self._field_manager = field_manager
        self._resolver = Resolver(kube, api)
        self._neighbours = Neighbours(kube, field_manager)

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

    async def resolved(self, target: Target) -> Target:
        """What stands behind the sides of a target that is known by its route and destinations alone.

        Raises Permanent when a side stands for nothing or the route cannot be told, NotFound when the object is gone,
        Transient when the API server is away.
        """
        manifests = await self._api.virtual_services()
        ref = target.route
        chosen = next((one for one in manifests if _names(one) == (ref.namespace, ref.name)), None)
        if chosen is None:
            raise NotFound(f"{virtualservice.called(ref)} is not there")
        namespace = ref.namespace
        hosts = {fqdn(side.destination.host, namespace) for side in (target.stable, target.canary)}
        try:
            place = virtualservice.locate(chosen, target, strict=False)
            rules, services = await asyncio.gather(
                self._resolver.rules(namespace, hosts), self._resolver.services(hosts)
            )
            stable, _ = await self._resolver.side(target.stable.destination, namespace, rules, services)
            canary, pods = await self._resolver.side(target.canary.destination, namespace, rules, services)
        except (Conflict, Stop) as error:
            raise Permanent(str(error)) from error
        root = next((one.root for one in choosing.steerables(chosen, manifests) if one.place == place), chosen)
        found = Steerable(chosen, place, root)
        ways = preflight.other_ways(found, manifests, target.host)
        return replace(
            target,
            stable=stable,
            canary=canary,
            fingerprint=fingerprint(pods.facts),
            other_ways=(*ways, *preflight.mirrored(found, manifests, target.host)),
        )

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
        rules, services = await asyncio.gather(self._resolver.rules(namespace, hosts), self._resolver.services(hosts))
        heaviest = max(found.place.destinations, key=lambda one: one.weight)
        stable_host = fqdn(heaviest.destination.host, namespace)
        sides = choosing.chosen_sides(found.place, namespace, sorted(subsets(rules, stable_host)), wanted)
        if isinstance(sides, Finding):
            raise Stop(sides)

        stable, stable_pods = await self._resolver.side(sides.stable.destination, namespace, rules, services)
        canary, canary_pods = await self._resolver.side(sides.canary, namespace, rules, services)
        ways = preflight.other_ways(found, manifests, stable_host)
        target = replace(
            _target(found, sides, wanted, stable, canary, namespace, stable_host, canary_pods),
            other_ways=(*ways, *preflight.mirrored(found, manifests, stable_host)),
        )
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
            preflight.unsteered(ways, stable_host),
        ]
        if found.root is not found.manifest and found.root["metadata"].get("uid") != target.route.uid:
            findings += [_delegation_shadowed(found)]
        patches: tuple[str, ...] = ()
        late = await asyncio.gather(
            self._neighbours.owner(found, target),
            self._neighbours.gitops(found, sides),
            self._permission(namespace),
            self._neighbours.mtls(namespace, stable_pods, canary_pods, target),
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

    async def _permission(self, namespace: str) -> Finding:
        if await self._kube.may(GROUP, RESOURCE, "patch", namespace):
            return Finding("permission", Severity.OK, f"the bot may patch VirtualServices in {namespace}")
        return refused(
            "permission",
            f"the bot may not patch VirtualServices in namespace {namespace}",
            f"add {namespace} to the chart's `namespaces`, or bind its Role there",
        )

    async def _dry_run(self, target: Target, sides: Sides, weight: int) -> tuple[Finding, tuple[str, ...]]:
        """Send the first raise with dryRun; return it and the way back as they would be sent."""
        mark = Mark("dry-run", 1, weight, "Progressing", service=target.service, inserted=sides.inserted)
        first = SetWeight(Direction.RAISE, weight, mark, from_percent=sides.canary_weight)
        where = await self._api.path_of(target.route.namespace, target.route.name)
        fresh = await self._kube.get(where)
        try:
            raised = weighing.patch(fresh, target, first)
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
            lowered = weighing.patch(admitted if mark_of(admitted) else fresh, target, back)
        except CanaryError:
            lowered = []
        return finding, (json.dumps(raised), json.dumps(lowered))


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


def _names(manifest: dict[str, Any]) -> tuple[str, str]:
    return str(manifest["metadata"]["namespace"]), str(manifest["metadata"]["name"])


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
