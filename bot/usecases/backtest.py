"""Try a service's gates on its own past, before anybody trusts them with a release. Changes nothing."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log

from bot.analysis.backtest import (
    Backtest,
    Draw,
    GateResult,
    GateRun,
    Outcome,
    Recorded,
    Split,
    advice,
    begins,
    better_limit,
    custom_questions,
    duration_s,
    imagined,
    judged_together,
    look_spacing,
    recorded,
    run,
    split_of,
    untried,
    wider,
)
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
from bot.catalog import ServiceEntry
from bot.errors import CannotMeasure, UserError
from bot.ports.mesh import Wanted
from bot.rollout.duration import spoken
from bot.rollout.gate import YESTERDAY, GateSpec, Relation
from bot.rollout.model import Rollout, Target
from bot.rollout.plan import Plan, parse_steps
from bot.usecases.desk import Desk
from bot.usecases.routers import router

EVERY_S = 900.0
FEWEST_RUNS = 20
MOST_RUNS = 3000
LONGEST_S = 30 * DAY_S
SMALLEST_PIECE_S = 60.0

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of it is (0 to 1)."""


@dataclass(frozen=True, slots=True)
class BacktestAsk:
    """What is to be tried: "" and 0 mean as the catalog says, and often enough for some runs.

    `since_s` is how far back, `every_s` how often a rollout is imagined to begin.
    """

    service: str
    since_s: float
    namespace: str = ""
    plan: str = ""
    steps: str = ""
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Means:
    """How much a backtest may take: seconds in all (0 is no limit), looks for each pass over the history, other limits
    to try for a gate, questions at the same time."""

    limit_s: float = 0.0
    looks_max: int = 40_000
    attempts: int = 3
    parallel: int = 4


PRIVATELY = Means(limit_s=60.0, looks_max=2_500, attempts=1, parallel=2)
"""Beside the rollouts that the same process watches."""


def quiet(what: str, part: float) -> None:
    """Progress that nobody sees."""


async def backtest(desk: Desk, ask: BacktestAsk, means: Means = PRIVATELY, progress: Progress = quiet) -> Backtest:
    """Imagine rollouts of stable over the history and judge them; one at a time in a process.

    Raises UserError for an unknown service or plan, a Prometheus that does not answer, a history without requests or
    shorter than the plan, and when it takes too long.
    """
    if not 0 < ask.since_s <= LONGEST_S:
        raise UserError("A backtest looks back at most 30 days.", "For example `--since 24h`.")
    if desk.backtesting.locked():
        raise UserError("Another backtest is under way here.", "Ask again in a minute.")
    async with desk.backtesting:
        return await _Backtest(desk, ask, means, progress).made()


