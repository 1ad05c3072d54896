"""Asked together: few questions for many, and one that is slow or wrong is nobody else's trouble."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from bot.analysis.merging import LABEL, shape
from bot.analysis.promql import over, selector
from bot.analysis.samples import Answer, Query, Series
from bot.engine.together import LANE, SLOW_S, Together
from bot.errors import CannotMeasure
from tests.fakes.clock import FakeClock


class Server:
    """Answers one series per service; a question about one of `bad` fails, one about one of `stuck` never answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.bad: set[str] = set()
        self.stuck: set[str] = set()
        self.release = asyncio.Event()
        self.away = False

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]:
        return {query: await self._answer(query) for query in queries}

    async def _answer(self, query: Query) -> Answer | CannotMeasure:
        found = shape(query)
        services = found[1] if found else (query.promql,)
        self.asked.append(services)
        if self.away or self.bad & set(services):
            return CannotMeasure("too many samples")
        if self.stuck & set(services):
            await self.release.wait()
        return Answer(tuple(Series({LABEL: name}, ((1.0, 1.0),)) for name in services), 1.0)

    async def ready(self) -> str:
        return "1"


class Rig:
    """A server, a clock that tests move, and the thing under test."""

    def __init__(self, chunk: int = 8) -> None:
        self.server = Server()
        self.clock = FakeClock()
        self.together = Together(self.server, self.clock, chunk=chunk)

    def begin(self, names: Sequence[str]) -> dict[str, asyncio.Task[Mapping[Query, Answer | CannotMeasure]]]:
        return {name: asyncio.create_task(self.together.ask((question(name),))) for name in names}

    async def pass_window(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.clock.advance(0.1)
        for _ in range(30):
            await asyncio.sleep(0)

    async def ask(self, names: Sequence[str]) -> dict[str, Answer | CannotMeasure]:
        self.server.asked.clear()
        tasks = self.begin(names)
        await self.pass_window()
        return {name: (await task)[question(name)] for name, task in tasks.items()}


def question(name: str) -> Query:
    return Query(over(selector("istio_requests_total", {LABEL: name}), 120))


NAMES = [f"svc-{number}.shop" for number in range(20)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_many_rollouts_cost_few_questions(rig: Rig) -> None:
    """Twenty services in chunks of eight are three questions, and each gets exactly its own series."""
    answers = await rig.ask(NAMES)
    assert len(rig.server.asked) == 3
    assert max(map(len, rig.server.asked)) <= 8
    for name, answer in answers.items():
        assert isinstance(answer, Answer)
        assert [series.labels[LABEL] for series in answer.series] == [name]


async def test_equal_questions_are_asked_once_and_others_as_they_are(rig: Rig) -> None:
    """Two rollouts with the same question share it, and what cannot be merged still goes out, once."""
    other = Query("vector(1)")
    tasks = [asyncio.create_task(rig.together.ask((question("a"), other))) for _ in range(2)]
    await rig.pass_window()
    answers = [await task for task in tasks]
    assert answers[0] == answers[1]
    assert sorted(rig.server.asked) == [("a",), ("vector(1)",)]


async def test_a_slow_chunk_delays_its_members_only(rig: Rig) -> None:
    """While one chunk hangs, everybody outside of it has its answer, round after round."""
    rig.server.stuck = {NAMES[0]}
    tasks = rig.begin(NAMES)
    await rig.pass_window()
    waiting = {name for name, task in tasks.items() if not task.done()}
    assert NAMES[0] in waiting
    assert len(waiting) <= 8
    rig.server.release.set()
    await asyncio.gather(*tasks.values())


async def test_what_waits_for_its_turn_becomes_one_question_with_what_comes_after_it(rig: Rig) -> None:
    """While as many questions are out as may be, fifteen that are asked one after the other make two and not fifteen:
    a server that is slow for a moment is not asked ever smaller questions."""
    await rig.ask(NAMES)
    rig.server.asked.clear()
    rig.server.stuck = set(NAMES[:LANE])
    tasks: list[asyncio.Task[Mapping[Query, Answer | CannotMeasure]]] = []
    for name in NAMES[: LANE + 15]:
        tasks += rig.begin([name]).values()
        await rig.pass_window()
    assert len(rig.server.asked) == LANE
    rig.server.release.set()
    await asyncio.gather(*tasks)
    assert [len(services) for services in rig.server.asked[LANE:]] == [8, 7]


async def test_no_more_is_fetched_than_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 services whose answers come at once, most are not asked about before looks have had what came earlier."""
    monkeypatch.setattr("bot.engine.together.UNREAD", 20)
    rig, most = Rig(chunk=20), 0
    names = [f"svc-{number}.shop" for number in range(400)]
    tasks = rig.begin(names)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rig.clock.advance(0.1)
    while not all(task.done() for task in tasks.values()):
        await asyncio.sleep(0)
        most = max(most, sum(map(len, rig.server.asked)) - sum(task.done() for task in tasks.values()))
    assert most <= 20 + 20 * LANE


async def test_a_bad_service_ends_up_alone_and_the_others_together_again(rig: Rig) -> None:
    """A failing chunk is an error for its members only; after a few rounds only the culprit is without an answer."""
    rig.server.bad = {NAMES[3]}
    first = await rig.ask(NAMES)
    failed = {name for name, answer in first.items() if isinstance(answer, CannotMeasure)}
    assert NAMES[3] in failed
    assert len(failed) <= 8
    for _ in range(6):
        last = await rig.ask(NAMES)
    assert {name for name, answer in last.items() if isinstance(answer, CannotMeasure)} == {NAMES[3]}
    assert len(rig.server.asked) <= 4
    rig.server.bad.clear()
    for _ in range(4):
        last = await rig.ask(NAMES)
    assert all(isinstance(answer, Answer) for answer in last.values())
    assert len(rig.server.asked) == 3


async def test_a_server_that_is_away_is_not_asked_more_often(rig: Rig) -> None:
    """When nothing is answered, chunks are not all broken up: the server has enough to do when it comes back."""
    rig.server.away = True
    for _ in range(5):
        answers = await rig.ask(NAMES)
        assert all(isinstance(answer, CannotMeasure) for answer in answers.values())
        assert len(rig.server.asked) <= 10
    rig.server.away = False
    for _ in range(4):
        answers = await rig.ask(NAMES)
    assert all(isinstance(answer, Answer) for answer in answers.values())
    assert len(rig.server.asked) == 3


async def test_a_server_that_is_slow_with_everything_is_not_asked_more_often(rig: Rig) -> None:
    """Answers that all take long are nobody's fault: at most one chunk is asked in pieces, and only for a while."""
    answer = rig.server._answer

    async def slow(query: Query) -> Answer | CannotMeasure:
        await rig.clock.sleep(SLOW_S + 1)
        return await answer(query)

    rig.server._answer = slow  # type: ignore[method-assign]
    for _ in range(6):
        rig.server.asked.clear()
        tasks = rig.begin(NAMES)
        await rig.pass_window()
        while not all(task.done() for task in tasks.values()):
            rig.clock.advance(SLOW_S + 1)
            for _ in range(30):
                await asyncio.sleep(0)
        assert len(rig.server.asked) <= 10
    rig.server._answer = answer  # type: ignore[method-assign]
    for _ in range(4):
        await rig.ask(NAMES)
    assert len(rig.server.asked) == 3


async def test_one_who_gives_up_waiting_takes_nothing_from_the_others(rig: Rig) -> None:
    """A cancelled look leaves the shared question and the others' answers as they are."""
    tasks = [asyncio.create_task(rig.together.ask((question("a"),))) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await rig.pass_window()
    assert isinstance((await tasks[1])[question("a")], Answer)


@pytest.mark.parametrize("error", [KeyError("labels"), asyncio.CancelledError()])
async def test_a_fault_of_ours_leaves_nobody_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """When an answer cannot be taken apart, or asking is cancelled from within, those who asked are told that it could
    not be measured, and later questions are answered."""
    with monkeypatch.context() as broken:
        if isinstance(error, KeyError):
            broken.setattr("bot.engine.together.part", _raises(error))
        else:
            broken.setattr(rig.server, "ask", _raises(error))
        tasks = rig.begin(NAMES[:3])
        await rig.pass_window()
        for name, task in tasks.items():
            assert isinstance((await asyncio.wait_for(task, 1.0))[question(name)], CannotMeasure)
    assert all(isinstance(answer, Answer) for answer in (await rig.ask(NAMES)).values())


def _raises(error: BaseException) -> Callable[..., object]:
    def raises(*_: object) -> object:
        raise error

    return raises


async def test_nothing_is_asked_while_nobody_asks(rig: Rig) -> None:
    """No timer, no question: an idle bot does not speak to the metrics."""
    assert await rig.together.ask(()) == {}
    await rig.pass_window()
    assert rig.server.asked == []
