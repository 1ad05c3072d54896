"""A history sorted into the requests from which the two sides of imagined rollouts are drawn."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from bot.analysis.backtest.limits import CLEAR
from bot.analysis.backtest.splitting import Split
from bot.analysis.history import History, Labels
from bot.analysis.look import BUCKETS, REQUESTS
from bot.analysis.samples import Series
from bot.errors import CannotMeasure
from bot.rollout.gate import GateSpec


@dataclass(frozen=True, slots=True)
class Population:
    """Requests from which a side is drawn: all of stable's (`half` None) or those of one half of its pods.

    Bucket counts are of the bucket alone, not cumulative.
    """

    metric: str
    reporter: str
    half: int | None
    labels: Labels
    counts: Sequence[float]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Everything the imagined looks are answered from; `custom` holds the answers to other questions by their text."""

    history: History
    populations: Mapping[Split, tuple[Population, ...]]
    custom: Mapping[str, Sequence[Series] | CannotMeasure]
    custom_every_s: float


def recorded(
    history: History,
    gates: Sequence[GateSpec],
    custom: Mapping[str, Sequence[Series] | CannotMeasure],
    custom_every_s: float,
) -> Recorded:
    """Sort a history into populations, once for all runs.

    Buckets that no request fell into are left out where no limit lies: below all requests, and far above them.
    """
    highest_ms = CLEAR * 2 * max((gate.limit for gate in gates if gate.kind == "p99"), default=0.0)
    populations = {Split.BY_WEIGHT: tuple(_populations(history, None, highest_ms))}
    if history.pods:
        populations[Split.BY_PODS] = tuple(_populations(history, history.pods, highest_ms))
    return Recorded(history, populations, custom, custom_every_s)


def _populations(history: History, halves: Mapping[str, int] | None, highest_ms: float) -> Iterator[Population]:
    merged: dict[tuple[str, str, int | None, Labels], list[float]] = {}
    for group in history.groups:
        half = None if halves is None else halves.get(group.pod)
        if halves is not None and half is None:
            continue
        key = (group.metric, group.reporter, half, group.labels)
        sums = merged.get(key)
        merged[key] = list(group.counts) if sums is None else [a + b for a, b in zip(sums, group.counts, strict=True)]
    for (metric, reporter, half, labels), counts in merged.items():
        if metric == REQUESTS:
            yield Population(metric, reporter, half, labels, counts)
    ladders: dict[tuple[str, int | None], list[tuple[float, Labels, list[float]]]] = {}
    for (metric, reporter, half, labels), counts in merged.items():
        bound = _bound(labels) if metric == BUCKETS else None
        if bound is not None:
            ladders.setdefault((reporter, half), []).append((bound, labels, counts))
    wanted = _populated(ladders.values(), highest_ms)
    for (reporter, half), ladder in ladders.items():
        below: list[float] = [0.0] * history.cells
        for bound, labels, counts in sorted(ladder, key=lambda rung: rung[0]):
            if bound in wanted:
                own = [max(0.0, upper - lower) for upper, lower in zip(counts, below, strict=True)]
                yield Population(BUCKETS, reporter, half, labels, own)
                below = [max(upper, lower) for upper, lower in zip(counts, below, strict=True)]


def _populated(ladders: Iterable[Sequence[tuple[float, Labels, list[float]]]], highest_ms: float) -> frozenset[float]:
    """Bounds from the one below all requests to the one above them all, and on to the one above `highest_ms`."""
    totals: dict[float, float] = {}
    for ladder in ladders:
        for bound, _, counts in ladder:
            totals[bound] = totals.get(bound, 0.0) + sum(counts)
    bounds = sorted(totals)
    first = max(0, sum(totals[bound] <= 0 for bound in bounds) - 1)
    above = next((bound for bound in bounds if totals[bound] >= max(totals.values()) and bound >= highest_ms), inf)
    return frozenset(bound for bound in bounds[first:] if bound <= above or bound == inf)


def _bound(labels: Labels) -> float | None:
    try:
        return float(dict(labels).get("le", ""))
    except ValueError:
        return None
