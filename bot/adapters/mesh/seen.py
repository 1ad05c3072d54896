"""VirtualServices as a watch has shown them: what a reading needs of those that bear our mark, and what has changed."""

import asyncio
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bot.adapters.kubernetes import Change, Manifest, Snapshot, key_of
from bot.adapters.mesh import annotation, virtualservice
from bot.adapters.mesh.virtualservice import PROTOCOLS
from bot.rollout.model import Target
from bot.rollout.route import RouteState

Key = tuple[str, str]


@dataclass(slots=True)
class _Object:
    """An object's resourceVersion and, when it bears our mark, the object cut down, packed; the last reading of it is
    kept with the target that it was made for."""

    version: str
    cut: bytes | None = None
    target: Target | None = None
    state: RouteState | None = None


class Seen:
    """One scope's objects by namespace and name: their resourceVersion, and of those with our mark what readings need.

    A whole VirtualService is several kilobytes in memory, and ten thousand of them more than the rest of the bot.
    Nothing is known before a snapshot is complete, nor while the watch is broken.
    """

    def __init__(self) -> None:
        self._objects: dict[Key, _Object] = {}
        self._listed: set[Key] = set()
        self._begun = False
        self._known = False
        self._settled = asyncio.Event()
        self._settled.set()

    async def settled(self, within_s: float) -> None:
        """Wait for the rest of a snapshot that is coming in, so that nobody reads one by one what it brings."""
        if not self._settled.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), within_s)

    def manifest(self, namespace: str, name: str) -> Manifest | None:
        """The object with what `virtualservice.state` reads of it; None when it is not known here, or bears no mark."""
        known = self._objects.get((namespace, name)) if self._known else None
        return None if known is None or known.cut is None else _unpacked(known.cut)

    def state(self, target: Target) -> RouteState | None:
        """The reading of a route, the same as long as its object is; None as `manifest`. Raises as
        `virtualservice.state`."""
        known = self._objects.get((target.route.namespace, target.route.name)) if self._known else None
        if known is None or known.cut is None:
            return None
        if known.state is None or known.target is not target:
            known.state = virtualservice.state(_unpacked(known.cut), target)
            known.target = target
            known.version = known.state.resource_version
        return known.state

    def listed(self, told: Snapshot) -> Sequence[Key]:
        """Take in a page; the objects that differ from what was known, none for the first list."""
        if told.first:
            self._listed = set()
            self._settled.clear()
        changed = [key for item in told.items if self._put(key := _key(item), item, listed=True) and self._begun]
        self._listed.update(key_of(item) for item in told.items)
        if told.last:
            gone = self._objects.keys() - self._listed
            for key in gone:
                self._drop(key)
            changed += gone
            self._listed = set()
            self._known = self._begun = True
            self._settled.set()
        return changed

    def changed(self, told: Change) -> Sequence[Key]:
        """Take in a change; its object, unless it is known already."""
        key = _key(told.object)
        if told.kind == "DELETED":
            self._drop(key)
            return (key,)
        return (key,) if self._put(key, told.object, watched=True) else ()

    def read(self, manifest: Manifest) -> None:
        """Take in a reading that was made past the watch: its echo is no news."""
        if self._begun:
            self._put(_key(manifest), manifest)

    def missed(self, namespace: str, name: str) -> None:
        """A reading that was made past the watch found no such object: until it is shown anew nothing is known of it,
        for a watch that has died without a word would go on showing it, and a slow one shows what was before."""
        known = self._objects.get((namespace, name))
        if known is not None:
            self._objects[namespace, name] = _Object(known.version)

    def broken(self) -> None:
        """Until the next snapshot nothing is known of what happens."""
        self._known = False
        self._settled.set()

    def _put(self, key: Key, manifest: Manifest, *, listed: bool = False, watched: bool = False) -> bool:
        """False when this state, or a later one, is known. A list is right: a server may have been set back. What a
        reading has missed another one or a list brings back as it was, a watch does not."""
        version = str(manifest["metadata"].get("resourceVersion") or "")
        marked = annotation.text_of(manifest) is not None
        known = self._objects.get(key)
        before = known.version if known is not None else ""
        if version and version == before:
            missed = marked and known is not None and known.cut is None
            if watched or not missed:
                return False
        elif version and not listed and _older(version, before):
            return False
        self._objects[key] = _Object(version, _packed(_cut(manifest)) if marked else None)
        return True

    def _drop(self, key: Key) -> None:
        self._objects.pop(key, None)


def _key(manifest: Manifest) -> Key:
    namespace, name = key_of(manifest)
    return sys.intern(namespace), sys.intern(name)


def _older(version: str, other: str) -> bool:
    """Versions that are numbers rise, as Kubernetes 1.35 promises; of others nobody can tell."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


def _packed(manifest: Manifest) -> bytes:
    return zlib.compress(json.dumps(manifest, separators=(",", ":")).encode())


def _unpacked(packed: bytes) -> Manifest:
    found: Manifest = json.loads(zlib.decompress(packed))
    return found


def _cut(manifest: Mapping[str, Any]) -> Manifest:
    """What readings look at: identity, our annotation, who wrote the routes, and where the routes send."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    kept = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion") if name in metadata}
    kept["annotations"] = {annotation.KEY: annotation.text_of(manifest)}
    kept["managedFields"] = [_owner(entry) for entry in metadata.get("managedFields") or ()]
    routes = {protocol: [_route(one) for one in spec[protocol]] for protocol in PROTOCOLS if spec.get(protocol)}
    return {"metadata": kept, "spec": routes}


def _owner(entry: Mapping[str, Any]) -> dict[str, Any]:
    owned = (entry.get("fieldsV1") or {}).get("f:spec") or {}
    fields: dict[str, Any] = {f"f:{protocol}": {} for protocol in PROTOCOLS if f"f:{protocol}" in owned}
    kept = {name: entry[name] for name in ("manager", "time", "subresource") if entry.get(name)}
    return {**kept, "fieldsV1": {"f:spec": fields}}


def _route(route: Mapping[str, Any]) -> dict[str, Any]:
    return {name: route[name] for name in ("name", "match", "route") if name in route}
