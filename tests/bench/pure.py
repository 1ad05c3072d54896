"""What the pure rooms cost: one decision, one record written and read, one look judged."""

import time
from collections.abc import Callable, Iterable

from bot.analysis.assessment import assess, questions
from bot.analysis.samples import Answer
from bot.errors import CannotMeasure
from bot.rollout.events import Clocked, Looked
from bot.rollout.machine import decide as decided
from bot.rollout.model import Phase, Rollout
from bot.rollout.record import dump, load_rollout
from bot.usecases.start import StartAsk, start
from tests.bench.table import Table
from tests.engine.stage import ADA, Stage

MINUTES = (1, 10, 60)


async def decide(quick: bool) -> Table:
    """Microseconds of `decide` for a look and for the clock alone, and of writing and reading the record."""
    made, rollout = await _baking(60.0)
    now = made.clock.now()
    look = Looked(rollout.assessment, (), await made.mesh.read(rollout.target)) if rollout.assessment else None
    assert look is not None
    text = dump(rollout)
    table = Table("decide and records (microseconds each)")
    for name, work in (
        ("decide, a look", lambda: decided(rollout, look, now)),
        ("decide, the clock", lambda: decided(rollout, Clocked((), look.route), now)),
        ("record written", lambda: dump(rollout)),
        ("record read", lambda: load_rollout(text)),
    ):
        table.rows.append({"what": name, "us": 1e6 * _each_s(work, quick), "bytes": len(text)})
    await made.engine.stop()
    return table


async def judge(quick: bool) -> Table:
    """Milliseconds of judging one look, by the age of the step: raw samples of a second's scraping."""
    table = Table("one look judged, 1 s scrapes (milliseconds)")
    for minutes in MINUTES[:2] if quick else MINUTES:
        made, rollout = await _baking(60.0 * minutes)
        now = made.clock.now()
        asked = questions(rollout, now)
        answers = await made.metrics.ask(asked)
        pods = await made.cluster.pods("shop", rollout.target.canary.selector)
        samples = _samples(answers.values())
        cost_s = _each_s(
            lambda rollout=rollout, now=now, answers=answers, pods=pods: assess(  # type: ignore[misc]
                rollout, now, answers, canary_pods=pods, stable_pods=pods
            ),
            quick,
        )
        table.rows.append({"minutes baking": minutes, "ms": 1000 * cost_s, "queries": len(asked), "samples": samples})
        await made.engine.stop()
    return table


async def _baking(seconds: float) -> tuple[Stage, Rollout]:
    """A rollout that has baked this long at its first step."""
    made = Stage()
    await made.add_service()
    await made.engine.start()
    await made.timeline.advance(1.5)
    answer = await start(made.desk, StartAsk("payments", steps="10%:4h, 100%:4h"), ADA)
    assert answer.rollout is not None
    await made.play(10.0)
    await made.timeline.advance(seconds)
    rollout = made.engine._in_memory(answer.rollout.id)
    assert rollout is not None
    assert rollout.phase is Phase.PROGRESSING, rollout
    return made, rollout


def _samples(answers: Iterable[Answer | CannotMeasure]) -> int:
    return sum(len(series.points) for answer in answers if isinstance(answer, Answer) for series in answer.series)


def _each_s(work: Callable[[], object], quick: bool) -> float:
    """Seconds of one call: the best of five rows, so that neighbours on the machine count least."""
    for_s = 0.1 if quick else 0.5
    count = 1
    while True:
        took_s = _row(work, count)
        if took_s >= for_s / 5:
            break
        count *= 2
    return min(_row(work, count) for _ in range(5)) / count


def _row(work: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return time.perf_counter() - began
