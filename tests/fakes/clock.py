"""A clock that moves when it is told to."""

import asyncio
import heapq
import itertools

_SAME_MOMENT_S = 1e-6  # epoch seconds as a float are exact to 2e-7 s only


class FakeClock:
    """Implements `Clock`. `advance` moves both clocks, `step_wall` only the wall clock (somebody set the time)."""

    def __init__(self, now: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock this far; 0 only lets others run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), waiter))
        await waiter

    @property
    def next_sleeper_s(self) -> float | None:
        """Seconds until the next sleeper wakes, None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return max(0.0, self._sleepers[0][0] - self._monotonic) if self._sleepers else None

    def advance(self, seconds: float) -> None:
        """Move both clocks and wake every sleeper whose time has come, in order."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not step back; use step_wall")
        self.advance_to(self._now + seconds)

    def advance_to(self, now: float) -> None:
        """Move the wall clock to exactly `now`, not before its present time, and the monotonic clock as far."""
        self._monotonic += now - self._now
        self._now = now
        while self._sleepers and self._sleepers[0][0] <= self._monotonic + _SAME_MOMENT_S:
            waiter = heapq.heappop(self._sleepers)[2]
            if not waiter.done():
                waiter.set_result(None)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; the monotonic clock stays."""
        self._now += seconds
