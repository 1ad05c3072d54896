"""A VirtualService as it is read: its routes, their destinations and weights, where the steered route stands."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.adapters.mesh import annotation
from bot.adapters.mesh.hosts import fqdn
from bot.errors import Conflict
from bot.ports.mesh import Misplaced, RouteMissing
from bot.rollout.model import Destination, RouteRef, Target
from bot.rollout.route import RouteState

PROTOCOLS = ("http", "tls", "tcp")
Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Weighed:
    """One destination of a route: where it stands in the list, its weight, and whether that weight is written out."""

    index: int
    destination: Destination
    weight: int
    explicit: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A route found in a manifest: which list, which index, and its destinations in order."""

    protocol: str
    index: int
    route: Manifest
    destinations: tuple[Weighed, ...]

    @property
    def pointer(self) -> str:
        """JSON pointer of the route."""
        return f"/spec/{self.protocol}/{self.index}"

    @property
    def name(self) -> str:
        """The route's name, "" when it has none."""
        return str(self.route.get("name") or "")


def places(manifest: Manifest) -> tuple[Place, ...]:
    """Every route that sends traffic to destinations, in order, http first."""
    spec = manifest.get("spec") or {}
    return tuple(
        Place(protocol, index, route, weighed(route))
        for protocol in PROTOCOLS
        for index, route in enumerate(spec.get(protocol) or ())
        if route.get("route")
    )


def weighed(route: Manifest) -> tuple[Weighed, ...]:
    """The destinations of a route with the weights they have in effect: a lone destination has all of it."""
    entries = route.get("route") or ()
    lone = len(entries) == 1
    return tuple(
        Weighed(
            index=index,
            destination=destination_of(entry),
            weight=int(entry.get("weight") or (100 if lone else 0)),
            explicit="weight" in entry,
        )
        for index, entry in enumerate(entries)
    )


def destination_of(entry: Manifest) -> Destination:
    """The destination of one entry of a route, host as it is spelled there."""
    destination = entry.get("destination") or {}
    return Destination(
        host=str(destination.get("host") or ""),
        subset=str(destination.get("subset") or ""),
        port=int((destination.get("port") or {}).get("number") or 0),
    )


def match_digest(route: Manifest) -> str:
    """A short digest of a route's match, "" when it has none."""
    match = route.get("match")
    if not match:
        return ""
    return hashlib.sha256(json.dumps(match, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def same(one: Destination, other: Destination, namespace: str) -> bool:
    """True when two destinations are the same place, short host names read in `namespace`."""
    return (fqdn(one.host, namespace), one.subset, one.port) == (fqdn(other.host, namespace), other.subset, other.port)


def locate(manifest: Manifest, target: Target, *, strict: bool = True) -> Place:
    """The target's route: by its name, or by its match and destinations; raises Conflict when it is not there.

    Not `strict` (going to 0): a match that was edited does not hide a route that is otherwise plain to find.
    """
    ref = target.route
    here = [place for place in places(manifest) if place.protocol == ref.protocol]
    if ref.route:
        named = [place for place in here if place.name == ref.route]
        if len(named) != 1:
            found = "no" if not named else f"{len(named)}"
            raise Conflict(f"{called(ref)} has {found} {ref.protocol} route named {ref.route} now")
        if strict and match_digest(named[0].route) != ref.match:
            raise Conflict(f"the match of route {ref.route} in {called(ref)} is not what it was")
        return named[0]
    matching = [place for place in here if match_digest(place.route) == ref.match and sides_in(place, target)[0]]
    if len(matching) == 1:
        return matching[0]
    if not strict:
        holding = [place for place in here if all(sides_in(place, target))]
        if len(holding) == 1:
            return holding[0]
    raise Conflict(f"{called(ref)} has {len(matching) or 'no'} {ref.protocol} route like the one we steer now")


def state(manifest: Manifest, target: Target) -> RouteState:
    """What the route shows, also when the object was made again (the uid tells) or the route's match was edited.

    Raises RouteMissing when the route is gone and nothing in the object sends to the canary, Misplaced when the route
    cannot be told any more although something still does.
    """
    try:
        place = locate(manifest, target, strict=False)
        stable, canary = sides_in(place, target)
    except Conflict as error:
        still = [
            (one, side)
            for one in places(manifest)
            for side in one.destinations
            if side.weight and same(side.destination, target.canary.destination, target.route.namespace)
        ]
        if not still:
            raise RouteMissing(f"{error}, and nothing in it sends to {target.canary.label}") from error
        one, side = still[0]
        name = one.name or f"{one.protocol}[{one.index}]"
        raise Misplaced(f"{error}, but its route {name} sends {side.weight}% to {target.canary.label}") from error
    gone = "" if stable else f"{target.stable.label} is no longer a destination of the route"
    changed = match_digest(place.route) != target.route.match
    return RouteState(
        uid=_uid(manifest, target),
        resource_version=str(manifest["metadata"].get("resourceVersion", "")),
        stable_weight=stable.weight if stable else 0,
        canary_weight=canary.weight if canary else None,
        others=tuple(
            (other.destination.text, other.weight)
            for other in place.destinations
            if other not in (stable, canary) and other.weight
        ),
        mark=annotation.mark_of(manifest),
        last_manager=last_writer(manifest, place.protocol),
        changed=f"the match of {called_route(target)} is not what it was" if changed else "",
        stable_lost=gone,
    )


def _uid(manifest: Manifest, target: Target) -> str:
    """The object's, in the target's own text when it is the same: there are thousands of both."""
    uid = str(manifest["metadata"].get("uid", ""))
    return target.route.uid if uid == target.route.uid else uid


def last_writer(manifest: Manifest, field: str) -> str:
    """The field manager of the last write to a field of the spec: that of the routes, http, tcp or tls, is a list which
    managedFields treat as one. "" when nobody is known."""
    owners = [
        (str(entry.get("time") or ""), str(entry.get("manager") or ""))
        for entry in manifest.get("metadata", {}).get("managedFields") or ()
        if not entry.get("subresource") and f"f:{field}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return sys.intern(max(owners, default=("", ""))[1])


def sides_in(place: Place, target: Target) -> tuple[Weighed | None, Weighed | None]:
    """The target's stable and canary in a route; raises Conflict when one is there twice."""
    return _only(place, target.stable.destination, target), _only(place, target.canary.destination, target)


def _only(place: Place, destination: Destination, target: Target) -> Weighed | None:
    hits = [one for one in place.destinations if same(one.destination, destination, target.route.namespace)]
    if len(hits) > 1:
        raise Conflict(f"{destination.text} is in the route {len(hits)} times")
    return hits[0] if hits else None


def check_object(manifest: Manifest, target: Target) -> None:
    """Raise Conflict when the object is not the one the target was found in."""
    uid = str(manifest["metadata"].get("uid", ""))
    if target.route.uid and uid != target.route.uid:
        raise Conflict(f"{called(target.route)} was deleted and made again: it is another object now")


def called_route(target: Target) -> str:
    """How texts name the route inside the object."""
    return f"route {target.route.route}" if target.route.route else f"the {target.route.protocol} route"


def called(ref: RouteRef) -> str:
    """How texts name the object."""
    return f"VirtualService {ref.namespace}/{ref.name}"
