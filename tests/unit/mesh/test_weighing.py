"""A patch changes two weights and one annotation, and holds only while what it relies on is there."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.mesh import annotation, virtualservice, weighing
from bot.errors import Conflict, NotFound, Permanent
from bot.rollout.effects import SetWeight
from bot.rollout.model import Direction, Target
from bot.rollout.route import Mark
from tests.unit.mesh.manifests import HOST, Manifest, matches, steered, target_for

quick = settings(max_examples=150, deadline=None)


def raising(to: int, revision: int, was: int, expected: int | None, rollout: str = "r-1") -> SetWeight:
    return SetWeight(Direction.RAISE, to, Mark(rollout, revision, to, "Progressing"), was, expected)


def zero(revision: int, *, remove: bool = False, rollout: str = "r-1", phase: str = "RolledBack") -> SetWeight:
    mark = Mark(rollout, revision, 0, phase, reason="error-rate 7% > 1% & rising <badly>")
    return SetWeight(Direction.ZERO, 0, mark, remove_canary=remove)


def applied(manifest: Manifest, target: Target, change: SetWeight, *, exact: bool = True) -> Manifest:
    """The manifest after the change, as the API server would keep it."""
    patch = weighing.patch(manifest, target, change, exact=exact)
    after: Manifest = jsonpatch.apply_patch(manifest, patch)
    after["metadata"]["resourceVersion"] = str(int(manifest["metadata"]["resourceVersion"]) + 1)
    return after


def weights(manifest: Manifest, target: Target) -> tuple[int, int | None]:
    state = virtualservice.state(manifest, target)
    return state.stable_weight, state.canary_weight


def without_ours(manifest: Manifest, target: Target) -> Manifest:
    """The manifest without what we may change: the two weights, our destination where it was missing, our mark."""
    rest = copy.deepcopy(manifest)
    place = virtualservice.locate(rest, target)
    entries = rest["spec"][place.protocol][place.index]["route"]
    kept = []
    for one, entry in zip(place.destinations, entries, strict=True):
        is_canary = virtualservice.same(one.destination, target.canary.destination, target.route.namespace)
        is_stable = virtualservice.same(one.destination, target.stable.destination, target.route.namespace)
        if is_canary or is_stable:
            entry.pop("weight", None)
        if not (is_canary and target.canary_inserted):
            kept.append(entry)
    entries[:] = kept
    annotations = rest["metadata"].get("annotations") or {}
    annotations.pop(annotation.KEY, None)
    rest["metadata"]["annotations"] = annotations
    del rest["metadata"]["resourceVersion"]
    return rest


@quick
@given(steered())
def test_only_weights_destination_and_mark_change(made: tuple[Manifest, Target]) -> None:
    """Through every step everything else in the object stays as it was, and the weights sum to 100."""
    manifest, target = made
    untouched = without_ours(manifest, target)
    was, expected = 0, None
    for revision, to in enumerate((5, 25, 100), start=1):
        manifest = applied(manifest, target, raising(to, revision, was, expected))
        assert weights(manifest, target) == (100 - to, to)
        assert without_ours(manifest, target) == untouched
        was, expected = to, revision


@quick
@given(steered(), st.lists(st.sampled_from([5, 10, 50, 100]), unique=True).map(sorted))
def test_a_rollback_leaves_nothing_but_the_final_mark(made: tuple[Manifest, Target], steps: list[int]) -> None:
    """start, steps, rollback: the object differs from before in the annotation alone."""
    before, target = made
    manifest, was, expected = before, 0, None
    for revision, to in enumerate(steps, start=1):
        manifest = applied(manifest, target, raising(to, revision, was, expected))
        was, expected = to, revision
    manifest = applied(manifest, target, zero(len(steps) + 1, remove=target.canary_inserted))
    assert (manifest["spec"], manifest["status"]) == (before["spec"], before["status"])
    annotations = dict(manifest["metadata"]["annotations"])
    del annotations[annotation.KEY]
    assert annotations == (before["metadata"].get("annotations") or {})
    mark = annotation.mark_of(manifest)
    assert mark is not None
    assert (mark.phase, mark.weight_percent) == ("RolledBack", 0)


@quick
@given(steered())
def test_an_undo_leaves_what_the_first_start_found(made: tuple[Manifest, Target]) -> None:
    """Promoted and undone by another rollout: the spec is what it was before the release."""
    before, target = made
    manifest = applied(before, target, raising(100, 1, 0, None))
    promoted = SetWeight(Direction.MARK, 100, Mark("r-1", 2, 100, "Promoted"), 100, 1)
    manifest = applied(manifest, target, promoted)
    undone = applied(manifest, target, zero(1, remove=target.canary_inserted, rollout="r-2"))
    assert undone["spec"] == before["spec"]


@quick
@given(steered(), st.integers(0, 100), st.integers(0, 100), st.integers(0, 60), st.booleans())
def test_drift_does_not_stop_going_to_zero(
    made: tuple[Manifest, Target], stable: int, canary: int, third: int, exact: bool
) -> None:
    """Whatever weights are found: the canary's go to stable, third parties keep theirs, the sum stays."""
    manifest, target = made
    manifest = applied(manifest, target, raising(5, 1, 0, None))
    place = virtualservice.locate(manifest, target)
    entries = manifest["spec"]["http"][place.index]["route"]
    for one in place.destinations:
        entries[one.index]["weight"] = {"v1": stable, "v2": canary}.get(one.destination.subset, third)
    total = sum(entry["weight"] for entry in entries)
    after = applied(manifest, target, zero(2), exact=exact)
    state = virtualservice.state(after, target)
    others = sum(weight for _, weight in state.others)
    assert state.canary_weight == 0
    assert state.stable_weight + others == total
    assert others == sum(entry["weight"] for entry in entries if "v" not in entry["destination"].get("subset", ""))


