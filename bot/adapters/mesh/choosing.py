"""Which object, route and destinations a person means; a finding that says the way on where that is not plain."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.adapters.mesh.annotation import label_of
from bot.adapters.mesh.hosts import fqdn, service_of
from bot.adapters.mesh.virtualservice import Manifest, Place, Weighed, places
from bot.ports.mesh import Finding, Severity, Wanted
from bot.rollout.model import Destination


@dataclass(frozen=True, slots=True)
class Steerable:
    """A route of a service: the object that holds it, the route, and the object whose hosts lead to it (its root)."""

    manifest: Manifest
    place: Place
    root: Manifest

    @property
    def label(self) -> str:
        """How people name the route."""
        return self.place.name or f"{self.place.protocol}[{self.place.index}]"


@dataclass(frozen=True, slots=True)
class Sides:
    """The two destinations: stable as it stands in the route, the canary, its weight now, whether it is missing."""

    stable: Weighed
    canary: Destination
    canary_weight: int
    inserted: bool


def refused(item: str, text: str, way_on: str = "") -> Finding:
    """A finding that stops the start."""
    return Finding(item, Severity.REFUSE, text, way_on)


def nearest(name: str, names: Iterable[str]) -> str:
    """`Did you mean ...?` with the nearest names, else all of them, else nothing."""
    known = sorted(set(names))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {_either(close)}?"
    return f"there is {_listed(known)}" if known else ""


def chosen_object(manifests: Sequence[Manifest], wanted: Wanted) -> Manifest | Finding:
    """The VirtualService a person means: by its name, else by the service it is for."""
    here = [one for one in manifests if not wanted.namespace or _namespace(one) == wanted.namespace]
    name = wanted.name or wanted.service
    hits = [one for one in here if one["metadata"]["name"] == name]
    if not hits and not wanted.name:
        hits = [one for one in here if wanted.service in _services(one)]
    if not hits:
        where = f" in namespace {wanted.namespace}" if wanted.namespace else ""
        names = {one["metadata"]["name"] for one in here} | {name for one in here for name in _services(one)}
        return refused("route", f"there is no VirtualService for {name}{where}", nearest(name, names))
    if len(hits) > 1:
        spots = sorted(f"{_namespace(one)}/{one['metadata']['name']}" for one in hits)
        several_namespaces = len({_namespace(one) for one in hits}) > 1
        way_on = "say which with `in <namespace>`" if several_namespaces else "name one of them in the catalog"
        return refused("route", f"{name} is served by several VirtualServices: {_listed(spots)}", way_on)
    return hits[0]


def steerables(chosen: Manifest, manifests: Sequence[Manifest]) -> tuple[Steerable, ...]:
    """Every route behind an object: its own, and those of the VirtualServices it delegates to."""
    roots = [one for one in manifests if _delegates_to(one, chosen)]
    root = roots[0] if roots and not (chosen.get("spec") or {}).get("hosts") else chosen
    own = [Steerable(chosen, place, root) for place in places(chosen)]
    delegated = [
        Steerable(one, place, chosen)
        for one in manifests
        if one is not chosen and _delegates_to(chosen, one)
        for place in places(one)
    ]
    return (*own, *delegated)


def chosen_route(candidates: Sequence[Steerable], wanted: Wanted) -> Steerable | Finding:
    """The route a person means: by its name, else the only one that fits the service and its canary."""
    if not candidates:
        return refused("route", "the VirtualService sends to no destination", "give it a route with a destination")
    here = [one for one in candidates if not wanted.protocol or one.place.protocol == wanted.protocol]
    if wanted.route:
        hits = [one for one in here if one.place.name == wanted.route]
        if len(hits) == 1:
            return hits[0]
        if hits:
            return refused("route", f"{len(hits)} routes are named {wanted.route}", "give each route a name of its own")
        names = [one.place.name for one in here if one.place.name]
        return refused("route", f"there is no route named {wanted.route}", nearest(wanted.route, names))
    for fits in (_of_service, _holds_both, _catches_all):
        narrower = [one for one in here if fits(one, wanted)]
        here = narrower or here
        if len(here) == 1:
            return here[0]
    labels = _listed(sorted(one.label for one in here))
    return refused(
        "route", f"several routes could be meant: {labels}", "name one in the catalog, as `route: {http: <name>}`"
    )


def chosen_sides(place: Place, namespace: str, subsets: Sequence[str], wanted: Wanted) -> Sides | Finding:
    """Stable and canary, told apart by the weights. `subsets` are those DestinationRules know for stable's host."""
    if len({(fqdn(one.destination.host, namespace), one.destination.subset) for one in place.destinations}) != len(
        place.destinations
    ):
        return refused("destinations", "a destination is in the route twice", "merge the two entries")
    heavy = [one for one in place.destinations if one.weight]
    total = sum(one.weight for one in heavy)
    if total != 100:
        return refused("weights", f"the weights of the route sum to {total}, not to 100", "make them sum to 100")
    if len(heavy) > 2:
        return refused(
            "destinations",
            f"a third destination has weight: {_weights(heavy)}",
            "a canary is weighed against one stable: give the others weight 0 or a route of their own",
        )
    if len(heavy) == 2:
        return _adopted(heavy, wanted)
    return _fresh(place, heavy[0], subsets, wanted)


