"""The series of one imagined rollout, and what Prometheus would have answered from them."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from math import floor

from bot.analysis.backtest.populations import Population, Recorded
from bot.analysis.backtest.schedule import duration_s
from bot.analysis.backtest.splitting import Split
from bot.analysis.history import METRICS, History, one_number
from bot.analysis.look import BUCKETS, DAY_S, Answers
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.windows import LEAD_S
from bot.errors import CannotMeasure
from bot.rollout.model import Rollout
from bot.rollout.plan import Plan

Draw = Callable[[float, float], float]
"""How many of so many requests are taken when each is taken with this probability."""

LOOKBACK_S = 300.0
RANGE = re.compile(r"^(?:max\(timestamp\()?(\w+)\{[^{}]*\}(\)\))?\[(\d+)s(?::(\d+)s)?\]$")


class Tape:
    """The series of one imagined rollout, from which its looks are answered."""

    def __init__(
        self, rollout: Rollout, split: Split, known: Recorded, begin: float, draw: Draw, interval_s: float
    ) -> None:
        history = known.history
        self._known = known
        self._host = rollout.target.host
        ends = begin + duration_s(rollout.plan, interval_s)
        first = max(0, history.cell(begin - LEAD_S - 2 * interval_s))
        last = min(history.cells, history.cell(ends) + 1)
        weights = _weights(rollout.plan, history, begin, range(first, last), interval_s)
        share = 0.5
        if split is Split.BY_PODS:
            ones, others = (history.requests(begin, ends, half) for half in (0, 1))
            share = ones / (ones + others) if ones + others else 0.5
        self._now = self._series(known.populations[split], range(first, last), weights, share, draw)
        self._yesterday: dict[str, tuple[list[float], list[Series]]] | None = None
        self._day_before = (history.cell(begin - DAY_S - LEAD_S - 2 * interval_s), history.cell(ends - DAY_S) + 1)
        self._begin = begin

    def answers(self, asked: Sequence[Query], now: float) -> Answers:
        """What Prometheus would have answered at `now` (epoch seconds)."""
        return {query: self._answer(query, now) for query in asked}

    def _answer(self, query: Query, now: float) -> Answer | CannotMeasure:
        at = now if query.at is None else query.at
        found = RANGE.match(query.promql)
        if found is None:
            return self._custom(query.promql, at, now)
        metric, moments, window_s, resolution_s = found[1], found[2], float(found[3]), float(found[4] or 0)
        tapes = self._now if at > self._begin - DAY_S / 2 else self._former()
        times, series = tapes.get(metric, ([], []))
        if moments:
            return Answer((Series({}, _newest(times, at, window_s, resolution_s)),), now)
        if resolution_s:
            cut = [replace(one, points=_coarse(one, times, at, window_s, resolution_s)) for one in series]
        else:
            begin, end = bisect_right(times, at - window_s), bisect_right(times, at)
            cut = [Series(one.labels, one.points[begin:end]) for one in series]
        return Answer(tuple(one for one in cut if one.points), now)

    def _custom(self, promql: str, at: float, now: float) -> Answer | CannotMeasure:
        rows = self._known.custom.get(promql, CannotMeasure("this question was not recorded"))
        if isinstance(rows, CannotMeasure):
            return rows
        found = [(row.labels, one_number(row.points, at, 1.5 * self._known.custom_every_s)) for row in rows]
        return Answer(tuple(Series(labels, ((at, point[1]),)) for labels, point in found if point is not None), now)

    def _former(self) -> dict[str, tuple[list[float], list[Series]]]:
        """The same hours a day earlier, all of them stable's."""
        if self._yesterday is None:
            history = self._known.history
            cells = range(max(0, self._day_before[0]), max(0, min(history.cells, self._day_before[1])))
            populations = self._known.populations[Split.BY_WEIGHT]
            self._yesterday = self._series(populations, cells, [0.0] * len(cells), 0.5, lambda *_: 0.0)
        return self._yesterday

    def _series(
        self, populations: Sequence[Population], cells: range, weights: Sequence[float], share: float, draw: Draw
    ) -> dict[str, tuple[list[float], list[Series]]]:
        history = self._known.history
        made: dict[str, tuple[list[float], list[Series]]] = {}
        for metric in METRICS:
            sampled = [cell for cell in cells if history.sampled[metric][cell]]
            made[metric] = ([history.moment(cell) for cell in sampled], [])
        below: dict[tuple[str, str], list[float]] = {}
        for population in populations:
            for side, counts in _drawn(population, cells, weights, share, draw):
                own = counts
                if population.metric == BUCKETS:
                    ladder = below.get((population.reporter, side))
                    own = counts if ladder is None else [a + b for a, b in zip(counts, ladder, strict=True)]
                    below[population.reporter, side] = own
                totals = list(accumulate(own))
                times, rows = made[population.metric]
                sampled_totals = [
                    totals[cell - cells.start] for cell in cells if history.sampled[population.metric][cell]
                ]
                rows.append(Series(self._labels(population, side), tuple(zip(times, sampled_totals, strict=True))))
        return made

    def _labels(self, population: Population, side: str) -> dict[str, str]:
        return {
            "reporter": population.reporter,
            "destination_service": self._host,
            "destination_workload": side,
            "destination_version": "unknown",
            **dict(population.labels),
        }