@dataclass(slots=True)
class _Backtest:
    desk: Desk
    ask: BacktestAsk
    means: Means
    progress: Progress
    notes: list[str] = field(default_factory=list)
    deadline: float = 0.0

    async def made(self) -> Backtest:
        self.deadline = self.desk.clock.monotonic() + (self.means.limit_s or LONGEST_S)
        ask = self.ask
        entry = self.desk.catalog().entry(ask.service, ask.namespace)
        plan = _plan(self.desk, ask, entry)
        self.progress("finding the route", 0.0)
        target = await _target(self.desk, ask, entry, plan)
        gates = entry.gates_for(target.route.protocol)
        if target.route.protocol != "http":
            raise UserError(f"`{ask.service}` is a {target.route.protocol} route: its past has no requests to count.")
        now = self.desk.clock.now()
        history = await self._history(target, now, gates)
        begin = self._begin(history, now)
        every_s, moments = self._moments(plan, begin, now, history.interval_s)
        look_every_s = look_spacing(
            plan, entry.rules.check_every_s, history.interval_s, len(moments), self.means.looks_max
        )
        if look_every_s > max(entry.rules.check_every_s, history.interval_s) + 0.001:
            self.notes.append(
                f"The gates were looked at every {spoken(look_every_s)} instead of every "
                f"{spoken(entry.rules.check_every_s)}, to be done in time."
            )
        base = imagined(target, plan, gates, entry.rules, begin)
        known = await self._recorded(history, base, look_every_s, begin, now)
        results = await self._judged(base, gates, known, moments, look_every_s)
        return Backtest(
            service=ask.service,
            stable=target.stable.label,
            plan=plan,
            begin=begin,
            end=now,
            every_s=every_s,
            look_every_s=look_every_s,
            runs=len(moments),
            requests=history.requests(begin, now),
            gates=results,
            notes=tuple(self.notes),
        )

    async def _history(self, target: Target, now: float, gates: Sequence[GateSpec]) -> History:
        probes = [probe(metric, target) for metric in METRICS]
        found = [self._answered(one) for one in (await self.desk.metrics.ask(probes)).values()]
        interval_s = round(scrape_interval(series.points for one in found for series in one.series), 2)
        series = max(1, *(len(one.series) for one in found))
        since_s = self.ask.since_s + (DAY_S if any(_beside_yesterday(gate) for gate in gates) else 0.0)
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
        gate, done = asyncio.Semaphore(self.means.parallel), 0

        async def read(metric: str, piece: Piece) -> None:
            nonlocal done
            async with gate:
                self._in_time()
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
        answer = (await self.desk.metrics.ask([asked]))[asked]
        if isinstance(answer, CannotMeasure) and _too_much(answer) and piece.end - piece.begin > SMALLEST_PIECE_S:
            for half in piece.halves():
                self._in_time()
                await self._read(recorder, metric, target, half, coarse_s)
            return
        await asyncio.to_thread(recorder.add, metric, piece, self._answered(answer))

    def _begin(self, history: History, now: float) -> float:
        """Where the imagined rollouts begin: as asked, or later when there is no history before."""
        wanted = now - self.ask.since_s
        first_at = history.first_request_at
        service, since = self.ask.service, spoken(self.ask.since_s)
        if history.first_at is None:
            raise UserError(
                f"Prometheus has no samples of `{service}` in the last {since}.",
                "Is it scraped? See `istio_requests_total` with its `destination_service`; or look further back.",
            )
        if first_at is None or history.requests(wanted, now) < 1:
            raise UserError(
                f"`{service}` had no requests in the last {since}: there is nothing to try the gates on.",
                "Look further back, as in `--since 7d`.",
            )
        first_at -= history.interval_s
        if first_at <= wanted + max(60.0, 0.02 * self.ask.since_s):
            return wanted
        self.notes.append(f"Prometheus has {spoken(now - first_at)} of its requests, not {since}: these were used.")
        return first_at

    def _moments(self, plan: Plan, begin: float, now: float, interval_s: float) -> tuple[float, tuple[float, ...]]:
        room_s = now - begin - duration_s(plan, interval_s)
        if room_s < 0:
            raise UserError(
                f"The plan takes {spoken(duration_s(plan, interval_s))}, and there are only {spoken(now - begin)} of "
                f"history.",
                "Look further back with `--since`, or try shorter steps, as in `--steps 50%:1m,100%:1m`.",
            )
        every_s = self.ask.every_s or max(interval_s, min(EVERY_S, room_s / FEWEST_RUNS))
        moments = begins(begin, now, plan, every_s, interval_s)
        if len(moments) > MOST_RUNS:
            raise UserError(
                f"That would be {len(moments):,} rollouts; at most {MOST_RUNS:,} are imagined.",
                "Begin them less often, as in `--every 15m`.",
            )
        return every_s, moments

    async def _recorded(
        self, history: History, base: Rollout, look_every_s: float, begin: float, now: float
    ) -> Recorded:
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
            self._in_time()
            piece = Piece(begin + (now - begin) * index / number, begin + (now - begin) * (index + 1) / number)
            asked = Query(over(f"({text})", round(piece.end - piece.begin) + every_s, every_s), piece.end)
            answer = (await self.desk.metrics.ask([asked]))[asked]
            if isinstance(answer, CannotMeasure):
                return answer
            for series in answer.series:
                points.setdefault(tuple(sorted(series.labels.items())), []).extend(series.points)
        return [Series(dict(labels), tuple(sorted(dict(found).items()))) for labels, found in points.items()]

    async def _judged(
        self, base: Rollout, gates: Sequence[GateSpec], known: Recorded, moments: Sequence[float], look_every_s: float
    ) -> tuple[GateResult, ...]:
        stable = base.target.canary.label
        why = {gate.name: untried(gate, known.history, stable) for gate in gates}
        tried = [gate for gate in gates if not why[gate.name]]
        splits = [split for split in Split if any(split_of(gate) is split for gate in tried)]
        work = _Work(len(splits), len(moments))
        runs: dict[str, tuple[GateRun, ...]] = {}
        for split in splits:
            fared = await self._runs(base, split, known, moments, look_every_s, work)
            runs |= {gate.name: fared[gate.name] for gate in tried if split_of(gate) is split}
        results = {
            gate.name: GateResult(gate, split_of(gate), runs.get(gate.name, ()), why[gate.name]) for gate in gates
        }
        others = await self._others(base, list(results.values()), known, moments, look_every_s, work)
        return tuple(replace(result, advice=advice(result, others.get(name))) for name, result in results.items())

    async def _others(
        self,
        base: Rollout,
        results: Sequence[GateResult],
        known: Recorded,
        moments: Sequence[float],
        look_every_s: float,
        work: "_Work",
    ) -> dict[str, GateResult]:
        """The same runs with limits that may fit better; one that still fails is widened twice at most."""
        wanted = {result.gate.name: other for result in results if (other := better_limit(result)) is not None}
        failing = {result.gate.name for result in results if result.count(Outcome.FAILED)}
        others: dict[str, GateResult] = {}
        for _ in range(self.means.attempts):
            if not wanted:
                break
            if self.desk.clock.monotonic() > self.deadline - self.means.limit_s / 2:
                self.notes.append("There was no time to try other limits.")
                break
            trial = base.with_(gates=tuple(wanted.get(gate.name, gate) for gate in base.gates))
            splits = {split_of(gate) for gate in wanted.values()}
            work.more(len(splits))
            for split in splits:
                fared = await self._runs(trial, split, known, moments, look_every_s, work)
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
        known: Recorded,
        moments: Sequence[float],
        look_every_s: float,
        work: "_Work",
    ) -> dict[str, tuple[GateRun, ...]]:
        base = base.with_(gates=judged_together(base.gates, split))
        fared: dict[str, list[GateRun]] = {gate.name: [] for gate in base.gates}
        for begin in moments:
            self._in_time()
            draw = drawing(random.Random(f"{split} {round(begin - moments[0])}"))
            one = await asyncio.to_thread(run, base, split, known, begin, look_every_s, draw)
            for name, gate_run in one.items():
                fared[name].append(gate_run)
            self.progress("judging imagined rollouts", work.step())
        return {name: tuple(runs) for name, runs in fared.items()}

    def _in_time(self) -> None:
        if self.desk.clock.monotonic() > self.deadline:
            raise UserError(
                f"The backtest was not done within {spoken(self.means.limit_s)} and was given up.",
                "Look less far back, as in `--since 6h`, or run `canary-bot simulate`, which has no such limit.",
            )

    @staticmethod
    def _answered(answer: Answer | CannotMeasure) -> Answer:
        if isinstance(answer, CannotMeasure):
            raise UserError(f"The history could not be read: {answer}.", "Try again when Prometheus answers.")
        return answer


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


