"""Metrics of a made-up mesh: request rates over virtual time, scraped and answered as Prometheus would.

`FakeMetrics(now)` takes the clock as a function. Services get traffic and versions get a behaviour; both may change at
any moment, and what was counted before stays counted. Counters are whole numbers, series appear with their first
count, and failed connections name no version, as in a real mesh.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, inf

from bot.analysis.samples import Answer, Query, Series
from bot.errors import CannotMeasure

BOUNDS_MS = (
    0.5,
    1,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10000,
    30000,
    60000,
    300000,
    600000,
    1800000,
    3600000,
    inf,
)
_RANGE = re.compile(r'^(\w+)\{destination_service=(~?)"((?:[^"\\]|\\.)*)"\}\[(\d+)s(?::(\d+)s)?\]$')

_MOMENTS = re.compile(r"^max\(timestamp\((.*)\)\)\[(\d+)s:(\d+)s\]$")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one version answers: fractions of its requests that fail with `error_code`, fail on connecting, never
    complete, or end because the client left; latency in ms of most requests and of a slow fraction."""

    fail: float = 0.0
    error_code: str = "500"
    refuse: float = 0.0
    hang: float = 0.0
    client_left: float = 0.0
    fast_ms: float = 10.0
    slow_ms: float = 40.0
    slow: float = 0.005
    grpc_status: str = ""


@dataclass(slots=True)
class Service:
    """One service's traffic: requests per second, split by `canary_percent` between the two versions."""

    host: str
    rate: float
    stable: str
    canary: str
    canary_percent: float = 0.0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    workloads: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Counter:
    """One series: its exact (fractional) value by the moments at which its rate changed."""

    labels: dict[str, str]
    changes: list[tuple[float, float, float]] = field(default_factory=list)

    def rate(self, at: float, per_s: float) -> None:
        value = self.value(at)
        if not self.changes or self.changes[-1][2] != per_s:
            self.changes.append((at, value, per_s))

    def value(self, at: float) -> float:
        for since, value, per_s in reversed(self.changes):
            if at >= since:
                return value + (at - since) * per_s
        return 0.0


