"""Imagined rollouts judged one after the other, beside whatever else the process does."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

from bot.analysis.backtest import (
    Draw,
    GateResult,
    GateRun,
    Outcome,
    Recorded,
    Split,
    advice,
    better_limit,
    judged_together,
    run,
    split_of,
    untried,
    wider,
)
from bot.rollout.gate import GateSpec
from bot.rollout.model import Rollout
from bot.usecases.backtest.wish import Allowance, Progress


@dataclass(frozen=True, slots=True)
class Judging:
    """Rollouts begun at `moments` (epoch seconds) of what is known, looked at every `look_every_s`; `attempts` are
    other limits to try for a gate, `notes` takes sentences about what limits the result."""

    known: Recorded
    moments: Sequence[float]
    look_every_s: float
    attempts: int
    allowance: Allowance
    progress: Progress
    notes: list[str]

    async def results(self, base: Rollout, gates: Sequence[GateSpec]) -> tuple[GateResult, ...]:
        """Each gate over all rollouts, with what it teaches."""
        stable = base.target.canary.label
        why = {gate.name: untried(gate, self.known.history, stable) for gate in gates}
        tried = [gate for gate in gates if not why[gate.name]]
        splits = [split for split in Split if any(split_of(gate) is split for gate in tried)]
        work = _Work(len(splits), len(self.moments))
        runs: dict[str, tuple[GateRun, ...]] = {}
        for split in splits:
            fared = await self._runs(base, split, work)
            runs |= {gate.name: fared[gate.name] for gate in tried if split_of(gate) is split}
        results = {
            gate.name: GateResult(gate, split_of(gate), runs.get(gate.name, ()), why[gate.name]) for gate in gates
        }
        others = await self._others(base, list(results.values()), work)
        return tuple(replace(result, advice=advice(result, others.get(name))) for name, result in results.items())

    async def _others(
        self,
        base: Rollout,
        results: Sequence[GateResult],
        work: "_Work",
    ) -> dict[str, GateResult]:
        """The same runs with limits that may fit better; one that still fails is widened twice at most."""
        wanted = {result.gate.name: other for result in results if (other := better_limit(result)) is not None}
        failing = {result.gate.name for result in results if result.count(Outcome.FAILED)}
        others: dict[str, GateResult] = {}
        for _ in range(self.attempts):
            if not wanted:
                break
            if self.allowance.half_used():
                self.notes.append("There was no time to try other limits.")
                break
            trial = base.with_(gates=tuple(wanted.get(gate.name, gate) for gate in base.gates))
            splits = {split_of(gate) for gate in wanted.values()}
            work.more(len(splits))
            for split in splits:
                fared = await self._runs(trial, split, work)
                for name, gate in wanted.items():
                    if split_of(gate) is split:
                        others[name] = GateResult(gate, split, fared[name])
            wanted = {
                name: wider(gate)
                for name, gate in wanted.items()
                if name in failing and others[name].count(Outcome.FAILED)
            }
        return others

    async def _runs(
        self,
        base: Rollout,
        split: Split,
        work: "_Work",
    ) -> dict[str, tuple[GateRun, ...]]:
        base = base.with_(gates=judged_together(base.gates, split))
        fared: dict[str, list[GateRun]] = {gate.name: [] for gate in base.gates}
        for begin in self.moments:
            self.allowance.check()
            draw = drawing(random.Random(f"{split} {round(begin - self.moments[0])}"))
            one = await asyncio.to_thread(run, base, split, self.known, begin, self.look_every_s, draw)
            for name, gate_run in one.items():
                fared[name].append(gate_run)
            self.progress("judging imagined rollouts", work.step())
        return {name: tuple(runs) for name, runs in fared.items()}


class _Work:
    """How much of the judging is done."""

    def __init__(self, passes: int, runs: int) -> None:
        self._runs = runs
        self._all = max(1, passes * runs)
        self._done = 0

    def more(self, passes: int) -> None:
        """There are more passes over all runs than was known."""
        self._all += passes * self._runs

    def step(self) -> float:
        """One run is done; the part that is."""
        self._done += 1
        return self._done / self._all


def drawing(chance: random.Random) -> Draw:
    """Draw binomially: exactly for few requests, by the normal approximation where more than 40 are expected."""

    def draw(count: float, probability: float) -> float:
        if probability <= 0 or count <= 0:
            return 0.0
        if probability >= 1:
            return count
        if probability > 0.5:
            return count - draw(count, 1 - probability)
        number = round(count)
        expected = number * probability
        if expected > 40:
            drawn = round(chance.gauss(expected, (expected * (1 - probability)) ** 0.5))
            return float(min(number, max(0, drawn)))
        if number <= 4:
            return float(sum(chance.random() < probability for _ in range(number)))
        taken, at, skip = 0, 0, log(1 - probability)
        while True:
            at += 1 + int(log(1 - chance.random()) / skip)
            if at > number:
                return float(taken)
            taken += 1

    return draw