def _adopted(heavy: Sequence[Weighed], wanted: Wanted) -> Sides | Finding:
    smaller, larger = sorted(heavy, key=lambda one: one.weight)
    if smaller.weight == larger.weight and wanted.canary:
        smaller, larger = sorted(heavy, key=lambda one: label_of(one.destination) != wanted.canary)
    if not wanted.adopt:
        return refused(
            "weights",
            f"the route is already split: {_weights(heavy)}",
            f"`--adopt` takes {label_of(larger.destination)} as stable and goes on from the step above "
            f"{smaller.weight}%; or set the weights to 100 and 0 first",
        )
    if smaller.weight == larger.weight and label_of(smaller.destination) != wanted.canary:
        return refused(
            "weights", f"neither side is larger: {_weights(heavy)}", "name the canary: `start <service> <it>`"
        )
    if wanted.canary and wanted.canary not in _names(smaller.destination):
        return refused(
            "weights",
            f"{wanted.canary} is not the smaller side: {_weights(heavy)}",
            f"adopting takes the smaller side as canary: name {label_of(smaller.destination)}, or change the weights",
        )
    return Sides(larger, smaller.destination, smaller.weight, inserted=False)


def _fresh(place: Place, stable: Weighed, subsets: Sequence[str], wanted: Wanted) -> Sides | Finding:
    label = label_of(stable.destination)
    if wanted.canary and wanted.canary in _names(stable.destination):
        return refused("weights", f"{label} already has all the traffic", "name the subset that shall get it")
    others = {label_of(one.destination): one.destination for one in place.destinations if one is not stable}
    missing = {
        subset: Destination(stable.destination.host, subset, stable.destination.port)
        for subset in subsets
        if subset != stable.destination.subset and all(subset != one.destination.subset for one in place.destinations)
    }
    if wanted.canary:
        for one in others.values():
            if wanted.canary in _names(one):
                return Sides(stable, one, 0, inserted=False)
        if wanted.canary in missing:
            return Sides(stable, missing[wanted.canary], 0, inserted=True)
        return refused(
            "destinations",
            f"{wanted.canary} is no subset of {wanted.service}",
            nearest(wanted.canary, [*others, *missing]),
        )
    both = {**missing, **others}
    names = [name for name in both if not wanted.subsets or name in wanted.subsets]
    if len(names) == 1:
        return Sides(stable, both[names[0]], 0, inserted=names[0] in missing)
    if not names:
        return refused(
            "destinations",
            f"{label} is the only version of {wanted.service}",
            "add a subset for the new version to the DestinationRule",
        )
    return refused(
        "destinations", f"{_listed(sorted(names))} could be the canary", f"say which: `start {wanted.service} <one>`"
    )


def _of_service(one: Steerable, wanted: Wanted) -> bool:
    namespace = _namespace(one.manifest)
    for weighed in one.place.destinations:
        host = fqdn(weighed.destination.host, namespace)
        if host == wanted.service or (service_of(host) or (host.partition(".")[0], ""))[0] == wanted.service:
            return True
    return False


def _holds_both(one: Steerable, wanted: Wanted) -> bool:
    names = {name for weighed in one.place.destinations for name in _names(weighed.destination)}
    if wanted.canary:
        return wanted.canary in names
    return len(one.place.destinations) > 1 and names >= set(wanted.subsets)


def _catches_all(one: Steerable, _: Wanted) -> bool:
    return not one.place.route.get("match")


def _names(destination: Destination) -> tuple[str, ...]:
    return (destination.subset, label_of(destination), destination.host)


def _services(manifest: Manifest) -> set[str]:
    namespace = _namespace(manifest)
    hosts = [fqdn(str(host), namespace) for host in (manifest.get("spec") or {}).get("hosts") or ()]
    hosts += [fqdn(one.destination.host, namespace) for place in places(manifest) for one in place.destinations]
    return {found[0] for host in hosts if (found := service_of(host)) is not None}


def _delegates_to(root: Manifest, other: Manifest) -> bool:
    for route in (root.get("spec") or {}).get("http") or ():
        delegate: Mapping[str, Any] = route.get("delegate") or {}
        spot = (delegate.get("namespace") or _namespace(root), delegate.get("name"))
        if spot == (_namespace(other), other["metadata"]["name"]):
            return True
    return False


def _namespace(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("namespace", ""))


def _weights(heavy: Sequence[Weighed]) -> str:
    return _listed([f"{label_of(one.destination)} {one.weight}" for one in heavy])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _either(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else "".join(names)
