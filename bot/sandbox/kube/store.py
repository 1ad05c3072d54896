"""The objects, their history and their watchers. Single-threaded: every write is one synchronous step.

Manifests in here are never changed in place. Each state keeps its encoded bytes, so reading an object again, listing
it or sending it to a watcher costs no encoding.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import random
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from bot.sandbox.kube import managed, status, validation
from bot.sandbox.kube.resources import Resource, api_version
from bot.sandbox.kube.selectors import Matches
from bot.sandbox.kube.status import Json

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""

KEPT_WRITES = 10_000
KEPT_SNAPSHOTS = 64
SLOW_WATCHER_EVENTS = 20_000
"""A watch that lags this far behind is cut."""
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def now() -> str:
    """RFC 3339 in whole seconds, as metadata has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(slots=True)
class Stored:
    """One state of one object."""

    resource: Resource
    manifest: Json
    owners: tuple[managed.Entry, ...]
    resource_version: int
    _encoded: dict[str, bytes] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Where it lives in its collection."""
        metadata = self.manifest["metadata"]
        return metadata.get("namespace", ""), metadata["name"]

    def as_version(self, version: str) -> Json:
        """The manifest with the `apiVersion` it is asked for in."""
        stated = api_version(self.resource.group, version)
        return self.manifest if self.manifest["apiVersion"] == stated else {**self.manifest, "apiVersion": stated}

    def encoded(self, version: str) -> bytes:
        """The manifest in one of its versions, encoded once."""
        done = self._encoded.get(version)
        if done is None:
            done = self._encoded[version] = encode(self.as_version(version))
        return done

    def listed(self, version: str) -> bytes:
        """The manifest as an item of a list: built-in kinds leave `kind` and `apiVersion` to the list."""
        if self.resource.custom:
            return self.encoded(version)
        done = self._encoded.get("")
        if done is None:
            bare = {key: value for key, value in self.manifest.items() if key not in ("kind", "apiVersion")}
            done = self._encoded[""] = encode(bare)
        return done


@dataclass(frozen=True, slots=True)
class Event:
    """One change; `after` of a deletion is the last state with the resourceVersion of the deletion."""

    resource_version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    before: Stored | None
    after: Stored

    def seen(self, namespace: str | None, matches: Matches | None) -> tuple[str, Stored] | None:
        """The event as a watcher with this namespace and selector sees it, None when it does not."""
        if namespace is not None and self.after.key[0] != namespace:
            return None
        if matches is None:
            return self.type, self.after
        was = self.before is not None and matches(self.before.manifest)
        if self.type != "DELETED" and matches(self.after.manifest):
            return ("MODIFIED" if was else "ADDED"), self.after
        return ("DELETED", self.after) if was else None


@dataclass(slots=True, eq=False)
class Watcher:
    """What one open watch has not sent yet."""

    pending: deque[Event] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: bool = False


@dataclass(slots=True)
class Collection:
    """All objects of one kind, in the order lists have, and the events a watch can resume from."""

    resource: Resource
    objects: dict[Key, Stored] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    events: deque[Event] = field(default_factory=deque)
    compacted: int = 0
    """Watches from before this resourceVersion are too old."""
    watchers: set[Watcher] = field(default_factory=set)

    def select(self, namespace: str | None, matches: Matches | None) -> Iterator[Stored]:
        """Objects of a namespace (None: all) that match, by namespace and name."""
        order = self.order
        if namespace is not None:
            first = bisect.bisect_left(order, (namespace, ""))
            last = bisect.bisect_left(order, (namespace + "\0", ""))
            order = order[first:last]
        for key in order:
            stored = self.objects[key]
            if matches is None or matches(stored.manifest):
                yield stored


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes, for managedFields and the history."""

    field_manager: str
    user_agent: str
    user: str


