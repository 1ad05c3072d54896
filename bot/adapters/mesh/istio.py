"""Istio: a VirtualService's two weights, written with tests and read back."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from bot.adapters.kubernetes import Change, Kube, Snapshot, Unprocessable, path
from bot.adapters.mesh import annotation, virtualservice, weighing
from bot.adapters.mesh.hosts import covers, fqdn, service_of
from bot.adapters.mesh.istio_api import GROUP, RESOURCE, RULES, IstioApi
from bot.adapters.mesh.seen import Seen
from bot.adapters.mesh.subsets import Subsets
from bot.adapters.mesh.survey import Surveyor
from bot.adapters.mesh.virtualservice import called
from bot.errors import Conflict, NotFound, Overwritten, Permanent, Transient
from bot.ports.mesh import Listed, Steered, Survey, Wanted
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, RouteRef, Target
from bot.rollout.route import RouteState

NAME = "istio"

RBAC_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (GROUP, RESOURCE, ("get", "list", "watch", "patch")),
    (GROUP, "destinationrules", ("get", "list", "watch")),
    ("security.istio.io", "peerauthentications", ("get", "list")),
    ("", "pods", ("get", "list", "watch")),
    ("", "services", ("get", "list")),
    ("flagger.app", "canaries", ("get", "list")),
    ("argoproj.io", "rollouts", ("get", "list")),
    ("argoproj.io", "applications", ("get", "list")),
    ("kustomize.toolkit.fluxcd.io", "kustomizations", ("get", "list")),
    ("helm.toolkit.fluxcd.io", "helmreleases", ("get", "list")),
)
"""(group, resource, verbs) that this router uses; the chart's Roles grant exactly these."""

RAISE_WITHIN_S = 1.0
"""All calls of a raise together: the holder keeps as much of its lease for one."""
_READ_TIMEOUT_S = 1.0
_LISTED_WITHIN_S = 1.0
_RAISE_TIMEOUT_S = 1.0
_ZERO_TIMEOUT_S = 5.0
"""Long enough for a slow admission webhook: a patch cut short by us would never be admitted."""
_ZERO_READ_TIMEOUT_S = 3.0
"""An API server, or a machine, so slow that a reading takes longer than a second must not keep a canary from 0."""
_ZERO_WITHIN_S = 10.0
_RAISE_ATTEMPTS = 3
_ZERO_ATTEMPTS = 6
_INEXACT_AFTER = 3