def _plan(desk: Desk, ask: BacktestAsk, entry: ServiceEntry) -> Plan:
    if ask.steps:
        return parse_steps(ask.steps)
    if not ask.plan:
        return entry.plan
    plans: Mapping[str, Plan] = desk.catalog().plans
    if ask.plan not in plans:
        known = ", ".join(f"`{name}`" for name in sorted(plans)) or "none in the catalog"
        raise UserError(f"There is no plan called `{ask.plan}`.", f"Plans: {known}. Or give the steps.")
    return plans[ask.plan]


async def _target(desk: Desk, ask: BacktestAsk, entry: ServiceEntry, plan: Plan) -> Target:
    wanted = Wanted(
        service=ask.service,
        namespace=ask.namespace or entry.namespace,
        mesh=entry.mesh,
        name=entry.route_name,
        route=entry.route,
        protocol=entry.protocol,
        subsets=entry.subsets,
        adopt=True,
    )
    survey = await router(desk, entry.mesh).survey(wanted, plan.steps[0].weight_percent)
    if survey.target is None:
        raise UserError(
            f"The gates of `{ask.service}` cannot be tried.",
            " ".join(finding.told for finding in survey.refusals),
        )
    return survey.target


def _beside_yesterday(gate: GateSpec) -> bool:
    return gate.relation is Relation.RELATIVE and gate.against == YESTERDAY


def _too_much(error: CannotMeasure) -> bool:
    """A smaller question may be answered."""
    return any(words in str(error) for words in ("did not answer within", "is larger than", "too many samples"))
