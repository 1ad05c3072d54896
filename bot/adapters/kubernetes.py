"""The API server through the official client: a few calls on paths and plain objects, each with a deadline.

The one home of `kubernetes`. Its typed classes lose fields they do not know, and its `Watch` reconnects in a hot loop
on empty answers, so objects stay as they are sent and watching is our own.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from bot.adapters.hiding import hide
from bot.errors import CanaryError, Conflict, NotFound, Permanent, Transient

Manifest = dict[str, Any]

USER_AGENT = "canary-bot"
READ_TIMEOUT_S = 3.0
WRITE_TIMEOUT_S = 3.0
_WATCH_S = 60
_WATCH_CONNECT_S = 5.0
_LONGEST_BACKOFF_S = 10.0
_PAGE = 250
_TEXT_CHARS = 500


class Unprocessable(Permanent):
    """422: the object is invalid, or a `test` of a JSON Patch failed; only reading again tells which."""


class Forbidden(Permanent):
    """401 or 403: this identity may not do that."""


class _Expired(CanaryError):
    """410: the resourceVersion is too old; list again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change seen by a watch: ADDED, MODIFIED or DELETED, and the object as sent."""

    kind: str
    object: Manifest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Objects of a collection, as sent, in pages: what was known before goes with the `first`, and with the `last` all
    is known."""

    items: tuple[Manifest, ...]
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class Unknown:
    """The watch is broken: what was known may be old."""


def path(group: str, version: str, resource: str, namespace: str = "", name: str = "") -> str:
    """The path of a resource, a collection or an object; group "" is the core group, namespace "" the whole cluster."""
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{resource}" + (f"/{name}" if name else "")


