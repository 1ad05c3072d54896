"""Questions of all rollouts that look at about the same time, asked together.

Questions that differ only in their service become one question over many, in chunks of bounded length that are asked
with bounded parallelism; what has to wait for its turn meanwhile becomes one question with what comes after it. A chunk
that fails or is slow is an error for its own members only; they are asked in smaller chunks and in a lane of their own
from then on, until whoever makes it fail stands alone and delays nobody else.
Answers are handed out one at a time, so that the event loop can do what is urgent between two judgements.
"""

import asyncio
import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.analysis.merging import Shape, by_service, merged, part, shape
from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure
from bot.ports.clock import Clock
from bot.ports.metrics import Metrics

WINDOW_S = 0.04
CHUNK = 160
"""Services in one question at the most: some 12 KiB of text."""
FIRST_CHUNK = 20
"""The same for a question of which it is not known yet how long its answers are."""
ANSWER = 60_000
"""Points in one answer, each series counted as 40 for its labels: about 1.6 MB, which take 15 ms to read and some times
as much memory."""
LABELS_ARE_POINTS = 40
UNREAD = 4000
"""Series in answers that have come and are not handed out yet, from which on no more are fetched: while the event loop
is behind, looks may wait, but not with their answers in memory."""
SHRINK = 4
SLOW_S = 2.0
LANE = 5
CAREFUL_LANE = 2

_OFFSET = re.compile(r" offset \d+s")

Told = Answer | CannotMeasure


class _Asker:
    """Somebody who waits for all answers to his questions; who gives up waiting takes them from nobody else."""

    __slots__ = ("_missing", "complete", "told")

    def __init__(self, questions: int) -> None:
        self.told: dict[Query, Told] = {}
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = questions

    def give(self, query: Query, told: Told) -> bool:
        """True when this was the last answer that was missing, and somebody still waits for it."""
        if query in self.told:
            return False
        self.told[query] = told
        self._missing -= 1
        if self._missing or self.complete.done():
            return False
        self.complete.set_result(None)
        return True


Members = dict[tuple[str, ...], list[tuple[_Asker, Query]]]
"""Who asks a question, by the services that it is about; one entry without services for one that cannot be merged."""
Key = Shape | Query
"""What questions that are merged have in common; a question that cannot be merged stands for itself."""


@dataclass(slots=True)
class _Lane:
    """Questions that wait for their turn, and how many more may be asked at once."""

    free: int
    due: dict[Key, Members] = field(default_factory=dict)

    def put(self, key: Key, services: tuple[str, ...], askers: list[tuple[_Asker, Query]]) -> None:
        self.due.setdefault(key, {}).setdefault(services, []).extend(askers)


