"""What a catalog says, with defaults filled in: everything a start needs to know of a service."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bot.analysis.nodes import NodeLimits
from bot.rollout.gate import GateSpec
from bot.rollout.model import Rules, Target
from bot.rollout.plan import Plan

_ONLY_HTTP = ("error-rate", "p99", "missing-responses")


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may do what: Slack user ids, group ids or handles (`@release-leads`); empty means any full member."""

    starters: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service: where its route is ("" means: find it) and how it is released.

    `route` is the http, tcp or tls route's name inside the object `route_name`. `listed` is False for a service that
    has no entry and runs on the defaults.
    """

    name: str
    namespace: str
    mesh: str
    route_name: str
    route: str
    protocol: str
    subsets: tuple[str, ...]
    plan: Plan
    gates: tuple[GateSpec, ...]
    rules: Rules
    roles: Roles
    listed: bool = True

    def gates_for(self, protocol: str) -> tuple[GateSpec, ...]:
        """The gates that can judge a route of this protocol: tcp and tls routes have no requests to count."""
        if protocol in ("tcp", "tls"):
            return tuple(gate for gate in self.gates if gate.kind not in _ONLY_HTTP)
        return self.gates


@dataclass(frozen=True, slots=True)
class Catalog:
    """The whole file. `fallback` is the entry of a service that has none, which may be steered in `namespaces` only;
    () means all that the settings allow."""

    services: Mapping[str, ServiceEntry]
    plans: Mapping[str, Plan]
    nodes: NodeLimits
    namespaces: tuple[str, ...]
    fallback: ServiceEntry

    def entry(self, service: str, namespace: str = "") -> ServiceEntry:
        """The entry of a service, or the defaults when it has none, or has one in another namespace than this."""
        found = self.services.get(service)
        if found is None or (found.namespace and namespace not in ("", found.namespace)):
            return replace(self.fallback, name=service, namespace=namespace or self.fallback.namespace)
        return replace(found, namespace=found.namespace or namespace)

    def covers(self, namespace: str) -> bool:
        """Whether a service without an entry may be steered in this namespace."""
        return not self.namespaces or namespace in self.namespaces

    def owner(self, target: Target) -> ServiceEntry | None:
        """The service whose route this is: by the object it names, else by its own name as object or host."""
        route, served = target.route, target.host.partition(".")[0]
        for entry in self.services.values():
            its = route.name == entry.route_name if entry.route_name else entry.name in (route.name, served)
            if its and entry.route in ("", route.route) and entry.namespace in ("", route.namespace, target.namespace):
                return entry
        return None

    def nearest(self, service: str, also: Iterable[str] = ()) -> tuple[str, ...]:
        """At most three services that were probably meant, best first; `also` are names found in the mesh."""
        return nearest(service, {*self.services, *also})


def nearest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """At most three of the known words that look like this one, best first."""
    lowered = {name.lower(): name for name in sorted(known)}
    return tuple(lowered[name] for name in difflib.get_close_matches(word.lower(), lowered, n=3, cutoff=0.6))