@dataclass(frozen=True, slots=True)
class Write:
    """An accepted write; `at` is the moment it was stored, in UTC."""

    at: datetime
    verb: str
    resource: Resource
    subresource: str
    author: Author
    resource_version: int
    before: Stored | None
    after: Stored | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A list that is being read in pages."""

    resource_version: int
    objects: list[Stored]


class Store:
    """Everything one server knows."""

    def __init__(self, resources: tuple[Resource, ...], kept_events: int = 1_000) -> None:
        # Beyond anything an earlier process gave out, so that a client's watch from before a restart is too old.
        self.resource_version = int(datetime.now(UTC).timestamp() * 1_000)
        self.kept_events = kept_events
        self.writes: deque[Write] = deque(maxlen=KEPT_WRITES)
        first = self.resource_version
        self.collections = {(r.group, r.plural): Collection(r, compacted=first) for r in resources}
        self._snapshots: dict[str, Snapshot] = {}

    def collection(self, resource: Resource) -> Collection:
        """The objects of a kind."""
        return self.collections[(resource.group, resource.plural)]

    def at(self, group: str, plural: str) -> Collection:
        """The objects of a kind, by name."""
        return self.collections[(group, plural)]

    def get(self, resource: Resource, key: Key) -> Stored:
        """One object, or a 404."""
        stored = self.collection(resource).objects.get(key)
        if stored is None:
            raise status.not_found(key[1], resource.group, resource.plural)
        return stored

    def clear(self) -> None:
        """Forget all objects; resourceVersions go on, and open or resumed watches must list again."""
        for collection in self.collections.values():
            collection.objects.clear()
            collection.order.clear()
        self._snapshots.clear()
        self.writes.clear()
        self.resource_version += 1
        self.compact()
        self.drop_watches()

    def compact(self) -> None:
        """Forget all events: watches and lists that go on from before now get a 410."""
        for collection in self.collections.values():
            collection.events.clear()
            collection.compacted = self.resource_version
        self._snapshots.clear()

    def drop_watches(self) -> None:
        """Cut every open watch."""
        for collection in self.collections.values():
            for watcher in collection.watchers:
                watcher.dropped = True
                watcher.wake.set()

    def keep(self, snapshot: Snapshot) -> str:
        """Keep a list for its next page; returns the token that names it."""
        token = uuid.uuid4().hex
        self._snapshots[token] = snapshot
        while len(self._snapshots) > KEPT_SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        return token

    def resume(self, token: str) -> Snapshot:
        """The list a token names, or a 410."""
        snapshot = self._snapshots.get(token)
        if snapshot is None:
            raise status.continue_expired()
        return snapshot

    def load(self, resource: Resource, manifest: Json, author: Author) -> Stored:
        """Put a seeded manifest in as it is, status included; replaces what has its name."""
        metadata = dict(manifest.get("metadata") or {})
        if resource.namespaced:
            metadata.setdefault("namespace", "default")
        manifest = {**manifest, "metadata": metadata}
        key = (metadata.get("namespace", ""), metadata["name"])
        version = manifest["apiVersion"].rpartition("/")[2]
        if key in self.collection(resource).objects:
            before = self.collection(resource).objects[key]
            kept = {name: before.manifest["metadata"][name] for name in ("uid", "creationTimestamp")}
            manifest = {**manifest, "metadata": {**metadata, **kept}}
            return self._update(before, manifest, version, author, "", "update")
        owners = managed.parse(metadata.get("managedFields"))
        return self._create(resource, version, manifest, author, owners)

    def create(
        self, resource: Resource, version: str, namespace: str, body: Json, author: Author, *, dry_run: bool
    ) -> Stored:
        """Store a new object, or refuse with 404 (namespace), 409 or 422."""
        metadata = dict(body.get("metadata") or {})
        if resource.namespaced:
            stated = metadata.setdefault("namespace", namespace)
            if stated != namespace:
                raise status.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            if ("", namespace) not in self.at("", "namespaces").objects:
                raise status.not_found(namespace, "", "namespaces")
        else:
            metadata.pop("namespace", None)
        objects = self.collection(resource).objects
        if not metadata.get("name"):
            metadata["name"] = self._generated(resource, metadata)
        key = (metadata.get("namespace", ""), metadata["name"])
        if key in objects:
            raise status.already_exists(key[1], resource.group, resource.plural)
        if metadata.get("resourceVersion"):
            raise status.bad_request("resourceVersion should not be set on objects to be created")
        for server_owned in ("uid", "creationTimestamp", "generation", "resourceVersion", "managedFields"):
            metadata.pop(server_owned, None)
        manifest = {**body, "metadata": metadata}
        if resource.status:
            manifest.pop("status", None)
        return self._create(resource, version, manifest, author, (), dry_run=dry_run)

    def _generated(self, resource: Resource, metadata: Json) -> str:
        prefix = metadata.get("generateName")
        if not prefix:
            cause = {
                "reason": "FieldValueRequired",
                "message": "Required value: name or generateName is required",
                "field": "metadata.name",
            }
            raise status.invalid("", resource.group, resource.kind, [cause])
        return str(prefix)[:58] + "".join(random.choices(_SUFFIX, k=5))

    def _create(
        self,
        resource: Resource,
        version: str,
        manifest: Json,
        author: Author,
        owners: tuple[managed.Entry, ...],
        *,
        dry_run: bool = False,
    ) -> Stored:
        moment = now()
        metadata = manifest["metadata"]
        if (resource.group, resource.plural) == ("", "namespaces"):
            labels = {"kubernetes.io/metadata.name": metadata["name"], **(metadata.get("labels") or {})}
            metadata = {**metadata, "labels": labels}
            manifest = {"spec": {"finalizers": ["kubernetes"]}, **manifest, "status": {"phase": "Active"}}
        metadata = {
            **metadata,
            "uid": metadata.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": metadata.get("creationTimestamp") or moment,
        }
        if resource.generation:
            metadata["generation"] = 1
        manifest = {**manifest, "metadata": metadata}
        manifest["kind"] = resource.kind
        validation.check(resource, manifest)
        if not owners:
            change = managed.compare({}, manifest)
            stated = api_version(resource.group, version)
            owners = managed.update((), change, author.field_manager, stated, "", moment)
        rv = self.resource_version if dry_run else self.resource_version + 1
        stored = self._state(resource, manifest, owners, rv, versioned=not dry_run)
        if not dry_run:
            self._commit("create", stored.resource, "", author, None, stored)
        return stored

    def _state(
        self, resource: Resource, manifest: Json, owners: tuple[managed.Entry, ...], rv: int, *, versioned: bool = True
    ) -> Stored:
        metadata = {**manifest["metadata"], "managedFields": [entry.encoded for entry in owners]}
        if versioned:
            metadata["resourceVersion"] = str(rv)
        kept = {**manifest, "metadata": metadata, "apiVersion": api_version(resource.group, resource.versions[0])}
        return Stored(resource, kept, owners, rv)

    def update(
        self,
        before: Stored,
        manifest: Json,
        version: str,
        author: Author,
        *,
        subresource: str = "",
        verb: str = "update",
        dry_run: bool = False,
    ) -> Stored:
        """Store a new state of an object, or refuse with 409 or 422; one that changes nothing is not written."""
        resource = before.resource
        self._check_identity(before, manifest)
        if subresource == "status":
            manifest = {
                **before.manifest,
                "status": manifest.get("status"),
                "metadata": {
                    **before.manifest["metadata"],
                    "resourceVersion": manifest["metadata"].get("resourceVersion"),
                },
            }
            if manifest["status"] is None:
                del manifest["status"]
        elif resource.status:
            manifest = {**manifest}
            manifest.pop("status", None)
            if "status" in before.manifest:
                manifest["status"] = before.manifest["status"]
        asked = manifest["metadata"].get("resourceVersion")
        if asked and asked != before.manifest["metadata"]["resourceVersion"]:
            raise status.conflict(before.key[1], resource.group, resource.plural)
        return self._update(before, manifest, version, author, subresource, verb, dry_run=dry_run)

    def _check_identity(self, before: Stored, manifest: Json) -> None:
        resource = before.resource
        namespace, name = before.key
        metadata = manifest.get("metadata")
        if not isinstance(metadata, dict):
            raise status.bad_request("metadata is missing or not an object")
        if metadata.get("name") != name:
            raise status.bad_request(
                f"the name of the object ({metadata.get('name', '')}) does not match the name on the URL ({name})"
            )
        if metadata.get("namespace", namespace) != namespace:
            raise status.bad_request(
                f"the namespace of the object ({metadata['namespace']}) does not match the namespace on the URL "
                f"({namespace})"
            )
        if manifest.get("kind") != resource.kind:
            raise status.bad_request(
                f'{resource.kind} in version "{resource.versions[0]}" cannot be handled as a {resource.kind}: '
                f"no kind {manifest.get('kind')!r} is registered"
            )
        uid = metadata.get("uid")
        own = before.manifest["metadata"]["uid"]
        if uid and uid != own:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"
            raise status.conflict(name, resource.group, resource.plural, why)

    def _update(
        self,
        before: Stored,
        manifest: Json,
        version: str,
        author: Author,
        subresource: str,
        verb: str,
        *,
        dry_run: bool = False,
    ) -> Stored:
        resource = before.resource
        old = before.manifest
        change = managed.compare(old, manifest)
        if not change:
            return before
        metadata = {**manifest["metadata"]}
        for server_owned in ("namespace", "uid", "creationTimestamp", "generation"):
            if server_owned in old["metadata"]:
                metadata[server_owned] = old["metadata"][server_owned]
        if resource.generation and any(path[0] not in ("metadata", "status") for path in change.set | change.removed):
            metadata["generation"] = metadata.get("generation", 1) + 1
        manifest = {**manifest, "metadata": metadata}
        validation.check(resource, manifest)
        stated = api_version(resource.group, version)
        owners = managed.update(before.owners, change, author.field_manager, stated, subresource, now())
        rv = before.resource_version if dry_run else self.resource_version + 1
        metadata["resourceVersion"] = str(rv)
        stored = self._state(resource, manifest, owners, rv)
        if not dry_run:
            self._commit(verb, resource, subresource, author, before, stored)
        return stored

    def delete(self, before: Stored, author: Author, *, dry_run: bool = False) -> Stored:
        """Remove an object; a namespace goes with all that is in it."""
        if dry_run:
            return before
        if (before.resource.group, before.resource.plural) == ("", "namespaces"):
            for collection in self.collections.values():
                for stored in list(collection.select(before.key[1], None)):
                    self.delete(stored, author)
        self._commit("delete", before.resource, "", author, before, None)
        return before

    def _commit(
        self,
        verb: str,
        resource: Resource,
        subresource: str,
        author: Author,
        before: Stored | None,
        after: Stored | None,
    ) -> None:
        self.resource_version += 1
        rv = self.resource_version
        collection = self.collection(resource)
        if after is not None:
            if before is None:
                bisect.insort(collection.order, after.key)
            collection.objects[after.key] = after
            event = Event(rv, "ADDED" if before is None else "MODIFIED", before, after)
        else:
            assert before is not None
            del collection.objects[before.key]
            del collection.order[bisect.bisect_left(collection.order, before.key)]
            metadata = {**before.manifest["metadata"], "resourceVersion": str(rv)}
            last = Stored(resource, {**before.manifest, "metadata": metadata}, before.owners, rv)
            event = Event(rv, "DELETED", before, last)
        collection.events.append(event)
        while len(collection.events) > self.kept_events:
            collection.compacted = collection.events.popleft().resource_version
        for watcher in collection.watchers:
            watcher.pending.append(event)
            watcher.dropped |= len(watcher.pending) > SLOW_WATCHER_EVENTS
            watcher.wake.set()
        self.writes.append(Write(datetime.now(UTC), verb, resource, subresource, author, rv, before, after))


def random_id(length: int) -> str:
    """A name's random end, from the letters Kubernetes uses."""
    return "".join(random.choices(_SUFFIX, k=length))
