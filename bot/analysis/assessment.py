"""One look at a rollout: which questions it needs, and what their answers say. Both pure."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan

from bot.analysis.counts import Counted, count, covered, scrape_interval
from bot.analysis.facts import fingerprint
from bot.analysis.gates import GATES
from bot.analysis.latency import sort as sort_latencies
from bot.analysis.look import (
    BUCKETS,
    REQUESTS,
    Answers,
    Look,
    Pods,
    begin_of,
    coverage_found,
    coverage_question,
    found,
    past_found,
    range_questions,
)
from bot.analysis.machine_or_release import cause, forgiven
from bot.analysis.memory import Memory, Sorted
from bot.analysis.nodes import Level, NodeHealth
from bot.analysis.requests import Traffic, separable
from bot.analysis.requests import sort as sort_requests
from bot.analysis.samples import Answer, Query
from bot.analysis.share import arrival_questions, explained, observe
from bot.analysis.underneath import underneath_questions
from bot.analysis.weighing import against_yesterday, kept, weigh
from bot.analysis.windows import LEAD_S, RECENT
from bot.errors import CannotMeasure
from bot.rollout.gate import Assessment, Coverage, GateReport, GateSpec, Share
from bot.rollout.model import HoldReason, Rollout, Target
from bot.values import replace

HTTP = "http"


def questions(rollout: Rollout, now: float, memory: Memory | None = None) -> tuple[Query, ...]:
    """What a look needs to know from the metrics; equal questions of several rollouts can be asked once.

    Nothing before the first weight is on the route. `now` is epoch seconds. With a memory of the looks before, only
    what is new is asked for; the answers have to be given to `assess` with the same memory.
    """
    if begin_of(rollout) is None:
        return ()
    if memory:
        memory.asked_at = now
    summed = memory.all_sums(rollout, now) if memory else None
    if summed is not None:
        return (*summed, *_beside_sums(rollout, now))
    asked: list[Query] = []
    if rollout.target.route.protocol == HTTP:
        asked.extend(range_questions(REQUESTS, rollout, now))
        history = coverage_question(rollout, now)
        asked.extend([history] if history else [])
    for spec in rollout.gates:
        asked.extend(GATES[spec.kind].questions(spec, rollout, now))
    asked.extend(underneath_questions(rollout, now))
    asked.extend(arrival_questions(rollout, now))
    return memory.instead(asked, rollout, now) if memory else tuple(dict.fromkeys(asked))


def _beside_sums(rollout: Rollout, now: float) -> tuple[Query, ...]:
    """What is asked in the same words however requests and latencies are counted."""
    asked: list[Query] = []
    if now - rollout.bake.covered_until > RECENT.window_s - LEAD_S:
        history = coverage_question(rollout, now)
        asked.extend([history] if history else [])
    for spec in rollout.gates:
        if spec.kind == "custom" or against_yesterday(spec):
            asked.extend(GATES[spec.kind].questions(spec, rollout, now))
    asked.extend(underneath_questions(rollout, now))
    asked.extend(arrival_questions(rollout, now))
    if not asked:
        return ()
    wide = {query for metric in (REQUESTS, BUCKETS) for query in range_questions(metric, rollout, now)}
    return tuple(dict.fromkeys(query for query in asked if query not in wide))


def assess(
    rollout: Rollout,
    now: float,
    answers: Answers,
    canary_pods: Pods | None,
    stable_pods: Pods | None,
    canary_baseline: Pods | None = None,
    nodes_critical: Sequence[str] = (),
    nodes: Mapping[str, NodeHealth] | None = None,
    memory: Memory | None = None,
) -> Assessment:
    """Judge every gate on the answers to `questions` and on the pods as they are.

    `now` is the moment the answers came in (epoch seconds). Pods are None when the cluster cannot say;
    `canary_baseline` are the canary's pods as pinned at the start, for restarts. `nodes` adds the critical nodes under
    the canary and lets a slow tail be put down to the machine or the release.
    """
    rollout = forgiven(rollout, canary_pods, nodes or {})
    begin_at = begin_of(rollout)
    common = {
        "at": now,
        "step": rollout.step,
        "weight_percent": rollout.weight_percent,
        "stable_ready": None if stable_pods is None else sum(pod.ready for pod in stable_pods),
        "canary_ready": None if canary_pods is None else sum(pod.ready for pod in canary_pods),
        "canary_fingerprint": fingerprint(canary_pods or ()),
        "nodes_critical": _critical(canary_pods, nodes_critical, nodes or {}),
    }
    if begin_at is None:
        return Assessment(reports=(), share=Share(None, 0, None), **common)  # type: ignore[arg-type]
    look = _look(rollout, now, begin_at, answers, canary_pods, stable_pods, canary_baseline, nodes or {}, memory)
    look = replace(look, weighed=weigh(look))
    reports = tuple(GATES[spec.kind].judge(spec, look) for spec in rollout.gates if _means_something(spec, rollout))
    share = Share(None, 0, None)
    if isinstance(look.traffic, Traffic):
        share = explained(observe(rollout, look.traffic, look.begin), answers)
    return Assessment(
        reports=reports,
        share=share,
        coverage=_coverage(look, reports),
        cause=cause(look, reports, nodes or {}),
        evidence=kept(look),
        **common,  # type: ignore[arg-type]
    )


def _ahead_s(server_time: float, asked_at: float | None, now: float) -> float:
    """How far Prometheus' clock is ahead of ours, negative when behind: no further than its answer says that was given
    at some moment between asking and now. An answer that was long on its way, or waited here, shows no wrong clock."""
    if asked_at is None or not asked_at <= now:
        return server_time - now
    return server_time - min(max(server_time, asked_at), now)


def _means_something(spec: GateSpec, rollout: Rollout) -> bool:
    """With somebody else's weights on the route, nothing says how many requests the canary should have had."""
    return spec.kind != "missing-responses" or rollout.held(HoldReason.DRIFT) is None


