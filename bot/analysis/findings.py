"""What each reporter shows in each window, and which of these findings a gate reports: the worst one that counts."""

from collections.abc import Callable, Sequence

from bot.analysis.counts import Counted
from bot.analysis.look import MAX_SKEW_S, STALE_S, Look, Window
from bot.analysis.sentences import duration
from bot.errors import CannotMeasure
from bot.rollout.gate import GateReport, GateSpec, Verdict
from bot.values import dataclass

_WHERE = {
    "source": "as the callers' proxies saw it",
    "destination": "as its own proxies saw it",
    "waypoint": "as the waypoint saw it",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a finding says to people: `detail` is a sentence without its end. `newest_at` is the canary's newest sample,
    None when it has none."""

    detail: str
    value: float | None
    stable_value: float | None
    stable_samples: int
    newest_at: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One reporter's view of one window; `badness` orders like with like.

    `tell` works out what only the finding that is reported needs. `doubtful` says that much speaks against the release
    without deciding it, `bound` is the limit as a bad fraction.
    """

    verdict: Verdict
    tell: Callable[[], Told]
    reporter: str
    window: Window
    samples: int
    badness: float
    deciding: bool = False
    stable_fails: bool = False
    doubtful: bool = False
    bound: float | None = None


def where(reporter: str) -> str:
    """In words, whose view it is."""
    return _WHERE.get(reporter, f"as reported by {reporter or 'nobody'}")


def worst(findings: Sequence[Finding]) -> Finding:
    """The finding that speaks for the gate.

    A FAIL of the release alone before a FAIL that stable shares, a deciding one first. Without a FAIL the PASS nearest
    to its limit, since a reporter that few callers use need not hold up the other; but one that has seen much against
    the release does. Else the one that has most samples.
    """
    return max(findings, key=_weight)


def _weight(one: Finding) -> tuple[float, ...]:
    if one.verdict is Verdict.FAIL:
        return 3, not one.stable_fails, one.deciding, one.badness
    if one.doubtful:
        return 2, one.badness
    return (1, one.badness) if one.verdict is Verdict.PASS else (0, one.samples)


def cannot_measure(
    look: Look, spec: GateSpec, counted: Counted | CannotMeasure | None, query: str
) -> GateReport | None:
    """The ERROR or INCONCLUSIVE report when there is nothing to judge by; None when there is."""
    if isinstance(counted, CannotMeasure):
        return look.report(spec, Verdict.ERROR, f"Cannot measure: {counted}.", query=query, limit=spec.limit)
    if counted is None:
        return look.report(spec, Verdict.ERROR, "Cannot measure: the question was not asked.", query=query)
    if abs(look.skew_s) > MAX_SKEW_S:
        ahead = "ahead of" if look.skew_s > 0 else "behind"
        return look.report(
            spec,
            Verdict.ERROR,
            f"Cannot measure: Prometheus' clock is {duration(abs(look.skew_s))} {ahead} ours.",
            query=query,
            limit=spec.limit,
        )
    if counted.newest_at is None:
        return look.report(
            spec,
            Verdict.INCONCLUSIVE,
            f"No data: Prometheus has no samples of {look.rollout.target.host}.",
            query=query,
            limit=spec.limit,
            samples=0,
            needed_samples=spec.min_requests or None,
        )
    age_s = look.now + look.skew_s - counted.newest_at
    if age_s > max(STALE_S, 4 * counted.interval_s):
        return look.report(
            spec,
            Verdict.INCONCLUSIVE,
            f"No data: the newest sample of {look.rollout.target.host} is {duration(age_s)} old.",
            query=query,
            limit=spec.limit,
            newest_sample_at=counted.newest_at,
        )
    return None


def reported(
    look: Look,
    spec: GateSpec,
    finding: Finding,
    counted: Counted,
    *,
    needed: int,
    query: str,
    unit: str,
    alpha: float | None,
    smallest_visible: float | None,
) -> GateReport:
    """The gate's report of its worst finding."""
    told = finding.tell()
    warned = f" Prometheus warns: {'; '.join(counted.warnings)}." if counted.warnings else ""
    return GateReport(
        gate=spec.name,
        verdict=finding.verdict,
        detail=f"{told.detail}.{warned}",
        value=told.value,
        stable_value=told.stable_value,
        limit=spec.limit,
        unit=unit,
        samples=finding.samples,
        stable_samples=told.stable_samples,
        needed_samples=needed,
        window_s=round(finding.window.seconds, 3),
        weight_percent=look.rollout.weight_percent,
        step=look.rollout.step,
        query=query,
        newest_sample_at=told.newest_at if told.newest_at is not None else counted.newest_at,
        deciding=finding.deciding,
        stable_fails=finding.stable_fails,
        fail_after=spec.fail_after,
        fail_total=spec.fail_total,
        alpha=alpha,
        smallest_visible=smallest_visible,
    )