@quick
@given(steered())
def test_tests_hold_no_text_that_encoders_write_differently(made: tuple[Manifest, Target]) -> None:
    """API servers compare encoded strings byte by byte: no `test` has a text beyond plain ASCII, nor a float."""
    manifest, target = made
    for change in (raising(5, 1, 0, None), zero(2)):
        patch = weighing.patch(manifest, target, change)
        for value in _leaves([operation["value"] for operation in patch if operation["op"] == "test"]):
            assert not isinstance(value, float)
            if isinstance(value, str):
                assert value.isascii()
                assert not set(value) & set("<>&\x7f")
        manifest = jsonpatch.apply_patch(manifest, patch)


def test_every_mark_of_ours_can_be_tested_for_whatever_its_reason_says() -> None:
    """A reason with `<`, `>`, `&` or letters beyond ASCII reads back as it was, and the next patch tests the mark."""
    manifest, target = _at_five()
    reason = 'p99 > 250 ms & "rising" <é, ☂, \x7f>'
    change = SetWeight(Direction.MARK, 5, Mark("r-1", 2, 5, "Progressing", reason=reason), 5, 1)
    manifest = applied(manifest, target, change)
    mark = annotation.mark_of(manifest)
    assert mark is not None
    assert mark.reason == reason
    tested = [one["path"] for one in weighing.patch(manifest, target, zero(3)) if one["op"] == "test"]
    assert "/metadata/annotations/canary-bot.dev~1rollout" in tested


Change = Callable[[Manifest], Any]


def _canary_entry(manifest: Manifest) -> Manifest:
    entry: Manifest = manifest["spec"]["http"][1]["route"][1]
    return entry


