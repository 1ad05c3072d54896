"""The machine or the release? What a slow canary is put down to, and the evidence in a sentence.

A machine that is short of CPU or disk slows *some* requests: those that meet a moment in which it stood still. If a
fraction `s` of the time is lost in pauses longer than a request takes, about `s` of the requests meet one, so p99 rises
while p50 hardly does, and everything else on that machine is slow as well. A slow release slows its requests wherever
they run. So, strongest first:

1. pods of one version on the starved node beside its pods elsewhere, and stable's pods on the starved node beside the
   canary's (where series name their pods);
2. how many requests are slow beside how much time was lost: more than `RELEASE_FACTOR` times cannot be the machine's,
   up to `MACHINE_FACTOR` times can;
3. p50: CPU-bound work takes 1/(1-s) as long when `s` of the CPU is taken away, and a release that is slow throughout
   is slower than that;
4. nothing underneath is wrong: then it is the release. What is not known decides nothing.
"""

from collections.abc import Mapping, Sequence
from math import inf, sqrt

from bot.analysis.latency import Histogram
from bot.analysis.look import Look, Pods
from bot.analysis.nodes import Level, NodeHealth
from bot.analysis.sentences import milliseconds, percent
from bot.analysis.underneath import ENOUGH, Ground, failing_latency, grounds, latency_gate, limit_ms
from bot.rollout.gate import Blame, Cause, GateEvidence, GateReport, Verdict
from bot.rollout.model import HoldReason, OnSilence, Rollout
from bot.values import dataclass, replace