def _weights(plan: Plan, history: History, begin: float, cells: range, interval_s: float) -> list[float]:
    """The canary's share in each cell, 0 before the first step."""
    edges, shares, at = [begin], [0.0], begin
    for step in plan.steps:
        at += step.bake_s + 2 * interval_s
        edges.append(at)
        shares.append(step.weight_percent / 100)
    shares.append(shares[-1])
    return [shares[bisect_right(edges, history.moment(cell) - 1e-6)] for cell in cells]


def _drawn(
    population: Population, cells: range, weights: Sequence[float], share: float, draw: Draw
) -> Iterator[tuple[str, list[float]]]:
    """The requests of this population that each side gets, by cell; `share` is the first half's of all requests."""
    counts = population.counts[cells.start : cells.stop]
    if population.half is None:
        if any(weights):
            yield (
                "~canary",
                [draw(count, weight) if count else 0.0 for count, weight in zip(counts, weights, strict=True)],
            )
        else:
            yield "~stable", list(counts)
        return
    parts = [_parts(weight, share)[population.half] for weight in weights]
    side = ("~canary", "~stable")[population.half]
    yield side, [draw(count, part) if count else 0.0 for count, part in zip(counts, parts, strict=True)]


def _parts(weight: float, share: float) -> tuple[float, float]:
    """Of the requests of each half, the part to keep, so that the first half has `weight` of what is kept."""
    if weight <= 0 or share <= 0:
        return 0.0, 1.0
    if weight >= 1 or share >= 1:
        return 1.0, 0.0
    kept_share = min(share / weight, (1 - share) / (1 - weight))
    return min(1.0, kept_share * weight / share), min(1.0, kept_share * (1 - weight) / (1 - share))


def _newest(times: Sequence[float], at: float, window_s: float, resolution_s: float) -> tuple[tuple[float, float], ...]:
    return tuple((step, times[index]) for step, index in _steps(times, at, window_s, resolution_s))


def _coarse(
    series: Series, times: Sequence[float], at: float, window_s: float, resolution_s: float
) -> tuple[tuple[float, float], ...]:
    return tuple((step, series.points[index][1]) for step, index in _steps(times, at, window_s, resolution_s))


def _steps(times: Sequence[float], at: float, window_s: float, resolution_s: float) -> Iterator[tuple[float, int]]:
    """Moments of a subquery and which sample each shows: the newest that is not older than five minutes."""
    for number_ in range(floor((at - window_s) / resolution_s) + 1, floor(at / resolution_s) + 1):
        step = number_ * resolution_s
        index = bisect_right(times, step) - 1
        if index >= 0 and step - times[index] < LOOKBACK_S:
            yield step, index
