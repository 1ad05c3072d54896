"""The machine or the release: told apart on the sandbox's own model of both, and by each comparison alone."""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf

import pytest

from bot.analysis.assessment import assess
from bot.analysis.facts import NodeFacts
from bot.analysis.latency import Histogram as Shape
from bot.analysis.look import BUCKETS, range_questions
from bot.analysis.machine_or_release import evidence, judge
from bot.analysis.nodes import CORES, PRESSURE, SAMPLED, TIME_LOST, Level, NodeHealth, Signal, judge_nodes
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.underneath import Ground, underneath_questions
from bot.errors import CannotMeasure
from bot.rollout.gate import Assessment, Blame, GateReport, Share, Verdict
from bot.sandbox.mesh.faults import WorkloadFault
from bot.sandbox.mesh.ledger import DURATION_BUCKETS_MS, Histogram
from bot.sandbox.mesh.nodes import Nodes
from bot.sandbox.mesh.workloads import latency_ms
from tests.unit.analysis.scene import HOST, P99, Scene, pod

QUICK = replace(P99, limit=100.0, min_requests=100, judge="threshold")
SECONDS = 30
CASES = 200
HEALTHY = WorkloadFault()
LINE = re.compile(r'^(\w+)(?:\{(?:cpu="(\d)",mode="(\w+)")?\})? (\S+)$', re.MULTILINE)
APART = {"payments-v1-a": "node-1", "payments-v1-b": "node-3", "payments-v2-a": "node-2", "payments-v2-b": "node-2"}
SHARED = {"payments-v1-a": "node-1", "payments-v1-b": "node-2", "payments-v2-a": "node-2", "payments-v2-b": "node-3"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong: shares of CPU time stolen and waiting by node, and how v2 answers."""

    steal: Mapping[str, float]
    iowait: Mapping[str, float]
    release: WorkloadFault


Make = Callable[[random.Random], Trouble]


def machine(rng: random.Random) -> Trouble:
    """Steal or iowait on node-2, from noticeable to drastic; a little on the others."""
    share = rng.uniform(0.06, 0.6)
    steals = rng.random() < 0.7
    others = {"node-1": rng.uniform(0, 0.01), "node-3": rng.uniform(0, 0.01)}
    there = {"node-2": share}
    return Trouble({**others, **there} if steals else others, {} if steals else there, HEALTHY)


def release(rng: random.Random) -> Trouble:
    """A slow v2, for few or all of its requests; sometimes other nodes have steal, as clusters do."""
    others = {name: rng.choice((0.0, rng.uniform(0.02, 0.3))) for name in ("node-1", "node-3")}
    slow = WorkloadFault(slow_ms=rng.uniform(130, 1500), slow_percent=rng.choice((3.0, 5.0, 10.0, 30.0, 100.0)))
    return Trouble({**others, "node-2": rng.uniform(0, 0.012)}, {}, slow)


def watched(trouble: Trouble, rng: random.Random) -> dict[str, NodeHealth]:
    """What the node watch makes of the sandbox's exporters, sampled every 5 s for 30 s."""
    nodes = Nodes(0.0, rng)
    facts = [NodeFacts(name, (("Ready", "True", 0.0),)) for name in ("node-1", "node-2", "node-3")]
    healths: dict[str, NodeHealth] = {}
    for now in range(0, SECONDS + 1, 5):
        nodes.advance_to(now, trouble.steal, trouble.iowait)
        shown = [(one.name, value) for one in facts for value in _shown(nodes.text(one.name) or "", now)]
        answers: dict[Query, Answer | CannotMeasure] = {
            query: Answer(
                tuple(
                    Series({"instance": name, **labels}, ((now, value),))
                    for name, (asked, labels, value) in shown
                    if asked == query
                )
            )
            for query in (TIME_LOST, CORES, SAMPLED, *PRESSURE.values())
        }
        healths = judge_nodes(healths, facts, answers, float(now))
    return healths


def _shown(page: str, now: int) -> list[tuple[Query, dict[str, str], float]]:
    """What Prometheus would answer to the node questions, from one exporter's page."""
    found = LINE.findall(page)
    lost = {mode: sum(float(text) for _, _, one, text in found if one == mode) for mode in ("steal", "iowait")}
    return [
        *((TIME_LOST, {"mode": mode}, value) for mode, value in lost.items()),
        (CORES, {}, float(len({cpu for _, cpu, _, _ in found if cpu}))),
        (SAMPLED, {}, now + 1.0),
        *(
            (query, {}, float(text))
            for query in PRESSURE.values()
            for name, _, _, text in found
            if name == query.promql
        ),
    ]


def judged(
    trouble: Trouble,
    rng: random.Random,
    *,
    pods: Mapping[str, str] = APART,
    named: bool = False,
    requests: Mapping[str, int],
    healths: Mapping[str, NodeHealth] | None = None,
) -> Assessment:
    """One look at the p99 gate: each version's requests fall on its pods in turn, as the sandbox's workloads answer."""
    scene = Scene(QUICK, weight=20)
    now = scene.clock.now() + SECONDS
    (query,) = range_questions(BUCKETS, scene.rollout, now)
    series: list[Series] = []
    for version, count in requests.items():
        fault = trouble.release if version == "v2" else HEALTHY
        mine = [name for name in pods if f"-{version}-" in name]
        counts = {name: Histogram(DURATION_BUCKETS_MS) for name in mine}
        for number in range(count):
            name = mine[number % len(mine)]
            lost = trouble.steal.get(pods[name], 0.0), trouble.iowait.get(pods[name], 0.0)
            counts[name].observe(latency_ms(rng, fault, *lost))
        for name, histogram in counts.items():
            labels = {"destination_workload": f"payments-{version}", "destination_version": version}
            labels |= {"reporter": "destination", "destination_service": HOST, "instance": "mesh"}
            labels |= {"pod": name, "instance": name} if named else {"shard": name}
            cumulative = 0
            for bound, own in zip((*DURATION_BUCKETS_MS, inf), histogram.counts, strict=True):
                cumulative += own
                points = ((now - SECONDS - 2.0, 0.0), (now - SECONDS, 0.0), (now - 1.0, float(cumulative)))
                series.append(Series(labels | {"le": str(bound)}, points))
    canary, stable = (
        tuple(pod(name, node=node) for name, node in pods.items() if f"-{version}-" in name) for version in ("v2", "v1")
    )
    known = watched(trouble, rng) if healths is None else healths
    return assess(scene.rollout, now, {query: Answer(tuple(series))}, canary, stable, canary, nodes=known)


def told(make: Make, seed: int, pods: Mapping[str, str], named: bool) -> Assessment:
    """A seeded case whose p99 gate fails: one that does not is drawn again."""
    rng = random.Random(seed)
    while True:
        trouble = make(rng)
        sizes = {"v2": rng.randrange(300, 2000), "v1": rng.randrange(600, 4000)}
        look = judged(trouble, rng, pods=pods, named=named, requests=sizes)
        if look.reports[0].verdict is Verdict.FAIL:
            return look


@pytest.mark.parametrize(
    ("make", "blame", "pods", "named"),
    [
        (machine, Blame.MACHINE, APART, False),
        (release, Blame.RELEASE, APART, False),
        (machine, Blame.MACHINE, SHARED, True),
        (release, Blame.RELEASE, SHARED, True),
    ],
    ids=["steal on node-2", "v2 is slow", "steal, pods named in series", "v2 is slow, pods named in series"],
)
def test_steal_on_a_node_is_told_apart_from_a_slow_release(
    make: Make, blame: Blame, pods: Mapping[str, str], named: bool
) -> None:
    """In at least 95% of seeded cases, with the cause named and not just the other one missed."""
    found: dict[Blame, list[str]] = {}
    for seed in range(CASES):
        cause = told(make, seed, pods, named).cause
        assert cause is not None
        found.setdefault(cause.verdict, []).append(f"{seed}: {cause.sentence}")
    right = len(found.pop(blame, []))
    print(f"{right}/{CASES} told as {blame.value}")
    wrong = "\n".join(line for lines in found.values() for line in lines[:5])
    assert right >= 0.95 * CASES, f"{right} of {CASES}\n{wrong}"


def latencies(count: int, slow: float = 0.002, slow_ms: float = 400.0, fast_ms: float = 8.0) -> Shape:
    """`count` requests: most under `fast_ms`, a fraction at `slow_ms`."""
    bounds = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, inf)
    fast = {bound: (1 - slow) * min(1.0, bound / fast_ms) for bound in bounds}
    return Shape(tuple((bound, count * (fast[bound] + slow * (bound >= slow_ms))) for bound in bounds))


