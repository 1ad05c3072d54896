"""Evidence carried from look to look, through the same door as in production, in a made-up mesh."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.assessment import assess, questions
from bot.analysis.columns import Counters
from bot.analysis.counts import Counter, count
from bot.analysis.intervals import Row, Rows, cut, latency_rows
from bot.analysis.latency import sort
from bot.analysis.requests import Whose
from bot.analysis.samples import Answer, Series
from bot.analysis.statistics import Interval
from bot.rollout.gate import GateEvidence, GateReport, GateSpec, Relation, Verdict, parse_gate
from bot.rollout.model import Bake, Rollout
from bot.rollout.record import dump, load
from tests.unit.analysis.scene import HOST, MISSING, Scene, target

ERRORS = parse_gate("error-rate<1%")
SLOW = parse_gate("p99<250ms")
TWICE = parse_gate("error-rate<2x")
SLOWER = parse_gate("p99<1.2x")


def evidence(scene: Scene, gate: str = "error-rate", reporter: str = "destination") -> GateEvidence:
    return next(one for one in scene.rollout.evidence if (one.gate, one.reporter) == (gate, reporter))


def follow(scene: Scene, seconds: float, every_s: float = 5.0) -> GateReport:
    """Look again and again until the first gate fails or the time is over."""
    report = scene.report()
    until = scene.clock.now() + seconds
    while scene.clock.now() < until and report.verdict is not Verdict.FAIL:
        report = scene.report(every_s)
    return report


def test_all_failing_is_called_within_five_requests() -> None:
    """Beside a second gate and two reporters, at a limit of 1%, one request a second; and it decides at once."""
    scene = Scene(ERRORS, SLOW, rate=10, weight=10)
    scene.metrics.behave(HOST, "v2", fail=1.0)
    scene.clock.advance(1)
    report = follow(scene, 20, every_s=1)
    assert (report.verdict, report.deciding) == (Verdict.FAIL, True)
    assert report.samples is not None
    assert report.samples <= 5
    assert report.alpha == pytest.approx(0.01 / 4)
    assert "fewer than 1 of 400 rollouts" in report.detail


def test_one_failure_among_few_is_no_failure_and_two_are_a_doubt() -> None:
    """5% of 60 requests at a limit of 1% may be chance: no FAIL, and no PASS either."""
    scene = Scene(ERRORS, rate=10, weight=10)
    scene.metrics.behave(HOST, "v2", fail=0.05)
    report = scene.report(62)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert not report.deciding
    assert "may still be chance" in report.detail
    assert report.smallest_visible is not None
    assert 0.05 < report.smallest_visible < 0.3


def test_a_good_canary_passes_with_what_could_have_been_seen() -> None:
    """PASS with enough requests; beside it the part of alpha and the smallest visible effect, of p99 as well."""
    scene = Scene(ERRORS, SLOW, weight=50)
    errors, slow = scene.look(30).reports
    assert (errors.verdict, slow.verdict) == (Verdict.PASS, Verdict.PASS)
    for report in (errors, slow):
        assert report.alpha == pytest.approx(0.0025)
        assert report.smallest_visible is not None
        assert 0.01 < report.smallest_visible < 0.04


def test_a_failure_that_begins_after_eight_good_hours_is_called() -> None:
    """Sixty requests a minute, five points worse: within minutes, not after as many hours."""
    scene = Scene(ERRORS, rate=10, weight=10, scrape_s=15)
    scene.rollout = scene.rollout.with_(
        plan=replace(
            scene.rollout.plan,
            steps=(replace(scene.rollout.plan.steps[0], bake_s=36_000.0), *scene.rollout.plan.steps[1:]),
        )
    )
    for _ in range(16):
        assert scene.report(1800).verdict is Verdict.PASS
    scene.metrics.behave(HOST, "v2", fail=0.06)
    began = scene.clock.now()
    report = follow(scene, 1200, every_s=15)
    assert report.verdict is Verdict.FAIL
    assert scene.clock.now() - began <= 480
    assert "in the last 2 min" in report.detail


def test_a_look_that_comes_late_sees_what_many_looks_would_have() -> None:
    """Nobody looked for 100 s: the evidence is the same, from Prometheus' history."""
    often, once = Scene(ERRORS, SLOW, weight=50), Scene(ERRORS, SLOW, weight=50)
    for scene in (often, once):
        scene.metrics.behave(HOST, "v2", fail=0.012, slow=0.02, slow_ms=600)
    for _ in range(20):
        often.look(5)
    once.look(100)
    for gate in ("error-rate", "p99"):
        one, other = evidence(often, gate), evidence(once, gate)
        assert (one.until, one.requests, one.bad) == pytest.approx((other.until, other.requests, other.bad))
        assert one.limit.whole == pytest.approx(other.limit.whole)
        assert one.limit.late == pytest.approx(other.limit.late, abs=0.05)


