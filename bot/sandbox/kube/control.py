"""The part's own endpoints below `/_sandbox/`, without a token: faults, history, counts, workloads, nodes, store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from aiohttp import web

from bot.sandbox.kube import status, workloads, world
from bot.sandbox.kube.patch import same
from bot.sandbox.kube.resources import RESOURCES, Catalogue
from bot.sandbox.kube.server import ApiServer
from bot.sandbox.kube.status import Json
from bot.sandbox.kube.store import Author, Store, Write, encode

_SEEDER = Author("kubectl-client-side-apply", "kubectl/v1.34.0 (linux/amd64)", "system:admin")
_EVERYTHING = Catalogue(RESOURCES, {}, frozenset())
_NOISE = frozenset(("/metadata/managedFields", "/metadata/resourceVersion", "/metadata/generation"))


def documents(text: str) -> list[Json]:
    """The manifests of a JSON value or a YAML stream, with `List` kinds taken apart."""
    found: list[Json] = []
    try:
        stream = [json.loads(text)]
    except ValueError:
        stream = _yaml(text)
    for document in stream:
        if document is None:
            continue
        items = document if isinstance(document, list) else [document]
        for item in items:
            found += item["items"] if str(item.get("kind", "")).endswith("List") else [item]
    return found


def _yaml(text: str) -> list[Any]:
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise status.bad_request(f"neither JSON nor YAML: {error}") from error


def load(store: Store, manifests: Sequence[Json]) -> int:
    """Put manifests into the store as they are; returns how many. Raises a 400 for a kind nobody knows."""
    for manifest in manifests:
        resource = _EVERYTHING.of_kind(manifest.get("apiVersion", ""), manifest.get("kind", ""))
        if resource is None:
            raise status.bad_request(f"no kind {manifest.get('kind')!r} in {manifest.get('apiVersion')!r}")
        store.load(resource, manifest, _SEEDER)
    return len(manifests)


def differences(before: Any, after: Any, path: str = "") -> Iterator[Json]:
    """Fields that differ between two objects as `{path, before, after}`, paths as JSON Pointers."""
    if path in _NOISE or before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            token = key.replace("~", "~0").replace("/", "~1")
            yield from differences(before.get(key), after.get(key), f"{path}/{token}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from differences(left, right, f"{path}/{index}")
    elif not same(before, after):
        yield {"path": path, "before": before, "after": after}


def _told(write: Write, *, objects: bool) -> Json:
    before = None if write.before is None else write.before.manifest
    after = None if write.after is None else write.after.manifest
    stored = write.after or write.before
    assert stored is not None
    namespace, name = stored.key
    told: Json = {
        "time": write.at.isoformat(timespec="milliseconds"),
        "verb": write.verb,
        "group": write.resource.group,
        "resource": write.resource.plural,
        "subresource": write.subresource,
        "namespace": namespace,
        "name": name,
        "user": write.author.user,
        "user_agent": write.author.user_agent,
        "field_manager": write.author.field_manager,
        "resource_version": str(write.resource_version),
    }
    if before is not None and after is not None:
        told["diff"] = list(differences(before, after))
    if objects or before is None or after is None:
        told |= {"before": before, "after": after}
    return told


class Control:
    """Answers `/_sandbox/...`; `seed` are the manifests a reset brings back."""

    def __init__(self, server: ApiServer, seed: Sequence[Json]) -> None:
        self._server = server
        self._seed = seed

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer one request to the control API."""
        store = self._server.store
        answer: Any
        match (request.method, *path.strip("/").split("/")[1:]):
            case ("GET", "faults"):
                answer = self._server.faults.state()
            case ("PUT", "faults"):
                answer = self._put_faults(await self._body(request))
            case ("DELETE", "faults"):
                answer = self._clear_faults()
            case ("GET", "history"):
                answer = self._history(request.query)
            case ("GET", "requests"):
                answer = [
                    {"verb": verb, "resource": resource, "code": code, "count": count}
                    for (verb, resource, code), count in sorted(self._server.counts.items())
                ]
            case ("DELETE", "requests"):
                self._server.counts.clear()
                answer = []
            case ("GET", "world"):
                answer = self._world()
            case ("POST", "store" | "world"):
                answer = {"loaded": load(store, documents(await request.text()))}
            case ("DELETE", "store"):
                answer = self._reset(request.query.get("seed"))
            case ("GET", "workloads", namespace, name):
                answer = workloads.workload(store, namespace, name)
            case ("PUT", "workloads", namespace, name):
                answer = workloads.put_workload(store, namespace, name, await self._body(request))
            case ("GET", "nodes", name):
                answer = workloads.node(store, name)
            case ("PUT", "nodes", name):
                answer = workloads.put_node(store, name, await self._body(request))
            case _:
                raise status.unknown_path()
        return web.Response(body=encode(answer), content_type="application/json")

    async def _body(self, request: web.BaseRequest) -> Any:
        try:
            return json.loads(await request.read())
        except ValueError as error:
            raise status.bad_request(f"not JSON: {error}") from error

    def _put_faults(self, body: Any) -> Json:
        state = self._server.faults.put(body)
        stated = self._server.faults.stated
        self._server.access.deny = stated.get("deny", [])
        self._server.access.allow = stated.get("allow")
        if body.get("compact"):
            self._server.store.compact()
        if body.get("drop_watches"):
            self._server.store.drop_watches()
        return state

    def _clear_faults(self) -> Json:
        stated = self._server.faults.stated
        return self._put_faults({"requests": [], **dict.fromkeys(stated)})

    def _reset(self, seed: str | None) -> Json:
        """Forget objects, history, counts and faults; load the seed (`seed=empty|world` chooses another)."""
        chosen = {"empty": world.empty, "world": world.manifests}.get(seed or "")
        self._clear_faults()
        self._server.store.clear()
        self._server.counts.clear()
        loaded = load(self._server.store, self._seed if chosen is None else chosen())
        self._server.store.writes.clear()
        return {"loaded": loaded, "resource_version": str(self._server.store.resource_version)}

    def _history(self, query: Any) -> list[Json]:
        """Accepted writes, oldest first; filters `resource`, `namespace`, `name`, `since` (a resourceVersion)."""
        objects = query.get("objects") == "true"
        since = int(query.get("since") or 0)
        told: list[Json] = []
        for write in self._server.store.writes:
            stored = write.after or write.before
            if write.resource_version <= since or stored is None:
                continue
            fits = (
                query.get("resource") in (None, write.resource.plural)
                and query.get("namespace") in (None, stored.key[0])
                and query.get("name") in (None, stored.key[1])
            )
            if fits:
                told.append(_told(write, objects=objects))
        return told

    def _world(self) -> Json:
        store = self._server.store
        return {
            "workloads": [workloads.workload(store, *key) for key in store.at("apps", "deployments").order],
            "nodes": {name: workloads.node(store, name) for _, name in store.at("", "nodes").order},
        }
