"""The past, read from Prometheus in pieces that it can answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bot.analysis.backtest import Recorded, custom_questions, recorded
from bot.analysis.counts import scrape_interval
from bot.analysis.history import (
    LONGEST_PIECE_S,
    METRICS,
    History,
    Piece,
    Recorder,
    pieces,
    probe,
    question,
    resolution,
)
from bot.analysis.look import DAY_S
from bot.analysis.promql import over
from bot.analysis.samples import Answer, Query, Series
from bot.errors import CannotMeasure, UserError
from bot.ports.metrics import Metrics
from bot.rollout.duration import spoken
from bot.rollout.gate import YESTERDAY, GateSpec, Relation
from bot.rollout.model import Rollout, Target
from bot.usecases.backtest.wish import Allowance, Progress

SMALLEST_PIECE_S = 60.0


@dataclass(frozen=True, slots=True)
class Reader:
    """Asks Prometheus for a past; `notes` takes sentences about what limits the result."""

    metrics: Metrics
    allowance: Allowance
    parallel: int
    progress: Progress
    notes: list[str]

    async def history(self, target: Target, gates: Sequence[GateSpec], since_s: float, now: float) -> History:
        """The requests of the last `since_s` seconds, with the day before where a gate compares with it."""
        probes = [probe(metric, target) for metric in METRICS]
        found = [_answered(one) for one in (await self.metrics.ask(probes)).values()]
        interval_s = round(scrape_interval(series.points for one in found for series in one.series), 2)
        series = max(1, *(len(one.series) for one in found))
        since_s += DAY_S if any(_beside_yesterday(gate) for gate in gates) else 0.0
        begin = now - since_s
        step_s = resolution(series, since_s, interval_s)
        coarse_s = round(step_s) if step_s > interval_s else 0
        if coarse_s:
            self.notes.append(
                f"There are {series:,} series: one sample every {spoken(coarse_s)} was read instead of every "
                f"{spoken(interval_s)}."
            )
        recorder = Recorder(target, begin, now, coarse_s or interval_s)
        wanted = [(metric, piece) for metric in METRICS for piece in pieces(begin, now, series, coarse_s or interval_s)]
        gate, done = asyncio.Semaphore(self.parallel), 0

        async def read(metric: str, piece: Piece) -> None:
            nonlocal done
            async with gate:
                self.allowance.check()
                await self._read(recorder, metric, target, piece, coarse_s)
            done += 1
            self.progress(f"reading {spoken(since_s)} of history", done / len(wanted))

        try:
            async with asyncio.TaskGroup() as tasks:
                for metric, piece in wanted:
                    tasks.create_task(read(metric, piece))
        except* UserError as errors:
            raise errors.exceptions[0] from None
        return await asyncio.to_thread(recorder.history)

    async def _read(self, recorder: Recorder, metric: str, target: Target, piece: Piece, coarse_s: int) -> None:
        asked = question(metric, target, piece, coarse_s)
        answer = (await self.metrics.ask([asked]))[asked]
        if isinstance(answer, CannotMeasure) and _too_much(answer) and piece.end - piece.begin > SMALLEST_PIECE_S:
            for half in piece.halves():
                self.allowance.check()
                await self._read(recorder, metric, target, half, coarse_s)
            return
        await asyncio.to_thread(recorder.add, metric, piece, _answered(answer))

    async def recorded(
        self, history: History, base: Rollout, look_every_s: float, begin: float, now: float
    ) -> Recorded:
        """The history with the answers to the gates' own questions."""
        custom: dict[str, list[Series] | CannotMeasure] = {}
        every_s = max(1, round(look_every_s))
        for text in custom_questions(base, look_every_s, history.interval_s):
            self.progress("asking the gates' own questions", 0.0)
            custom[text] = await self._custom(text, every_s, begin, now)
        return await asyncio.to_thread(recorded, history, base.gates, custom, float(every_s))

    async def _custom(self, text: str, every_s: int, begin: float, now: float) -> list[Series] | CannotMeasure:
        points: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        number = max(1, round((now - begin) / LONGEST_PIECE_S + 0.5))
        for index in range(number):
            self.allowance.check()
            piece = Piece(begin + (now - begin) * index / number, begin + (now - begin) * (index + 1) / number)
            asked = Query(over(f"({text})", round(piece.end - piece.begin) + every_s, every_s), piece.end)
            answer = (await self.metrics.ask([asked]))[asked]
            if isinstance(answer, CannotMeasure):
                return answer
            for series in answer.series:
                points.setdefault(tuple(sorted(series.labels.items())), []).extend(series.points)
        return [Series(dict(labels), tuple(sorted(dict(found).items()))) for labels, found in points.items()]


def _answered(answer: Answer | CannotMeasure) -> Answer:
    if isinstance(answer, CannotMeasure):
        raise UserError(f"The history could not be read: {answer}.", "Try again when Prometheus answers.")
    return answer


def _beside_yesterday(gate: GateSpec) -> bool:
    return gate.relation is Relation.RELATIVE and gate.against == YESTERDAY


def _too_much(error: CannotMeasure) -> bool:
    """A smaller question may be answered."""
    return any(words in str(error) for words in ("did not answer within", "is larger than", "too many samples"))
