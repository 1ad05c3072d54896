"""What Prometheus has recorded of a service's stable side: asked for in pieces, counted once, kept small.

Each piece is asked for as raw samples and counted as a live look counts them (births, resets, gaps), then summed into
cells of one scrape interval by what the gates tell apart: reporter, reporting pod, outcome, bucket. However many series
a service has, looks at its past are cut from these few.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil, inf

from bot.analysis.counts import Counter, count
from bot.analysis.look import BUCKETS, REQUESTS
from bot.analysis.promql import over, selector
from bot.analysis.requests import Whose, hosts, whose
from bot.analysis.samples import Answer, Query
from bot.analysis.windows import LEAD_S
from bot.rollout.model import Target
from bot.values import dataclass

METRICS = (REQUESTS, BUCKETS)
PROBE_S = 300
PIECE_POINTS = 150_000
ALL_POINTS = 6_000_000
LONGEST_PIECE_S = 6 * 3600.0
_OUTCOME = ("response_code", "response_flags", "grpc_response_status", "request_protocol")
_BUCKET = ("le",)

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of history that is asked for at once: (begin, end] in epoch seconds."""

    begin: float
    end: float

    def halves(self) -> "tuple[Piece, Piece]":
        """The same stretch in two."""
        middle = (self.begin + self.end) / 2
        return Piece(self.begin, middle), Piece(middle, self.end)


@dataclass(frozen=True, slots=True)
class Group:
    """Requests of one kind: `counts[i]` of them completed in cell i. `pod` is the reporting pod where it is stable's.

    `labels` are those of the outcome, or `le` with cumulative counts.
    """

    metric: str
    reporter: str
    pod: str
    labels: Labels
    counts: "array[float]"


@dataclass(frozen=True, slots=True)
class History:
    """Recorded requests of stable; cell i covers `interval_s` seconds up to `moment(i)`.

    `sampled[metric][i]` is 1 where there were samples; `pods` gives each of stable's pods one half (0 or 1), empty when
    there are not two. `series` is how many were read, `first_at` and `last_at` the samples' ends, None without any.
    """

    begin: float
    interval_s: float
    cells: int
    groups: tuple[Group, ...]
    sampled: Mapping[str, bytearray]
    pods: Mapping[str, int]
    series: int
    first_at: float | None
    last_at: float | None

    def moment(self, cell: int) -> float:
        """The end of a cell, epoch seconds."""
        return self.begin + (cell + 1) * self.interval_s

    def cell(self, at: float) -> int:
        """The cell in which a moment lies; may be outside of the history."""
        return ceil(round((at - self.begin) / self.interval_s, 6)) - 1

    @property
    def first_request_at(self) -> float | None:
        """The end of the first cell with a request, None when there is none."""
        firsts = (next((cell for cell, count in enumerate(group.counts) if count), None) for group in self.groups)
        cell = min((cell for cell in firsts if cell is not None), default=None)
        return None if cell is None else self.moment(cell)

    def requests(self, begin: float, end: float, half: int | None = None) -> float:
        """Requests in the cells after `begin` up to `end`, as the reporter that saw most; of one half of the pods."""
        first, last = max(0, self.cell(begin) + 1), min(self.cells, self.cell(end) + 1)
        sums: dict[str, float] = {}
        for group in self.groups:
            if group.metric == REQUESTS and (half is None or self.pods.get(group.pod) == half):
                sums[group.reporter] = sums.get(group.reporter, 0.0) + sum(group.counts[first:last])
        return max(sums.values(), default=0.0)


def probe(metric: str, target: Target) -> Query:
    """The last five minutes, to learn how many series there are and how often they are scraped."""
    return Query(over(selector(metric, {"destination_service": hosts(target)}), PROBE_S))


def resolution(series: int, seconds: float, interval_s: float) -> float:
    """The scrape interval, or the multiple of it at which `series` over so many seconds stay under 6 million points."""
    return interval_s * max(1, ceil(series * seconds / interval_s / ALL_POINTS))


def pieces(begin: float, end: float, series: int, interval_s: float) -> tuple[Piece, ...]:
    """The history in pieces of about 150,000 points each, at most six hours long."""
    longest_s = min(LONGEST_PIECE_S, max(4 * interval_s, PIECE_POINTS * interval_s / max(1, series)))
    number = max(1, ceil((end - begin) / longest_s))
    edges = [begin + (end - begin) * index / number for index in range(number + 1)]
    return tuple(Piece(*edge) for edge in pairwise(edges))


def question(metric: str, target: Target, piece: Piece, resolution_s: float = 0.0) -> Query:
    """The samples of a piece and of a minute before it, for baselines; raw, or one per `resolution_s`."""
    series = selector(metric, {"destination_service": hosts(target)})
    return Query(over(series, ceil(piece.end - piece.begin + LEAD_S + resolution_s), int(resolution_s)), piece.end)