def test_two_looks_at_one_scrape_add_nothing() -> None:
    """However often one looks between scrapes, the evidence stays as it is."""
    scene = Scene(ERRORS, weight=50, scrape_s=15)
    scene.look(60)
    before = scene.rollout.evidence
    for _ in range(5):
        scene.look(1)
    assert scene.rollout.evidence == before
    scene.look(15)
    assert evidence(scene).requests > before[0].requests


def test_a_new_holder_goes_on_from_the_record() -> None:
    """Saved a minute ago, read back, looked at once: the same as if nobody had died."""
    scene = Scene(ERRORS, weight=50)
    scene.metrics.behave(HOST, "v2", fail=0.01)
    scene.look(30)
    saved = dump(scene.rollout)
    for _ in range(12):
        scene.look(5)
    living = evidence(scene)
    scene.rollout = load(Rollout, saved)
    scene.look()
    assert evidence(scene).requests == pytest.approx(living.requests)
    assert evidence(scene).limit.whole == pytest.approx(living.limit.whole)


def test_a_prometheus_that_is_away_takes_no_evidence_away() -> None:
    """ERROR keeps what was seen, and the next good look fills the gap."""
    scene = Scene(ERRORS, weight=50)
    scene.look(30)
    before = scene.rollout.evidence
    scene.metrics.broken = "Prometheus answered 503"
    assert scene.report(30).verdict is Verdict.ERROR
    assert scene.rollout.evidence == before
    scene.metrics.broken = ""
    scene.look(30)
    assert evidence(scene).requests == pytest.approx(50 * 89, rel=0.02)


def test_evidence_is_for_the_whole_rollout_and_minimums_for_the_step() -> None:
    """The next step goes on with the evidence and counts its own requests; those in between are in neither."""
    scene = Scene(ERRORS, weight=10)
    scene.look(60)
    former = evidence(scene)
    scene.clock.advance(20)
    scene.rollout = scene.rollout.with_(bake=replace(scene.rollout.bake, confirmed_at=scene.clock.now()))
    report = scene.report(3)
    assert (report.verdict, report.samples) == (Verdict.INCONCLUSIVE, 20)
    assert evidence(scene).requests == pytest.approx(former.requests + 20)


def test_an_incident_that_stable_shares_neither_fails_nor_primes_the_release() -> None:
    """Both at 30% for two minutes: FAIL marked as stable's too, none of it kept; afterwards PASS, and still armed."""
    scene = Scene(ERRORS, weight=50)
    scene.look(60)
    before = max(evidence(scene).limit.whole)
    for version in ("v1", "v2"):
        scene.metrics.behave(HOST, version, fail=0.3)
    for _ in range(24):
        report = scene.report(5)
        assert not (report.verdict is Verdict.FAIL and not report.stable_fails), report.detail
    assert (report.verdict, report.stable_fails, report.deciding) == (Verdict.FAIL, True, False)
    assert max(evidence(scene).limit.whole) <= before + 0.5
    for version in ("v1", "v2"):
        scene.metrics.behave(HOST, version, fail=0.0)
    for _ in range(26):
        report = scene.report(5)
        assert not (report.verdict is Verdict.FAIL and not report.stable_fails), report.detail
    scene.metrics.behave(HOST, "v2", fail=0.3)
    report = follow(scene, 30)
    assert (report.verdict, report.stable_fails) == (Verdict.FAIL, False)