class Together:
    """Implements `Metrics` over another one; nothing is asked while nobody asks."""

    def __init__(self, metrics: Metrics, clock: Clock, *, window_s: float = WINDOW_S, chunk: int = CHUNK) -> None:
        self._metrics = metrics
        self._clock = clock
        self._window_s = window_s
        self._chunk = chunk
        self._asked: dict[Key, Members] | None = None
        self._cost: dict[str, float] = {}
        self._small: dict[tuple[str, ...], int] = {}
        self._lane = _Lane(LANE)
        self._careful_lane = _Lane(CAREFUL_LANE)
        self._unread = 0
        self._answered_at = float("-inf")
        self._quick_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Told]:
        """Ask with whoever else asks now; each question answers or fails on its own."""
        if not queries:
            return {}
        distinct = dict.fromkeys(queries)
        asker = _Asker(len(distinct))
        for query in distinct:
            self._put(query, asker)
        await asker.complete
        return asker.told

    async def ready(self) -> str:
        """Version of the server; raises CannotMeasure when it does not answer."""
        return await self._metrics.ready()

    def _put(self, query: Query, asker: _Asker) -> None:
        if self._asked is None:
            self._asked = {}
            self._begin(self._close_window(self._asked))
        found = shape(query)
        key, services = found if found is not None else (query, ())
        self._asked.setdefault(key, {}).setdefault(services, []).append((asker, query))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_window(self, asked: dict[Key, Members]) -> None:
        await self._clock.sleep(self._window_s)
        self._asked = None
        for key, members in asked.items():
            for services, askers in members.items():
                lane = self._careful_lane if services in self._small else self._lane
                lane.put(key, services, askers)
        self._fill(self._lane)
        self._fill(self._careful_lane)

    def _fill(self, lane: _Lane) -> None:
        while lane.free and lane.due and self._unread < UNREAD:
            lane.free -= 1
            self._begin(self._ask(lane, *self._next(lane)))

    def _next(self, lane: _Lane) -> tuple[Key, Members]:
        """The next chunk of those who have waited longest; the others of the same question go to the end. Chunks are
        about equal, and who may only be asked in smaller ones is asked with others like that."""
        key = next(iter(lane.due))
        members = lane.due.pop(key)
        if isinstance(key, Query):
            return key, members
        cost = self._cost.get(_kind(key))
        most = min(self._chunk, FIRST_CHUNK if cost is None else max(1, int(ANSWER / max(1.0, cost))))
        sizes = {services: min(most, self._small.get(services, most)) for services in members}
        size = next(iter(sizes.values()))
        alike = [services for services, one in sizes.items() if one == size]
        chunks = -(-len(alike) // size)
        chunk = {services: members.pop(services) for services in alike[: -(-len(alike) // chunks)]}
        if members:
            lane.due[key] = members
        return key, chunk

    async def _ask(self, lane: _Lane, key: Key, members: Members) -> None:
        """Whatever goes wrong, nobody who asks waits for ever."""
        try:
            await self._fetch(lane, key, members)
        except BaseException as error:
            for askers in members.values():
                _give(askers, CannotMeasure(f"a fault of the bot: {type(error).__name__}"))
            raise
        finally:
            self._fill(self._lane)
            self._fill(self._careful_lane)

    async def _fetch(self, lane: _Lane, key: Key, members: Members) -> None:
        started = self._clock.monotonic()
        try:
            if isinstance(key, Query):
                query = key
            else:
                query = merged(key, {service for services in members for service in services})
            told = await self._told(query)
        finally:
            lane.free += 1
        unread = len(told.series) if isinstance(told, Answer) else 0
        self._unread += unread
        self._fill(lane)
        try:
            if isinstance(key, Query):
                _give(members[()], told)
            else:
                self._learn(tuple(members), told, started, self._clock.monotonic())
                await self._hand_out(key, members, told)
        finally:
            self._unread -= unread

    async def _hand_out(self, common: Shape, members: Members, told: Told) -> None:
        if isinstance(told, CannotMeasure):
            for askers in members.values():
                _give(askers, told)
            return
        self._cost[_kind(common)] = _cost(told) / len(members)
        series = by_service(told)
        for services, askers in members.items():
            if _give(askers, part(common, services, told, series)):
                await asyncio.sleep(0)

    async def _told(self, query: Query) -> Told:
        try:
            return (await self._metrics.ask((query,)))[query]
        except Exception as error:
            return CannotMeasure(f"asking fails: {type(error).__name__}: {error}")

    def _learn(self, members: tuple[tuple[str, ...], ...], told: Told, started: float, now: float) -> None:
        """Make the next chunks of a bad one smaller, and those of a good one larger.

        While nothing at all is answered, or nothing quickly, it is not these members' fault; then only one chunk is
        tried in smaller pieces: a server, or a machine, that is slow with everything gets no more questions for it.
        """
        answered = isinstance(told, Answer)
        if answered:
            self._answered_at = now
        if answered and now - started < SLOW_S:
            self._quick_at = now
            for services in members:
                size = self._small.get(services)
                if size is not None and size * SHRINK >= self._chunk:
                    del self._small[services]
                elif size is not None:
                    self._small[services] = size * SHRINK
            return
        others_at = self._quick_at if answered else self._answered_at
        if others_at >= started or not self._small:
            size = max(1, len(members) // SHRINK)
            self._small.update(dict.fromkeys(members, size))


def _kind(common: Shape) -> str:
    """Questions whose answers are about as long: the length of an offset does not matter, that of a range does."""
    return _OFFSET.sub("", common.pieces[0] + common.pieces[1])


def _cost(answer: Answer) -> float:
    return LABELS_ARE_POINTS * len(answer.series) + sum([len(series.points) for series in answer.series])


def _give(askers: Iterable[tuple[_Asker, Query]], told: Told) -> bool:
    """True when somebody has all answers now."""
    return any([asker.give(query, told) for asker, query in askers])
