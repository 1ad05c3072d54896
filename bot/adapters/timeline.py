"""The timeline on APScheduler 3: one date job for each key, whose coroutine only rings.

Its defaults would drop a run that is a second late, skip and delete a job that comes due while its predecessor still
runs, and sleep through an hour when somebody sets the clock back by one. Hence no misfire limit, a new job id for each
moment, and a look at the clocks every second: when wall and monotonic time part, every job is set anew, at the moment
asked for or after the delay asked for, whichever comes first. Ringing early is harmless, for whoever is rung looks at
the clock; ringing late is not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from bot.ports.clock import Clock

LOOK_AT_CLOCKS_S = 1.0
JUMP_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a key rings: epoch seconds, the same on the monotonic clock when it was set, and the job that does it."""

    when: float
    monotonic: float
    job: str


class SchedulerTimeline:
    """Implements `Timeline`. Start it on the event loop that it shall ring on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moments: dict[str, _Moment] = {}
        self._count = 0
        self._on_ring: Callable[[str], Awaitable[None]] | None = None
        self._scheduler: AsyncIOScheduler | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self, on_ring: Callable[[str], Awaitable[None]]) -> None:
        """Ring from now on; keys set before come due now."""
        self._on_ring = on_ring
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            jobstores={"default": MemoryJobStore()},
            executors={"default": AsyncIOExecutor()},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.start()
        for key, moment in list(self._moments.items()):
            self._add(key, moment.when, moment.job)
        self._watch = asyncio.create_task(self._look_at_clocks(self._apart()), name="timeline-clocks")

    async def stop(self) -> None:
        """Ring no more. Work that was rung before is not waited for: that is for those who do it."""
        self._on_ring = None
        self._moments.clear()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
            await asyncio.sleep(0)

    def at(self, key: str, when: float) -> None:
        """Ring `key` at `when` (epoch seconds), replacing its earlier moment; a moment in the past rings at once."""
        self.cancel(key)
        self._count += 1
        job = f"{key}#{self._count}"
        self._moments[key] = _Moment(when, self._clock.monotonic() + when - self._clock.now(), job)
        self._add(key, when, job)

    def cancel(self, key: str) -> None:
        """Forget a key."""
        moment = self._moments.pop(key, None)
        if moment is not None and self._scheduler is not None and self._scheduler.get_job(moment.job) is not None:
            self._scheduler.remove_job(moment.job)

    def _add(self, key: str, when: float, job: str) -> None:
        if self._scheduler is not None:
            trigger = DateTrigger(datetime.fromtimestamp(max(0.0, when), UTC))
            self._scheduler.add_job(self._ring, trigger, args=(key, job), id=job)

    async def _ring(self, key: str, job: str) -> None:
        moment = self._moments.get(key)
        if moment is None or moment.job != job or self._on_ring is None:
            return
        del self._moments[key]
        try:
            await self._on_ring(key)
        except Exception:
            _log.exception("ringing %s failed", key)

    def _apart(self) -> float:
        return self._clock.now() - self._clock.monotonic()

    async def _look_at_clocks(self, apart: float) -> None:
        while True:
            await self._clock.sleep(LOOK_AT_CLOCKS_S)
            now_apart = self._apart()
            if abs(now_apart - apart) > JUMP_S:
                _log.warning("the clock jumped by %.1f s: %d wake-ups set anew", now_apart - apart, len(self._moments))
                self._set_anew()
                apart = now_apart

    def _set_anew(self) -> None:
        to_wall_clock = self._apart()
        for key, moment in list(self._moments.items()):
            self.at(key, min(moment.when, moment.monotonic + to_wall_clock))