def test_a_much_worse_canary_is_not_excused_by_a_stable_that_fails_a_little() -> None:
    """Canary 50% beside stable 2% at a limit of 1%: the release."""
    scene = Scene(ERRORS, weight=50)
    scene.metrics.behave(HOST, "v1", fail=0.02)
    scene.metrics.behave(HOST, "v2", fail=0.5)
    report = scene.report(20)
    assert (report.verdict, report.stable_fails, report.deciding) == (Verdict.FAIL, False, True)


def test_connection_failures_that_only_callers_see_fail_soon() -> None:
    """They name no side; once they can only be the canary's, all of them count, also those before."""
    scene = Scene(ERRORS, SLOW, rate=100, weight=10)
    scene.metrics.behave(HOST, "v2", refuse=1.0)
    report = follow(scene, 20, every_s=1)
    assert report.verdict is Verdict.FAIL
    assert "named no side and were counted here" in report.detail
    assert evidence(scene, reporter="source").bad == pytest.approx(report.samples or 0, abs=1)


@pytest.mark.parametrize(("fail", "verdict"), [(0.02, Verdict.PASS), (0.035, Verdict.PASS), (0.08, Verdict.FAIL)])
def test_relative_errors_are_compared_with_stable(fail: float, verdict: Verdict) -> None:
    """Twice stable's 2% is allowed, four times is not."""
    scene = Scene(TWICE, weight=50)
    scene.metrics.behave(HOST, "v1", fail=0.02)
    scene.metrics.behave(HOST, "v2", fail=fail)
    assert follow(scene, 60).verdict is verdict


def test_a_stable_with_too_little_traffic_is_never_a_pass() -> None:
    """One request in a hundred goes to stable: INCONCLUSIVE, and it says whose requests are missing."""
    report = Scene(TWICE, weight=99).report(20)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "/50 requests of v1" in report.detail


def test_at_full_weight_the_past_of_stable_is_the_baseline() -> None:
    """Stable has no traffic at 100%: its past lets a good canary pass, a bad one not."""
    scene = Scene(TWICE, SLOWER, weight=50)
    scene.metrics.behave(HOST, "v1", fail=0.02)
    scene.metrics.behave(HOST, "v2", fail=0.02)
    scene.look(60)
    scene.metrics.weight(HOST, 100)
    scene.rollout = scene.rollout.with_(
        step=1, weight_percent=100, bake=replace(scene.rollout.bake, confirmed_at=scene.clock.now())
    )
    errors, slow = scene.look(30).reports
    assert (errors.verdict, slow.verdict) == (Verdict.PASS, Verdict.PASS), f"{errors.detail}\n{slow.detail}"
    assert "before this step" in errors.detail
    scene.metrics.behave(HOST, "v2", fail=0.2)
    assert follow(scene, 60).verdict is Verdict.FAIL


def test_at_full_weight_without_a_past_nothing_is_compared() -> None:
    """A plan that begins at 100%: INCONCLUSIVE."""
    assert Scene(TWICE, weight=100).report(60).verdict is Verdict.INCONCLUSIVE


def test_p99_fails_on_a_slow_tail_and_says_how_it_was_counted() -> None:
    """5% slower than 250 ms where 1% may be; a limit inside a bucket is interpolated and says so."""
    scene = Scene(SLOW, weight=50)
    scene.metrics.behave(HOST, "v2", slow=0.05, slow_ms=800)
    report = follow(scene, 30)
    assert (report.verdict, report.deciding, report.stable_fails) == (Verdict.FAIL, True, False)
    assert "where 1% may be" in report.detail
    inside = Scene(replace(SLOW, limit=300.0), weight=50).report(20)
    assert inside.verdict is Verdict.PASS
    assert "interpolated as Prometheus does" in inside.detail


