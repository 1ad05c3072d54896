"""managedFields for updates: who wrote which field last.

The rules are those of structured-merge-diff for the operation Update: the fields a write changed or added move to
its manager, fields it removed are forgotten by all. Lists are atomic, as they are in custom resources that do not
say otherwise, so `spec.http` of a VirtualService belongs to whoever wrote any part of it last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bot.sandbox.kube.patch import same
from bot.sandbox.kube.status import Json

Path = tuple[str, ...]

_UNOWNED_METADATA = frozenset(
    ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "selfLink")
)
_UNOWNED = frozenset(("apiVersion", "kind"))
_STRUCTS: frozenset[Path] = frozenset(((), ("metadata",)))


@dataclass(frozen=True, slots=True)
class Entry:
    """One manager's entry; `encoded` is its JSON."""

    manager: str
    api_version: str
    subresource: str
    time: str
    fields: frozenset[Path]
    encoded: Json


@dataclass(frozen=True, slots=True)
class Change:
    """Paths of the fields that differ between two states."""

    set: frozenset[Path]
    removed: frozenset[Path]

    def __bool__(self) -> bool:
        return bool(self.set or self.removed)


def _owned(path: Path) -> bool:
    return path[0] not in _UNOWNED and not (path[0] == "metadata" and len(path) > 1 and path[1] in _UNOWNED_METADATA)


def _fields(value: Any, path: Path, into: set[Path]) -> None:
    if isinstance(value, dict):
        if path not in _STRUCTS:
            into.add(path)
        for key, item in value.items():
            _fields(item, (*path, key), into)
    else:
        into.add(path)


def _compare(old: Any, new: Any, path: Path, put: set[Path], removed: set[Path]) -> None:
    if old is new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key, item in new.items():
            if key not in old:
                _fields(item, (*path, key), put)
            elif old[key] is not item:
                _compare(old[key], item, (*path, key), put, removed)
        for key, item in old.items():
            if key not in new:
                _fields(item, (*path, key), removed)
    elif not same(old, new):
        _fields(new, path, put)
        if isinstance(old, dict):
            _fields(old, path, removed)


def compare(old: Json, new: Json) -> Change:
    """What an update changed, without the fields that belong to the server."""
    put: set[Path] = set()
    removed: set[Path] = set()
    _compare(old, new, (), put, removed)
    return Change(frozenset(filter(_owned, put)), frozenset(filter(_owned, removed - put)))


def _encode(manager: str, api_version: str, subresource: str, time: str, fields: frozenset[Path]) -> Json:
    tree: Json = {}
    for path in sorted(fields):
        node = tree
        for depth, key in enumerate(path):
            if depth and path[:depth] in fields:
                node.setdefault(".", {})
            node = node.setdefault(f"f:{key}", {})
    encoded: Json = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": api_version,
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": tree,
    }
    if subresource:
        encoded["subresource"] = subresource
    return encoded


def _entry(manager: str, api_version: str, subresource: str, time: str, fields: frozenset[Path]) -> Entry:
    encoded = _encode(manager, api_version, subresource, time, fields)
    return Entry(manager, api_version, subresource, time, fields, encoded)


def update(
    entries: tuple[Entry, ...], change: Change, manager: str, api_version: str, subresource: str, time: str
) -> tuple[Entry, ...]:
    """The entries after a write of `manager` that made `change`; `time` in whole seconds, as the server keeps it."""
    kept: list[Entry] = []
    own = change.set
    for entry in entries:
        left = entry.fields - change.removed - change.set
        its_own = (entry.manager, entry.api_version, entry.subresource) == (manager, api_version, subresource)
        if its_own and change.set:
            own = own | left
            continue
        if left == entry.fields:
            kept.append(entry)
        elif left:
            kept.append(_entry(entry.manager, entry.api_version, entry.subresource, entry.time, left))
    if change.set:
        kept.append(_entry(manager, api_version, subresource, time, own))
    return tuple(sorted(kept, key=lambda entry: (entry.time, entry.manager)))


def _paths(tree: Json, path: Path, into: set[Path]) -> None:
    if not tree:
        into.add(path)
    for key, item in tree.items():
        if key == ".":
            into.add(path)
        elif key.startswith("f:"):
            _paths(item, (*path, key[2:]), into)
        else:
            into.add(path)


def parse(entries: Any) -> tuple[Entry, ...]:
    """The entries a seeded manifest brings along."""
    parsed: list[Entry] = []
    for item in entries if isinstance(entries, list) else ():
        paths: set[Path] = set()
        _paths(item.get("fieldsV1", {}), (), paths)
        fresh = _entry(
            item["manager"],
            item["apiVersion"],
            item.get("subresource", ""),
            item["time"],
            frozenset(path for path in paths if path),
        )
        parsed.append(replace(fresh, encoded=item))
    return tuple(parsed)
