"""Istio's objects at the API server, in whichever version the cluster serves."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from bot.adapters.kubernetes import READ_TIMEOUT_S, Kube, Manifest, path
from bot.errors import CanaryError, NotFound, Permanent

GROUP = "networking.istio.io"
RESOURCE = "virtualservices"
RULES = "destinationrules"
VERSIONS = ("v1", "v1beta1", "v1alpha3")
_RETRY_S = 10.0


class IstioApi:
    """Reads VirtualServices and DestinationRules; finds the served version once, and again when it is gone."""

    def __init__(self, kube: Kube, namespaces: tuple[str, ...]) -> None:
        self._kube = kube
        self._namespaces = namespaces
        self._version = ""

    def scopes(self, namespaces: Sequence[str] = ()) -> tuple[str, ...]:
        """The namespaces to look into: those asked for, else those configured; ("",) is the whole cluster."""
        return tuple(namespaces) or self._namespaces or ("",)

    async def version(self) -> str:
        """The newest version that serves VirtualServices. Raises Permanent when there is none."""
        if self._version:
            return self._version
        for version in VERSIONS:
            try:
                resources = (await self._kube.get(f"/apis/{GROUP}/{version}")).get("resources") or ()
            except NotFound:
                continue
            if any(resource.get("name") == RESOURCE for resource in resources):
                self._version = version
                return version
        raise Permanent("the cluster serves no VirtualServices (networking.istio.io): Istio is not installed in it")

    async def version_when_there(self) -> str:
        """The version, waiting for the cluster to serve one."""
        while True:
            try:
                return await self.version()
            except CanaryError:
                await asyncio.sleep(_RETRY_S)

    async def path_of(self, namespace: str, name: str) -> str:
        """The path of one VirtualService."""
        return path(GROUP, await self.version(), RESOURCE, namespace, name)

    async def virtual_service(self, namespace: str, name: str, *, timeout_s: float = READ_TIMEOUT_S) -> dict[str, Any]:
        """One VirtualService; NotFound when it is not there."""
        try:
            return await self._kube.get(await self.path_of(namespace, name), timeout_s=timeout_s)
        except NotFound:
            before, self._version = self._version, ""
            if await self.version() == before:
                raise
            return await self._kube.get(await self.path_of(namespace, name), timeout_s=timeout_s)

    async def virtual_services(self, namespaces: Sequence[str] = ()) -> list[dict[str, Any]]:
        """All VirtualServices of some namespaces."""
        return await self._all(RESOURCE, self.scopes(namespaces))

    async def pages_of_virtual_services(self, namespaces: Sequence[str] = ()) -> AsyncGenerator[list[Manifest], None]:
        """The same page by page: thousands of whole objects are not held at once."""
        version = await self.version()
        for scope in self.scopes(namespaces):
            async with aclosing(self._kube.pages(path(GROUP, version, RESOURCE, scope))) as pages:
                async for page in pages:
                    yield page

    async def destination_rules(self, namespaces: Sequence[str] = ()) -> list[dict[str, Any]]:
        """All DestinationRules of some namespaces."""
        return await self._all(RULES, self.scopes(namespaces))

    async def _all(self, resource: str, scopes: Sequence[str]) -> list[dict[str, Any]]:
        version = await self.version()
        lists = await asyncio.gather(*(self._kube.all(path(GROUP, version, resource, scope)) for scope in scopes))
        return [item for items in lists for item in items]
