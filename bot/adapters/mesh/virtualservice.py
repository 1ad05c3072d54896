"""A VirtualService read and patched: two weights and our annotation change, nothing else.

Pure functions over manifests. A patch tests what it relies on: the object, the route's name and match, both
destinations, our mark and, when raising, the old weights. JSON Patch cannot test that something is *absent* (a match, a
weight, a destination, our mark); where that matters the patch tests the object's resourceVersion instead.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.adapters.mesh import annotation
from bot.adapters.mesh.hosts import fqdn
from bot.errors import Conflict, NotFound, Permanent
from bot.rollout.effects import SetWeight
from bot.rollout.model import Destination, Direction, RouteRef, Target
from bot.rollout.route import Mark, RouteState

PROTOCOLS = ("http", "tls", "tcp")
Manifest = Mapping[str, Any]
Operation = dict[str, Any]

_SAME_IN_EVERY_ENCODER = re.compile(r"[^<>&\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\U0010ffff]*")
_ANNOTATION_POINTER = "/metadata/annotations/" + annotation.KEY.replace("~", "~0").replace("/", "~1")


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
            raise Conflict(f"{_called(ref)} has {found} {ref.protocol} route named {ref.route} now")
        if strict and match_digest(named[0].route) != ref.match:
            raise Conflict(f"the match of route {ref.route} in {_called(ref)} is not what it was")
        return named[0]
    matching = [place for place in here if match_digest(place.route) == ref.match and _find(place, target)[0]]
    if len(matching) == 1:
        return matching[0]
    if not strict:
        holding = [place for place in here if all(_find(place, target))]
        if len(holding) == 1:
            return holding[0]
    raise Conflict(f"{_called(ref)} has {len(matching) or 'no'} {ref.protocol} route like the one we steer now")


def state(manifest: Manifest, target: Target) -> RouteState:
    """What the route shows, also when the object was made again (the uid tells).

    Raises NotFound when the route is gone and nothing in the object sends to the canary, Permanent when the route
    cannot be told any more although something still does.
    """
    try:
        place = locate(manifest, target, strict=False)
        stable, canary = _find(place, target)
    except Conflict as error:
        still = [
            (one, side)
            for one in places(manifest)
            for side in one.destinations
            if side.weight and same(side.destination, target.canary.destination, target.route.namespace)
        ]
        if not still:
            raise NotFound(f"{error}, and nothing in it sends to {target.canary.label}") from error
        one, side = still[0]
        name = one.name or f"{one.protocol}[{one.index}]"
        raise Permanent(f"{error}, but its route {name} sends {side.weight}% to {target.canary.label}") from error
    manager, written_at = last_writer(manifest, place.protocol)
    return RouteState(
        uid=str(manifest["metadata"].get("uid", "")),
        resource_version=str(manifest["metadata"].get("resourceVersion", "")),
        stable_weight=stable.weight if stable else 0,
        canary_weight=canary.weight if canary else None,
        others=tuple(
            (other.destination.text, other.weight)
            for other in place.destinations
            if other not in (stable, canary) and other.weight
        ),
        mark=annotation.mark_of(manifest),
        last_manager=manager,
        last_write_at=written_at,
    )


def last_writer(manifest: Manifest, protocol: str) -> tuple[str, str]:
    """(field manager, RFC 3339 time) of the last write to the route list; managedFields treats the list as one."""
    owners = [
        (str(entry.get("time") or ""), str(entry.get("manager") or ""))
        for entry in manifest.get("metadata", {}).get("managedFields") or ()
        if not entry.get("subresource") and f"f:{protocol}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    written_at, manager = max(owners, default=("", ""))
    return manager, written_at


def shows(manifest: Manifest, target: Target, change: SetWeight) -> bool:
    """True when the object already is as the change wants it: our mark, and the weights that go with it."""
    mark = annotation.mark_of(manifest)
    if mark is None or not _same_mark(mark, change.mark):
        return False
    try:
        _same_object(manifest, target)
        canary = _find(locate(manifest, target, strict=False), target)[1]
    except Conflict:
        return False
    if change.remove_canary and canary is not None:
        return False
    if change.direction is Direction.MARK:
        return True
    return (canary.weight if canary else 0) == _weight(target, change.weight_percent)


def patch(manifest: Manifest, target: Target, change: SetWeight, *, exact: bool = True) -> list[Operation]:
    """The JSON Patch that makes one change, tests first.

    `manifest` is a fresh reading. Not `exact` is for going to 0 when tests keep failing: only the object and the
    destinations are tested then. Raises Conflict when the object is not what the change was decided for.
    """
    _same_object(manifest, target)
    going_to_zero = change.direction is Direction.ZERO
    place = locate(manifest, target, strict=not going_to_zero)
    stable, canary = _find(place, target)
    mark = annotation.mark_of(manifest)
    _check_mark(mark, change, target)

    tests: list[Operation] = [_test("/metadata/uid", manifest["metadata"]["uid"])]
    absent = False
    if exact or not going_to_zero:
        if place.name:
            tests += _tests(f"{place.pointer}/name", place.name)
        if place.route.get("match"):
            tests += _tests(f"{place.pointer}/match", place.route["match"])
        else:
            absent = not going_to_zero
    for side in (stable, canary):
        if side is not None:
            entry = place.route["route"][side.index]
            tests += _tests(f"{place.pointer}/route/{side.index}/destination", entry["destination"])

    match change.direction:
        case Direction.RAISE:
            edits, more_absent = _raised(place, target, change, stable, canary)
        case Direction.ZERO:
            edits, more_absent = _lowered(place, target, change, stable, canary, annotation.bare_of(manifest), mark)
        case Direction.MARK:
            edits, more_absent = _removed(place, change, stable, canary, annotation.bare_of(manifest)), False
    if change.direction is Direction.RAISE or (going_to_zero and exact and edits):
        tests += [
            _test(f"{place.pointer}/route/{side.index}/weight", place.route["route"][side.index]["weight"])
            for side in (stable, canary)
            if side is not None and side.explicit
        ]

    bare = _bare(manifest, mark, change, stable, canary)
    text = annotation.written(_ahead(mark, change), target, bare)
    marking, mark_absent = _marking(manifest, text)
    no_annotations = not manifest["metadata"].get("annotations")
    if absent or more_absent or (mark_absent and (not going_to_zero or no_annotations)):
        tests.append(_test("/metadata/resourceVersion", manifest["metadata"]["resourceVersion"]))
    marking_tests = [operation for operation in marking if operation["op"] == "test"]
    if going_to_zero and not exact:
        marking_tests = []
    return [*tests, *marking_tests, *edits, *(operation for operation in marking if operation["op"] != "test")]


def entry_for(destination: Destination, weight: int) -> dict[str, Any]:
    """A new entry of a route for a destination that was missing."""
    body: dict[str, Any] = {"host": destination.host}
    if destination.subset:
        body["subset"] = destination.subset
    if destination.port:
        body["port"] = {"number": destination.port}
    return {"destination": body, "weight": weight}


def _raised(
    place: Place, target: Target, change: SetWeight, stable: Weighed | None, canary: Weighed | None
) -> tuple[list[Operation], bool]:
    before, after = _weight(target, change.from_percent), _weight(target, change.weight_percent)
    if stable is None:
        raise Conflict(f"{target.stable.label} is no longer a destination of the route")
    has = canary.weight if canary else 0
    if has != before or stable.weight != target.total - before:
        raise Conflict(
            f"weights are {target.stable.label} {stable.weight}, {target.canary.label} {has}, "
            f"not {target.total - before} and {before}"
        )
    if any(other.weight for other in place.destinations if other not in (stable, canary)):
        raise Conflict("a third destination has weight now")
    if canary is None and not target.canary_inserted:
        raise Conflict(f"{target.canary.label} is no longer a destination of the route")
    edits = [_weigh(place, stable, target.total - after)]
    if canary is None:
        edits.append(
            {"op": "add", "path": f"{place.pointer}/route/-", "value": entry_for(target.canary.destination, after)}
        )
        return edits, True
    edits.append(_weigh(place, canary, after))
    return edits, not (stable.explicit and canary.explicit)


def _lowered(
    place: Place,
    target: Target,
    change: SetWeight,
    stable: Weighed | None,
    canary: Weighed | None,
    bare: Sequence[str],
    mark: Mark | None,
) -> tuple[list[Operation], bool]:
    if mark is None or mark.rollout != change.mark.rollout:
        bare = ()
    if canary is None:
        return _removed(place, change, stable, canary, bare), False
    if canary.weight and stable is None:
        raise Conflict(
            f"{target.stable.label} is no longer a destination of the route, so nothing can take the traffic"
        )
    removed = _removed(place, change, stable, canary, bare)
    alone = stable is not None and len(place.destinations) == 2 and change.remove_canary
    edits: list[Operation] = []
    if canary.weight and stable is not None and not (alone and "stable" in bare):
        edits.append(_weigh(place, stable, stable.weight + canary.weight))
    if removed:
        return [*edits, *removed], False
    if "canary" in bare:
        if canary.explicit:
            edits.append({"op": "remove", "path": f"{place.pointer}/route/{canary.index}/weight"})
    elif canary.weight:
        edits.append(_weigh(place, canary, 0))
    return edits, False


def _removed(
    place: Place, change: SetWeight, stable: Weighed | None, canary: Weighed | None, bare: Sequence[str]
) -> list[Operation]:
    """Take our destination out again, and stable's weight where it had none."""
    if not change.remove_canary or canary is None:
        return []
    if change.direction is Direction.MARK and canary.weight:
        raise Conflict("the canary still has weight, so its destination stays")
    if len(place.destinations) == 1:
        raise Conflict("the canary is the only destination left, so it stays")
    edits: list[Operation] = []
    if "stable" in bare and stable is not None and stable.explicit and len(place.destinations) == 2:
        edits.append({"op": "remove", "path": f"{place.pointer}/route/{stable.index}/weight"})
    edits.append({"op": "remove", "path": f"{place.pointer}/route/{canary.index}"})
    return edits


