"""Writes to the shop's routes as a watch tells them: the history of an API server that keeps none for us."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp

from bot.sandbox.demo.clients import Json

RETRY_S = 0.5
PATH = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices"


@dataclass(slots=True)
class RouteLog:
    """Follows the routes of namespace shop; `writes` by name are `{time, after}`, oldest first, timed on arrival."""

    session: aiohttp.ClientSession
    url: str
    token: str
    writes: dict[str, list[Json]] = field(default_factory=dict)
    following: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Follow for ever; after a cut from where it was."""
        version = ""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, ValueError):
                version = version or await self._listed()
                self.following.set()
                version = await self._followed(version)
            await asyncio.sleep(RETRY_S)

    async def _listed(self) -> str:
        async with self.session.get(self.url + PATH, headers=self._headers()) as answer:
            answer.raise_for_status()
            return str((await answer.json())["metadata"]["resourceVersion"])

    async def _followed(self, version: str) -> str:
        """Note every write until the watch ends; the version to go on from, "" when that is too old."""
        query = {"watch": "true", "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        async with self.session.get(
            self.url + PATH, params=query, headers=self._headers(), timeout=timeout, read_bufsize=2**22
        ) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                metadata = event["object"]["metadata"]
                version = str(metadata["resourceVersion"])
                if event["type"] in ("ADDED", "MODIFIED"):
                    at = datetime.now(UTC).isoformat(timespec="milliseconds")
                    self.writes.setdefault(metadata["name"], []).append({"time": at, "after": event["object"]})
        return version

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}