def node(steal: float | None = 0.002, pressure: float = 0.01, ill: str = "") -> NodeHealth:
    """A node with this steal; `ill` is a bad condition's sentence."""
    level = Level.OK if steal is None or steal < 0.02 else Level.WARN
    signals = {"CPU pressure": Signal(samples=(pressure,) * 5)}
    if steal is not None:
        signals["steal"] = Signal(level, samples=(steal,) * 5)
    if ill:
        signals["DiskPressure"] = Signal(Level.WARN, reason=ill)
    worst = max(signal.level for signal in signals.values())
    return NodeHealth("", worst, signals=signals)


def ground(label: str, shape: Shape, health: NodeHealth | None, **changes: object) -> Ground:
    """A side with all its pods on one node of its own."""
    name = {"v1": "node-1", "v2": "node-2"}[label]
    nodes = {name: health} if health is not None else {}
    return replace(Ground(label, shape, pods={name: 2}, nodes=nodes), **changes)  # type: ignore[arg-type]


STOLEN, WELL = node(0.15), node()
SLOW, FINE = latencies(1000, 0.05), latencies(4000)
STABLE = ground("v1", FINE, WELL)


@pytest.mark.parametrize(
    ("canary", "stable", "blame", "words"),
    [
        (ground("v2", SLOW, STOLEN), STABLE, Blame.MACHINE, "p50 is flat"),
        (ground("v2", SLOW, WELL), STABLE, Blame.RELEASE, "nothing takes time away from node-2"),
        (ground("v2", latencies(1000, 0.7), STOLEN), STABLE, Blame.RELEASE, "loses 15% of its time, but"),
        (ground("v2", latencies(1000, 0.05, fast_ms=40), STOLEN), STABLE, Blame.RELEASE, "the middle of them as well"),
        (ground("v2", latencies(1000, 0.45), STOLEN), STABLE, Blame.UNKNOWN, "15% of the time is lost there"),
        (ground("v2", SLOW, STOLEN), ground("v1", FINE, STOLEN), Blame.RELEASE, "v1's nodes lose as much"),
        (ground("v2", SLOW, None), STABLE, Blame.UNKNOWN, "steal and iowait of node-2 are not known"),
        (ground("v2", SLOW, node(None)), STABLE, Blame.UNKNOWN, "are not known"),
        (ground("v2", SLOW, node(ill="reports DiskPressure")), STABLE, Blame.UNKNOWN, "node-2 under v2 is not well"),
        (ground("v2", SLOW, node(pressure=0.4)), STABLE, Blame.UNKNOWN, "or a neighbour there uses it up"),
        (
            ground("v2", SLOW, node(pressure=0.4)),
            ground("v1", FINE, node(pressure=0.4)),
            Blame.RELEASE,
            "nothing takes time away",
        ),
        (ground("v2", SLOW, WELL, throttled=0.4), STABLE, Blame.RELEASE, "needs more CPU than its own limit allows"),
        (ground("v2", SLOW, STOLEN, throttled=0.4), STABLE, Blame.UNKNOWN, "held back by its own CPU limit as well"),
        (
            ground("v2", SLOW, STOLEN, throttled=0.4),
            ground("v1", FINE, WELL, throttled=0.4),
            Blame.MACHINE,
            "p50 is flat",
        ),
        (ground("v2", SLOW, STOLEN), ground("v1", latencies(0), WELL), Blame.MACHINE, "p50 is flat"),
        (ground("v2", latencies(1000, 0.7), STOLEN), ground("v1", latencies(3), WELL), Blame.RELEASE, "but 70% more"),
        (ground("v2", latencies(20, 0.2), STOLEN), STABLE, Blame.UNKNOWN, "too few numbers"),
    ],
)
def test_each_comparison_decides_what_it_can(canary: Ground, stable: Ground, blame: Blame, words: str) -> None:
    """One fact at a time; what is not known decides nothing."""
    opinion = judge(canary, stable, 100.0)
    assert (opinion.verdict, words in opinion.because) == (blame, True), opinion.because