def _check_mark(mark: Mark | None, change: SetWeight, target: Target) -> None:
    ours = mark is not None and mark.rollout == change.mark.rollout
    if mark is not None and not ours and not annotation.is_final(mark.phase):
        raise Conflict(f"the route is marked by rollout {mark.rollout} ({mark.phase})")
    if mark is not None and ours and annotation.is_final(mark.phase) and not annotation.is_final(change.mark.phase):
        raise Conflict(f"the route is marked {mark.phase} by this rollout already")
    if change.direction is Direction.ZERO:
        return
    found = mark.revision if mark is not None and ours else None
    if found != change.expected:
        raise Conflict(
            f"our mark on {_called(target.route)} is at {_revision(found)}, not at {_revision(change.expected)}"
        )


def _ahead(mark: Mark | None, change: SetWeight) -> Mark:
    """The mark to write; going to 0 over a mark that is ahead of ours stays ahead of it."""
    if mark is None or mark.rollout != change.mark.rollout or mark.revision <= change.mark.revision:
        return change.mark
    wanted = change.mark
    return Mark(
        rollout=wanted.rollout,
        revision=mark.revision + 1,
        weight_percent=wanted.weight_percent,
        phase=wanted.phase,
        service=wanted.service,
        stable=wanted.stable,
        canary=wanted.canary,
        route=wanted.route,
        inserted=wanted.inserted,
        reason=wanted.reason,
    )