class FakeMetrics:
    """Implements the Metrics port. `broken` makes every question fail with that text; `skew_s` sets the server's clock
    apart; `answers` maps the text of other queries (custom gates, nodes) to (labels, value) rows, an Answer, or a
    CannotMeasure."""

    def __init__(self, now: Callable[[], float], *, scrape_s: float = 1.0) -> None:
        self.now = now
        self.scrape_s = scrape_s
        self.started_at = now()
        self.broken = ""
        self.skew_s = 0.0
        self.answers: dict[str, Sequence[tuple[Mapping[str, str], float]] | Answer | CannotMeasure] = {}
        self.asked: list[Query] = []
        self.down: list[tuple[float, float]] = []
        self._services: dict[str, Service] = {}
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], _Counter] = {}

    def serve(
        self,
        host: str,
        *,
        rate: float = 100.0,
        stable: str = "v1",
        canary: str = "v2",
        canary_percent: float = 0.0,
        workloads: Mapping[str, str] | None = None,
    ) -> None:
        """Give a host traffic; workloads are named `<service>-<version>` unless told."""
        name = host.partition(".")[0]
        named = {version: f"{name}-{version}" for version in (stable, canary)} | dict(workloads or {})
        behaviours = {stable: Behaviour(), canary: Behaviour()}
        self._services[host] = Service(host, rate, stable, canary, canary_percent, behaviours, named)
        self._flow(self._services[host])

    def weight(self, host: str, canary_percent: float) -> None:
        """From now on the route sends this share to the canary."""
        if self._services[host].canary_percent == canary_percent:
            return
        self._services[host].canary_percent = canary_percent
        self._flow(self._services[host])

    def rate(self, host: str, per_s: float) -> None:
        """From now on the host gets this many requests per second."""
        self._services[host].rate = per_s
        self._flow(self._services[host])

    def behave(self, host: str, version: str, **changes: float | str) -> None:
        """From now on the version answers differently (fields of Behaviour)."""
        service = self._services[host]
        service.behaviours[version] = replace(service.behaviours[version], **changes)  # type: ignore[arg-type]
        self._flow(service)

    def outage(self, since: float, until: float) -> None:
        """Prometheus did not scrape between these moments."""
        self.down.append((since, until))

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]:
        """Answer as Prometheus does for raw ranges and subqueries of Istio's series."""
        self.asked.extend(queries)
        return {query: self._answer(query) for query in dict.fromkeys(queries)}

    async def ready(self) -> str:
        """The version, or CannotMeasure while broken."""
        if self.broken:
            raise CannotMeasure(self.broken)
        return "fake"

    def _answer(self, query: Query) -> Answer | CannotMeasure:
        if self.broken:
            return CannotMeasure(self.broken)
        at = (query.at if query.at is not None else self.now()) + self.skew_s
        if query.promql in self.answers:
            rows = self.answers[query.promql]
            if isinstance(rows, CannotMeasure | Answer):
                return rows
            return Answer(tuple(Series(dict(labels), ((at, value),)) for labels, value in rows), at)
        moments = _MOMENTS.match(query.promql)
        if moments:
            return Answer(self._moments(moments.group(1), at, float(moments.group(2)), float(moments.group(3))), at)
        matched = _RANGE.match(query.promql)
        if not matched:
            return Answer((), at)
        metric, regex, text, window_s, resolution_s = matched.groups()
        pattern = re.compile(text.replace("\\\\", "\\") if regex else re.escape(text))
        series = []
        for (name, _), counter in self._counters.items():
            if name == metric and pattern.fullmatch(counter.labels["destination_service"]):
                points = self._points(counter, at, float(window_s), float(resolution_s or 0))
                if points:
                    series.append(Series({"__name__": metric, **counter.labels}, points))
        return Answer(tuple(series), at)

    def _moments(self, selector: str, at: float, window_s: float, resolution_s: float) -> tuple[Series, ...]:
        """The newest sample's time at every step, as `max(timestamp(x))[window:resolution]` answers."""
        answer = self._answer(Query(f"{selector}[{window_s + 300:.0f}s]", at - self.skew_s))
        assert isinstance(answer, Answer)
        times = sorted({time for series in answer.series for time, _ in series.points})
        steps = range(floor((at - window_s) / resolution_s) + 1, floor(at / resolution_s) + 1)
        points = []
        for step in (index * resolution_s for index in steps):
            position = bisect_right(times, step)
            if position and step - times[position - 1] < 300:
                points.append((step, times[position - 1]))
        return (Series({}, tuple(points)),)

    def _points(
        self, counter: _Counter, at: float, window_s: float, resolution_s: float
    ) -> tuple[tuple[float, float], ...]:
        step_s = resolution_s or self.scrape_s
        first = floor((at - window_s) / step_s) + 1
        points = []
        for index in range(first, floor(at / step_s) + 1):
            moment = index * step_s
            scraped_at = floor(moment / self.scrape_s) * self.scrape_s
            if scraped_at < self.started_at or any(
                since <= scraped_at - self.skew_s < until for since, until in self.down
            ):
                continue
            value = floor(counter.value(scraped_at - self.skew_s) + 1e-9)
            if value > 0 or (counter.labels.get("le") and scraped_at - self.skew_s > counter.changes[0][0]):
                points.append((float(moment), float(value)))
        return tuple(points)

    def _flow(self, service: Service) -> None:
        flows: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for version in (service.stable, service.canary):
            share = service.canary_percent / 100
            per_s = service.rate * (share if version == service.canary else 1 - share)
            behaviour = service.behaviours[version]
            completing = per_s * (1 - behaviour.hang)
            refused = completing * behaviour.refuse
            left = completing * behaviour.client_left
            failed = completing * behaviour.fail
            for reporter in ("source", "destination"):
                named = self._labels(service, version, reporter)
                grpc = {"request_protocol": "grpc", "grpc_response_status": "0"} if behaviour.grpc_status else {}
                failing = (
                    grpc | {"response_code": "200", "grpc_response_status": behaviour.grpc_status}
                    if grpc
                    else {"response_code": behaviour.error_code}
                )
                self._add(flows, named | grpc, completing - refused - left - failed, behaviour)
                self._add(flows, named | failing, failed, behaviour)
                self._add(flows, named | {"response_code": "0", "response_flags": "DC"}, left, behaviour)
            lost = self._labels(service, version, "source") | {
                "destination_version": "unknown",
                "destination_workload": "unknown",
                "response_code": "503",
                "response_flags": "UF,URX",
            }
            self._add(flows, lost, refused, behaviour)
        now = self.now()
        for key, counter in self._counters.items():
            if counter.labels["destination_service"] == service.host and key not in flows:
                counter.rate(now, 0.0)
        for key, per_s in flows.items():
            self._counters.setdefault(key, _Counter(dict(key[1]))).rate(now, per_s)

    @staticmethod
    def _labels(service: Service, version: str, reporter: str) -> dict[str, str]:
        return {
            "job": "istio-mesh",
            "instance": "mesh:15020",
            "reporter": reporter,
            "source_workload": "loadgen",
            "destination_service": service.host,
            "destination_workload": service.workloads[version],
            "destination_version": version,
            "request_protocol": "http",
            "grpc_response_status": "",
            "response_code": "200",
            "response_flags": "-",
        }

    @staticmethod
    def _add(
        flows: dict[tuple[str, tuple[tuple[str, str], ...]], float],
        labels: Mapping[str, str],
        per_s: float,
        behaviour: Behaviour,
    ) -> None:
        if per_s <= 0:
            return
        key = tuple(sorted(labels.items()))
        flows[("istio_requests_total", key)] = flows.get(("istio_requests_total", key), 0.0) + per_s
        for bound in BOUNDS_MS:
            le = "+Inf" if bound == inf else f"{bound:g}"
            below = (1 - behaviour.slow) * min(1.0, bound / behaviour.fast_ms) + behaviour.slow * _between(
                bound, behaviour.slow_ms
            )
            bucket = ("istio_request_duration_milliseconds_bucket", tuple(sorted({**labels, "le": le}.items())))
            flows[bucket] = flows.get(bucket, 0.0) + per_s * min(1.0, below)


def _between(bound: float, slow_ms: float) -> float:
    """Slow requests lie evenly between half of `slow_ms` and `slow_ms`."""
    return min(1.0, max(0.0, (bound - slow_ms / 2) / (slow_ms / 2))) if bound != inf else 1.0
