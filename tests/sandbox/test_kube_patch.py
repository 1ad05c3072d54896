"""The patches of the sandbox's API server, and the managedFields that follow from them, without a server."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonpatch
import jsonpointer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.sandbox.kube import managed, patch, selectors
from bot.sandbox.kube.resources import RESOURCES
from bot.sandbox.kube.status import ApiError

_KEYS = st.sampled_from(["a", "b", "c/d", "e~f"])
_VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=4)


def _pointers(node: Any, at: str = "") -> list[str]:
    """Every pointer into a value, and beside each container some that lead nowhere."""
    found = [at] if at else []
    if isinstance(node, dict):
        for key, value in node.items():
            token = key.replace("~", "~0").replace("/", "~1")
            found += _pointers(value, f"{at}/{token}")
        found.append(f"{at}/missing")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += _pointers(value, f"{at}/{index}")
        found += [f"{at}/{len(node)}", f"{at}/-"]
    return found


@st.composite
def _cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    document = draw(_DOCUMENTS)
    paths = st.sampled_from(_pointers(document))
    operations = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["add", "remove", "replace", "test", "move", "copy"]))
        operation: dict[str, Any] = {"op": kind, "path": draw(paths)}
        if kind in ("add", "replace", "test"):
            operation["value"] = draw(_VALUES)
        if kind in ("move", "copy"):
            operation["from"] = draw(paths)
        operations.append(operation)
    return document, operations


def _is_reference(operations: list[dict[str, Any]]) -> bool:
    """Whether both readings of RFC 6902 agree on these: not null tests, `-` as a value, or moves into themselves."""
    for operation in operations:
        if operation["op"] == "test" and operation["value"] is None:
            return False
        if operation["op"] not in ("add", "copy", "move") and operation["path"].endswith("/-"):
            return False
        origin = operation.get("from", "")
        if origin.endswith("/-") or (operation["op"] == "move" and operation["path"].startswith(origin)):
            return False
    return True


@given(case=_cases().filter(lambda case: _is_reference(case[1])))
def test_json_patch_agrees_with_the_reference_library(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """Same result or both refuse, and the document that was patched is never touched."""
    document, operations = case
    kept = copy.deepcopy(document)
    expected: Any
    try:
        expected = jsonpatch.JsonPatch(operations).apply(document)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException):
        expected = None
    if expected is None:
        with pytest.raises(ApiError) as caught:
            patch.json_patch(document, operations)
        assert caught.value.code == 422
    else:
        assert patch.json_patch(document, operations) == expected
    assert json.dumps(document) == json.dumps(kept)


def test_true_is_not_one() -> None:
    """`test` tells booleans from numbers, which Python's == does not."""
    for stored, asked in ((True, 1), (0, False)):
        with pytest.raises(ApiError):
            patch.json_patch({"a": stored}, [{"op": "test", "path": "/a", "value": asked}])


def test_what_did_not_change_is_shared() -> None:
    """A patch copies only the way to what it changes."""
    document = {"a": {"b": [1, 2]}, "c": {"d": 1}}
    after = patch.json_patch(document, [{"op": "replace", "path": "/a/b/0", "value": 5}])
    assert after["c"] is document["c"]
    assert after["a"]["b"] == [5, 2]


@given(old=_DOCUMENTS, new=_DOCUMENTS)
def test_a_compare_names_every_field_that_differs(old: dict[str, Any], new: dict[str, Any]) -> None:
    """No change means equal objects; a path that is set is in the new object, a removed one is not."""

    def there(node: Any, path: tuple[str, ...]) -> bool:
        for key in path:
            if not isinstance(node, dict) or key not in node:
                return False
            node = node[key]
        return True

    change = managed.compare(old, new)
    assert bool(change) is not patch.same(old, new)
    assert all(there(new, path) for path in change.set)
    assert all(there(old, path) and not there(new, path) for path in change.removed)


def test_a_field_has_one_owner_after_each_write() -> None:
    """Whoever changes a field takes it from all others, and a removed field has no owner."""
    first = {"spec": {"a": 1, "b": 1}}
    entries = managed.update((), managed.compare({}, first), "one", "v1", "", "2026-01-01T00:00:00Z")
    second = {"spec": {"a": 2, "b": 1}}
    entries = managed.update(entries, managed.compare(first, second), "two", "v1", "", "2026-01-01T00:00:01Z")
    owned = {entry.manager: entry.fields for entry in entries}
    assert ("spec", "a") in owned["two"]
    assert ("spec", "a") not in owned["one"]
    entries = managed.update(
        entries, managed.compare(second, {"spec": {"b": 1}}), "three", "v1", "", "2026-01-01T00:00:02Z"
    )
    assert all(("spec", "a") not in entry.fields for entry in entries)


def test_seeded_managed_fields_are_read_as_they_were_written() -> None:
    """Parsing what was encoded gives the same fields."""
    change = managed.compare({}, {"metadata": {"labels": {"a": "b"}}, "spec": {"http": [1], "x": {"y": 1}}})
    entries = managed.update((), change, "one", "v1", "", "2026-01-01T00:00:00Z")
    again = managed.parse([entry.encoded for entry in entries])
    assert [entry.fields for entry in again] == [entry.fields for entry in entries]


@pytest.mark.parametrize("selector", ["a in", "a in (b", "=b", "a=b c", "a,,b", "a b"])
def test_a_selector_that_cannot_be_read_is_refused(selector: str) -> None:
    """A malformed label selector is a 400, never a selector of everything."""
    with pytest.raises(ApiError) as caught:
        selectors.parse(selector, "", RESOURCES[0])
    assert caught.value.code == 400