MOVES: dict[str, Change] = {
    "another object of the same name": lambda m: m["metadata"].update(uid="u-2"),
    "a route put before ours": lambda m: m["spec"]["http"].insert(0, {"name": "new", "route": [{"destination": {}}]}),
    "our route renamed": lambda m: m["spec"]["http"][1].update(name="secondary"),
    "its match edited": lambda m: m["spec"]["http"][1].update(match=[{"port": 1}]),
    "canary sent to another subset": lambda m: _canary_entry(m)["destination"].update(subset="v3"),
    "destinations swapped": lambda m: m["spec"]["http"][1]["route"].reverse(),
    "weights edited": lambda m: _canary_entry(m).update(weight=50),
    "a newer mark": lambda m: m["metadata"]["annotations"].update(
        {annotation.KEY: m["metadata"]["annotations"][annotation.KEY].replace('"revision":1', '"revision":2')}
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_raise_fails_when_the_object_moves_after_it_was_read(move: str) -> None:
    """Between reading and patching, every change of what a raise relies on makes a `test` fail."""
    manifest, target = _at_five()
    patch = weighing.patch(manifest, target, raising(25, 2, 5, 1))
    moved = copy.deepcopy(manifest)
    MOVES[move](moved)
    with pytest.raises((jsonpatch.JsonPatchTestFailed, jsonpatch.JsonPatchConflict)):
        jsonpatch.apply_patch(moved, patch)


@pytest.mark.parametrize("move", MOVES)
def test_a_raise_is_not_even_computed_on_another_route(move: str) -> None:
    """Read after the move, the same raise is a Conflict (or, for a route put before, finds its new index)."""
    manifest, target = _at_five()
    MOVES[move](manifest)
    if move in ("a route put before ours", "destinations swapped"):
        after = applied(manifest, target, raising(25, 2, 5, 1))
        assert weights(after, target) == (75, 25)
        return
    with pytest.raises(Conflict):
        weighing.patch(manifest, target, raising(25, 2, 5, 1))


def test_absences_are_guarded_by_the_resource_version() -> None:
    """The first raise into a bare route without match and mark tests the resourceVersion."""
    route = {"route": [{"destination": {"host": HOST, "subset": "v1"}}]}
    manifest = _manifest(route)
    patch = weighing.patch(manifest, target_for(route, missing=True), raising(5, 1, 0, None))
    assert {"op": "test", "path": "/metadata/resourceVersion", "value": "7"} in patch


def test_an_unrelated_label_does_not_disturb_a_raise() -> None:
    """A label added by someone in mid-run changes nothing about the next raise."""
    manifest, target = _at_five()
    patch = weighing.patch(manifest, target, raising(25, 2, 5, 1))
    manifest["metadata"].update(labels={"team": "a"}, resourceVersion="99")
    manifest["spec"]["http"][1]["retries"] = {"attempts": 9}
    assert weights(jsonpatch.apply_patch(manifest, patch), target) == (75, 25)


def test_a_frozen_holders_late_raise_fails_after_a_fence() -> None:
    """A raise computed before a new holder's MARK is refused by its test of the mark."""
    manifest, target = _at_five()
    late = weighing.patch(manifest, target, raising(25, 2, 5, 1))
    fence = SetWeight(Direction.MARK, 5, Mark("r-1", 2, 5, "Progressing"), 5, 1)
    fenced = applied(manifest, target, fence)
    assert weights(fenced, target) == (95, 5)
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(fenced, late)


def test_a_running_rollouts_mark_is_not_overwritten_by_another() -> None:
    """Neither a raise nor going to 0 takes a route that another rollout is steering."""
    manifest, target = _at_five()
    for change in (raising(25, 1, 5, None, "r-2"), zero(9, rollout="r-2")):
        with pytest.raises(Conflict, match="marked by rollout r-1"):
            weighing.patch(manifest, target, change)


def test_a_final_mark_makes_way_for_the_next_rollout_and_for_an_undo() -> None:
    """After Promoted another rollout may start or send everything back; the same rollout may not go on."""
    manifest, target = _at_five()
    manifest = applied(manifest, target, raising(100, 2, 5, 1))
    promoted = SetWeight(Direction.MARK, 100, Mark("r-1", 3, 100, "Promoted"), 100, 2)
    manifest = applied(manifest, target, promoted)
    assert weights(applied(manifest, target, zero(1, rollout="r-2")), target) == (100, 0)
    with pytest.raises(Conflict, match="marked Promoted by this rollout"):
        weighing.patch(manifest, target, zero(4, phase="RollingBack"))


def test_going_to_zero_over_a_mark_that_is_ahead_stays_ahead() -> None:
    """An old holder's rollback over a newer mark of the same rollout lowers, and never turns the revision back."""
    manifest, target = _at_five()
    manifest = applied(manifest, target, raising(25, 7, 5, 1))
    after = applied(manifest, target, zero(3))
    mark = annotation.mark_of(after)
    assert mark is not None
    assert (mark.revision, weights(after, target)) == (8, (100, 0))
    assert weighing.shows(after, target, zero(3))


def test_going_to_zero_finds_a_route_whose_match_was_edited() -> None:
    """An edited match or a moved index hides a named route from a raise, not from a rollback."""
    manifest, target = _at_five()
    manifest["spec"]["http"][1]["match"] = [{"port": 1}]
    manifest["spec"]["http"].reverse()
    assert weights(applied(manifest, target, zero(2)), target) == (100, 0)


def test_going_to_zero_does_not_need_the_canary_to_be_there() -> None:
    """With the canary's destination gone from the route only the mark is written."""
    manifest, target = _at_five()
    manifest["spec"]["http"][1]["route"].pop()
    after = applied(manifest, target, zero(2))
    assert after["spec"] == manifest["spec"]
    assert weighing.shows(after, target, zero(2))


def test_going_to_zero_without_stable_is_a_conflict_and_changes_nothing() -> None:
    """Traffic is not sent nowhere: with stable gone from the route somebody has to look."""
    manifest, target = _at_five()
    manifest["spec"]["http"][1]["route"].pop(0)
    with pytest.raises(Conflict, match="nothing can take the traffic"):
        weighing.patch(manifest, target, zero(2))


def test_another_object_of_the_same_name_is_left_alone() -> None:
    """Deleted and made again is another object, for a rollback as well."""
    manifest, target = _at_five()
    manifest["metadata"]["uid"] = "u-2"
    with pytest.raises(Conflict, match="another object"):
        weighing.patch(manifest, target, zero(2))


def test_an_object_made_again_is_read_with_its_own_uid() -> None:
    """A reading tells that it is another object; a write of ours never counts as done on it."""
    manifest, target = _at_five()
    manifest["metadata"]["uid"] = "u-2"
    assert virtualservice.state(manifest, target).uid == "u-2"
    assert not weighing.shows(manifest, target, raising(5, 1, 0, None))


def test_a_route_that_is_gone_is_not_found_only_when_nothing_sends_to_the_canary() -> None:
    """Renamed, it still sends 5% to the canary: that must not read as gone, or a rollback would count as done."""
    manifest, target = _at_five()
    manifest["spec"]["http"][1]["name"] = "renamed"
    with pytest.raises(Permanent, match="its route renamed sends 5% to v2"):
        virtualservice.state(manifest, target)
    del manifest["spec"]["http"][1]
    with pytest.raises(NotFound, match="nothing in it sends to v2"):
        virtualservice.state(manifest, target)


def test_our_destination_is_not_taken_out_while_it_has_weight() -> None:
    """A MARK that removes the canary is refused while requests still go there."""
    manifest, target = _at_five()
    change = SetWeight(Direction.MARK, 5, Mark("r-1", 2, 5, "RolledBack"), 5, 1, remove_canary=True)
    with pytest.raises(Conflict, match="still has weight"):
        weighing.patch(manifest, target, change)


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_tcp_and_tls_routes_are_steered_like_http(protocol: str) -> None:
    """Routes without names are told apart by match and destinations."""
    ours: Manifest = {"match": [{"port": 27017}], "route": [{"destination": {"host": HOST, "subset": "v1"}}]}
    other: Manifest = {"match": [{"port": 5432}], "route": [{"destination": {"host": HOST, "subset": "v1"}}]}
    manifest = _manifest({"route": [{"destination": {"host": HOST, "subset": "v1"}}]})
    manifest["spec"][protocol] = [other, ours]
    target = target_for(ours, missing=True, protocol=protocol)
    after = applied(manifest, target, raising(10, 1, 0, None))
    assert [entry["weight"] for entry in after["spec"][protocol][1]["route"]] == [90, 10]
    assert after["spec"][protocol][0] == other
    assert applied(after, target, zero(2, remove=True))["spec"] == manifest["spec"]


def test_ports_tell_destinations_apart() -> None:
    """The same subset on another port is another destination."""
    canary = {"destination": {"host": "payments", "subset": "v2", "port": {"number": 81}}, "weight": 0}
    route = {"name": "p", "route": [{"destination": {"host": HOST, "subset": "v1"}, "weight": 100}, canary]}
    target = target_for(route)
    assert virtualservice.state(_manifest(route), target).canary_weight is None
    with_port = replace(target, canary=replace(target.canary, destination=replace(target.canary.destination, port=81)))
    assert virtualservice.state(_manifest(route), with_port).canary_weight == 0


def test_drift_names_the_last_manager_of_the_route_list() -> None:
    """Of the managers of spec.http the latest is named; status and labels do not count."""
    manifest, target = _at_five()

    def entry(manager: str, time: str, fields: dict[str, Any], subresource: str = "") -> Manifest:
        return {"manager": manager, "time": time, "fieldsV1": fields, "subresource": subresource}

    manifest["metadata"]["managedFields"] = [
        entry("canary-bot", "2026-01-01T10:00:00Z", {"f:spec": {"f:http": {}}}),
        entry("kubectl-edit", "2026-01-01T10:05:00Z", {"f:spec": {"f:http": {}}}),
        entry("labeller", "2026-01-01T10:09:00Z", {"f:metadata": {}}),
        entry("istiod", "2026-01-01T10:10:00Z", {"f:spec": {"f:http": {}}}, "status"),
    ]
    state = virtualservice.state(manifest, target)
    assert state.last_manager == "kubectl-edit"


@quick
@given(steered())
def test_the_mark_alone_is_enough_to_go_to_zero(made: tuple[Manifest, Target]) -> None:
    """The target rebuilt from the annotation sends the canary to 0 and restores the object."""
    before, target = made
    manifest = applied(before, target, raising(25, 1, 0, None))
    rebuilt = annotation.target_of(manifest, "istio")
    assert rebuilt is not None
    after = applied(manifest, rebuilt, zero(2, remove=rebuilt.canary_inserted))
    assert after["spec"] == before["spec"]


@quick
@given(matches)
def test_a_match_is_recognised_whatever_the_order_of_its_keys(match: list[Manifest]) -> None:
    """The digest of a match does not depend on how the API server orders keys."""
    turned = [dict(reversed(condition.items())) for condition in match]
    assert virtualservice.match_digest({"match": match}) == virtualservice.match_digest({"match": turned})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"rollout":"x"}', '{"rollout":"x","revision":"many","weight":1,"phase":""}']
)
def test_an_unreadable_mark_is_no_mark(text: str) -> None:
    """A hand-edited annotation neither crashes nor counts, and a rollback writes over it."""
    manifest, target = _at_five()
    manifest["metadata"]["annotations"][annotation.KEY] = text
    assert annotation.mark_of(manifest) is None
    assert annotation.target_of(manifest, "istio") is None
    assert weights(applied(manifest, target, zero(2)), target) == (100, 0)


