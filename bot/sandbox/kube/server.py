"""The API over HTTP: paths, verbs, patches, lists and watches."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bot.sandbox.kube import discovery, patch, selectors, status
from bot.sandbox.kube.access import Access, Asked
from bot.sandbox.kube.faults import Faults
from bot.sandbox.kube.resources import RESOURCES, REVIEWS, Catalogue, Resource, api_version
from bot.sandbox.kube.status import ApiError, Json, PlainError
from bot.sandbox.kube.store import Author, Collection, Snapshot, Store, Stored, Watcher, encode

Control = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_OPEN_PATHS = ("/healthz", "/livez", "/readyz")
_WATCH_S = (1_800, 3_600)
_POLL_S = 0.2
BODY_LIMIT = 3 * 1024 * 1024
CONTROL_BODY_LIMIT = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names."""

    resource: Resource
    version: str
    namespace: str | None
    name: str
    subresource: str

    @property
    def stated_version(self) -> str:
        """The `apiVersion` of the path."""
        return api_version(self.resource.group, self.version)


def _json(code: int, body: bytes) -> web.Response:
    return web.Response(status=code, body=body, content_type="application/json")


def _flag(query: Any, name: str) -> bool:
    return query.get(name) in ("true", "1", "True")


class ApiServer:
    """One server; `handle` answers every request."""

    def __init__(self, store: Store, access: Access, faults: Faults) -> None:
        self.store = store
        self.access = access
        self.faults = faults
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.control: Control | None = None
        self.stopping = asyncio.Event()
        self._catalogue = Catalogue(RESOURCES, {}, frozenset())
        self._catalogue_of = -1

    @property
    def catalogue(self) -> Catalogue:
        """The kinds that are served, with the faults `without` and `serve` applied."""
        if self._catalogue_of != self.faults.generation:
            stated = self.faults.stated
            served = {group: tuple(versions) for group, versions in stated.get("serve", {}).items()}
            self._catalogue = Catalogue(RESOURCES, served, frozenset(stated.get("without", ())))
            self._catalogue_of = self.faults.generation
        return self._catalogue

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        if self.control is not None and path.startswith("/_sandbox/"):
            return await self._answer(request, self.control(request, path))
        return await self._answer(request, self._api(request, path))

    async def _answer(self, request: web.BaseRequest, answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        try:
            return await answer
        except ApiError as error:
            response = _json(error.code, encode(error.status))
            if error.retry_after_s is not None:
                response.headers["Retry-After"] = str(error.retry_after_s)
            return response
        except PlainError as plain:
            response = web.Response(status=plain.code, text=plain.text)
            if plain.retry_after_s is not None:
                response.headers["Retry-After"] = str(plain.retry_after_s)
            return response
        except web.HTTPRequestEntityTooLarge:
            too_large = ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {BODY_LIMIT}")
            return _json(413, encode(too_large.status))

    async def _api(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path in _OPEN_PATHS:
            return web.Response(text="ok")
        if path in ("/version", "/version/"):
            return _json(200, encode(discovery.VERSION))
        user = self.access.user(request.headers.get("Authorization"))
        parts = path.strip("/").split("/")
        target = self._target(parts)
        if target is None:
            return await self._beside(request, user, parts)
        verb = self._verb(request, target)
        code = 0
        try:
            response = await self._serve(request, user, target, verb)
            code = response.status
        except (ApiError, PlainError) as error:
            code = error.code
            raise
        finally:
            self.counts[verb, target.resource.plural, code] += 1
        return response

    async def _beside(self, request: web.BaseRequest, user: str, parts: list[str]) -> web.StreamResponse:
        """Discovery and the reviews, which store nothing."""
        group, plural = (parts[1], parts[3]) if len(parts) == 4 and parts[0] == "apis" else ("", "")
        verb = "create" if request.method == "POST" else "get"
        agent = request.headers.get("User-Agent", "")
        broken = self.faults.take(verb, plural, None, "", agent, dry_run=False)
        if broken is not None:
            await self._break(request, group, plural, "", broken)
        found: Json | None = None
        match parts:
            case ["api"]:
                found = discovery.core_versions(request.host)
            case ["apis"]:
                found = discovery.groups(self.catalogue)
            case ["api", version]:
                found = discovery.resources(self.catalogue, "", version)
            case ["apis", named]:
                found = discovery.group(self.catalogue, named)
            case ["apis", "authorization.k8s.io", "v1", _] if plural in REVIEWS:
                if request.method != "POST":
                    raise status.method_not_allowed()
                body = await self._body(request)
                self.counts["create", plural, 201] += 1
                if plural == "selfsubjectaccessreviews":
                    return _json(201, encode(self.access.access_review(user, body)))
                return _json(201, encode(self.access.rules_review(body)))
            case ["apis", named, version]:
                found = discovery.resources(self.catalogue, named, version)
        if found is None:
            raise status.unknown_path()
        if request.method != "GET":
            raise status.method_not_allowed()
        return _json(200, encode(found))

    def _target(self, parts: list[str]) -> Target | None:
        match parts:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                return None
        namespace: str | None = None
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
            namespace = rest[1]
            rest = rest[2:]
        if not rest or len(rest) > 3:
            return None
        resource = self.catalogue.find(group, version, rest[0])
        if resource is None or (namespace is not None and not resource.namespaced):
            return None
        name = rest[1] if len(rest) > 1 else ""
        if name and resource.namespaced and namespace is None:
            return None
        subresource = rest[2] if len(rest) > 2 else ""
        if subresource and not (subresource == "status" and resource.status):
            return None
        return Target(resource, version, namespace, name, subresource)

    def _verb(self, request: web.BaseRequest, target: Target) -> str:
        if target.name:
            verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method)
            if target.subresource and verb == "delete":
                verb = None
        elif request.method == "GET":
            verb = "watch" if _flag(request.query, "watch") else "list"
        else:
            verb = {"POST": "create", "DELETE": "deletecollection"}.get(request.method)
            if target.resource.namespaced and target.namespace is None:
                verb = None
        if verb is None:
            raise status.method_not_allowed()
        return verb

    async def _serve(self, request: web.BaseRequest, user: str, target: Target, verb: str) -> web.StreamResponse:
        query = request.query
        resource = target.resource
        agent = request.headers.get("User-Agent", "")
        dry_run = "dryRun" in query
        if dry_run and query["dryRun"] != "All":
            raise status.bad_request(f'dryRun: Unsupported value: "{query["dryRun"]}": supported values: "All"')
        broken = self.faults.take(verb, resource.plural, target.namespace, target.name, agent, dry_run=dry_run)
        if broken is not None:
            await self._break(request, resource.group, resource.plural, target.name, broken)
        namespace = target.namespace
        if resource.plural == "namespaces":
            namespace = target.name or None
        self.access.require(
            Asked(user, verb, resource.group, resource.plural, target.subresource, namespace, target.name)
        )
        author = Author(query.get("fieldManager") or agent.split("/")[0][:128] or "unknown", agent, user)
        response: web.StreamResponse
        match verb:
            case "get":
                stored = self.store.get(resource, (target.namespace or "", target.name))
                response = _json(200, stored.encoded(target.version))
            case "list":
                response = self._list(query, target)
            case "watch":
                return await self._watch(request, target)
            case "create":
                body = await self._object(request, target)
                stored = self.store.create(
                    resource, target.version, target.namespace or "", body, author, dry_run=dry_run
                )
                response = _json(201, stored.encoded(target.version))
            case "update":
                response = await self._put(request, target, author, dry_run=dry_run)
            case "patch":
                response = await self._patch(request, target, author, dry_run=dry_run)
            case "delete":
                response = await self._delete(request, target, author, dry_run=dry_run)
            case _:
                response = self._delete_collection(query, target, author, dry_run=dry_run)
        if broken is not None and broken.get("lose_reply"):
            if request.transport is not None:
                request.transport.abort()
            self.counts["lost reply", resource.plural, response.status] += 1
        return response

    async def _break(self, request: web.BaseRequest, group: str, plural: str, name: str, stated: Json) -> None:
        if stated.get("delay_s"):
            await asyncio.sleep(stated["delay_s"])
        if stated.get("hang"):
            generation = self.faults.generation
            while generation == self.faults.generation and not self.stopping.is_set():
                if request.transport is None or request.transport.is_closing():
                    break
                await asyncio.sleep(_POLL_S)
            if request.transport is not None:
                request.transport.abort()
            raise status.fault(504, None, None, name, group, plural)
        if stated.get("status"):
            after = stated.get("retry_after_s")
            raise status.fault(stated["status"], stated.get("message"), after, name, group, plural)

    async def _body(self, request: web.BaseRequest) -> Json:
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise status.bad_request(f"couldn't get version/kind; json parse error: {error}") from error
        if not isinstance(body, dict):
            raise status.bad_request("couldn't get version/kind; json parse error: not an object")
        return body

    async def _object(self, request: web.BaseRequest, target: Target) -> Json:
        body = await self._body(request)
        stated = body.setdefault("apiVersion", target.stated_version)
        kind = body.setdefault("kind", target.resource.kind)
        if stated != target.stated_version:
            raise status.bad_request(
                f"the API version in the data ({stated}) does not match the expected API version "
                f"({target.stated_version})"
            )
        if kind != target.resource.kind:
            raise status.bad_request(
                f'{kind} in version "{target.version}" cannot be handled as a {target.resource.kind}'
            )
        if not isinstance(body.get("metadata", {}), dict):
            raise status.bad_request("metadata is not an object")
        return body

    async def _put(self, request: web.BaseRequest, target: Target, author: Author, *, dry_run: bool) -> web.Response:
        body = await self._object(request, target)
        resource = target.resource
        before = self.store.get(resource, (target.namespace or "", target.name))
        if resource.custom and not (body.get("metadata") or {}).get("resourceVersion"):
            cause = {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: 0x0: must be specified for an update",
                "field": "metadata.resourceVersion",
            }
            raise status.invalid(target.name, resource.group, resource.plural, [cause])
        after = self.store.update(before, body, target.version, author, subresource=target.subresource, dry_run=dry_run)
        return _json(200, after.encoded(target.version))

    async def _patch(self, request: web.BaseRequest, target: Target, author: Author, *, dry_run: bool) -> web.Response:
        resource = target.resource
        accepted = (_JSON_PATCH, _MERGE_PATCH) if resource.custom else (_JSON_PATCH, _MERGE_PATCH, _STRATEGIC)
        media = request.content_type
        if media not in accepted:
            raise status.unsupported_media(accepted)
        raw = await request.read()
        before = self.store.get(resource, (target.namespace or "", target.name))
        try:
            wanted = json.loads(raw)
        except ValueError as error:
            raise status.bad_request(f"error decoding patch: {error}") from error
        document = before.as_version(target.version)
        if media == _JSON_PATCH:
            patched = patch.json_patch(document, wanted)
        elif not isinstance(wanted, dict):
            raise status.bad_request("error decoding patch: json: cannot unmarshal value into an object")
        elif media == _MERGE_PATCH:
            patched = patch.merge_patch(document, wanted)
        else:
            patched = patch.strategic_merge(document, wanted)
        if patched.get("apiVersion") != target.stated_version:
            raise status.bad_request(
                f"the API version in the data ({patched.get('apiVersion')}) does not match the expected API version "
                f"({target.stated_version})"
            )
        after = self.store.update(
            before, patched, target.version, author, subresource=target.subresource, verb="patch", dry_run=dry_run
        )
        return _json(200, after.encoded(target.version))

    async def _delete(self, request: web.BaseRequest, target: Target, author: Author, *, dry_run: bool) -> web.Response:
        resource = target.resource
        options = await self._body(request) if request.can_read_body else {}
        before = self.store.get(resource, (target.namespace or "", target.name))
        metadata = before.manifest["metadata"]
        for field, asked in (options.get("preconditions") or {}).items():
            if asked != metadata.get(field):
                shown = "UID" if field == "uid" else "ResourceVersion"
                why = (
                    f"Precondition failed: {shown} in precondition: {asked}, "
                    f"{shown} in object meta: {metadata.get(field)}"
                )
                raise status.conflict(target.name, resource.group, resource.plural, why)
        self.store.delete(before, author, dry_run=dry_run)
        return _json(200, encode(status.deleted(target.name, resource.group, resource.plural, metadata["uid"])))

    def _delete_collection(self, query: Any, target: Target, author: Author, *, dry_run: bool) -> web.Response:
        matches = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), target.resource)
        chosen = list(self.store.collection(target.resource).select(target.namespace, matches))
        for stored in chosen:
            self.store.delete(stored, author, dry_run=dry_run)
        return self._list_of(target, chosen, {"resourceVersion": str(self.store.resource_version)})

    def _list(self, query: Any, target: Target) -> web.Response:
        resource = target.resource
        matches = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource)
        limit = _number(query, "limit")
        token = query.get("continue")
        if token:
            snapshot = self.store.resume(token)
        else:
            asked = _number(query, "resourceVersion")
            if asked > self.store.resource_version:
                raise status.from_the_future(asked, self.store.resource_version)
            chosen = list(self.store.collection(resource).select(target.namespace, matches))
            snapshot = Snapshot(self.store.resource_version, chosen)
        metadata: Json = {"resourceVersion": str(snapshot.resource_version)}
        objects = snapshot.objects
        if limit and len(objects) > limit:
            rest = Snapshot(snapshot.resource_version, objects[limit:])
            metadata["continue"] = self.store.keep(rest)
            if matches is None:
                metadata["remainingItemCount"] = len(rest.objects)
            objects = objects[:limit]
        return self._list_of(target, objects, metadata)

    def _list_of(self, target: Target, objects: list[Stored], metadata: Json) -> web.Response:
        version = target.version
        head = {"kind": f"{target.resource.kind}List", "apiVersion": target.stated_version, "metadata": metadata}
        items = b",".join([stored.listed(version) for stored in objects])
        return _json(200, encode(head)[:-1] + b',"items":[' + items + b"]}")

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        query = request.query
        resource = target.resource
        matches = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource)
        namespace = target.namespace
        if target.name:
            raise status.method_not_allowed()
        collection = self.store.collection(resource)
        initial = _flag(query, "sendInitialEvents")
        asked = _number(query, "resourceVersion")
        lines: list[bytes] = []
        if asked == 0 or initial:
            lines += [
                _line("ADDED", stored.encoded(target.version)) for stored in collection.select(namespace, matches)
            ]
            if initial:
                lines.append(self._bookmark(target, {"k8s.io/initial-events-end": "true"}))
        elif asked < collection.compacted:
            gone = status.expired(asked, collection.compacted)
            lines.append(_line("ERROR", encode(gone.status)))
        else:
            for event in collection.events:
                if event.resource_version > asked and (seen := event.seen(namespace, matches)) is not None:
                    lines.append(_line(seen[0], seen[1].encoded(target.version)))
        watcher = Watcher()
        collection.watchers.add(watcher)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            if lines:
                await response.write(b"".join(lines))
            if asked and not initial and asked < collection.compacted:
                return response
            await self._follow(request, response, target, collection, watcher, matches)
        except ConnectionError:
            return response
        finally:
            collection.watchers.discard(watcher)
        return response

    async def _follow(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        target: Target,
        collection: Collection,
        watcher: Watcher,
        matches: selectors.Matches | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        timeout_s = _number(request.query, "timeoutSeconds") or random.uniform(*_WATCH_S)
        bookmarks = _flag(request.query, "allowWatchBookmarks")
        deadline = loop.time() + timeout_s
        while True:
            left_s = deadline - loop.time()
            wait_s = min(left_s, float(self.faults.stated.get("bookmark_s", 10))) if bookmarks else left_s
            if not watcher.pending and not watcher.dropped and left_s > 0:
                try:
                    async with asyncio.timeout(wait_s):
                        await watcher.wake.wait()
                except TimeoutError:
                    pass
            watcher.wake.clear()
            if watcher.dropped:
                if request.transport is not None:
                    request.transport.abort()
                return
            if watcher.pending:
                lines: list[bytes] = []
                while watcher.pending:
                    seen = watcher.pending.popleft().seen(target.namespace, matches)
                    if seen is not None:
                        lines.append(_line(seen[0], seen[1].encoded(target.version)))
                if lines:
                    await response.write(b"".join(lines))
            elif bookmarks:
                await response.write(self._bookmark(target, None))
            if loop.time() >= deadline:
                return

    def _bookmark(self, target: Target, annotations: Json | None) -> bytes:
        metadata: Json = {"resourceVersion": str(self.store.resource_version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        bookmark = {"kind": target.resource.kind, "apiVersion": target.stated_version, "metadata": metadata}
        return _line("BOOKMARK", encode(bookmark))


def _line(kind: str, encoded: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + encoded + b"}\n"


def _number(query: Any, name: str) -> int:
    raw = query.get(name) or "0"
    if not raw.isascii() or not raw.isdigit():
        raise status.bad_request(f'{name}: Invalid value: "{raw}": strconv.ParseUint: parsing "{raw}": invalid syntax')
    return int(raw)