MACHINE_FACTOR = 2.0
RELEASE_FACTOR = 4.0
FLAT = 1.25
FLAT_SLACK_MS = 1.0
NOTICEABLE = 0.02
CONTENDED = 0.2
THROTTLED = 0.10
ALIKE = 0.5
TAIL = 0.01
KOLMOGOROV = 1.63
Z = 2.6
LEADS = {
    Blame.MACHINE: "Likely the machine, not the release",
    Blame.RELEASE: "Likely the release, not the machine",
    Blame.UNKNOWN: "The machine or the release? It cannot be told",
}


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one comparison says, and why, in half a sentence."""

    verdict: Blame
    because: str


def cause(look: Look, reports: Sequence[GateReport], nodes: Mapping[str, NodeHealth]) -> Cause | None:
    """What the failing latency gates of a look are put down to; None when none fails.

    A machine that was to blame stays so while it is not well and its gates do not pass: a look at a moment with little
    or no data takes nothing back.
    """
    failing = failing_latency(look.rollout, reports)
    if not failing:
        before = look.rollout.assessment.cause if look.rollout.assessment is not None else None
        if before is None or before.verdict is not Blame.MACHINE or _well(look.canary_pods, nodes):
            return None
        open_gates = {report.gate for report in reports if report.verdict is not Verdict.PASS}
        return before if open_gates & set(before.gates) else None
    canary, stable = grounds(look, nodes)
    limits = [limit for spec, report in failing if (limit := limit_ms(spec, report, stable.latencies)) is not None]
    opinion = judge(canary, stable, min(limits) if limits else None)
    told = f"{LEADS[opinion.verdict]}: {opinion.because}. {evidence(canary, stable)}".strip()
    return Cause(opinion.verdict, told, tuple(report.gate for _, report in failing))


def forgiven(rollout: Rollout, pods: Pods | None, nodes: Mapping[str, NodeHealth]) -> Rollout:
    """The rollout as it is to be judged once the machine that it was held for is well.

    What was slow on that machine says nothing of the release: the latency gates begin again with what came after the
    look before. Everything else is judged as it stands. Where the rules roll back for a machine nothing is forgiven.
    """
    look, bake = rollout.assessment, rollout.bake
    held = rollout.held(HoldReason.NODES) is not None and rollout.rules.on_machine is OnSilence.HOLD
    if look is None or not held or not _well(pods, nodes):
        return rollout
    latency = {spec.name for spec in rollout.gates if latency_gate(spec)}
    evidence = tuple(
        GateEvidence(one.gate, one.reporter, one.until) if one.gate in latency else one for one in rollout.evidence
    )
    return rollout.with_(evidence=evidence, bake=replace(bake, confirmed_at=max(look.at, bake.confirmed_at or look.at)))


def _well(pods: Pods | None, nodes: Mapping[str, NodeHealth]) -> bool:
    """Every node under these pods is known, keeps its time to itself, and is not critical."""
    return pods is not None and all(
        pod.node in nodes
        and nodes[pod.node].lost is not None
        and not _starved(nodes[pod.node])
        and nodes[pod.node].level < Level.CRITICAL
        for pod in pods
    )


def judge(canary: Ground, stable: Ground, limit: float | None) -> Opinion:
    """Weigh what is known of both sides; `limit` in ms is what 1% of the requests may exceed, None for no p99."""
    starved = sorted(name for name, health in canary.nodes.items() if _starved(health))
    if starved:
        return _beside(canary, stable, starved, limit) or _measured(canary, stable, starved, limit)
    return _nothing_starved(canary, stable, limit)


def evidence(canary: Ground, stable: Ground) -> str:
    """The numbers that speak for or against, whichever are known, in full sentences."""
    told = []
    for name, form in (("p99", 0.99), ("p50", 0.5)):
        value, other = canary.latencies.quantile(form), stable.latencies.quantile(form)
        if value is not None:
            beside = f" ({stable.label} {milliseconds(other)})" if other is not None else ""
            told.append(f"{name} {milliseconds(value)}{beside}")
    sentences = [f"{canary.label}: {', '.join(told)}."] if told else []
    nodes = {**stable.nodes, **canary.nodes}
    known = []
    for name, health in sorted(nodes.items()):
        carries = " and ".join(ground.label for ground in (canary, stable) if name in ground.pods)
        if health.measured:
            known.append(f"{name} ({carries}) {health.measured}")
    if known:
        sentences.append(f"Lately {'; '.join(known)}.")
    sentences += [f"{name}: {' '.join(health.ailments)}" for name, health in sorted(nodes.items()) if health.ailments]
    if canary.restarted:
        sentences.append(f"Restarted since the start: {', '.join(canary.restarted[:3])}.")
    if canary.throttled is not None:
        beside = f" ({stable.label} {percent(stable.throttled)})" if stable.throttled is not None else ""
        sentences.append(f"Held back by its own CPU limit in {percent(canary.throttled)} of the periods{beside}.")
    return " ".join(sentences)


def _starved(health: NodeHealth) -> bool:
    return health.starved or (health.lost or 0.0) >= NOTICEABLE


def _beside(canary: Ground, stable: Ground, starved: Sequence[str], limit: float | None) -> Opinion | None:
    """Pods of one version on different nodes, and of both versions on one; None when series do not tell or agree."""
    if limit is None:
        return None
    here, elsewhere = _split(canary, starved)
    stable_here, stable_elsewhere = _split(stable, starved)
    slow, names = _slow(here, limit), ", ".join(starved)
    if elsewhere.requests >= ENOUGH and here.requests >= ENOUGH:
        other = _slow(elsewhere, limit)
        numbers = f"{percent(slow)} of {canary.label}'s requests on {names} are too slow, {percent(other)} elsewhere"
        if _beyond(elsewhere, limit) or (other > TAIL and other >= ALIKE * slow):
            return Opinion(Blame.RELEASE, numbers)
        if other < ALIKE * slow and _apart(here, elsewhere, limit):
            return Opinion(Blame.MACHINE, numbers)
    if stable_here.requests >= ENOUGH and here.requests >= ENOUGH:
        other, well = _slow(stable_here, limit), _slow(stable_elsewhere, limit)
        numbers = f"on {names} {percent(slow)} of {canary.label}'s requests are too slow, {percent(other)} of " + (
            f"{stable.label}'s"
        )
        if other >= ALIKE * slow and (
            stable_elsewhere.requests < ENOUGH or _apart(stable_here, stable_elsewhere, limit)
        ):
            return Opinion(Blame.MACHINE, f"{numbers}, and {percent(well)} of {stable.label}'s elsewhere")
        if other < ALIKE * slow and _apart(here, stable_here, limit):
            return Opinion(Blame.RELEASE, numbers)
    return None


def _measured(canary: Ground, stable: Ground, starved: Sequence[str], limit: float | None) -> Opinion:
    """How many requests are slow and how slow the middle is, beside the time that was lost."""
    lost, names = canary.lost, ", ".join(starved)
    p50_ms, stable_p50_ms = canary.latencies.quantile(0.5), stable.latencies.quantile(0.5)
    short = f"{names} under {canary.label} is short of CPU or disk"
    if lost is None or p50_ms is None or canary.latencies.requests < ENOUGH:
        return Opinion(Blame.UNKNOWN, f"{short}, and there are too few numbers to tell what that explains")
    if canary.throttled is not None and canary.throttled >= THROTTLED and not _as_throttled(canary, stable):
        return Opinion(Blame.UNKNOWN, f"{short}, and {canary.label} is held back by its own CPU limit as well")
    if stable_p50_ms is None or stable.latencies.requests < ENOUGH:
        if limit is None:
            return Opinion(Blame.UNKNOWN, f"{short}, and {stable.label} has no traffic to compare with")
        excess, flat, beyond = _slow(canary.latencies, limit), p50_ms <= limit / 2, p50_ms > limit
    else:
        if (stable.lost or 0.0) >= ALIKE * lost and _fine(stable, canary, limit):
            return Opinion(Blame.RELEASE, f"{stable.label}'s nodes lose as much time and {stable.label} is not slow")
        excess = _excess(canary.latencies, stable.latencies, limit)
        expected_ms = FLAT * stable_p50_ms / (1.0 - min(lost, 0.9)) + FLAT_SLACK_MS
        flat, beyond = p50_ms <= expected_ms, p50_ms > 1.5 * expected_ms
    few = f"{percent(max(excess, 0.0))} more of its requests are slow"
    if beyond or excess > RELEASE_FACTOR * lost:
        middle = ", the middle of them as well" if beyond else ""
        return Opinion(Blame.RELEASE, f"{names} loses {percent(lost)} of its time, but {few}{middle}")
    if flat and excess <= MACHINE_FACTOR * lost:
        return Opinion(Blame.MACHINE, f"p50 is flat, {few}, and {short}: {percent(lost)} of the time is lost there")
    return Opinion(Blame.UNKNOWN, f"{short}: {percent(lost)} of the time is lost there, and {few}")


def _nothing_starved(canary: Ground, stable: Ground, limit: float | None) -> Opinion:
    """Neither steal nor iowait under the canary: the release, unless that is not known or something else is wrong."""
    unknown = sorted(name for name in canary.pods if name not in canary.nodes or canary.nodes[name].lost is None)
    if not canary.pods or unknown:
        where = ", ".join(unknown) if unknown else f"the nodes under {canary.label}"
        return Opinion(Blame.UNKNOWN, f"steal and iowait of {where} are not known")
    if canary.throttled is not None and canary.throttled >= THROTTLED and not _as_throttled(canary, stable):
        return Opinion(Blame.RELEASE, f"{canary.label} needs more CPU than its own limit allows")
    ill = sorted(name for name, health in canary.nodes.items() if health.level > Level.OK)
    if ill:
        return Opinion(Blame.UNKNOWN, f"no time is stolen, but {', '.join(ill)} under {canary.label} is not well")
    busy = [name for name, health in sorted(canary.nodes.items()) if (health.lately("CPU pressure") or 0) >= CONTENDED]
    calm = max((health.lately("CPU pressure") or 0 for health in stable.nodes.values()), default=0.0)
    if busy and calm < CONTENDED * ALIKE:
        return Opinion(
            Blame.UNKNOWN,
            f"tasks wait for CPU on {', '.join(busy)}: {canary.label} or a neighbour there uses it up",
        )
    return Opinion(Blame.RELEASE, f"nothing takes time away from {', '.join(sorted(canary.nodes))} under it")


def _split(ground: Ground, starved: Sequence[str]) -> tuple[Histogram, Histogram]:
    """Latencies on the starved nodes, and on those that are known to be well."""
    here = [one for name, one in ground.by_node.items() if name in starved]
    elsewhere = [
        one
        for name, one in ground.by_node.items()
        if name in ground.nodes and ground.nodes[name].lost is not None and not _starved(ground.nodes[name])
    ]
    return _sum(here), _sum(elsewhere)


def _sum(histograms: Sequence[Histogram]) -> Histogram:
    sums: dict[float, float] = {}
    for one in histograms:
        for bound, cumulative in one.buckets:
            sums[bound] = sums.get(bound, 0.0) + cumulative
    return Histogram(tuple(sorted(sums.items())))


def _slow(histogram: Histogram, limit: float) -> float:
    return histogram.above(limit) / histogram.requests if histogram.requests else 0.0


def _beyond(histogram: Histogram, limit: float) -> bool:
    """More than 1% are slower than the limit, by more than chance: the binomial z test at 2.6."""
    return _slow(histogram, limit) - TAIL > Z * sqrt(TAIL * (1 - TAIL) / histogram.requests)


def _apart(one: Histogram, other: Histogram, limit: float) -> bool:
    """Their slow fractions differ by more than chance: the pooled two-proportion z test at 2.6 (1% two-sided)."""
    count, others = one.requests, other.requests
    pooled = (one.above(limit) + other.above(limit)) / (count + others)
    error = sqrt(pooled * (1 - pooled) * (1 / count + 1 / others))
    return error > 0 and abs(_slow(one, limit) - _slow(other, limit)) > Z * error


def _excess(canary: Histogram, stable: Histogram, limit: float | None) -> float:
    """By how many requests (a fraction) the canary is slower: at the limit, or anywhere by more than chance.

    Anywhere is the largest distance of the two distributions at a bucket's bound, less what the Kolmogorov-Smirnov
    test allows at 1%: 1.63 sqrt(1/n + 1/m).
    """
    others = dict(stable.buckets)
    count, other_count = canary.requests, stable.requests
    furthest = max(
        (
            others[bound] / other_count - below / count
            for bound, below in canary.buckets
            if bound in others and bound < inf
        ),
        default=0.0,
    )
    certain = furthest - KOLMOGOROV * sqrt(1 / count + 1 / other_count)
    return max(certain, 0.0 if limit is None else _slow(canary, limit) - _slow(stable, limit))


def _fine(stable: Ground, canary: Ground, limit: float | None) -> bool:
    if limit is None:
        return False
    return _slow(stable.latencies, limit) < ALIKE * _slow(canary.latencies, limit) and _apart(
        canary.latencies, stable.latencies, limit
    )


def _as_throttled(canary: Ground, stable: Ground) -> bool:
    return (stable.throttled or 0.0) >= ALIKE * (canary.throttled or 0.0)
