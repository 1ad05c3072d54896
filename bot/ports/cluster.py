"""The cluster underneath: pods of a side, and nodes."""

from collections.abc import Sequence
from typing import Protocol

from bot.analysis.facts import NodeFacts, PodFacts


class Cluster(Protocol):
    """Errors: Transient when the API server is away, Permanent when it forbids."""

    async def pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...]:
        """Pods that carry all labels of the selector, terminating ones left out."""

    def known_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> tuple[PodFacts, ...] | None:
        """What `pods` would answer now, when it is known without asking; None when it has to be asked."""

    async def ready_pods(self, namespace: str, selector: Sequence[tuple[str, str]]) -> int | None:
        """Ready pods within 300 ms, None when that cannot be told in time."""

    async def nodes(self) -> tuple[NodeFacts, ...]: ...

    async def allowed(self, rules: Sequence[tuple[str, str, str, str]]) -> tuple[bool, ...]:
        """May the bot (group, resource, verb, namespace)? One answer per rule."""

    async def version(self) -> str: ...
