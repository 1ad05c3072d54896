"""An embedded Prometheus: prombed scrapes and evaluates; what it lacks and our questions need is added here.

Added to prombed's PromQL: range selectors and subqueries as a whole query, `time`, `timestamp`, `vector`, `absent`, the
`*_over_time` functions, `changes` and `resets`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from prombed import InMemoryStorage, Prombed, PrombedError, PromQLEngine, ScrapeTarget, parse_duration, parse_promql
from prombed.promql import evaluator
from prombed.promql.parser import Expression, SelectorExpression

from bot.sandbox.prometheus.targets import Target

_log = logging.getLogger(__name__)
_RETENTION_MS = 15 * 60_000
_LOOKBACK_MS = 5 * 60_000
_MAX_SERIES = 100_000
_SUBQUERY = re.compile(r"^(.+)\[(\w+):(\w+)\]\s*$", re.DOTALL)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _changes(values: Sequence[float]) -> float:
    return float(sum(1 for left, right in itertools.pairwise(values) if left != right))


def _resets(values: Sequence[float]) -> float:
    return float(sum(1 for left, right in itertools.pairwise(values) if right < left))


_OVER_TIME: dict[str, Callable[[Sequence[float]], float]] = {
    "sum_over_time": math.fsum,
    "avg_over_time": _mean,
    "min_over_time": min,
    "max_over_time": max,
    "count_over_time": lambda values: float(len(values)),
    "last_over_time": lambda values: values[-1],
    "changes": _changes,
    "resets": _resets,
}


class Engine(PromQLEngine):  # type: ignore[misc] # prombed ships no types
    """prombed's evaluator with more functions; a range selector of its own is a matrix, as Prometheus answers."""

    def __init__(self, storage: InMemoryStorage) -> None:
        super().__init__(storage, lookback_delta_ms=_LOOKBACK_MS)
        self._samples = storage

    def query(self, expression: str, time_ms: int | None = None) -> dict[str, Any]:
        """Evaluate at one moment (Unix ms) and return the API's body.

        Raises:
            PrombedError: not PromQL, or PromQL that is not supported.
        """
        end_ms = time_ms if time_ms is not None else time.time_ns() // 1_000_000
        if subquery := _SUBQUERY.match(expression):
            inner, range_ms, step_ms = subquery[1], parse_duration(subquery[2]), parse_duration(subquery[3])
            return _matrix_body(self._steps(inner, end_ms, range_ms, step_ms))
        parsed = parse_promql(expression)
        if not isinstance(parsed, SelectorExpression) or parsed.range_ms is None:
            result: dict[str, Any] = super().query(expression, end_ms)
            return result
        matrix = []
        for series in self._samples.select(list(parsed.matchers)):
            values = [
                [sample.timestamp / 1000, number(sample.value)]
                for sample in series.samples
                if end_ms - parsed.range_ms < sample.timestamp <= end_ms and not sample.stale
            ]
            if values:
                matrix.append({"metric": series.labels, "values": values})
        return _matrix_body(matrix)

    def _steps(self, expression: str, end_ms: int, range_ms: int, step_ms: int) -> list[dict[str, Any]]:
        """Evaluate at each multiple of the step in (end - range, end], as Prometheus aligns subqueries."""
        last_ms = end_ms - end_ms % step_ms
        # Nothing is stored from before the retention, so the steps before it find nothing.
        begin_ms = max(end_ms - range_ms, end_ms - _RETENTION_MS - _LOOKBACK_MS)
        first_ms = begin_ms - begin_ms % step_ms + step_ms
        if first_ms > last_ms:
            return []
        found: list[dict[str, Any]] = self.query_range(expression, first_ms, last_ms, step_ms)["data"]["result"]
        return found

    def _evaluate_call(self, name: str, args: tuple[Expression, ...], time_ms: int, budget: Any) -> Any:
        if name == "time" and not args:
            return evaluator._Scalar(time_ms / 1000)
        if name == "timestamp" and len(args) == 1 and isinstance(args[0], SelectorExpression):
            return self._timestamps(args[0], time_ms)
        if name == "vector" and len(args) == 1:
            value = self._evaluate(args[0], time_ms, budget)
            if isinstance(value, evaluator._Scalar):
                return evaluator._Vector([evaluator._VectorValue({}, value.value)])
        if name == "absent" and len(args) == 1:
            return self._absent(args[0], time_ms, budget)
        if name in _OVER_TIME and len(args) == 1:
            matrix = self._evaluate(args[0], time_ms, budget)
            if isinstance(matrix, evaluator._Matrix):
                return self._over_time(name, matrix)
        return super()._evaluate_call(name, args, time_ms, budget)

    def _over_time(self, name: str, matrix: evaluator._Matrix) -> evaluator._Vector:
        kept_name = name == "last_over_time"
        found = []
        for series in matrix.value:
            if series.samples:
                labels = {key: text for key, text in series.labels.items() if kept_name or key != "__name__"}
                value = _OVER_TIME[name]([sample.value for sample in series.samples])
                found.append(evaluator._VectorValue(labels, value))
        return evaluator._Vector(found)

    def _absent(self, expression: Expression, time_ms: int, budget: Any) -> evaluator._Vector:
        value = self._evaluate(expression, time_ms, budget)
        if not isinstance(value, evaluator._Vector):
            raise PrombedError("invalid_query", "absent expects an instant vector")
        if value.value:
            return evaluator._Vector([])
        labels = {}
        if isinstance(expression, SelectorExpression):
            equal = [item for item in expression.matchers if item.operator == "=" and item.name != "__name__"]
            labels = {item.name: item.value for item in equal}
        return evaluator._Vector([evaluator._VectorValue(labels, 1.0)])

    def _timestamps(self, selector: SelectorExpression, time_ms: int) -> evaluator._Vector:
        if selector.range_ms is not None:
            raise PrombedError("invalid_query", "timestamp expects an instant vector")
        found = []
        for series in self._samples.select(list(selector.matchers)):
            seen = [item for item in series.samples if time_ms - _LOOKBACK_MS < item.timestamp <= time_ms]
            if seen and not seen[-1].stale:
                labels = {name: text for name, text in series.labels.items() if name != "__name__"}
                found.append(evaluator._VectorValue(labels, seen[-1].timestamp / 1000))
        return evaluator._Vector(found)