def _look(
    rollout: Rollout,
    now: float,
    begin_at: float,
    answers: Answers,
    canary_pods: Pods | None,
    stable_pods: Pods | None,
    pinned_pods: Pods | None,
    nodes: Mapping[str, NodeHealth],
    memory: Memory | None,
) -> Look:
    requests_query, requests = _counted(REQUESTS, rollout, now, answers, memory)
    buckets_query, buckets = _counted(BUCKETS, rollout, now, answers, memory)
    measured = [one for one in (requests, buckets) if isinstance(one, Counted)]
    heard: Sequence[Counted | Answer] = measured or [one for one in answers.values() if isinstance(one, Answer)]
    known = [one.server_time for one in heard if one.server_time is not None]
    skew_s = _ahead_s(known[0], memory.asked_at if memory else None, now) if known else 0.0
    ahead_s = skew_s if skew_s > 1 else 0.0
    interval_s = measured[0].interval_s if measured else 0.0
    arrived_at = rollout.bake.arrived_at
    past = any(map(against_yesterday, rollout.gates))
    begin = memory.begin(begin_at) if memory else None
    if memory:
        memory.behind(skew_s)
    return Look(
        rollout=rollout,
        now=now,
        begin=begin_at + ahead_s + interval_s if begin is None else begin,
        arrived_at=None if arrived_at is None else arrived_at + ahead_s,
        skew_s=skew_s,
        traffic=_sided(REQUESTS, sort_requests, rollout, requests, memory),
        latencies=_sided(BUCKETS, sort_latencies, rollout, buckets, memory),
        answers=answers,
        canary_pods=canary_pods,
        stable_pods=stable_pods,
        pinned_pods=pinned_pods,
        queries={REQUESTS: requests_query, BUCKETS: buckets_query},
        past_traffic=_sorted(sort_requests, rollout, past_found(REQUESTS, rollout, answers)) if past else None,
        past_latencies=_sorted(sort_latencies, rollout, past_found(BUCKETS, rollout, answers)) if past else None,
        nodes=nodes,
    )


