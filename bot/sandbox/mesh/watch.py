"""Keep a copy of the mesh's objects by list and watch, and say when it changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import aiohttp

from bot.sandbox.mesh.routes import World

_log = logging.getLogger(__name__)
_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")
_WATCH_S = 300
_RETRY_S = 0.02
_LONGEST_RETRY_S = 1.0
_KINDS = {
    "virtualservices": "networking.istio.io",
    "destinationrules": "networking.istio.io",
    "services": "",
    "pods": "",
}


class ClusterWatch:
    """Copies of all VirtualServices, DestinationRules, Services and Pods, each followed by a watch of its own."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._on_change: Callable[[], None] = _nobody
        self._objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = {kind: {} for kind in _KINDS}
        self._listed = {kind: asyncio.Event() for kind in _KINDS}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin to follow; each kind is listed again after a lost watch."""
        self._on_change = on_change
        self._tasks = [asyncio.create_task(self._follow(kind), name=f"watch-{kind}") for kind in _KINDS]

    async def listed(self) -> None:
        """Wait until each kind was listed once."""
        for event in self._listed.values():
            await event.wait()

    async def stop(self) -> None:
        """Stop following."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def world(self) -> World:
        """The copies as they are now; not to be changed."""
        return World(*(list(self._objects[kind].values()) for kind in _KINDS))

    async def _follow(self, kind: str) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_S + 30)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout, read_bufsize=2**22) as session:
            failures = 0
            while True:
                try:
                    path = await self._path(session, kind)
                    version = await self._list(session, kind, path)
                    failures = 0
                    await self._watch(session, kind, path, version)
                except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
                    _log.warning("watch of %s lost: %s", kind, error)
                    failures += 1
                # A watch that was cut is taken up again at once; a server that fails is not hammered.
                await asyncio.sleep(min(_LONGEST_RETRY_S, _RETRY_S * failures**2))

    async def _path(self, session: aiohttp.ClientSession, kind: str) -> str:
        group = _KINDS[kind]
        if not group:
            return f"{self._url}/api/v1/{kind}"
        for version in _ISTIO_VERSIONS:
            path = f"{self._url}/apis/{group}/{version}/{kind}"
            async with session.get(path, params={"limit": "1"}) as reply:
                if reply.status != 404:
                    return path
        raise ValueError(f"the server has no {kind}.{group}")

    async def _list(self, session: aiohttp.ClientSession, kind: str, path: str) -> str:
        async with session.get(path) as reply:
            reply.raise_for_status()
            listed = await reply.json()
        self._objects[kind] = {_key(item): item for item in listed["items"]}
        self._listed[kind].set()
        self._on_change()
        return str(listed["metadata"]["resourceVersion"])

    async def _watch(self, session: aiohttp.ClientSession, kind: str, path: str, version: str) -> None:
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_S)}
        async with session.get(path, params=params) as reply:
            reply.raise_for_status()
            async for line in reply.content:
                event = json.loads(line)
                item = event["object"]
                if event["type"] == "ERROR":
                    _log.info("watch of %s ended by the server: %s", kind, item.get("message"))
                    return
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._objects[kind][_key(item)] = item
                elif event["type"] == "DELETED":
                    self._objects[kind].pop(_key(item), None)
                else:
                    continue
                self._on_change()


def _nobody() -> None:
    return None


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
