"""Questions of all rollouts that look at about the same time, asked together.

Questions that differ only in their service become one question over many, in chunks of bounded length that are asked
with bounded parallelism. A chunk that fails or is slow is an error for its own members only; they are asked in smaller
chunks and in a lane of their own from then on, until whoever makes it fail stands alone and delays nobody else.
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

WINDOW_S = 0.02
CHUNK = 160
"""Services in one question at the most: some 12 KiB of text."""
FIRST_CHUNK = 20
"""The same for a question of which it is not known yet how long its answers are."""
ANSWER = 150_000
"""Points in one answer, each series counted as 40 for its labels: about 4 MB, which take 40 ms to read."""
LABELS_ARE_POINTS = 40
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
        self.told[query] = told
        self._missing -= 1
        if self._missing or self.complete.done():
            return False
        self.complete.set_result(None)
        return True


Members = dict[tuple[str, ...], list[tuple[_Asker, Query]]]
"""Who asks a question, by the services that it is about."""


@dataclass(slots=True)
class _Round:
    """What was asked within one window: the questions that can be merged, by their shape, and the others."""

    by_shape: dict[Shape, Members] = field(default_factory=dict)
    alone: dict[Query, list[_Asker]] = field(default_factory=dict)


class Together:
    """Implements `Metrics` over another one; nothing is asked while nobody asks."""

    def __init__(self, metrics: Metrics, clock: Clock, *, window_s: float = WINDOW_S, chunk: int = CHUNK) -> None:
        self._metrics = metrics
        self._clock = clock
        self._window_s = window_s
        self._chunk = chunk
        self._round: _Round | None = None
        self._cost: dict[str, float] = {}
        self._small: dict[tuple[str, ...], int] = {}
        self._lane = asyncio.Semaphore(LANE)
        self._careful_lane = asyncio.Semaphore(CAREFUL_LANE)
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
        if self._round is None:
            self._round = _Round()
            self._begin(self._close_round(self._round))
        found = shape(query)
        if found is None:
            self._round.alone.setdefault(query, []).append(asker)
        else:
            common, services = found
            self._round.by_shape.setdefault(common, {}).setdefault(services, []).append((asker, query))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_round(self, asked: _Round) -> None:
        await self._clock.sleep(self._window_s)
        self._round = None
        for query, askers in asked.alone.items():
            self._begin(self._ask_alone(query, askers))
        for common, members in asked.by_shape.items():
            for chunk in self._chunks(common, members):
                self._begin(self._ask_chunk(common, chunk))

    def _chunks(self, common: Shape, members: Members) -> list[Members]:
        """Members of about equal chunks; those that may only be asked in smaller ones among themselves."""
        cost = self._cost.get(_kind(common))
        most = min(self._chunk, FIRST_CHUNK if cost is None else max(1, int(ANSWER / max(1.0, cost))))
        by_size: dict[int, list[tuple[str, ...]]] = {}
        for services in members:
            by_size.setdefault(min(most, self._small.get(services, most)), []).append(services)
        chunks = []
        for size, names in by_size.items():
            count = -(-len(names) // size)
            for index in range(count):
                chunks.append({services: members[services] for services in names[index::count]})
        return chunks

    async def _ask_chunk(self, common: Shape, members: Members) -> None:
        query = merged(common, {service for services in members for service in services})
        careful = any(services in self._small for services in members)
        async with self._careful_lane if careful else self._lane:
            started = self._clock.monotonic()
            told = await self._told(query)
            now = self._clock.monotonic()
        self._learn(tuple(members), told, started, now)
        if isinstance(told, CannotMeasure):
            for askers in members.values():
                _give(askers, told)
            return
        self._cost[_kind(common)] = _cost(told) / len(members)
        series = by_service(told)
        for services, askers in members.items():
            if _give(askers, part(common, services, told, series)):
                await asyncio.sleep(0)

    async def _ask_alone(self, query: Query, askers: list[_Asker]) -> None:
        async with self._lane:
            told = await self._told(query)
        _give([(asker, query) for asker in askers], told)

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
