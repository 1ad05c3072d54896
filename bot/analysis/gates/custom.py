"""A custom gate: a PromQL template, one number, a limit."""

from math import isnan

from bot.analysis.look import MAX_SKEW_S, Look, begin_of
from bot.analysis.promql import fill, span, uses
from bot.analysis.requests import NOTHING, REPORTERS, Traffic, Whose
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.sentences import duration, number
from bot.analysis.windows import RATE_WINDOWS_S, within
from bot.errors import CannotMeasure
from bot.rollout.gate import GateReport, GateSpec, Relation, Verdict
from bot.rollout.model import Rollout, Side


class Custom:
    """Asks the template for the canary, and for stable as well where it says `{{canary}}`.

    `{{window}}` is the longest rung of a fixed ladder that is not longer than the time since the weight was set.
    """

    def questions(self, spec: GateSpec, rollout: Rollout, now: float) -> tuple[Query, ...]:
        """The filled template; none before the shortest window has passed."""
        begin = begin_of(rollout)
        window_s = within(now - begin) if begin is not None else None
        if window_s is None:
            return ()
        target = rollout.target
        return tuple(
            _query(spec, rollout, side, window_s)
            for side in ((target.canary, target.stable) if uses(spec.query, "canary") else (target.canary,))
        )

    def judge(self, spec: GateSpec, look: Look) -> GateReport:
        """One number beside the limit."""
        rollout = look.rollout
        asked = _asked(spec, look)
        if asked is None:
            begin = begin_of(rollout)
            if begin is not None and within(look.now - begin) is not None:
                return look.report(spec, Verdict.ERROR, "Cannot measure: the question was not asked.", limit=spec.limit)
            return look.report(
                spec, Verdict.INCONCLUSIVE, "No data: the weight was set only just now.", limit=spec.limit
            )
        query, window_s = asked
        answer = look.answers[query]
        numbers: dict[str, object] = {
            "limit": spec.limit,
            "unit": "x" if spec.relation is Relation.RELATIVE else spec.unit,
            "window_s": float(window_s),
            "query": query.promql,
        }
        value, reason = _single(answer)
        if isinstance(reason, CannotMeasure):
            return look.report(spec, Verdict.ERROR, f"Cannot measure: {reason}.", **numbers)
        if abs(look.skew_s) > MAX_SKEW_S:
            detail = f"Cannot measure: Prometheus' clock is {duration(abs(look.skew_s))} apart from ours."
            return look.report(spec, Verdict.ERROR, detail, **numbers)
        newest_at = _newest(answer)
        stable_query = _query(spec, rollout, rollout.target.stable, window_s)
        stable, _ = (
            _single(look.answers[stable_query])
            if uses(spec.query, "canary") and stable_query in look.answers
            else (None, None)
        )
        numbers |= {"value": value, "stable_value": stable, "newest_sample_at": newest_at}
        requests_seen = _requests(look)
        if requests_seen is not None:
            numbers["samples"] = requests_seen
        if spec.min_requests:
            numbers["needed_samples"] = spec.min_requests
        over = f"over {duration(window_s)}"
        if value is None:
            return look.report(spec, Verdict.INCONCLUSIVE, f"No data: the query gave {reason} {over}.", **numbers)
        if spec.min_requests and (requests_seen or 0) < spec.min_requests:
            detail = f"{requests_seen or 0}/{spec.min_requests} requests so far; {number(value)}{_unit(spec)} {over}."
            return look.report(spec, Verdict.INCONCLUSIVE, detail, **numbers)
        if spec.relation is Relation.RELATIVE:
            if stable is None:
                detail = (
                    f"No data: {number(value)} {over}, and nothing of {rollout.target.stable.label} to compare with."
                )
                return look.report(spec, Verdict.INCONCLUSIVE, detail, **numbers)
            failed = value > spec.limit * stable
            detail = (
                f"{number(value)} {over} (limit {number(spec.limit)} times {rollout.target.stable.label}'s "
                f"{number(stable)})."
            )
            return look.report(spec, Verdict.FAIL if failed else Verdict.PASS, detail, **numbers)
        beside = f"; {rollout.target.stable.label} {number(stable)}{_unit(spec)}" if stable is not None else ""
        detail = f"{number(value)}{_unit(spec)} {over} (limit {number(spec.limit)}{_unit(spec)}){beside}."
        failed = value > spec.limit
        stable_fails = failed and stable is not None and stable > spec.limit and value <= 2 * stable
        return look.report(spec, Verdict.FAIL if failed else Verdict.PASS, detail, stable_fails=stable_fails, **numbers)


def _query(spec: GateSpec, rollout: Rollout, side: Side, window_s: int) -> Query:
    target = rollout.target
    values = {
        "service": target.service,
        "namespace": target.namespace,
        "canary": side.version or side.label,
        "stable": target.stable.version or target.stable.label,
        "window": span(window_s),
    }
    return Query(fill(spec.query, values))


def _asked(spec: GateSpec, look: Look) -> tuple[Query, int] | None:
    begin = begin_of(look.rollout)
    longest = within(look.now - begin) if begin is not None else None
    if longest is None:
        return None
    for window_s in (one for one in reversed(RATE_WINDOWS_S) if one <= longest):
        query = _query(spec, look.rollout, look.rollout.target.canary, window_s)
        if query in look.answers:
            return query, window_s
    return None


def _single(answer: Answer | CannotMeasure) -> tuple[float | None, str | CannotMeasure | None]:
    """The one value, or None and why there is none: a word for no data, CannotMeasure for an error."""
    if isinstance(answer, CannotMeasure):
        return None, answer
    if len(answer.series) > 1:
        named = ", ".join(_named(series) for series in answer.series[:4])
        more = f" and {len(answer.series) - 4} more" if len(answer.series) > 4 else ""
        return None, CannotMeasure(f"the query gave {len(answer.series)} series where one is expected: {named}{more}")
    if not answer.series or not answer.series[0].points:
        return None, "no series"
    if len(answer.series[0].points) > 1:
        return None, CannotMeasure("the query gave a range where one number is expected")
    value = answer.series[0].points[-1][1]
    return (None, "NaN") if isnan(value) else (value, None)


def _named(series: Series) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(series.labels.items())) + "}"


def _newest(answer: Answer | CannotMeasure) -> float | None:
    if isinstance(answer, CannotMeasure):
        return None
    return max((series.points[-1][0] for series in answer.series if series.points), default=None)


def _requests(look: Look) -> int | None:
    """The canary's requests since the weight was set; None where they are not counted (tcp, tls)."""
    if not isinstance(look.traffic, Traffic):
        return None
    end = look.traffic.counted.newest_at or look.begin
    return max(
        look.traffic.tally(look.begin, end, reporter).get(Whose.CANARY, NOTHING).judged for reporter in REPORTERS
    )


def _unit(spec: GateSpec) -> str:
    return spec.unit if spec.unit in ("", "%", "x") else f" {spec.unit}"