def test_relative_p99_forgives_what_the_factor_allows_and_no_more() -> None:
    """Stable's tail at 200 ms: a canary somewhat slower than stable but within 1.2 times passes, one far out fails."""
    scene = Scene(SLOWER, weight=50)
    scene.metrics.behave(HOST, "v1", slow=0.05, slow_ms=200)
    scene.metrics.behave(HOST, "v2", slow=0.055, slow_ms=200)
    assert follow(scene, 120).verdict is Verdict.PASS
    scene.metrics.behave(HOST, "v2", slow=0.05, slow_ms=800)
    report = follow(scene, 60)
    assert report.verdict is Verdict.FAIL
    assert "1.2 times v1's" in report.detail


YESTERDAYS = tuple(replace(gate, against="yesterday") for gate in (TWICE, SLOWER))


@pytest.mark.parametrize(("fail", "verdict"), [(0.02, Verdict.PASS), (0.1, Verdict.FAIL)])
def test_the_same_time_yesterday_can_be_the_baseline(fail: float, verdict: Verdict) -> None:
    """Stable has next to nothing beside a canary at 99%; yesterday the service failed 2%."""
    scene = Scene(*YESTERDAYS, weight=99)
    confirmed_at = scene.clock.now()
    scene.metrics.weight(HOST, 0)
    scene.metrics.behave(HOST, "v1", fail=0.02)
    scene.clock.advance(86_400)
    scene.metrics.weight(HOST, 99)
    scene.metrics.behave(HOST, "v2", fail=fail)
    scene.rollout = scene.rollout.with_(bake=replace(scene.rollout.bake, confirmed_at=confirmed_at + 86_400))
    look = scene.look(30)
    assert look.reports[0].verdict is verdict, look.reports[0].detail
    assert look.reports[1].verdict is Verdict.PASS, look.reports[1].detail
    assert look.reports[0].stable_value == pytest.approx(0.02, abs=0.003)
    assert "the same time yesterday" in look.reports[0].detail


def test_yesterday_that_was_not_recorded_is_no_baseline() -> None:
    """A service that is new today: INCONCLUSIVE."""
    report = Scene(*YESTERDAYS, weight=50).report(60)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "0/50 requests of the same time yesterday" in report.detail


def test_a_threshold_beside_a_test_is_judged_as_before() -> None:
    """`judge: threshold` counts points over the limit and does not take a part of alpha."""
    scene = Scene(replace(SLOW, judge="threshold"), ERRORS, MISSING, weight=50)
    scene.metrics.behave(HOST, "v2", slow=0.03, slow_ms=600)
    slow, errors, _ = scene.look(20).reports
    assert (slow.verdict, slow.deciding, slow.alpha) == (Verdict.FAIL, False, None)
    assert errors.alpha == pytest.approx(0.005)


def test_a_limit_of_everything_never_fails() -> None:
    """error-rate<100% is a limit nothing can exceed."""
    scene = Scene(parse_gate("error-rate<100%"), weight=50)
    scene.metrics.behave(HOST, "v2", fail=1.0)
    assert follow(scene, 30).verdict is not Verdict.FAIL


def test_requests_that_fail_together_are_counted_as_fewer_and_that_is_said() -> None:
    """Stable's failures come in bursts of one scrape: the canary's count for less."""
    scene = Scene(ERRORS, rate=40, weight=50)
    for _ in range(12):
        scene.metrics.behave(HOST, "v1", fail=0.4)
        scene.look(1)
        scene.metrics.behave(HOST, "v1", fail=0.0)
        scene.look(9)
    report = scene.report(1)
    assert "fail about" in report.detail


