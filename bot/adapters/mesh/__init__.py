"""Mesh routers by name, each with the permissions it needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bot.adapters.kubernetes import Kube
from bot.adapters.mesh import istio
from bot.ports.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Router:
    """How to make a router, and what it must be allowed: (group, resource, verbs)."""

    make: Callable[[Kube, Sequence[str]], Mesh]
    rbac_rules: tuple[tuple[str, str, tuple[str, ...]], ...]


ROUTERS: Mapping[str, Router] = MappingProxyType({istio.NAME: Router(istio.IstioMesh, istio.RBAC_RULES)})
