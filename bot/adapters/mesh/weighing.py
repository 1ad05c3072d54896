"""The JSON Patch that changes two weights and our annotation of a VirtualService, nothing else.

Pure functions over manifests. A patch tests what it relies on: the object, the route's name and match, both
destinations, our mark and the old weights. JSON Patch cannot test that something is *absent* (a match, a weight, a
destination, our mark); where that matters the patch tests the object's resourceVersion instead.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bot.adapters.mesh import annotation
from bot.adapters.mesh.virtualservice import Manifest, Place, Weighed, called, check_object, locate, sides_in
from bot.errors import Conflict
from bot.rollout.effects import SetWeight
from bot.rollout.model import Destination, Direction, Phase, Target
from bot.rollout.route import Mark

Operation = dict[str, Any]

_SAME_IN_EVERY_ENCODER = re.compile(r"[^<>&\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\U0010ffff]*")
_ANNOTATION_POINTER = "/metadata/annotations/" + annotation.KEY.replace("~", "~0").replace("/", "~1")


def shows(manifest: Manifest, target: Target, change: SetWeight) -> bool:
    """True when the object already is as the change wants it: our mark, and the weights that go with it."""
    mark = annotation.mark_of(manifest)
    if mark is None or not _same_mark(mark, change.mark):
        return False
    try:
        check_object(manifest, target)
        canary = sides_in(locate(manifest, target, strict=False), target)[1]
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
    check_object(manifest, target)
    to_zero = change.direction is Direction.ZERO
    strict = exact or not to_zero
    place = locate(manifest, target, strict=not to_zero)
    stable, canary = sides_in(place, target)
    mark = annotation.mark_of(manifest)
    _check_mark(mark, change, target)

    tests = _identity(manifest, place, stable, canary, named=strict)
    match change.direction:
        case Direction.RAISE:
            edits = _raised(place, target, change, stable, canary)
        case Direction.ZERO:
            bare = annotation.bare_of(manifest) if _continues(mark, change, target) else ()
            edits = _lowered(place, target, change, stable, canary, bare)
        case Direction.MARK:
            edits = _removed(place, change, stable, canary, annotation.bare_of(manifest))
    if strict and edits and change.direction is not Direction.MARK:
        tests += _old_weights(place, stable, canary)
    text = annotation.written(_ahead(mark, change), target, _bare(manifest, mark, change, stable, canary))
    mark_tests, marking = _marking(manifest, text)
    if _relies_on_absence(manifest, place, change, stable, canary, mark_tests):
        tests.append(_test("/metadata/resourceVersion", manifest["metadata"]["resourceVersion"]))
    return [*tests, *(mark_tests if strict else ()), *edits, marking]


def _identity(
    manifest: Manifest, place: Place, stable: Weighed | None, canary: Weighed | None, *, named: bool
) -> list[Operation]:
    """Tests for the object, the destinations and, when `named`, the route's name and match."""
    tests = [_test("/metadata/uid", manifest["metadata"]["uid"])]
    if named and place.name:
        tests += _tests(f"{place.pointer}/name", place.name)
    if named and place.route.get("match"):
        tests += _tests(f"{place.pointer}/match", place.route["match"])
    for side in (stable, canary):
        if side is not None:
            entry = place.route["route"][side.index]
            tests += _tests(f"{place.pointer}/route/{side.index}/destination", entry["destination"])
    return tests


def _old_weights(place: Place, stable: Weighed | None, canary: Weighed | None) -> list[Operation]:
    return [
        _test(f"{place.pointer}/route/{side.index}/weight", place.route["route"][side.index]["weight"])
        for side in (stable, canary)
        if side is not None and side.explicit
    ]


