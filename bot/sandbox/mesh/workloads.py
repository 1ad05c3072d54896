"""The pods' programs: one tiny HTTP/1.1 server per pod, all in this process, with latencies as services have them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass

from bot.sandbox.mesh.faults import Faults, WorkloadFault
from bot.sandbox.mesh.routes import Address, Manifest

MEDIAN_MS = 4.0
SIGMA = 0.45
_HEALTHY = WorkloadFault()
# A stolen or waiting CPU delays a small share of requests by much: the 99th percentile rises, the median hardly moves.
_DELAYED_PER_STEAL = 0.4
_DELAYED_PER_IOWAIT = 0.25
_DELAY_FLOOR_MS = 60.0
_DELAY_MEAN_MS = 90.0


@dataclass(frozen=True, slots=True)
class PodOf:
    """Who listens at an address: the pod and what its labels and owner say."""

    namespace: str
    name: str
    workload: str
    app: str
    version: str
    node: str
    service_account: str


def pod_of(manifest: Manifest) -> PodOf:
    """Read a pod's identity; its workload is the Deployment that its ReplicaSet belongs to."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    labels = metadata.get("labels") or {}
    owner = next(iter(metadata.get("ownerReferences") or []), {"kind": "Pod", "name": metadata["name"]})
    workload = owner["name"]
    template = labels.get("pod-template-hash")
    if owner["kind"] == "ReplicaSet" and template:
        workload = workload.removesuffix(f"-{template}")
    return PodOf(
        namespace=metadata["namespace"],
        name=metadata["name"],
        workload=workload,
        app=labels.get("app", "unknown"),
        version=labels.get("version", "unknown"),
        node=spec.get("nodeName", ""),
        service_account=spec.get("serviceAccountName", "default"),
    )


def latency_ms(rng: random.Random, fault: WorkloadFault = _HEALTHY, steal: float = 0.0, iowait: float = 0.0) -> float:
    """Draw how long one request takes on a node where these shares of CPU time are stolen or wait for disks."""
    delay_ms = rng.lognormvariate(math.log(MEDIAN_MS), SIGMA)
    if fault.slow_ms and rng.random() * 100 < fault.slow_percent:
        delay_ms += fault.slow_ms * rng.uniform(0.8, 1.2)
    delayed = steal * _DELAYED_PER_STEAL + iowait * _DELAYED_PER_IOWAIT
    if delayed and rng.random() < delayed:
        delay_ms += _DELAY_FLOOR_MS + rng.expovariate(1 / _DELAY_MEAN_MS)
    return delay_ms


class Workloads:
    """All pods' servers, kept in step with the pods the API server has."""

    def __init__(self, faults: Callable[[], Faults], rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng
        self._servers: dict[tuple[str, str], _PodServer] = {}
        self._known: dict[Address, PodOf] = {}
        self._changing = asyncio.Lock()

    async def follow(self, pods: list[Manifest]) -> None:
        """Open a port for each new pod and close those of pods that are gone."""
        present = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in pods}
        for key in [key for key in self._servers if key not in present]:
            self._servers.pop(key).close()
        for key, manifest in present.items():
            pod = pod_of(manifest)
            server = self._servers.get(key)
            if server is None:
                server = self._servers[key] = _PodServer(pod, self._faults, self._rng)
                await server.open()
            server.pod = pod
            self._known[server.address] = pod

    async def apply_faults(self) -> None:
        """Close or reopen the ports of workloads that refuse connections or no longer do."""
        async with self._changing:
            for server in list(self._servers.values()):
                await server.refuse(self._faults().workloads.get(server.pod.workload, _HEALTHY).refuse)

    def address_of(self, manifest: Manifest) -> Address | None:
        """Return where a pod listens, None when it has no port yet."""
        server = self._servers.get((manifest["metadata"]["namespace"], manifest["metadata"]["name"]))
        return server.address if server is not None else None

    def who(self, address: Address) -> PodOf | None:
        """Return the pod that listens, or last listened, at an address."""
        return self._known.get(address)

    def present(self) -> set[tuple[str, str]]:
        """Return namespace and name of each workload that has a pod."""
        return {(server.pod.namespace, server.pod.workload) for server in self._servers.values()}

    def close(self) -> None:
        """Close all ports."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()


class _PodServer:
    def __init__(self, pod: PodOf, faults: Callable[[], Faults], rng: random.Random) -> None:
        self.pod = pod
        self.address: Address = ("127.0.0.1", 0)
        self.faults = faults
        self.rng = rng
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), *self.address, reuse_address=True)
        self.address = self._server.sockets[0].getsockname()[:2]

    async def refuse(self, wanted: bool) -> None:
        if wanted and self._server is not None:
            self._close_server()
            # Bound but not listening: connections are refused, and nobody else can take the port.
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(self.address)
        elif not wanted and self._server is None:
            self._release()
            await self.open()

    def close(self) -> None:
        self._close_server()
        self._release()

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.abort()

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def outcome(self) -> tuple[float, int] | None:
        """Return seconds until the answer and its status, or None for a request that is never answered."""
        faults, rng, node = self.faults(), self.rng, self.pod.node
        fault = faults.workloads.get(self.pod.workload, _HEALTHY)
        if fault.hang_percent and rng.random() * 100 < fault.hang_percent:
            return None
        delay_ms = latency_ms(rng, fault, faults.steal.get(node, 0.0), faults.iowait.get(node, 0.0))
        failed = fault.fail_percent and rng.random() * 100 < fault.fail_percent
        return delay_ms / 1000, fault.fail_code if failed else 200


class _Connection(asyncio.Protocol):
    """One keep-alive connection of Envoy's; requests have no body and are not pipelined."""

    def __init__(self, server: _PodServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._pending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)
        raw = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._pending is not None:
            self._pending.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if b"\r\n\r\n" not in self._buffer:
            return
        self._buffer = b""
        outcome = self._server.outcome()
        if outcome is not None:
            delay_s, status = outcome
            self._pending = asyncio.get_running_loop().call_later(delay_s, self._answer, status)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, status: int) -> None:
        assert self._transport is not None
        body = f"{self._server.pod.version}\n".encode()
        head = f"HTTP/1.1 {status} -\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
