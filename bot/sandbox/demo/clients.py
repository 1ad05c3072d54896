"""What the stories use of the parts: people in Slack, the API server's history, Envoy's truth, Prometheus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

Json = dict[str, Any]
TIMEOUT_S = 10.0


class Refused(RuntimeError):
    """A part refused what a story asked of it."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Addresses of the parts and one HTTP session; every call has a time-out.

    `seen_writes` are writes to routes by name, for an API server that has no history of its own.
    """

    session: aiohttp.ClientSession
    slack: str
    kube: str
    mesh: str
    prometheus: str
    seen_writes: Mapping[str, Sequence[Json]] | None = None

    async def get(self, url: str, **query: str) -> Any:
        """The JSON of a GET; raises Refused for anything but 200."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with self.session.get(url, params=query, timeout=timeout) as response:
            if response.status != 200:
                raise Refused(f"{url}: {response.status} {(await response.text())[:300]}")
            return await response.json()

    async def act(self, act: str, **what: object) -> Json:
        """Do what a person does in Slack: `command`, `click`, `mention`."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with self.session.post(f"{self.slack}/_sandbox/act/{act}", json=what, timeout=timeout) as response:
            answer: Json = await response.json()
            if response.status != 200:
                raise Refused(f"{act} {what}: {response.status} {answer}")
            return answer

    async def fault(self, part: str, **faults: object) -> None:
        """Merge faults into a part (`mesh`, `kube`, `slack`, `prometheus`)."""
        url = {"mesh": self.mesh, "kube": self.kube, "slack": self.slack, "prometheus": self.prometheus}[part]
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with self.session.put(f"{url}/_sandbox/faults", json=faults, timeout=timeout) as response:
            if response.status != 200:
                raise Refused(f"faults of {part}: {await response.text()}")

    async def messages(self, channel: str = "") -> list[Json]:
        """Every message of a channel, or of all."""
        found: list[Json] = (await self.get(f"{self.slack}/_sandbox/messages", channel=channel))["messages"]
        return found

    async def names(self) -> dict[str, str]:
        """What people read for an id: `@release-leads`, `ada`, `#payments`."""
        world = await self.get(f"{self.slack}/_sandbox/world")
        return {
            **{group["id"]: f"@{group['handle']}" for group in world["groups"]},
            **{user["id"]: user["name"] for user in world["users"]},
            **{channel["id"]: f"#{channel['name']}" for channel in world["channels"] if "name" in channel},
        }

    async def route_writes(self, name: str) -> list[Json]:
        """Accepted writes to a VirtualService of the shop, oldest first."""
        if self.seen_writes is not None:
            return list(self.seen_writes.get(name, ()))
        writes: list[Json] = await self.get(
            f"{self.kube}/_sandbox/history", resource="virtualservices", namespace="shop", name=name, objects="true"
        )
        return writes

    async def served(self, service: str, since: float, until: float) -> dict[str, Json]:
        """Envoy's requests between two moments: `{"v1": {"total": n, "codes": {"200": n}}}`."""
        truth = await self.get(f"{self.mesh}/_sandbox/truth", since=str(since), until=str(until))
        found: dict[str, Json] = truth["services"].get(service, {})
        return found

    async def query(self, promql: str) -> list[Json]:
        """The result of an instant query."""
        answer = await self.get(f"{self.prometheus}/api/v1/query", query=promql)
        result: list[Json] = answer["data"]["result"]
        return result
