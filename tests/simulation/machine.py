"""What a simulated process has of its own: clocks that may be wrong, and a timeline on the virtual loop."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tests.simulation.loop import Process, VirtualLoop

EPOCH_S = 1_800_000_000.0
LOOKS_AT_CLOCKS_S = 1.0


class SkewedClock:
    """Implements `Clock`: the wall clock is `skew_s` apart and can be stepped, the monotonic one is right."""

    def __init__(self, loop: VirtualLoop, skew_s: float) -> None:
        self._loop = loop
        self.skew_s = skew_s

    def now(self) -> float:
        return EPOCH_S + self._loop.time() + self.skew_s

    def monotonic(self) -> float:
        return 5_000.0 + self._loop.time()

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(seconds)


class LoopTimeline:
    """Implements `Timeline` as the real one behaves: after a step of the wall clock, set anew within a second, at the
    moment asked for or after the delay asked for, whichever comes first."""

    def __init__(self, loop: VirtualLoop, clock: SkewedClock, process: Process) -> None:
        self._loop, self._clock, self._process = loop, clock, process
        self._on_ring: Callable[[str], Awaitable[None]] | None = None
        self._set: dict[str, tuple[float, float, asyncio.Handle]] = {}

    async def start(self, on_ring: Callable[[str], Awaitable[None]]) -> None:
        self._on_ring = on_ring

    async def stop(self) -> None:
        self._on_ring = None
        for key in list(self._set):
            self.cancel(key)

    def at(self, key: str, when: float) -> None:
        self.cancel(key)
        delay_s = max(0.0, when - self._clock.now())
        handle = self._loop.call_later(delay_s, self._ring, key, context=self._process.context.copy())
        self._set[key] = (when, self._clock.monotonic() + when - self._clock.now(), handle)

    def cancel(self, key: str) -> None:
        known = self._set.pop(key, None)
        if known is not None:
            known[2].cancel()

    def stepped(self) -> None:
        """The wall clock was stepped."""
        self._loop.call_later(LOOKS_AT_CLOCKS_S, self._set_anew, context=self._process.context.copy())

    def _set_anew(self) -> None:
        apart_s = self._clock.now() - self._clock.monotonic()
        for key, (when, monotonic, _) in list(self._set.items()):
            self.at(key, min(when, monotonic + apart_s))

    def _ring(self, key: str) -> None:
        self._set.pop(key, None)
        if self._on_ring is not None:
            self._loop.create_task(self._on_ring(key))