def _sorted(
    sort: Callable[[Target, Counted], Sorted], rollout: Rollout, answers: Sequence[Answer | CannotMeasure]
) -> Sorted | CannotMeasure | None:
    """The same time yesterday, counted; None when no gate asked for it."""
    if not answers:
        return None
    good = []
    for answer in answers:
        if isinstance(answer, CannotMeasure):
            return answer
        good.append(answer)
    return sort(rollout.target, count(good[0], good[1] if len(good) > 1 else None))


def _sided(
    metric: str,
    sort: Callable[[Target, Counted], Sorted],
    rollout: Rollout,
    counted: Counted | CannotMeasure | None,
    memory: Memory | None,
) -> Sorted | CannotMeasure | None:
    if not isinstance(counted, Counted):
        return counted
    return memory.sorted(metric, rollout.target, counted, sort) if memory else sort(rollout.target, counted)


def _counted(
    metric: str, rollout: Rollout, now: float, answers: Answers, memory: Memory | None
) -> tuple[str, Counted | CannotMeasure | None]:
    if memory and separable(rollout.target):
        return memory.counted(metric, rollout, now, answers)
    queries = found(metric, rollout.target, range_questions(metric, rollout, now), answers)
    if not queries:
        return "", None
    if not separable(rollout.target):
        stable, canary = rollout.target.stable.label, rollout.target.canary.label
        return queries[0].promql, CannotMeasure(
            f"{stable} and {canary} share their workloads and their version label, so metrics cannot tell them apart"
        )
    got = [answers[query] for query in queries]
    failed = next((answer for answer in got if isinstance(answer, CannotMeasure)), None)
    if failed is not None:
        return queries[0].promql, failed
    good = [answer for answer in got if isinstance(answer, Answer)]
    return queries[-1].promql, count(good[0], good[1] if len(good) > 1 else None)


def _coverage(look: Look, reports: Sequence[GateReport]) -> Coverage | None:
    """Newly covered bake time; from the request samples, or where there are none from the looks themselves."""
    bake = look.rollout.bake
    since = max(bake.covered_until, bake.arrived_at or bake.confirmed_at or look.begin)
    if isinstance(look.traffic, Traffic):
        times, interval_s = _sampled(look)
        added_s, until = covered(times, since, interval_s)
        return Coverage(until, added_s)
    if look.traffic is not None:
        return None
    measured = [report.newest_sample_at for report in reports if report.query and report.newest_sample_at is not None]
    if not measured:
        return None
    until = max(since, min(measured))
    gap_s = until - since
    return Coverage(until, gap_s if gap_s <= 2.5 * look.rollout.rules.check_every_s else 0.0)


def _sampled(look: Look) -> tuple[tuple[float, ...], float]:
    """Moments of samples and the distance at which they are known: raw ones, or the history of a longer gap."""
    if not isinstance(look.traffic, Traffic):
        return (), 0.0
    raw, interval_s = look.traffic.counted.raw_times, look.traffic.counted.interval_s
    history = coverage_found(look.rollout, look.answers)
    if history is None or not history.series:
        return raw, interval_s
    steps = history.series[0].points
    moments = {value for _, value in steps if not isnan(value)}
    return tuple(sorted(moments.union(raw))), max(interval_s, scrape_interval([steps]))


def _critical(
    canary_pods: Pods | None, nodes_critical: Sequence[str], nodes: Mapping[str, NodeHealth]
) -> tuple[str, ...]:
    under = {pod.node for pod in canary_pods or ()}
    judged = {name for name, health in nodes.items() if health.level is Level.CRITICAL and name in under}
    return tuple(sorted(judged | set(nodes_critical)))