def two_targets(late_until: float) -> Answer:
    """One series of each of two pods, scraped every 15 s with 10 requests; the second's last scrapes are still out."""
    pods = (("a", 0.0, 300.0), ("b", 7.0, late_until))
    return Answer(
        tuple(
            Series(
                {"instance": pod, "destination_workload": "payments-v2"},
                tuple((offset + 15.0 * n, 10.0 * n) for n in range(40) if offset + 15.0 * n <= until),
            )
            for pod, offset, until in pods
        )
    )


def test_a_late_scrape_is_waited_for_and_not_lost() -> None:
    """What two looks count, the first without the late target's last scrape, is what one look at everything counts."""
    early, whole = count(two_targets(280.0)), count(two_targets(307.0))
    assert early.newest_at == 300.0
    assert early.settled_at == 277.0
    seen = sum(one.requests for one in cut(rows(early.counters), 30.0, 277.0, 15.0))
    seen += sum(one.requests for one in cut(rows(whole.counters), 277.0, 300.0, 15.0))
    assert seen == sum(one.requests for one in cut(rows(whole.counters), 30.0, 300.0, 15.0))


def test_a_target_that_is_gone_holds_nothing_up() -> None:
    """A pod that has not been scraped for several intervals is not waited for."""
    assert count(two_targets(150.0)).settled_at == 300.0


def rows(counters: Sequence[Counter], bad: float = 0.0) -> Rows:
    places = tuple(range(len(counters)))
    return Rows(Counters(tuple(counters)), places, tuple(Row(True, 1.0, bad) for _ in places))


_life = st.lists(st.one_of(st.integers(0, 30), st.just(-1)), min_size=1, max_size=25)


@given(st.lists(_life, min_size=1, max_size=5), st.lists(st.floats(0, 400), max_size=6), st.integers(0, 20))
def test_every_request_is_counted_once_whatever_the_looks(
    lives: list[list[int]], looks: list[float], born_after: int
) -> None:
    """Counters that are born late and reset (-1 is a restart): the intervals of any looks add up to what happened after
    the beginning, the count of a restart as far as a scrape can see it."""
    series, truth = [Series({"instance": "a", "code": "0"}, tuple((15.0 * n, 0.0) for n in range(46)))], 0
    for index, life in enumerate(lives):
        value, points = 0, []
        for n, step in enumerate(life):
            value = 0 if step < 0 else value + step
            if value:
                points.append((15.0 * (born_after + 1 + n), float(value)))
        truth += sum(int(b - a if b >= a else b) for (_, a), (_, b) in pairwise([(0.0, 0.0), *points]))
        if points:
            series.append(Series({"instance": "a", "code": str(index + 1)}, tuple(points)))
    counted = count(Answer(tuple(series)))
    edges = sorted({0.0, *looks, 690.0})
    seen = [one for since, until in pairwise(edges) for one in cut(rows(counted.counters), since, until, 15.0)]
    assert sum(one.requests for one in seen) == pytest.approx(truth)
    assert sum(one.seconds for one in seen) == pytest.approx(690.0)


@given(
    st.lists(st.integers(0, 50), min_size=5, max_size=5),
    st.one_of(st.sampled_from([50.0, 100.0, 250.0, 1000.0, 2000.0]), st.floats(1, 3000)),
)
def test_slow_requests_are_those_above_the_limit_as_a_histogram_has_them(fresh: list[int], limit_ms: float) -> None:
    """The weighted sum of bucket counters is the histogram's own interpolation."""
    bounds, total, series = ("50.0", "100.0", "250.0", "1000.0", "+Inf"), 0, []
    for bound, number in zip(bounds, fresh, strict=True):
        total += number
        labels = {"reporter": "destination", "destination_workload": "payments-v2", "le": bound}
        series.append(Series(labels, ((0.0, 5.0), (15.0, 5.0 + total))))
    latencies = sort(target(), count(Answer(tuple(series))))
    slow = latency_rows(latencies, "destination", limit_ms, frozenset({Whose.CANARY}), frozenset())
    found = cut(slow, 0.0, 15.0, 15.0)
    expected = latencies.histogram(0.0, 15.0, "destination", Whose.CANARY).above(limit_ms)
    assert found[0].requests == total
    assert found[0].bad == pytest.approx(expected)


