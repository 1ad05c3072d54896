"""Envoy's access log as Istio's counters, and as the plain truth of which version answered what and when."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from bot.sandbox.mesh.routes import Address, ClusterOf
from bot.sandbox.mesh.workloads import PodOf

DURATION_BUCKETS_MS = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
)  # fmt: skip
SOURCE_WORKLOAD = "loadgen"
SOURCE_NAMESPACE = "shop"
_TRUST_DOMAIN = "spiffe://cluster.local"
_UNKNOWN = "unknown"
_NEVER_CONNECTED = {"UF", "UO"}
_KEPT_REQUESTS = 400_000
# Envoy logs requests as they finish, so the newest are last, but for the moments it takes to write a line.
_LOG_DISORDER_S = 2.0

_SOURCE_LABELS = {
    "source_workload": SOURCE_WORKLOAD,
    "source_workload_namespace": SOURCE_NAMESPACE,
    "source_principal": f"{_TRUST_DOMAIN}/ns/{SOURCE_NAMESPACE}/sa/{SOURCE_WORKLOAD}",
    "source_app": SOURCE_WORKLOAD,
    "source_version": _UNKNOWN,
    "source_cluster": "Kubernetes",
    "source_canonical_service": SOURCE_WORKLOAD,
    "source_canonical_revision": "latest",
}

SeriesKey = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Histogram:
    """Observations in cumulative-free buckets: `counts[i]` fell into bucket i, the last one is +Inf."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value into the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Request:
    """One finished request as Envoy logged it for the client: Unix seconds, milliseconds, and who answered."""

    started_s: float
    finished_s: float
    duration_ms: float
    service: str
    version: str
    code: int
    flags: str


