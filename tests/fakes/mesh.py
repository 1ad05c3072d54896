"""A mesh in memory: real manifests, the router's own patches, failures on command."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import jsonpatch

from bot.adapters.mesh import annotation, virtualservice, weighing
from bot.errors import Conflict, NotFound, Overwritten, Permanent, Transient
from bot.ports.mesh import Finding, Listed, Severity, Steered, Survey, Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Destination, Direction, RouteRef, Side, Target
from bot.rollout.route import Mark, RouteState


class FakeMesh:
    """Implements `Mesh`. `add` makes a service, `fail` queues failures, `edit` is somebody else at work.

    `writes` lists every change that reached the object, in order; `patches` the JSON Patch of each.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.targets: dict[str, Target] = {}
        self.findings: dict[str, tuple[Finding, ...]] = {}
        self.writes: list[SetWeight] = []
        self.patches: list[list[dict[str, Any]]] = []
        self._failures: list[tuple[str, str, float]] = []
        self.lost: dict[str, dict[str, str]] = {}
        """By service: `stable_lost` and `canary_lost`, as the watch of DestinationRules would tell them."""
        self._meddlers: list[tuple[bool, Callable[[], None]]] = []
        self._version = 0
        self._watchers: list[asyncio.Queue[RouteRef]] = []

    def add(
        self,
        service: str = "payments",
        namespace: str = "shop",
        *,
        stable: str = "v1",
        canary: str = "v2",
        canary_weight: int = 0,
        missing: bool = False,
        manifest: dict[str, Any] | None = None,
        findings: Sequence[Finding] = (),
    ) -> Target:
        """Make a VirtualService with one route named `primary` and return what a start would steer.

        `missing` leaves the canary's destination out; it has to be inserted then.
        """
        host = f"{service}.{namespace}.svc.cluster.local"
        destinations: list[dict[str, Any]] = [{"destination": {"host": host, "subset": stable}}]
        if not missing:
            destinations[0]["weight"] = 100 - canary_weight
            destinations.append({"destination": {"host": host, "subset": canary}, "weight": canary_weight})
        made = copy.deepcopy(manifest) or {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": service, "namespace": namespace},
            "spec": {"hosts": [host], "http": [{"name": "primary", "retries": {"attempts": 2}, "route": destinations}]},
        }
        made["metadata"].update(uid=f"uid-{service}-{self._version + 1}")
        self._store(made, "kubectl")
        place = virtualservice.places(made)[0]
        target = Target(
            service=service,
            namespace=namespace,
            host=host,
            route=RouteRef(
                mesh="istio",
                namespace=namespace,
                name=made["metadata"]["name"],
                protocol=place.protocol,
                route=place.name,
                match=virtualservice.match_digest(place.route),
                uid=made["metadata"]["uid"],
            ),
            stable=_side(service, host, stable),
            canary=_side(service, host, canary),
            canary_inserted=missing,
            fingerprint="hash-1/images-1",
        )
        self.targets[service] = target
        self.findings[service] = tuple(findings)
        return target

    def fail(self, kind: str, *, on: str = "write", times: int = 1, delay_s: float = 0.0) -> None:
        """Queue failures: `transient`, `conflict`, `refused`, `gone`, or `lost` (written, but the reply is lost and
        so is the reading after it), or `late` (the same, found out by the reading). `on` is write, read or survey."""
        self._failures += [(on, kind, delay_s)] * times

    def recover(self) -> None:
        """Forget queued failures."""
        self._failures.clear()

    def edit(self, service: str, *, canary_weight: int, by: str = "kubectl-edit", mark: Mark | None = None) -> None:
        """Somebody else sets the weights (and, when given, a mark)."""
        target = self.targets[service]
        manifest = copy.deepcopy(self.manifest(service))
        place = virtualservice.locate(manifest, target)
        for entry in place.route["route"]:
            subset = entry["destination"].get("subset")
            if subset == target.canary.destination.subset:
                entry["weight"] = canary_weight
            elif subset == target.stable.destination.subset:
                entry["weight"] = target.total - canary_weight
        if mark is not None:
            manifest["metadata"].setdefault("annotations", {})[annotation.KEY] = annotation.written(mark, target, ())
        self._store(manifest, by)

    def change(self, service: str, edit: Callable[[dict[str, Any]], None], by: str = "kubectl-edit") -> None:
        """Somebody else edits the object; `edit` is given its manifest."""
        manifest = copy.deepcopy(self.manifest(service))
        edit(manifest)
        self._store(manifest, by)

    def make_again(self, service: str, *, canary_weight: int, by: str = "helm") -> None:
        """Somebody deletes the object and applies it anew: another uid, no mark."""
        target, manifest = self.targets[service], copy.deepcopy(self.manifest(service))
        self.delete(service)
        name, namespace = target.route.name, target.route.namespace
        manifest["metadata"] = {"name": name, "namespace": namespace, "uid": f"uid-{service}-{self._version + 1}"}
        stable, canary = virtualservice.locate(manifest, target).route["route"]
        stable["weight"], canary["weight"] = target.total - canary_weight, canary_weight
        self._store(manifest, by)

    def lose(self, service: str, **lost: str) -> None:
        """DestinationRules change: `stable_lost` or `canary_lost` ("" when it is back)."""
        self.lost.setdefault(service, {}).update(lost)
        self._tell(self.targets[service].route.namespace, self.targets[service].route.name)

    def meddle(self, do: Callable[[], None], *, after: bool = False) -> None:
        """Somebody acts in the very moment of the next write: before it, or between it and its reading back."""
        self._meddlers.append((after, do))

    def delete(self, service: str) -> None:
        """Somebody deletes the object."""
        target = self.targets[service]
        del self.objects[(target.route.namespace, target.route.name)]
        self._tell(target.route.namespace, target.route.name)

    def manifest(self, service: str) -> dict[str, Any]:
        """The object as it stands."""
        target = self.targets[service]
        try:
            return self.objects[(target.route.namespace, target.route.name)]
        except KeyError:
            raise NotFound(f"VirtualService {target.route.namespace}/{target.route.name} is not there") from None

    def weights(self, service: str) -> tuple[int, int | None]:
        """(stable, canary) as the object shows them."""
        state = virtualservice.state(self.manifest(service), self.targets[service])
        return state.stable_weight, state.canary_weight

    def mark(self, service: str) -> Mark | None:
        """Our mark on the object."""
        return annotation.mark_of(self.manifest(service))

    async def survey(self, wanted: Wanted, first_weight: int) -> Survey:
        self._maybe_fail("survey")
        target = self.targets.get(wanted.service)
        if target is None:
            text = f"there is no route for {wanted.service}"
            return Survey(None, None, (Finding("route", Severity.REFUSE, text, f"try one of {sorted(self.targets)}"),))
        state = await self.read(target)
        change = SetWeight(
            Direction.RAISE, first_weight, Mark("dry-run", 1, first_weight, "Progressing"), state.canary_weight or 0
        )
        try:
            patch = weighing.patch(self.manifest(wanted.service), target, change)
        except Conflict as conflict:
            refusal = Finding("route", Severity.REFUSE, str(conflict))
            return Survey(target, state, (*self.findings[wanted.service], refusal))
        found = (Finding("route", Severity.OK, "found"), *self.findings[wanted.service])
        return Survey(target, state, found, state.canary_weight or 0, (json.dumps(patch),))

    async def read(self, target: Target) -> RouteState:
        self._maybe_fail("read")
        return self._served(virtualservice.state(self._get(target), target), target)

    async def write(self, target: Target, change: SetWeight) -> RouteState:
        kind = self._maybe_fail("write")
        self._meddled(after=False)
        manifest = self._get(target)
        if not weighing.shows(manifest, target, change):
            patch = weighing.patch(manifest, target, change)
            self._store(jsonpatch.apply_patch(manifest, patch), "canary-bot")
            self.writes.append(change)
            self.patches.append(patch)
            if self._meddled(after=True) and not weighing.shows(self._get(target), target, change):
                raise Overwritten("the VirtualService was overwritten at once by somebody")
        if kind == "lost":
            raise Transient("the reply was lost")
        return self._served(virtualservice.state(self._get(target), target), target)

    async def resolved(self, target: Target) -> Target:
        self._maybe_fail("survey")
        self._get(target)
        known = self.targets[target.service]
        return replace(target, stable=known.stable, canary=known.canary, fingerprint=known.fingerprint)

    async def steered(self, namespaces: Sequence[str]) -> tuple[Steered, ...]:
        found = []
        for (namespace, _), manifest in sorted(self.objects.items()):
            mark, target = annotation.mark_of(manifest), annotation.target_of(manifest, "istio")
            if (not namespaces or namespace in namespaces) and mark and target and not annotation.is_final(mark.phase):
                found.append(Steered(target, mark, virtualservice.state(manifest, target)))
        return tuple(found)

    async def listed(self, namespaces: Sequence[str]) -> tuple[Listed, ...]:
        return tuple(
            Listed(service, target.namespace, target.route.name, (target.stable.label, target.canary.label))
            for service, target in sorted(self.targets.items())
            if not namespaces or target.namespace in namespaces
        )

    async def changes(self, namespaces: Sequence[str]) -> AsyncIterator[RouteRef]:
        queue: asyncio.Queue[RouteRef] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                ref = await queue.get()
                if not namespaces or ref.namespace in namespaces:
                    yield ref
        finally:
            self._watchers.remove(queue)

    def _maybe_fail(self, on: str) -> str:
        for index, (where, kind, delay_s) in enumerate(self._failures):
            if where != on:
                continue
            del self._failures[index]
            match kind:
                case "transient":
                    raise Transient("the API server is away", delay_s)
                case "conflict":
                    raise Conflict("the route is not what was expected")
                case "refused":
                    raise Permanent("the API server will not take it")
                case "gone":
                    raise NotFound("the VirtualService is not there")
                case "lost" | "late":
                    return kind
            raise ValueError(f"unknown failure {kind!r}")
        return ""

    def _meddled(self, *, after: bool) -> bool:
        """Let everybody act whose moment it is; False when there is nobody."""
        acting = [do for late, do in self._meddlers if late is after]
        self._meddlers = [one for one in self._meddlers if one[0] is not after]
        for do in acting:
            do()
        return bool(acting)

    def _served(self, state: RouteState, target: Target) -> RouteState:
        return replace(state, **self.lost.get(target.service, {}))  # type: ignore[arg-type]

    def _get(self, target: Target) -> dict[str, Any]:
        try:
            return self.objects[(target.route.namespace, target.route.name)]
        except KeyError:
            raise NotFound(f"VirtualService {target.route.namespace}/{target.route.name} is not there") from None

    def _store(self, manifest: dict[str, Any], manager: str) -> None:
        self._version += 1
        manifest = copy.deepcopy(manifest)
        metadata = manifest["metadata"]
        metadata["resourceVersion"] = str(self._version)
        key = (metadata["namespace"], metadata["name"])
        before = self.objects.get(key, {})
        if manifest.get("spec") != before.get("spec"):
            metadata["managedFields"] = [
                {
                    "manager": manager,
                    "operation": "Update",
                    "time": f"2026-01-01T00:{self._version // 60 % 60:02d}:{self._version % 60:02d}Z",
                    "fieldsV1": {"f:spec": {"f:http": {}, "f:tcp": {}, "f:tls": {}}},
                }
            ]
        self.objects[key] = manifest
        self._tell(*key)

    def _tell(self, namespace: str, name: str) -> None:
        for queue in self._watchers:
            queue.put_nowait(RouteRef("istio", namespace, name))


def _side(service: str, host: str, subset: str) -> Side:
    return Side(
        label=subset,
        destination=Destination(host=host, subset=subset),
        workloads=(f"{service}-{subset}",),
        version=subset,
        selector=(("app", service), ("version", subset)),
    )
