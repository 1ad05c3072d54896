"""The mesh: find a route, read it, write its weights with tests, and tell when it changes."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bot.errors import NotFound, Permanent
from bot.rollout.effects import SetWeight
from bot.rollout.model import RouteRef, Target
from bot.rollout.route import Mark, RouteState


class RouteMissing(NotFound):
    """The object is there, the route in it is not, and nothing in it sends to the canary."""


class Misplaced(Permanent):
    """The route in the object cannot be told any more, and some route of it still sends to the canary."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person or the catalog named: a service, and as much of the rest as they said ("" means: find it)."""

    service: str
    namespace: str = ""
    mesh: str = ""
    name: str = ""
    route: str = ""
    protocol: str = ""
    canary: str = ""
    subsets: tuple[str, ...] = ()
    adopt: bool = False


class Severity(StrEnum):
    """Whether a finding stops the start."""

    OK = "ok"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Finding:
    """One preflight item: what was looked at, how it is, and what to do about it."""

    item: str
    severity: Severity
    text: str
    way_on: str = ""

    @property
    def told(self) -> str:
        """What is and the way on, as sentences."""
        ended = self.text if self.text.endswith((".", "!", "?", ":")) else f"{self.text}."
        return f"{ended} {self.way_on}".rstrip()


@dataclass(frozen=True, slots=True)
class Survey:
    """What preflight found at the route: the target when it is unambiguous, its present state, all findings.

    `start_weight` is the canary's weight now (0, or more with `adopt`). `patches` are the exact JSON Patch documents
    of the first raise and of the way back, for `--dry-run`.
    """

    target: Target | None
    state: RouteState | None
    findings: tuple[Finding, ...]
    start_weight: int = 0
    patches: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Findings that stop the start."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.REFUSE)


@dataclass(frozen=True, slots=True)
class Steered:
    """A route that carries our mark, found without Redis; `target` holds enough to send the canary to 0."""

    target: Target
    mark: Mark
    state: RouteState


@dataclass(frozen=True, slots=True)
class Listed:
    """A route that could be steered, for `services` and for nearest names."""

    service: str
    namespace: str
    name: str
    subsets: tuple[str, ...] = field(default=())


class Mesh(Protocol):
    """Errors: NotFound (the object; RouteMissing: the route in it), Permanent (refused; Misplaced), Transient (API
    server away), Conflict (a `test` failed, and the reading back shows that the route is not what was expected)."""

    async def survey(self, wanted: Wanted, first_weight: int) -> Survey:
        """Resolve and examine a route for a start; findings instead of errors wherever one can be named."""

    async def read(self, target: Target) -> RouteState:
        """The route now, straight from the API server."""

    async def write(self, target: Target, change: SetWeight) -> RouteState:
        """Apply one change and read it back. A reply lost after the write is success: the object is read and its mark
        compared."""

    async def resolved(self, target: Target) -> Target:
        """A target as a mark names it, with what stands behind its sides now: pods' labels, workloads, fingerprint and
        the other ways to the host. Permanent when a side stands for nothing, or the route cannot be found."""

    async def steered(self, namespaces: Sequence[str]) -> tuple[Steered, ...]:
        """Every route whose mark is ours and not final."""

    async def listed(self, namespaces: Sequence[str]) -> tuple[Listed, ...]:
        """Routes that could be steered."""

    def changes(self, namespaces: Sequence[str]) -> AsyncIterator[RouteRef]:
        """Routes as they change (uid, protocol and route left empty); reconnects by itself, never ends."""