class Ledger:
    """Counters by Istio's labels, and the last requests one by one."""

    def __init__(self, meaning: Mapping[str, ClusterOf], pod_at: Callable[[Address], PodOf | None]) -> None:
        self._meaning = meaning
        self._pod_at = pod_at
        self._lines: deque[bytes] = deque()
        self._series: dict[SeriesKey, Histogram] = {}
        self._requests: deque[Request] = deque(maxlen=_KEPT_REQUESTS)
        self._totals: dict[str, dict[str, Counter[int]]] = {}
        self.unreadable_lines = 0

    def feed(self, line: bytes) -> None:
        """Take one access log line; safe from any thread, and cheap."""
        self._lines.append(line)

    def drain(self) -> None:
        """Count the lines that were fed since the last time."""
        while self._lines:
            line = self._lines.popleft()
            try:
                entry = json.loads(line)
            except ValueError:
                self.unreadable_lines += 1
                continue
            if entry["side"] == "source":
                self._count_request(entry)
            else:
                self._count_attempt(entry)

    def series(self) -> Mapping[SeriesKey, Histogram]:
        """Return the duration histogram of each label set; its count is `istio_requests_total`."""
        return self._series

    def forget_workloads(self, present: set[tuple[str, str]]) -> None:
        """Drop what the proxies of workloads without any pod had counted: such series vanish with their pods."""
        for key in list(self._series):
            labels = dict(key)
            if labels["reporter"] == "destination":
                place = labels["destination_workload_namespace"], labels["destination_workload"]
                if place not in present:
                    del self._series[key]

    def totals(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return requests by service and version since the start: `{"payments": {"v1": {"total": n, "codes": {}}}}`."""
        return {service: _by_version(versions) for service, versions in self._totals.items()}

    def requests(
        self,
        *,
        service: str | None = None,
        version: str | None = None,
        code: str | None = None,
        after_s: float = -math.inf,
        before_s: float = math.inf,
        by_start: bool = False,
    ) -> list[Request]:
        """Return requests with `after_s` < finish (or start) <= `before_s`; `code` is `500` or a class `5xx`."""
        found = [
            item
            for item in takewhile(lambda item: item.finished_s > after_s - _LOG_DISORDER_S, reversed(self._requests))
            if after_s < (item.started_s if by_start else item.finished_s) <= before_s
            and (service is None or item.service == service)
            and (version is None or item.version == version)
            and (code is None or _code_matches(code, item.code))
        ]
        return found[::-1]

    def _count_request(self, entry: Mapping[str, Any]) -> None:
        cluster = self._meaning.get(entry["cluster"] or "")
        pod = self._pod(entry)
        flags = _flags(entry)
        duration_ms = _duration_ms(entry)
        labels = self._labels(entry, "source", cluster, pod, flags, int(entry["code"]))
        self._observe(labels, duration_ms)
        service = labels["destination_service_name"]
        version = pod.version if pod is not None else cluster.labels.get("version", cluster.subset) if cluster else ""
        started_s = float(entry["start_s"])
        code = int(entry["code"])
        self._requests.append(
            Request(started_s, started_s + duration_ms / 1000, duration_ms, service, version, code, flags)
        )
        self._totals.setdefault(service, {}).setdefault(version, Counter())[code] += 1

    def _count_attempt(self, entry: Mapping[str, Any]) -> None:
        flags = _flags(entry)
        pod = self._pod(entry)
        if pod is None or _NEVER_CONNECTED & set(flags.split(",")):
            return
        code = int(entry["code"])
        # The server's own proxy sees a client that gave up as gone, and a program that hung up as an upstream.
        seen = "-" if code else "UC" if "UC" in flags.split(",") else "DC"
        labels = self._labels(
            entry, "destination", self._meaning.get(entry["cluster"] or ""), pod, seen, 503 if seen == "UC" else code
        )
        self._observe(labels, _duration_ms(entry))

    def _observe(self, labels: dict[str, str], duration_ms: float) -> None:
        key = tuple(labels.items())
        histogram = self._series.get(key)
        if histogram is None:
            histogram = self._series[key] = Histogram(DURATION_BUCKETS_MS)
        histogram.observe(duration_ms)

    def _pod(self, entry: Mapping[str, Any]) -> PodOf | None:
        if not entry["host"]:
            return None
        address, _, port = entry["host"].rpartition(":")
        return self._pod_at((address, int(port)))

    def _labels(
        self,
        entry: Mapping[str, Any],
        reporter: str,
        cluster: ClusterOf | None,
        pod: PodOf | None,
        flags: str,
        code: int,
    ) -> dict[str, str]:
        host = cluster.host if cluster else entry["authority"].partition(":")[0]
        name, _, rest = host.partition(".")
        namespace = cluster.namespace if cluster else rest.partition(".")[0] or _UNKNOWN
        met = pod is not None and not _NEVER_CONNECTED & set(flags.split(","))
        grpc = (entry["content_type"] or "").startswith("application/grpc")
        return {
            "reporter": reporter,
            **_SOURCE_LABELS,
            "destination_workload": pod.workload if pod else _UNKNOWN,
            "destination_workload_namespace": pod.namespace if pod else _UNKNOWN,
            "destination_principal": (
                f"{_TRUST_DOMAIN}/ns/{pod.namespace}/sa/{pod.service_account}" if pod and met else _UNKNOWN
            ),
            "destination_app": pod.app if pod and met else _UNKNOWN,
            "destination_version": pod.version if pod and met else _UNKNOWN,
            "destination_service": host,
            "destination_service_name": name,
            "destination_service_namespace": namespace,
            "destination_cluster": "Kubernetes" if pod and met else _UNKNOWN,
            "request_protocol": "grpc" if grpc else "http",
            "response_code": str(code),
            "grpc_response_status": str(entry["grpc"]) if grpc and entry["grpc"] is not None else "",
            "response_flags": flags,
            "connection_security_policy": "mutual_tls" if reporter == "destination" else _UNKNOWN,
            "destination_canonical_service": pod.app if pod else _UNKNOWN,
            "destination_canonical_revision": pod.version if pod and met else "latest",
        }


def quantile_ms(requests: Iterable[Request], q: float) -> float | None:
    """Return the exact q-quantile of the durations (nearest rank), None without requests."""
    durations = sorted(item.duration_ms for item in requests)
    return durations[max(0, math.ceil(q * len(durations)) - 1)] if durations else None


def counts(requests: Iterable[Request]) -> dict[str, dict[str, dict[str, Any]]]:
    """Count requests as `Ledger.totals` does."""
    found: dict[str, dict[str, Counter[int]]] = {}
    for item in requests:
        found.setdefault(item.service, {}).setdefault(item.version, Counter())[item.code] += 1
    return {service: _by_version(versions) for service, versions in found.items()}


def _by_version(versions: Mapping[str, Counter[int]]) -> dict[str, dict[str, Any]]:
    return {
        version: {"total": codes.total(), "codes": {str(code): count for code, count in sorted(codes.items())}}
        for version, codes in sorted(versions.items())
    }


def _code_matches(wanted: str, code: int) -> bool:
    return code // 100 == int(wanted[0]) if wanted.lower().endswith("xx") else str(code) == wanted


def _flags(entry: Mapping[str, Any]) -> str:
    return entry["flags"] or "-"


def _duration_ms(entry: Mapping[str, Any]) -> float:
    if entry["duration_us"] is not None:
        return float(entry["duration_us"]) / 1000
    return float(entry["duration_ms"] or 0)