def spread(canary_here: float, canary_there: float, stable_here: float) -> tuple[Ground, Ground]:
    """v2 on starved node-2 and on node-3, v1 on node-1 and node-2; too-slow fractions by place."""
    nodes = {"node-1": node(), "node-2": node(0.15), "node-3": node()}
    here, there, beside = latencies(500, canary_here), latencies(500, canary_there), latencies(500, stable_here)
    both = latencies(1000, (canary_here + canary_there) / 2)
    canary = Ground("v2", both, {"node-2": here, "node-3": there}, {"node-2": 1, "node-3": 1}, nodes)
    stable_nodes = {"node-1": latencies(500), "node-2": beside}
    return canary, Ground("v1", latencies(1000), stable_nodes, {"node-1": 1, "node-2": 1}, nodes)


@pytest.mark.parametrize(
    ("fractions", "blame", "words"),
    [
        ((0.08, 0.002, 0.07), Blame.MACHINE, "8% of v2's requests on node-2 are too slow, 0.2% elsewhere"),
        ((0.08, 0.07, 0.002), Blame.RELEASE, "8% of v2's requests on node-2 are too slow, 7% elsewhere"),
        ((0.20, 0.06, 0.08), Blame.RELEASE, "20% of v2's requests on node-2 are too slow, 6% elsewhere"),
        ((0.08, 0.012, 0.07), Blame.MACHINE, "1.2% elsewhere"),
    ],
    ids=["slow on the starved node only", "slow everywhere", "slow everywhere and more so there", "one in a hundred"],
)
def test_pods_of_one_version_are_compared_across_nodes(
    fractions: tuple[float, float, float], blame: Blame, words: str
) -> None:
    """A release that is too slow on a well node is too slow, whatever happens elsewhere."""
    opinion = judge(*spread(*fractions), 100.0)
    assert (opinion.verdict, words in opinion.because) == (blame, True), opinion.because


