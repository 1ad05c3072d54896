"""What runs underneath the two sides of a slow canary: latencies by side and node, machines, restarts, throttling."""

from collections.abc import Mapping, Sequence
from dataclasses import field

from bot.analysis.columns import Counters, layout
from bot.analysis.counts import Counter
from bot.analysis.latency import Bucket, Histogram, Latencies, Shown
from bot.analysis.look import BUCKETS, Answers, Look, Pods, range_questions
from bot.analysis.nodes import NodeHealth
from bot.analysis.promql import literal, quote
from bot.analysis.requests import Whose
from bot.analysis.samples import Answer, Query
from bot.rollout.gate import GateReport, GateSpec, Relation, Verdict
from bot.rollout.model import Rollout, Target
from bot.values import dataclass

RECENT_S = 120.0
ENOUGH = 50
LATENCY_UNITS = ("ms", "s")
POD_LABELS = ("pod", "kubernetes_pod_name", "pod_name")
THROTTLE_WINDOW_S = 120
_PERIODS = "container_cpu_cfs_periods_total"
_THROTTLED = "container_cpu_cfs_throttled_periods_total"


@dataclass(frozen=True, slots=True)
class Ground:
    """One side: its latencies together and by node (where series name their pods), its pods by node, its nodes.

    `restarted` names pods that restarted since the start, `throttled` is the fraction of CPU periods in which its
    containers were held back by their own CPU limit, None when not known.
    """

    label: str
    latencies: Histogram = field(default_factory=Histogram)
    by_node: Mapping[str, Histogram] = field(default_factory=dict)
    pods: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, NodeHealth] = field(default_factory=dict)
    restarted: tuple[str, ...] = ()
    throttled: float | None = None

    @property
    def lost(self) -> float | None:
        """CPU time taken away or waiting for disks, as the mean over its pods; None when no node's is known."""
        known = [(count, self.nodes[name].lost) for name, count in self.pods.items() if name in self.nodes]
        numbers = [(count, lost) for count, lost in known if lost is not None]
        return sum(count * lost for count, lost in numbers) / sum(count for count, _ in numbers) if numbers else None


def latency_gate(spec: GateSpec) -> bool:
    """The gate judges how slow requests are."""
    return spec.kind == "p99" or (spec.kind == "custom" and spec.unit.lower() in LATENCY_UNITS)


def underneath_questions(rollout: Rollout, now: float) -> tuple[Query, ...]:
    """Throttling, and latencies where no gate asks for them; only once a latency gate is near its limit or beyond."""
    if not near_its_limit(rollout):
        return ()
    throttling = _throttling(rollout.target)
    return (*range_questions(BUCKETS, rollout, now), *((throttling,) if throttling else ()))


def near_its_limit(rollout: Rollout) -> bool:
    """A latency gate was near its limit at the last look, or beyond."""
    look = rollout.assessment
    return look is not None and any(_near(report) for _, report in _paired(rollout.gates, look.reports))


def failing_latency(rollout: Rollout, reports: Sequence[GateReport]) -> tuple[tuple[GateSpec, GateReport], ...]:
    """The latency gates that FAIL, with their reports."""
    return tuple(_paired(rollout.gates, [report for report in reports if report.verdict is Verdict.FAIL]))


def limit_ms(spec: GateSpec, report: GateReport, stable: Histogram) -> float | None:
    """The latency that 1% of the requests may exceed, in ms; None for what is no p99."""
    if spec.kind != "p99":
        return None
    if spec.relation is not Relation.RELATIVE:
        return spec.limit
    stable_ms = report.stable_value if report.stable_value is not None else stable.quantile(0.99)
    return None if stable_ms is None else spec.limit * stable_ms


def grounds(look: Look, nodes: Mapping[str, NodeHealth]) -> tuple[Ground, Ground]:
    """The canary's side and stable's."""
    target = look.rollout.target
    throttled = _throttled_pods(look.answers, target)
    restarts = {pod.name: pod.restarts for pod in look.pinned_pods or ()}
    restarted = tuple(
        sorted(
            pod.name
            for pod in look.canary_pods or ()
            if look.pinned_pods is not None and pod.restarts > restarts.get(pod.name, 0)
        )
    )
    latencies = look.latencies if isinstance(look.latencies, Latencies) else None
    canary_all, stable_all = _together(latencies, look.begin)
    return (
        Ground(
            target.canary.label,
            canary_all,
            *_placed(look.canary_pods, latencies, Whose.CANARY, look.begin, nodes),
            restarted,
            _mean(throttled, look.canary_pods),
        ),
        Ground(
            target.stable.label,
            stable_all,
            *_placed(look.stable_pods, latencies, Whose.STABLE, look.begin, nodes),
            (),
            _mean(throttled, look.stable_pods),
        ),
    )


