"""The timeline on APScheduler 3: one date job for each moment, whose coroutine only rings the keys of that moment.

Its defaults would drop a run that is a second late, skip and delete a job that comes due while its predecessor still
runs, and sleep through an hour when somebody sets the clock back by one. Hence no misfire limit, a new job id each
time, and a look at the clocks every second: when wall and monotonic time part, every job is set anew, at the moment
asked for or after the delay asked for, whichever comes first. Ringing early is harmless, for whoever is rung looks at
the clock; ringing late is not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from bot.ports.clock import Clock

LOOK_AT_CLOCKS_S = 1.0
JUMP_S = 0.5
RUNG_TOGETHER = 16
"""Keys of one moment that are rung before the event loop does what else is ready: a way to 0 waits for no hundreds."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a key rings: epoch seconds, and the same on the monotonic clock when it was set."""

    when: float
    monotonic: float


@dataclass(slots=True)
class _Job:
    """One job and the keys that it rings, in the order in which they were set (a dict as an ordered set)."""

    id: str
    keys: dict[str, None] = field(default_factory=dict)


class SchedulerTimeline:
    """Implements `Timeline`. Start it on the event loop that it shall ring on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moments: dict[str, _Moment] = {}
        self._jobs: dict[float, _Job] = {}
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
        for when, job in self._jobs.items():
            self._add(when, job)
        self._watch = asyncio.create_task(self._look_at_clocks(self._apart()), name="timeline-clocks")

    async def stop(self) -> None:
        """Ring no more. Work that was rung before is not waited for: that is for those who do it."""
        self._on_ring = None
        self._moments.clear()
        self._jobs.clear()
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
        self._moments[key] = _Moment(when, self._clock.monotonic() + when - self._clock.now())
        job = self._jobs.get(when)
        if job is None:
            self._count += 1
            job = self._jobs[when] = _Job(f"moment-{self._count}")
            self._add(when, job)
        job.keys[key] = None

    def cancel(self, key: str) -> None:
        """Forget a key."""
        moment = self._moments.pop(key, None)
        if moment is None:
            return
        job = self._jobs[moment.when]
        del job.keys[key]
        if job.keys:
            return
        del self._jobs[moment.when]
        if self._scheduler is not None and self._scheduler.get_job(job.id) is not None:
            self._scheduler.remove_job(job.id)

    def _add(self, when: float, job: _Job) -> None:
        if self._scheduler is not None:
            trigger = DateTrigger(datetime.fromtimestamp(max(0.0, when), UTC))
            self._scheduler.add_job(self._ring, trigger, args=(when, job.id), id=job.id)

    async def _ring(self, when: float, job_id: str) -> None:
        job, on_ring = self._jobs.get(when), self._on_ring
        if job is None or job.id != job_id or on_ring is None:
            return
        del self._jobs[when]
        for key in job.keys:
            del self._moments[key]
        for number, key in enumerate(job.keys, 1):
            try:
                await on_ring(key)
            except Exception:
                _log.exception("ringing %s failed", key)
            if number % RUNG_TOGETHER == 0:
                await asyncio.sleep(0)
                if self._on_ring is None:
                    return

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