class IstioMesh:
    """Implements `Mesh` for VirtualServices in `namespaces` (all that may be read when empty)."""

    def __init__(self, kube: Kube, namespaces: Sequence[str] = (), *, field_manager: str = "canary-bot") -> None:
        self._kube = kube
        self._namespaces = tuple(namespaces)
        self._field_manager = field_manager
        self._api = IstioApi(kube, tuple(namespaces))
        self._surveyor = Surveyor(kube, self._api, field_manager)
        self._seen: dict[str, Seen] = {}
        self._subsets: dict[str, Subsets] = {}
        self._sending_to: dict[str, tuple[tuple[str, str], ...]] = {}
        self._listeners: list[asyncio.Queue[RouteRef]] = []
        self._watchers: list[asyncio.Task[None]] = []

    async def survey(self, wanted: Wanted, first_weight: int) -> Survey:
        """Resolve and examine a route for a start; see `Surveyor`."""
        return await self._surveyor.survey(wanted, first_weight)

    async def read(self, target: Target) -> RouteState:
        """The route now, from the watch while `changes` runs and is unbroken, else from the API server.

        NotFound: object or route are gone and the canary gets nothing by it; Permanent: it cannot be told which route
        it is although the canary still gets something; Transient: the API server is away.
        """
        state = await self._watched(target)
        return self._served(state or virtualservice.state(await self._get(target), target), target)

    async def write(self, target: Target, change: SetWeight) -> RouteState:
        """Apply one change and read it back.

        Every attempt reads afresh and checks what the change was decided upon, so nothing is retried blindly. Going to
        0 is computed anew each time; after some attempts it tests only the object and the destinations.
        """
        zero = change.direction is Direction.ZERO
        try:
            async with asyncio.timeout(_ZERO_WITHIN_S if zero else RAISE_WITHIN_S):
                written = await self._written(target, change, _ZERO_ATTEMPTS if zero else _RAISE_ATTEMPTS)
        except TimeoutError as error:
            raise Transient(f"{called(target.route)} could not be written in time") from error
        return self._served(written, target)

    def _served(self, state: RouteState, target: Target) -> RouteState:
        """A reading, with what the watch of DestinationRules knows of the two destinations."""
        namespace = target.route.namespace
        told = []
        for destination in (target.stable.destination, target.canary.destination):
            host = fqdn(destination.host, namespace)
            key, sending = (namespace, target.route.name), self._sending_to.get(host, ())
            if key not in sending:
                self._sending_to[host] = (*sending, key)
            within = {namespace, (service_of(host) or ("", namespace))[1]}
            known = [subsets for scope, subsets in self._subsets.items() if not scope or scope in within]
            losses = [subsets.lost(host, destination.subset, within) for subsets in known]
            told.append(losses[0] if losses and all(losses) else "")
        stable_lost = state.stable_lost or told[0]
        if (stable_lost, told[1]) == (state.stable_lost, state.canary_lost):
            return state
        return replace(state, stable_lost=stable_lost, canary_lost=told[1])

    async def resolved(self, target: Target) -> Target:
        """What stands behind the sides of a target that was read from a mark."""
        return await self._surveyor.resolved(target)

    async def steered(self, namespaces: Sequence[str]) -> tuple[Steered, ...]:
        """Every route whose mark is ours and not final, the target rebuilt from the mark."""
        found = []
        async for page in self._api.pages_of_virtual_services(namespaces):
            for manifest in page:
                mark, target = annotation.mark_of(manifest), annotation.target_of(manifest, NAME)
                if mark is None or target is None or annotation.is_final(mark.phase):
                    continue
                with suppress(Permanent):
                    found.append(Steered(target, mark, virtualservice.state(manifest, target)))
        return tuple(found)

    async def listed(self, namespaces: Sequence[str]) -> tuple[Listed, ...]:
        """Routes that could be steered: one for each VirtualService and service it sends to."""
        manifests = await self._api.virtual_services(namespaces)
        rules = await self._api.destination_rules(namespaces)
        found: set[Listed] = set()
        for manifest in manifests:
            namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
            for place in virtualservice.places(manifest):
                for one in place.destinations:
                    host = fqdn(one.destination.host, namespace)
                    service = (service_of(host) or (host, namespace))[0]
                    found.add(Listed(service, namespace, name, _subsets(rules, host)))
        return tuple(sorted(found, key=lambda one: (one.namespace, one.service, one.name)))

    async def changes(self, namespaces: Sequence[str]) -> AsyncGenerator[RouteRef, None]:
        """VirtualServices as they change, what was written here left out; reconnects by itself, never ends.

        All who listen share one watch of each namespace, which ends with the last of them.
        """
        told: asyncio.Queue[RouteRef] = asyncio.Queue()
        self._listeners.append(told)
        if not self._watchers:
            scopes = self._api.scopes(namespaces)
            self._watchers = [asyncio.create_task(self._watch(scope), name=f"routes:{scope}") for scope in scopes]
            self._watchers += [asyncio.create_task(self._watch_rules(scope), name=f"rules:{scope}") for scope in scopes]
        try:
            while True:
                yield await told.get()
        finally:
            self._listeners.remove(told)
            if not self._listeners:
                await self._end_watches()

    async def _end_watches(self) -> None:
        watchers, self._watchers = self._watchers, []
        self._seen.clear()
        self._subsets.clear()
        self._sending_to.clear()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch(self, scope: str) -> None:
        """Keep what a watch tells, and tell every listener what is new by it."""
        version = await self._api.version_when_there()
        seen = self._seen[scope] = Seen()
        try:
            async with aclosing(self._kube.follow(path(GROUP, version, RESOURCE, scope))) as following:
                async for told in following:
                    match told:
                        case Snapshot():
                            changed = seen.listed(told)
                        case Change():
                            changed = seen.changed(told)
                        case _:
                            seen.broken()
                            changed = ()
                    self._tell(changed)
        finally:
            seen.broken()

    async def _watch_rules(self, scope: str) -> None:
        """Keep which subsets there are, and tell of the routes that send to a host whose subsets have changed."""
        version = await self._api.version_when_there()
        subsets = self._subsets[scope] = Subsets()
        try:
            async with aclosing(self._kube.follow(path(GROUP, version, RULES, scope))) as following:
                async for told in following:
                    match told:
                        case Snapshot():
                            hosts = subsets.listed(told)
                        case Change():
                            hosts = subsets.changed(told)
                        case _:
                            subsets.broken()
                            hosts = set()
                    self._tell({key for host in hosts for key in self._routes_to(host)})
        finally:
            subsets.broken()

    def _routes_to(self, pattern: str) -> Iterable[tuple[str, str]]:
        if "*" not in pattern:
            return self._sending_to.get(pattern, ())
        return {key for host, keys in self._sending_to.items() if covers(pattern, host) for key in keys}

    def _tell(self, changed: Iterable[tuple[str, str]]) -> None:
        for namespace, name in changed:
            for listener in self._listeners:
                listener.put_nowait(RouteRef(NAME, namespace, name))

    async def _watched(self, target: Target) -> RouteState | None:
        seen = self._scope(target)
        if seen is None:
            return None
        await seen.settled(_LISTED_WITHIN_S)
        return seen.state(target)

    def _scope(self, target: Target) -> Seen | None:
        return self._seen.get(target.route.namespace) or self._seen.get("")

    async def _written(self, target: Target, change: SetWeight, attempts: int) -> RouteState:
        zero = change.direction is Direction.ZERO
        refusal: Exception = Conflict("not tried")
        for attempt in range(attempts):
            manifest = await self._get(target, _ZERO_READ_TIMEOUT_S if zero else _READ_TIMEOUT_S)
            if weighing.shows(manifest, target, change):
                return virtualservice.state(manifest, target)
            operations = weighing.patch(manifest, target, change, exact=attempt < _INEXACT_AFTER)
            try:
                patched = await self._kube.patch(
                    await self._api.path_of(target.route.namespace, target.route.name),
                    operations,
                    field_manager=self._field_manager,
                    timeout_s=_ZERO_TIMEOUT_S if zero else _RAISE_TIMEOUT_S,
                )
            except Unprocessable as error:
                refusal = error
                unmoved = _version(await self._get(target)) == _version(manifest)
                if unmoved and (change.direction is not Direction.ZERO or attempt >= _INEXACT_AFTER):
                    raise Permanent(f"the API server refuses the change of {called(target.route)}: {error}") from error
                continue
            except Conflict as error:
                refusal = error
                continue
            except Transient:
                state = await self._state_if_shown(target, change)
                if state is None:
                    raise
                return state
            manifest = await self._read_back(target, patched)
            if weighing.shows(manifest, target, change):
                return virtualservice.state(manifest, target)
            manager = virtualservice.last_writer(manifest, target.route.protocol)
            refusal = Overwritten(f"{called(target.route)} was overwritten at once by {manager or 'somebody'}")
            if change.direction is not Direction.ZERO:
                raise refusal
        if change.direction is Direction.ZERO:
            raise Transient(f"{called(target.route)} changes faster than it can be written: {refusal}") from refusal
        raise Conflict(f"{called(target.route)} changes while it is written: {refusal}") from refusal

    async def _state_if_shown(self, target: Target, change: SetWeight) -> RouteState | None:
        """The state when a write whose reply was lost did happen."""
        try:
            manifest = await self._get(target)
        except (Transient, NotFound):
            return None
        return virtualservice.state(manifest, target) if weighing.shows(manifest, target, change) else None

    async def _read_back(self, target: Target, patched: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._get(target)
        except Transient:
            return patched

    async def _get(self, target: Target, timeout_s: float = _READ_TIMEOUT_S) -> dict[str, Any]:
        namespace, name = target.route.namespace, target.route.name
        try:
            manifest = await self._api.virtual_service(namespace, name, timeout_s=timeout_s)
        except NotFound:
            if (seen := self._scope(target)) is not None:
                seen.missed(namespace, name)
            raise
        seen = self._scope(target)
        if seen is not None:
            seen.read(manifest)
        return manifest


def _subsets(rules: Sequence[dict[str, Any]], host: str) -> tuple[str, ...]:
    names = {
        str(subset.get("name"))
        for rule in rules
        if covers(fqdn(str(rule["spec"].get("host") or ""), rule["metadata"]["namespace"]), host)
        for subset in rule["spec"].get("subsets") or ()
    }
    return tuple(sorted(names))


def _version(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"].get("resourceVersion", ""))
