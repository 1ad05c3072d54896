"""The clients: an open loop of requests through Envoy at a rate, however slow the answers are."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable

from bot.sandbox.mesh.faults import Faults, TrafficFault
from bot.sandbox.mesh.routes import Address

_NO_FAULT = TrafficFault()
_IDLE_CHECK_S = 0.05
_LONGEST_WAIT_S = 0.5
_PATIENCE_S = 30.0


class Load:
    """Requests to some services' hosts, each with Poisson arrivals at its own rate."""

    def __init__(
        self, envoy: Address, hosts: dict[str, str], rate: float, faults: Callable[[], Faults], rng: random.Random
    ) -> None:
        self._envoy = envoy
        self._hosts = hosts
        self._rate = rate
        self._faults = faults
        self._rng = rng
        self._idle: deque[_Client] = deque()
        self._clients: set[_Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent: dict[str, int] = dict.fromkeys(hosts, 0)

    def start(self) -> None:
        """Begin to send."""
        for service in self._hosts:
            self._spawn(self._send(service), f"load-{service}")

    async def stop(self) -> None:
        """Stop sending and close the connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in list(self._clients):
            client.abort()

    async def _send(self, service: str) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            fault = self._faults().traffic.get(service, _NO_FAULT)
            rate = self._rate if fault.rate is None else fault.rate
            if rate <= 0:
                await asyncio.sleep(_IDLE_CHECK_S)
                next_at = loop.time()
                continue
            gap_s = self._rng.expovariate(rate)
            next_at += min(gap_s, _LONGEST_WAIT_S)
            if (pause := next_at - loop.time()) > 0:
                await asyncio.sleep(pause)
            if gap_s > _LONGEST_WAIT_S:
                # Arrivals have no memory: drawing again is the same process, and a new rate is seen soon.
                continue
            self.sent[service] += 1
            extra = "".join(f"{name}: {value}\r\n" for name, value in fault.headers.items())
            request = f"GET / HTTP/1.1\r\nhost: {self._hosts[service]}\r\nuser-agent: loadgen\r\n{extra}\r\n".encode()
            client = self._take()
            if client is not None:
                client.send(request)
            else:
                self._spawn(self._connect_and_send(request), "load-connect")

    def _spawn(self, work: object, name: str) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> _Client | None:
        while self._idle:
            client = self._idle.pop()
            if client.usable:
                return client
        return None

    async def _connect_and_send(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            _, client = await loop.create_connection(lambda: _Client(self._idle, self._clients), *self._envoy)
            client.send(request)


class _Client(asyncio.Protocol):
    """One keep-alive connection to Envoy, one request at a time."""

    def __init__(self, idle: deque[_Client], everyone: set[_Client]) -> None:
        self._idle = idle
        self._everyone = everyone
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._patience: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._buffer = b""
        self._patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self.abort)
        self._transport.write(request)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._everyone.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._everyone.discard(self)
        self._transport = None
        if self._patience is not None:
            self._patience.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        if self._patience is not None:
            self._patience.cancel()
        if b"connection: close" in head.lower():
            self.abort()
        else:
            self._idle.append(self)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
