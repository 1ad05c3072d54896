"""What the pure rooms cost: one decision, one record written and read, one look judged."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from statistics import median

from bot.analysis.assessment import assess, questions
from bot.analysis.memory import Memory
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
LOOKS = 41
PACES_S = ((15.0, 15.0), (1.0, 5.0))


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
    """Milliseconds of CPU of judging one look, by the age of the step: the first of a holder, which asks for everything
    since the weight was set, and the further ones, which ask for what is new."""
    table = Table("one look judged, all gates, 84 series (milliseconds of CPU)")
    for (scrape_s, every_s), minutes in product(PACES_S, MINUTES[:2] if quick else MINUTES):
        made, rollout = await _baking(60.0 * minutes, scrape_s)
        pods = await made.cluster.pods("shop", rollout.target.canary.selector)
        memory, costs_s, samples = Memory(), [], []
        for _ in range(LOOKS):
            made.clock.advance(every_s)
            now = made.clock.now()
            answers = await made.metrics.ask(questions(rollout, now, memory))
            samples.append(_samples(answers.values()))
            began = time.thread_time()
            look = assess(rollout, now, answers, canary_pods=pods, stable_pods=pods, memory=memory)
            costs_s.append(time.thread_time() - began)
            until = look.coverage.until if look.coverage else rollout.bake.covered_until
            rollout = rollout.with_(evidence=look.evidence, bake=replace(rollout.bake, covered_until=until))
        table.rows.append(
            {
                "scrapes, s": scrape_s,
                "looks, s": every_s,
                "minutes baking": minutes,
                "first look, ms": 1000 * costs_s[0],
                "its samples": samples[0],
                "each further one, ms": 1000 * median(costs_s[1:]),
                "its samples then": samples[-1],
            }
        )
        await made.engine.stop()
    return table


async def _baking(seconds: float, scrape_s: float = 1.0) -> tuple[Stage, Rollout]:
    """A rollout that has baked this long at its first step."""
    made = Stage(scrape_s=scrape_s)
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