class Recorder:
    """Collects answers into a history."""

    def __init__(self, target: Target, begin: float, end: float, interval_s: float) -> None:
        self._target = target
        self._begin = begin
        self._interval_s = interval_s
        self._cells = max(1, ceil((end - begin) / interval_s))
        self._counts: dict[tuple[str, str, str, Labels], array[float]] = {}
        self._unknown: dict[tuple[str, str, str, Labels], array[float]] = {}
        self._sampled = {metric: bytearray(self._cells) for metric in METRICS}
        self._canary = bytearray(self._cells)
        self._lives: dict[str, tuple[float, float]] = {}
        self._series: dict[str, int] = {}
        self._first_at = inf
        self._last_at = -inf

    def add(self, metric: str, piece: Piece, answer: Answer) -> None:
        """Count one piece's answer; samples of the lead before it are baselines only."""
        counted = count(answer)
        self._series[metric] = max(self._series.get(metric, 0), len(counted.counters))
        sampled = self._sampled[metric]
        for time in counted.raw_times:
            if piece.begin < time <= piece.end and 0 <= (cell := self._cell(time)) < self._cells:
                sampled[cell] = 1
                self._first_at = min(self._first_at, time)
                self._last_at = max(self._last_at, time)
        for counter in counted.counters:
            self._add(metric, piece, counter)

    def history(self) -> History:
        """What was collected.

        Requests that name no side are stable's, but for the moments in which a canary had traffic.
        """
        for key, counts in self._unknown.items():
            known = self._counts.setdefault(key, self._zeros())
            for cell, number in enumerate(counts):
                if number and not self._canary[cell]:
                    known[cell] += number
        groups = tuple(Group(*key, counts) for key, counts in sorted(self._counts.items()))
        told = self._first_at <= self._last_at
        return History(
            self._begin,
            self._interval_s,
            self._cells,
            groups,
            self._sampled,
            halved(self._lives),
            sum(self._series.values()),
            self._first_at if told else None,
            self._last_at if told else None,
        )

    def _add(self, metric: str, piece: Piece, counter: Counter) -> None:
        side = whose(self._target, counter.labels)
        reporter = counter.labels.get("reporter", "")
        if side is Whose.CANARY and metric == REQUESTS:
            for cell, _ in self._increases(piece, counter):
                self._canary[cell] = 1
        if side is Whose.UNKNOWN and metric == BUCKETS:
            return
        if side not in (Whose.STABLE, Whose.UNKNOWN):
            return
        pod = ""
        if side is Whose.STABLE and reporter == "destination":
            pod = counter.labels.get("pod") or counter.labels.get("instance", "")
        kept = self._counts if side is Whose.STABLE else self._unknown
        names = _OUTCOME if metric == REQUESTS else _BUCKET
        key = (metric, reporter, pod, tuple((name, counter.labels.get(name, "")) for name in names))
        counts = kept.get(key)
        for cell, number in self._increases(piece, counter):
            if counts is None:
                counts = kept.setdefault(key, self._zeros())
            counts[cell] += number
        if pod and metric == REQUESTS and counter.times:
            first, last = self._lives.get(pod, (inf, -inf))
            self._lives[pod] = (min(first, counter.times[0]), max(last, counter.times[-1]))

    def _increases(self, piece: Piece, counter: Counter) -> Iterable[tuple[int, float]]:
        before = 0.0
        for time, total in zip(counter.times, counter.totals, strict=True):
            number, before = total - before, total
            if number and piece.begin < time <= piece.end and 0 <= (cell := self._cell(time)) < self._cells:
                yield cell, number

    def _cell(self, at: float) -> int:
        return ceil(round((at - self._begin) / self._interval_s, 6)) - 1

    def _zeros(self) -> "array[float]":
        return array("d", bytes(8 * self._cells))


def halved(lives: Mapping[str, tuple[float, float]]) -> dict[str, int]:
    """Two halves of pods by when they lived (first and last sample): each new pod joins the half that has fewer then.

    The same pods are always halved alike. Empty when no two pods lived at the same time.
    """
    halves: dict[str, int] = {}
    for pod, (first, _) in sorted(lives.items(), key=lambda one: (one[1][0], one[0])):
        alive = [half for other, half in halves.items() if lives[other][1] >= first]
        halves[pod] = 1 if alive.count(0) > alive.count(1) else 0
    return halves if len(set(halves.values())) > 1 else {}


def one_number(points: Sequence[tuple[float, float]], at: float, within_s: float) -> tuple[float, float] | None:
    """The newest of ascending points at or before `at` that is not older than `within_s`; None when there is none."""
    index = bisect_right(points, at, key=lambda point: point[0]) - 1
    return points[index] if index >= 0 and points[index][0] >= at - within_s else None