class Embedded:
    """Scrapes the targets, each in a loop of its own so that a dead one holds up no other, and answers queries."""

    def __init__(self, targets: Sequence[Target], scrape_interval_s: float) -> None:
        self._interval_s = scrape_interval_s
        self._targets = [
            ScrapeTarget(item.url, labels={"job": item.job, "instance": item.instance}) for item in targets
        ]
        self._prombed = Prombed(
            targets=self._targets,
            retention_ms=_RETENTION_MS,
            max_series=_MAX_SERIES,
            scrape_timeout_ms=round(scrape_interval_s * 1000),
        )
        self._tasks: list[asyncio.Task[None]] = []
        self.engine = Engine(self._prombed.storage)

    def start(self) -> None:
        """Begin to scrape."""
        self._tasks = [asyncio.create_task(self._scrape(item), name=f"scrape-{item.url}") for item in self._targets]

    async def stop(self) -> None:
        """Stop scraping."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def series(self) -> list[dict[str, str]]:
        """Return the labels of every stored series."""
        return [series.labels for series in self._prombed.storage.select([])]

    def select(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of the series that a selector matches.

        Raises:
            PrombedError: it is not a selector.
        """
        parsed = parse_promql(expression)
        if not isinstance(parsed, SelectorExpression):
            raise PrombedError("invalid_query", "expected a series selector")
        return [series.labels for series in self._prombed.storage.select(list(parsed.matchers))]

    def targets(self) -> list[dict[str, Any]]:
        """Return the targets as `/api/v1/targets` lists them."""
        return [
            {
                "labels": dict(status.target.labels),
                "scrapePool": status.target.labels["job"],
                "scrapeUrl": status.target.url,
                "health": status.health,
                "lastError": status.last_error or "",
            }
            for status in self._prombed.targets()
        ]

    async def _scrape(self, target: ScrapeTarget) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                await self._prombed.scrape_once(target)
            except PrombedError as error:
                _log.debug("scrape of %s failed: %s", target.url, error)
            # Scrapes that were missed are not made up for.
            due = max(due + self._interval_s, loop.time())
            await asyncio.sleep(due - loop.time())


def _matrix_body(series: list[dict[str, Any]]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": series}}


def number(value: float) -> str:
    """Write a value as Prometheus does."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def duration_s(text: str) -> float:
    """Read a step: seconds, or a duration as in `1m30s`.

    Raises:
        ValueError: it is neither.
    """
    try:
        return float(text)
    except ValueError:
        try:
            return float(parse_duration(text)) / 1000
        except PrombedError as error:
            raise ValueError(str(error)) from error