def _same_mark(found: Mark, wanted: Mark) -> bool:
    return (
        found.rollout == wanted.rollout
        and found.revision >= wanted.revision
        and (found.revision == wanted.revision or wanted.weight_percent == 0)
        and found.weight_percent == wanted.weight_percent
        and found.phase == wanted.phase
    )


def _bare(
    manifest: Manifest, mark: Mark | None, change: SetWeight, stable: Weighed | None, canary: Weighed | None
) -> tuple[str, ...]:
    if mark is not None and mark.rollout == change.mark.rollout:
        return annotation.bare_of(manifest)
    return tuple(
        name for name, side in (("stable", stable), ("canary", canary)) if side is not None and not side.explicit
    )


def _marking(manifest: Manifest, text: str) -> tuple[list[Operation], bool]:
    """Operations that write the mark, and whether its absence is what they rely on."""
    annotations = manifest["metadata"].get("annotations")
    if not annotations:
        return [{"op": "add", "path": "/metadata/annotations", "value": {annotation.KEY: text}}], True
    if annotation.KEY not in annotations:
        return [{"op": "add", "path": _ANNOTATION_POINTER, "value": text}], True
    tests = _tests(_ANNOTATION_POINTER, annotations[annotation.KEY])
    return [*tests, {"op": "replace", "path": _ANNOTATION_POINTER, "value": text}], not tests


def _weigh(place: Place, side: Weighed, weight: int) -> Operation:
    path = f"{place.pointer}/route/{side.index}/weight"
    return {"op": "replace" if side.explicit else "add", "path": path, "value": weight}


def _find(place: Place, target: Target) -> tuple[Weighed | None, Weighed | None]:
    """The target's stable and canary in a route; raises Conflict when one is there twice."""
    return _only(place, target.stable.destination, target), _only(place, target.canary.destination, target)


def _only(place: Place, destination: Destination, target: Target) -> Weighed | None:
    hits = [one for one in place.destinations if same(one.destination, destination, target.route.namespace)]
    if len(hits) > 1:
        raise Conflict(f"{destination.text} is in the route {len(hits)} times")
    return hits[0] if hits else None


def _same_object(manifest: Manifest, target: Target) -> None:
    uid = str(manifest["metadata"].get("uid", ""))
    if target.route.uid and uid != target.route.uid:
        raise Conflict(f"{_called(target.route)} was deleted and made again: it is another object now")


def _weight(target: Target, percent: int) -> int:
    return round(percent * target.total / 100)


def _revision(revision: int | None) -> str:
    return "none" if revision is None else f"revision {revision}"


def _called(ref: RouteRef) -> str:
    return f"VirtualService {ref.namespace}/{ref.name}"


def _test(path: str, value: Any) -> Operation:
    return {"op": "test", "path": path, "value": value}


def _tests(path: str, value: Any) -> list[Operation]:
    """Tests for a value, leaving out the texts and numbers that encoders write differently."""
    if _comparable(value):
        return [_test(path, value)]
    if isinstance(value, Mapping):
        return [
            test
            for key, inner in value.items()
            for test in _tests(f"{path}/{key.replace('~', '~0').replace('/', '~1')}", inner)
        ]
    if isinstance(value, list):
        return [test for index, inner in enumerate(value) for test in _tests(f"{path}/{index}", inner)]
    return []


def _comparable(value: Any) -> bool:
    if isinstance(value, str):
        return _SAME_IN_EVERY_ENCODER.fullmatch(value) is not None
    if isinstance(value, Mapping):
        return all(_comparable(key) and _comparable(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(_comparable(inner) for inner in value)
    return value is None or isinstance(value, bool | int)