def test_intervals_follow_the_scrapes_and_end_where_they_should() -> None:
    """One per scrape, a scrape that follows at once is taken with it, and the end is the end."""
    counter = Counter({}, (15.0, 30.0, 31.0, 45.0), (1.0, 3.0, 4.0, 8.0))
    seen = cut(rows([counter], 1.0), 0.0, 50.0, 15.0)
    assert [one.seconds for one in seen] == [15.0, 15.0, 20.0]
    assert [one.requests for one in seen] == [1.0, 2.0, 5.0]
    assert cut(rows([counter], 1.0), 50.0, 50.0, 15.0) == []
    assert cut(rows([]), 0.0, 15.0, 15.0) == [Interval(15.0, 0.0, 0.0)]


def test_alternatives_of_another_version_begin_again() -> None:
    """A record written with another number of alternatives does not stop the judge."""
    scene = Scene(ERRORS, weight=50)
    scene.look(30)
    changed = tuple(replace(one, limit=replace(one.limit, whole=(9.9,) * 7)) for one in scene.rollout.evidence)
    scene.rollout = scene.rollout.with_(evidence=changed)
    assert scene.report(5).verdict is Verdict.PASS


def test_a_waypoint_takes_its_part_of_alpha() -> None:
    """Three reporters: a third each."""
    scene = Scene(ERRORS, weight=50)
    now = scene.clock.now()
    scene.clock.advance(30)
    answers = asyncio.run(scene.metrics.ask(questions(scene.rollout, now + 30)))
    doubled = {
        query: replace(
            answer,
            series=(
                *answer.series,
                *(
                    replace(one, labels={**one.labels, "reporter": "waypoint"})
                    for one in answer.series
                    if one.labels["reporter"] == "destination"
                ),
            ),
        )
        for query, answer in answers.items()
        if isinstance(answer, Answer)
    }
    look = assess(scene.rollout, now + 30, doubled, None, None)
    assert look.reports[0].alpha == pytest.approx(0.01 / 3)


def test_specs_of_gates_say_how_they_are_judged() -> None:
    """Sequential by default where requests are counted, threshold for a query's value."""
    assert [parse_gate(text).judge for text in ("error-rate<1%", "p99<1.2x", "drops<1")] == [
        "sequential",
        "sequential",
        "threshold",
    ]
    assert GateSpec("p99", "p99", 1.2, Relation.RELATIVE).against == "stable"


def test_whether_requests_fail_together_is_known_before_the_first_is_judged() -> None:
    """Bursts of stable's failures before the weight was set are seen by the first look at all."""
    scene = Scene(ERRORS, rate=40, weight=50)
    for _ in range(12):
        scene.metrics.behave(HOST, "v1", fail=0.4)
        scene.clock.advance(1)
        scene.metrics.behave(HOST, "v1", fail=0.0)
        scene.clock.advance(9)
    scene.rollout = scene.rollout.with_(bake=Bake(confirmed_at=scene.clock.now()))
    scene.look(4)
    assert evidence(scene).elapsed_s < 5
    assert evidence(scene).scatter.intervals > 50
    assert evidence(scene).scatter.bad > 10


def test_evidence_of_a_time_that_has_yet_to_come_hides_nothing() -> None:
    """A clock that was a minute ahead wrote it: failures count from now on, not from then."""
    scene = Scene(ERRORS, weight=50)
    scene.metrics.behave(HOST, "v2", fail=0.4)
    ahead = scene.clock.now() + 60
    scene.rollout = scene.rollout.with_(
        evidence=tuple(GateEvidence("error-rate", reporter, ahead) for reporter in ("source", "destination"))
    )
    assert follow(scene, 20).verdict is Verdict.FAIL
