"""Everything by which requests come in, opened and closed together."""

from typing import Protocol

from bot.handlers.http import HttpDoor
from bot.handlers.intake import Intake
from bot.ports.telemetry import Telemetry


class Connections(Protocol):
    """Socket Mode's connections."""

    @property
    def connected(self) -> bool: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Entrance:
    """Opens Socket Mode when there is one; on `stop` lets nothing more in and finishes what was acknowledged."""

    def __init__(
        self, intake: Intake, telemetry: Telemetry, *, sockets: Connections | None = None, http: HttpDoor | None = None
    ) -> None:
        self._intake = intake
        self._telemetry = telemetry
        self._sockets = sockets
        self._http = http

    @property
    def open(self) -> bool:
        """Requests can reach the bot (readiness, not liveness)."""
        return self._sockets is None or self._sockets.connected

    async def start(self) -> None:
        """Let requests in."""
        if self._sockets is not None:
            await self._sockets.start()

    async def stop(self, timeout_s: float) -> None:
        """Let no more in, then wait for the work under way."""
        if self._http is not None:
            self._http.close_events()
        if self._sockets is not None:
            await self._sockets.stop()
        left = await self._intake.drain(timeout_s)
        if left:
            self._telemetry.line("intake-given-up", requests=left)