def _manifest(route: Manifest) -> Manifest:
    return {
        "metadata": {"name": "payments", "namespace": "shop", "uid": "u-1", "resourceVersion": "7"},
        "spec": {"hosts": [HOST], "http": [route]},
    }


def _at_five() -> tuple[Manifest, Target]:
    """A named, matched route at 95/5, marked by rollout r-1 at revision 1."""
    route: Manifest = {
        "name": "primary",
        "match": [{"uri": {"prefix": "/"}}],
        "route": [
            {"destination": {"host": HOST, "subset": "v1"}, "weight": 100},
            {"destination": {"host": "payments", "subset": "v2"}, "weight": 0},
        ],
    }
    manifest = _manifest(route)
    manifest["spec"]["http"].insert(0, {"name": "legacy", "route": [{"destination": {"host": HOST, "subset": "v1"}}]})
    target = target_for(route)
    return applied(manifest, target, raising(5, 1, 0, None)), target


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in (key, *_leaves(inner))]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


@quick
@given(steered(), st.integers(0, 120), st.integers(0, 120))
def test_weights_that_do_not_sum_to_the_total_are_repaired(
    made: tuple[Manifest, Target], stable: int, canary: int
) -> None:
    """Re-applying over an edit by hand writes both weights, and is a Conflict when stable moved once more."""
    manifest, target = made
    manifest = applied(manifest, target, raising(25, 1, 0, None))
    place = virtualservice.locate(manifest, target)
    by_hand = {target.stable.destination: stable, target.canary.destination: canary}
    for one in place.destinations:
        for side, weight in by_hand.items():
            if virtualservice.same(one.destination, side, target.route.namespace):
                place.route["route"][one.index]["weight"] = weight
    found = virtualservice.state(manifest, target)
    change = replace(raising(25, 2, found.canary_weight or 0, 1), from_stable=found.stable_weight)
    assert weights(applied(manifest, target, change), target) == (75, 25)
    with pytest.raises(Conflict, match="weights are"):
        weighing.patch(manifest, target, replace(change, from_stable=found.stable_weight + 1))