def _relies_on_absence(
    manifest: Manifest,
    place: Place,
    change: SetWeight,
    stable: Weighed | None,
    canary: Weighed | None,
    mark_tests: Sequence[Operation],
) -> bool:
    """True when the patch is right only while something is absent. Going to 0 cares for the annotations alone, which
    it would overwrite."""
    if not manifest["metadata"].get("annotations"):
        return True
    if change.direction is Direction.ZERO:
        return False
    bare_weight = any(side is None or not side.explicit for side in (stable, canary))
    return not place.route.get("match") or not mark_tests or (change.direction is Direction.RAISE and bare_weight)


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
) -> list[Operation]:
    before, after = _weight(target, change.from_percent), _weight(target, change.weight_percent)
    beside = target.total - before if change.from_stable is None else change.from_stable
    if stable is None:
        raise Conflict(f"{target.stable.label} is no longer a destination of the route")
    has = canary.weight if canary else 0
    if has != before or stable.weight != beside:
        raise Conflict(
            f"weights are {target.stable.label} {stable.weight}, {target.canary.label} {has}, not {beside} and {before}"
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
        return edits
    edits.append(_weigh(place, canary, after))
    return edits


def _lowered(
    place: Place,
    target: Target,
    change: SetWeight,
    stable: Weighed | None,
    canary: Weighed | None,
    bare: Sequence[str],
) -> list[Operation]:
    if canary is None:
        return []
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
        return [*edits, *removed]
    if "canary" in bare:
        if canary.explicit:
            edits.append({"op": "remove", "path": f"{place.pointer}/route/{canary.index}/weight"})
    elif canary.weight:
        edits.append(_weigh(place, canary, 0))
    return edits


def _continues(mark: Mark | None, change: SetWeight, target: Target) -> bool:
    """True when the mark belongs to this rollout, or to the promotion that this one undoes."""
    if mark is None:
        return False
    sides = (target.stable.destination.text, target.canary.destination.text)
    return mark.rollout == change.mark.rollout or (
        mark.phase == Phase.PROMOTED.value and (mark.stable, mark.canary) == sides
    )


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
    replaced = mark is not None and change.direction is Direction.ZERO and mark.rollout == change.over
    if mark is not None and not ours and not replaced and not annotation.is_final(mark.phase):
        raise Conflict(f"the route is marked by rollout {mark.rollout} ({mark.phase})")
    if mark is not None and ours and annotation.is_final(mark.phase) and not annotation.is_final(change.mark.phase):
        raise Conflict(f"the route is marked {mark.phase} by this rollout already")
    if change.direction is Direction.ZERO:
        return
    found = mark.revision if mark is not None and ours else None
    if found != change.expected:
        raise Conflict(
            f"our mark on {called(target.route)} is at {_revision(found)}, not at {_revision(change.expected)}"
        )


def _ahead(mark: Mark | None, change: SetWeight) -> Mark:
    """The mark to write; going to 0 over a mark that is ahead of ours stays ahead of it."""
    if mark is None or mark.rollout != change.mark.rollout or mark.revision <= change.mark.revision:
        return change.mark
    return replace(change.mark, revision=mark.revision + 1)


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


def _marking(manifest: Manifest, text: str) -> tuple[list[Operation], Operation]:
    """Tests for the mark that is there (none when there is none to compare), and the operation that writes ours."""
    annotations = manifest["metadata"].get("annotations")
    if not annotations:
        return [], {"op": "add", "path": "/metadata/annotations", "value": {annotation.KEY: text}}
    if annotation.KEY not in annotations:
        return [], {"op": "add", "path": _ANNOTATION_POINTER, "value": text}
    tests = _tests(_ANNOTATION_POINTER, annotations[annotation.KEY])
    return tests, {"op": "replace", "path": _ANNOTATION_POINTER, "value": text}


def _weigh(place: Place, side: Weighed, weight: int) -> Operation:
    path = f"{place.pointer}/route/{side.index}/weight"
    return {"op": "replace" if side.explicit else "add", "path": path, "value": weight}


def _revision(revision: int | None) -> str:
    return "none" if revision is None else f"revision {revision}"


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


def _weight(target: Target, percent: int) -> int:
    return round(percent * target.total / 100)