@pytest.mark.parametrize(("stable_here", "blame"), [(0.07, Blame.MACHINE), (0.002, Blame.RELEASE)])
def test_both_versions_are_compared_on_the_starved_node(stable_here: float, blame: Blame) -> None:
    """Where the canary has no pod elsewhere, stable's pods on the same node say whether it is the node."""
    canary, stable = spread(0.08, 0.0, stable_here)
    alone = replace(canary, by_node={"node-2": canary.by_node["node-2"]}, pods={"node-2": 1})
    opinion = judge(alone, stable, 100.0)
    assert opinion.verdict is blame, opinion.because
    assert "of v1's" in opinion.because


def test_the_sentence_holds_all_the_evidence() -> None:
    """p99 and p50 of both sides, what each node lost, restarts and throttling."""
    canary = ground("v2", SLOW, STOLEN, restarted=("payments-v2-a",), throttled=0.12)
    told = evidence(canary, replace(STABLE, throttled=0.0))
    for words in (
        "v2: p99 ",
        "p50 ",
        "node-1 (v1) steal 0.2%",
        "node-2 (v2) steal 15%, CPU pressure 1%",
        "Restarted since the start: payments-v2-a",
        "own CPU limit in 12% of the periods (v1 0%)",
    ):
        assert words in told, told


def test_throttling_is_asked_once_p99_nears_its_limit() -> None:
    """No extra question for a healthy rollout; one for a failing or nearly failing one, and its answer is told."""
    scene = Scene(QUICK, weight=20)
    now = scene.clock.now()
    assert underneath_questions(scene.rollout, now) == ()

    def after(report: GateReport) -> tuple[Query, ...]:
        seen = Assessment(at=now, step=0, weight_percent=20, reports=(report,), share=Share(20.0, 500, True))
        return underneath_questions(scene.rollout.with_(assessment=seen), now)

    healthy = GateReport("p99", Verdict.PASS, "", value=40.0, limit=100.0, unit="ms")
    assert after(healthy) == ()
    for report in (replace(healthy, value=130.0), replace(healthy, verdict=Verdict.FAIL)):
        *_, throttling = after(report)
        assert "container_cpu_cfs_throttled_periods_total" in throttling.promql
        assert 'pod=~"(payments-v1|payments-v2)-.*"' in throttling.promql


def test_no_cause_without_a_failing_latency_gate() -> None:
    """A healthy rollout on a starved node is not explained: there is nothing to explain."""
    rng = random.Random(1)
    quiet = judged(Trouble({}, {}, HEALTHY), rng, requests={"v2": 200, "v1": 800}, healths={"node-2": STOLEN})
    assert quiet.reports[0].verdict is Verdict.PASS
    assert quiet.cause is None