def _paired(gates: Sequence[GateSpec], reports: Sequence[GateReport]) -> list[tuple[GateSpec, GateReport]]:
    by_name = {report.gate: report for report in reports}
    return [(spec, by_name[spec.name]) for spec in gates if spec.name in by_name and latency_gate(spec)]


def _near(report: GateReport) -> bool:
    if report.verdict is Verdict.FAIL:
        return True
    if report.value is None or report.limit is None:
        return False
    limit = report.limit * (report.stable_value or 0.0) if report.unit == "x" else report.limit
    return report.value > limit


def _together(latencies: Latencies | None, begin: float) -> tuple[Histogram, Histogram]:
    """Both sides lately or, where that is too little, since the weight was set; as the server's proxies saw them."""
    if latencies is None:
        return Histogram(), Histogram()
    end = latencies.counted.newest_at or begin
    found = (Histogram(), Histogram())
    if latencies.shown is not None:
        return _shown(latencies.shown, end) or found
    for since in dict.fromkeys((max(begin, end - RECENT_S), begin)):
        for reporter in ("destination", "waypoint", "source"):
            canary = latencies.histogram(since, end, reporter, Whose.CANARY)
            stable = latencies.histogram(since, end, reporter, Whose.STABLE)
            if canary.requests >= ENOUGH:
                return canary, stable
            found = max(found, (canary, stable), key=lambda pair: pair[0].requests)
    return found


def _shown(shown: Shown, end: float) -> tuple[Histogram, Histogram] | None:
    """The same where few buckets are counted from look to look: since the weight was set, unless that is old."""
    if shown.until < end - RECENT_S / 2:
        return None
    for reporter in ("destination", "waypoint", "source"):
        canary = shown.histogram(reporter, Whose.CANARY)
        if canary.requests >= ENOUGH:
            return canary, shown.histogram(reporter, Whose.STABLE)
    return None


def _placed(
    pods: Pods | None, latencies: Latencies | None, side: Whose, begin: float, nodes: Mapping[str, NodeHealth]
) -> tuple[dict[str, Histogram], dict[str, int], dict[str, NodeHealth]]:
    """Latencies by node, pods by node, and the nodes' health. Only a server's own proxy names its pod."""
    node_of = {pod.name: pod.node for pod in pods or () if pod.node}
    counts: dict[str, int] = {}
    for node in node_of.values():
        counts[node] = counts.get(node, 0) + 1
    by_node: dict[str, Histogram] = {}
    if latencies is not None:
        end = latencies.counted.newest_at or begin
        for node, part in _by_node(latencies, side, node_of).items():
            by_node[node] = part.histogram(max(begin, end - RECENT_S), end, "destination", side)
    return by_node, counts, {name: nodes[name] for name in counts if name in nodes}


def _by_node(latencies: Latencies, side: Whose, node_of: Mapping[str, str]) -> dict[str, Latencies]:
    """The latencies that a side's own proxies saw on each node."""
    found: dict[str, tuple[list[Bucket], list[Counter]]] = {}
    for place, bucket in enumerate(latencies.layout.kinds):
        if (bucket.reporter, bucket.whose) == ("destination", side):
            counter = latencies.columns.counter(place)
            name = next((counter.labels[label] for label in POD_LABELS if label in counter.labels), "")
            if name in node_of:
                buckets, counters = found.setdefault(node_of[name], ([], []))
                buckets.append(bucket)
                counters.append(counter)
    return {
        node: Latencies(layout(tuple(buckets)), Counters(tuple(counters)), latencies.counted)
        for node, (buckets, counters) in found.items()
    }


def _throttling(target: Target) -> Query | None:
    """Fractions of CPU periods in which a container was held back, by pod; None when no workload is known."""
    workloads = sorted({*target.canary.workloads, *target.stable.workloads})
    if not workloads:
        return None
    pods = quote(f"({'|'.join(literal(name) for name in workloads)})-.*")
    labels = f"namespace={quote(target.namespace)},pod=~{pods}"
    held, all_periods = (
        f"sum by (pod) (increase({metric}{{{labels}}}[{THROTTLE_WINDOW_S}s]))" for metric in (_THROTTLED, _PERIODS)
    )
    return Query(f"{held} / {all_periods}")


def _throttled_pods(answers: Answers, target: Target) -> dict[str, float]:
    query = _throttling(target)
    answer = answers.get(query) if query is not None else None
    if not isinstance(answer, Answer):
        return {}
    return {
        one.labels.get("pod", ""): one.points[-1][1]
        for one in answer.series
        if one.points and 0 <= one.points[-1][1] <= 1
    }


def _mean(by_pod: Mapping[str, float], pods: Pods | None) -> float | None:
    known = [by_pod[pod.name] for pod in pods or () if pod.name in by_pod]
    return sum(known) / len(known) if known else None
