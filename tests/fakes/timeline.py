"""A timeline driven by `advance`."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.fakes.clock import FakeClock

_SAME_MOMENT_S = 1e-6
_SET_BY_S = 1e-3
"""Less is the inexactness of floats, not a clock that was set."""


class FakeTimeline:
    """Implements `Timeline` over a `FakeClock`.

    Nothing rings by itself: `advance` moves the clock from one moment to the next (keys and the clock's sleepers),
    rings what is due in order of time, and lets the rung work finish before it goes on: by `settle` (for an engine:
    `timeline.settle = workers.idle`), else by letting ready tasks run. A moment in the past rings at the next
    `advance`, `advance(0)` included.
    """

    def __init__(self, clock: FakeClock, settle: Callable[[], Awaitable[None]] | None = None) -> None:
        self._clock = clock
        self.settle = settle
        self._on_ring: Callable[[str], Awaitable[None]] | None = None
        self._moments: dict[str, tuple[float, int]] = {}
        self._set = 0
        self.rung: list[tuple[float, str]] = []

    async def start(self, on_ring: Callable[[str], Awaitable[None]]) -> None:
        self._on_ring = on_ring

    async def stop(self) -> None:
        self._on_ring = None
        self._moments.clear()

    def at(self, key: str, when: float) -> None:
        self._set += 1
        self._moments[key] = (when, self._set)

    def cancel(self, key: str) -> None:
        self._moments.pop(key, None)

    @property
    def moments(self) -> dict[str, float]:
        """What is set: key to moment."""
        return {key: when for key, (when, _) in self._moments.items()}

    async def advance(self, seconds: float, *, max_rings: int = 100_000) -> None:
        """Move time by `seconds`, ringing every key that comes due on the way, also those set meanwhile. It takes as
        long when somebody sets the wall clock on the way.

        Raises:
            AssertionError: more than `max_rings` rings, which means that something sets itself again in the past.
        """
        end, apart = self._clock.now() + seconds, self._clock.now() - self._clock.monotonic()
        rings = 0
        await self._settled()
        while True:
            stepped = self._clock.now() - self._clock.monotonic() - apart
            if abs(stepped) > _SET_BY_S:
                end, apart = end + stepped, apart + stepped
            key, when = self._next()
            sleeper_s = self._clock.next_sleeper_s
            wakes = None if sleeper_s is None else self._clock.now() + sleeper_s
            if wakes is not None and wakes <= end + _SAME_MOMENT_S and (key is None or wakes < when):
                self._clock.advance_to(wakes)
            elif key is not None and when <= end + _SAME_MOMENT_S:
                rings += 1
                assert rings <= max_rings, f"{key} keeps ringing at {self._clock.now()}"
                self._clock.advance_to(max(when, self._clock.now()))
                await self._ring(key)
            elif self._clock.now() < end:
                self._clock.advance_to(end)
            else:
                return
            await self._settled()

    async def _ring(self, key: str) -> None:
        if self._on_ring is not None and self._moments.pop(key, None) is not None:
            self.rung.append((self._clock.now(), key))
            await self._on_ring(key)

    def _next(self) -> tuple[str | None, float]:
        if not self._moments or self._on_ring is None:
            return None, 0.0
        key = min(self._moments, key=self._moments.__getitem__)
        return key, self._moments[key][0]

    async def _settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if self.settle is not None:
            await self.settle()