class Kube:
    """One client for the process. Errors: NotFound, Forbidden, Unprocessable, Permanent, Conflict (409), Transient."""

    def __init__(self, api: Any, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._api = api
        self._sleep = sleep

    @classmethod
    async def connect(cls, kubeconfig: str = "") -> Self:
        """Connect by a kubeconfig file, or by the service account of the pod when none is given.

        Nothing is sent yet. Raises Permanent when there is no usable configuration.
        """
        try:
            if kubeconfig:
                load: Any = config.new_client_from_config
                api = await load(config_file=kubeconfig, persist_config=False)
            else:
                settings = client.Configuration()
                load_pod: Any = config.load_incluster_config
                load_pod(settings)
                api = client.ApiClient(settings)
        except Exception as error:
            # The loaders raise whatever they trip over; only their own errors and the system's are safe to repeat,
            # a parser's quotes the file with its token.
            said = str(error) if isinstance(error, ConfigException | OSError) else type(error).__name__
            where = f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account"
            raise Permanent(f"cannot connect to Kubernetes by {where}: {said}") from error
        api.set_default_header("User-Agent", USER_AGENT)
        return cls(api)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, path: str, *, timeout_s: float = READ_TIMEOUT_S) -> Manifest:
        """One object, or any JSON document of the API server."""
        return await self._ask("GET", path, timeout_s=timeout_s)

    async def all(self, path: str, *, selector: str = "", timeout_s: float = READ_TIMEOUT_S) -> list[Manifest]:
        """All objects of a collection, in pages; `timeout_s` is for each page."""
        for _ in range(3):
            try:
                return [item async for _, page in self._pages(path, selector, timeout_s) for item in page]
            except _Expired:
                continue
        raise Transient(f"the list of {path} changes faster than it can be read")

    async def pages(self, path: str, *, timeout_s: float = READ_TIMEOUT_S) -> AsyncGenerator[list[Manifest], None]:
        """The same page by page; Transient when it changes faster than it can be read."""
        try:
            async with aclosing(self._pages(path, "", timeout_s)) as pages:
                async for _, page in pages:
                    yield page
        except _Expired as error:
            raise Transient(f"the list of {path} changes faster than it can be read") from error

    async def patch(
        self,
        path: str,
        operations: Sequence[Mapping[str, Any]],
        *,
        field_manager: str,
        dry_run: bool = False,
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> Manifest:
        """Apply a JSON Patch and return the object as the server has it then."""
        query = [("fieldManager", field_manager)]
        if dry_run:
            query.append(("dryRun", "All"))
        return await self._ask(
            "PATCH",
            path,
            query=query,
            body=[dict(operation) for operation in operations],
            content_type="application/json-patch+json",
            timeout_s=timeout_s,
        )

    async def may(
        self, group: str, resource: str, verb: str, namespace: str, *, timeout_s: float = READ_TIMEOUT_S
    ) -> bool:
        """Ask whether we may do this (SelfSubjectAccessReview)."""
        attributes = {"group": group, "resource": resource, "verb": verb, "namespace": namespace}
        review = await self._ask(
            "POST",
            path("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
            timeout_s=timeout_s,
        )
        return bool((review.get("status") or {}).get("allowed"))

    async def version(self) -> str:
        """The server's version, as `v1.36.0`."""
        return str((await self.get("/version")).get("gitVersion", "unknown"))

    async def follow(self, path: str, *, selector: str = "") -> AsyncGenerator["Snapshot | Change | Unknown", None]:
        """A collection as it is and as it changes; never ends, and nothing is kept here.

        First a Snapshot in pages, and another after each break that may have lost changes; Unknown when the watch
        breaks: until the next Snapshot is complete nothing is known of what happens.
        """
        failures = 0
        while True:
            try:
                version, first = "", True
                async with aclosing(self._pages(path, selector, READ_TIMEOUT_S)) as pages:
                    async for version, items in pages:
                        yield Snapshot(tuple(items), first=first, last=bool(version))
                        first = False
                while True:
                    told = False
                    async with aclosing(self._stream(path, selector, version)) as stream:
                        async for change in stream:
                            told, failures = True, 0
                            version = str(change.object.get("metadata", {}).get("resourceVersion") or version)
                            if change.kind != "BOOKMARK":
                                yield change
                    if not told:
                        failures = min(failures + 1, 4)
                        await self._back_off(failures)
            except _Expired:
                failures += 1
                yield Unknown()
                if failures > 1:
                    await self._back_off(failures)
            except Transient as error:
                failures += 1
                yield Unknown()
                await self._back_off(failures, error.delay_s)
            except (Permanent, Conflict):
                failures += 1
                yield Unknown()
                await self._back_off(max(failures, 6))

    async def _back_off(self, failures: int, at_least_s: float = 0.0) -> None:
        ceiling = min(_LONGEST_BACKOFF_S, 0.1 * 2.0 ** min(failures, 10))
        await self._sleep(max(at_least_s, random.uniform(ceiling / 2, ceiling)))

    async def _pages(
        self, path: str, selector: str, timeout_s: float
    ) -> AsyncGenerator[tuple[str, list[Manifest]], None]:
        """Pages of a collection, each with the collection's resourceVersion once it is complete, "" before."""
        more = ""
        while True:
            query = [("limit", str(_PAGE))]
            if selector:
                query.append(("labelSelector", selector))
            if more:
                query.append(("continue", more))
            page = await self._ask("GET", path, query=query, timeout_s=timeout_s)
            kind, version = str(page.get("kind", "")).removesuffix("List"), page.get("apiVersion")
            items = [{"kind": kind, "apiVersion": version, **item} for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            more = str(metadata.get("continue") or "")
            yield ("" if more else str(metadata.get("resourceVersion") or "0")), items
            if not more:
                return

    async def _stream(self, path: str, selector: str, version: str) -> AsyncGenerator[Change, None]:
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(_WATCH_S)),
        ]
        if selector:
            query.append(("labelSelector", selector))
        timeout = aiohttp.ClientTimeout(total=_WATCH_S + 5.0, sock_connect=_WATCH_CONNECT_S)
        try:
            response = (await self._send("GET", path, query, None, "application/json", timeout)).response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"the API server does not answer: {_said(error)}") from error
        try:
            if response.status != 200:
                raise _failure(response.status, await response.read(), response.headers, path)
            async for line in response.content:
                yield _parsed(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Transient(f"the watch of {path} broke: {_said(error)}") from error
        finally:
            response.close()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float,
    ) -> Manifest:
        try:
            response = await self._send(
                method, path, query, body, content_type, aiohttp.ClientTimeout(total=float(timeout_s))
            )
            data = await response.read()
        except TimeoutError as error:
            raise Transient(f"the API server did not answer within {timeout_s:g} s") from error
        except (ApiException, aiohttp.ClientError, OSError) as error:
            raise Transient(f"the API server does not answer: {_said(error)}") from error
        if response.status >= 300:
            raise _failure(response.status, data, response.headers, path)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Transient(f"the answer to {method} {path} is not JSON") from error
        if not isinstance(document, dict):
            raise Transient(f"the answer to {method} {path} is not an object")
        return document

    async def _send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        body: Any,
        content_type: str,
        deadline: aiohttp.ClientTimeout,
    ) -> Any:
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(*request, _request_timeout=deadline)


def _failure(status: int, data: bytes, headers: Mapping[str, str], path: str) -> CanaryError:
    """The error for an answer that is not a success; bodies are cut, and tokens taken out of them."""
    text = data.decode(errors="replace")
    try:
        document = json.loads(text)
        message = str(document.get("message") or "") if isinstance(document, dict) else ""
    except (ValueError, RecursionError):
        message = ""
    said = hide(message or text.strip() or f"status {status}")[:_TEXT_CHARS]
    match status:
        case 401:
            return Forbidden(f"the API server does not know our token: {said}")
        case 403:
            return Forbidden(said)
        case 404:
            return NotFound(message[:_TEXT_CHARS] or f"{path} is not there")
        case 409:
            return Conflict(said)
        case 410:
            return _Expired(said)
        case 422:
            return Unprocessable(said)
        case 408 | 425 | 429:
            return Transient(said, _retry_after_s(headers))
    if status >= 500:
        return Transient(f"the API server answers {status}: {said}", _retry_after_s(headers))
    return Permanent(said)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _parsed(line: bytes) -> Change:
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ValueError("a watch event is not an object")
    found: Manifest = event["object"]
    if event.get("type") == "ERROR":
        code = int(found.get("code") or 500)
        raise _failure(code, json.dumps(found).encode(), {}, "the watch")
    return Change(str(event.get("type")), found)


def key_of(item: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name of an object, "" for what it has not."""
    metadata = item["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _said(error: BaseException) -> str:
    return hide(str(error) or type(error).__name__)[:_TEXT_CHARS]
