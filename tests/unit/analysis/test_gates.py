"""Each row of the gates' table, played in a made-up mesh and judged through the same door as in production."""

import asyncio
from dataclasses import replace

import pytest

from bot.analysis.assessment import assess, questions
from bot.analysis.gates import GATES
from bot.analysis.nodes import Level, NodeHealth
from bot.errors import CannotMeasure
from bot.rollout.gate import GateSpec, Relation, Verdict
from bot.rollout.model import Destination, Side
from tests.unit.analysis.scene import (
    ERROR_RATE,
    HOST,
    MISSING,
    P99,
    PODS,
    RELATIVE_ERRORS,
    RELATIVE_P99,
    Scene,
    details,
    pod,
    target,
)

DROPS = GateSpec(
    "drops", "custom", limit=0.5, query='sum(rate(drops_total{version="{{canary}}"}[{{window}}]))', unit="1/s"
)


def drops(version: str, window: str) -> str:
    return f'sum(rate(drops_total{{version="{version}"}}[{window}]))'


def test_a_good_canary_passes_every_gate_with_every_number() -> None:
    """Reports carry value, stable's value, limit, samples, window, weight, step, query and the newest sample."""
    scene = Scene(ERROR_RATE, P99, PODS, MISSING, weight=50)
    look = scene.look(20)
    assert look.passed, details(look.reports)
    errors, p99, pods, missing = look.reports
    assert (errors.value, errors.stable_value, errors.limit) == (0.0, 0.0, 0.01)
    assert errors.samples == pytest.approx(950, abs=10)
    assert errors.stable_samples == pytest.approx(950, abs=10)
    assert (errors.needed_samples, errors.window_s, errors.weight_percent, errors.step) == (50, 19, 50, 0)
    assert errors.query == f'istio_requests_total{{destination_service="{HOST}"}}[120s]'
    assert errors.newest_sample_at == scene.clock.now()
    assert p99.value == pytest.approx(10, abs=1)
    assert p99.stable_value == pytest.approx(10, abs=1)
    assert pods.value == 2
    assert missing.value == pytest.approx(1, abs=0.02)


def test_too_few_requests_are_inconclusive_and_say_how_many_are_missing() -> None:
    """37 of 50 is not a PASS."""
    report = Scene(ERROR_RATE, rate=37, weight=10).report(11)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.detail.startswith("37/50 requests of v2")
    assert (report.samples, report.needed_samples) == (37, 50)


def test_five_failures_of_five_decide_without_the_minimum() -> None:
    """A canary that fails everything is called within a handful of requests, and at once."""
    scene = Scene(ERROR_RATE, rate=10, weight=10)
    scene.metrics.behave(HOST, "v2", fail=1.0)
    before, after = scene.report(5.5), scene.report(1)
    assert (before.verdict, before.samples) == (Verdict.INCONCLUSIVE, 4)
    assert (after.verdict, after.deciding, after.samples) == (Verdict.FAIL, True, 5)
    assert after.detail.startswith("All 5 requests of v2 failed")


def test_errors_that_have_no_series_yet_are_no_errors_and_new_ones_count_in_full() -> None:
    """The division is ours: 0% before, 5% from the first count of the new series on."""
    scene = Scene(ERROR_RATE, weight=50)
    assert scene.report(10).value == 0
    scene.metrics.behave(HOST, "v2", fail=0.05)
    report = scene.report(10)
    assert report.value == pytest.approx(25 / 950, abs=0.002)
    assert report.verdict is Verdict.FAIL


def test_a_service_without_series_or_traffic_is_inconclusive() -> None:
    """No series at all, and series without requests: neither PASS nor FAIL."""
    scene = Scene(ERROR_RATE, P99, MISSING, rate=0)
    assert {report.verdict for report in scene.look(60).reports} == {Verdict.INCONCLUSIVE}
    scene = Scene(ERROR_RATE, P99, MISSING)
    scene.metrics.weight(HOST, 0)
    assert {report.verdict for report in scene.look(60).reports} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize(
    "changes",
    [
        {"refuse": 1.0},
        {"fail": 0.05, "error_code": "503"},
        {"fail": 0.05, "error_code": "0"},
        {"fail": 0.05, "grpc_status": "14"},
    ],
    ids=["100% connection failures, seen at the source only", "503", "no code at all", "gRPC UNAVAILABLE on HTTP 200"],
)
def test_every_kind_of_error_fails(changes: dict[str, float | str]) -> None:
    """However a request fails, it fails the gate."""
    scene = Scene(ERROR_RATE)
    scene.metrics.behave(HOST, "v2", **changes)
    report = scene.report(30)
    assert report.verdict is Verdict.FAIL, report.detail
    assert not report.stable_fails


def test_connection_failures_decide_and_say_why_they_are_the_canarys() -> None:
    """They name no side; the share of the weight is missing exactly them."""
    scene = Scene(ERROR_RATE)
    scene.metrics.behave(HOST, "v2", refuse=1.0)
    look = scene.look(8)
    assert look.reports[0].deciding
    assert "named no side and were counted here" in look.reports[0].detail
    assert look.share.arrived is True


def test_errors_without_a_side_that_are_not_the_canarys_are_a_line_of_their_own() -> None:
    """Stable's refused connections do not fail the canary, and they are told."""
    scene = Scene(ERROR_RATE)
    scene.metrics.behave(HOST, "v1", refuse=0.3)
    report = scene.report(20)
    assert report.verdict is Verdict.PASS
    assert "more named neither side" in report.detail


def test_clients_that_leave_are_neither_errors_nor_evidence() -> None:
    """Code 0 with DC: 3 of 10 clients leave, the rate stays 0; all leave, and nothing is left to judge by."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.behave(HOST, "v2", client_left=0.3)
    report = scene.report(20)
    assert (report.verdict, report.value) == (Verdict.PASS, 0)
    scene = Scene(ERROR_RATE)
    scene.metrics.behave(HOST, "v2", client_left=1.0)
    assert scene.report(20).verdict is Verdict.INCONCLUSIVE


def test_stable_failing_alike_is_marked_and_a_much_worse_canary_is_not_excused() -> None:
    """Both at 5%: not the release. Canary 50% beside stable 2%: the release all the same."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.behave(HOST, "v1", fail=0.05)
    scene.metrics.behave(HOST, "v2", fail=0.05)
    alike = scene.report(20)
    assert (alike.verdict, alike.stable_fails) == (Verdict.FAIL, True)
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.behave(HOST, "v1", fail=0.02)
    scene.metrics.behave(HOST, "v2", fail=0.5)
    worse = scene.report(20)
    assert (worse.verdict, worse.stable_fails) == (Verdict.FAIL, False)


def test_relative_errors_compare_with_stable_and_need_it() -> None:
    """Twice stable's rate: 3% beside 2% passes, 5% fails; a stable with too few requests is INCONCLUSIVE."""
    for rate, verdict in ((0.03, Verdict.PASS), (0.05, Verdict.FAIL)):
        scene = Scene(RELATIVE_ERRORS, weight=50)
        scene.metrics.behave(HOST, "v1", fail=0.02)
        scene.metrics.behave(HOST, "v2", fail=rate)
        report = scene.report(30)
        assert report.verdict is verdict, report.detail
        assert not report.stable_fails
    assert Scene(RELATIVE_ERRORS, weight=99).report(20).verdict is Verdict.INCONCLUSIVE


def test_one_lone_error_beside_a_flawless_stable_is_not_infinitely_worse() -> None:
    """Stable's rate is taken as at least one error among the canary's requests."""
    scene = Scene(RELATIVE_ERRORS, weight=50)
    scene.metrics.behave(HOST, "v2", fail=0.002)
    report = scene.report(11)
    assert report.value == pytest.approx(1 / 500, rel=0.1)
    assert report.verdict is Verdict.PASS


def test_p99_is_judged_as_the_fraction_above_the_limit() -> None:
    """3% of requests between 300 and 600 ms fail a limit of 250 ms, 0.5% pass it; a limit inside a bucket says so."""
    scene = Scene(P99, weight=50)
    scene.metrics.behave(HOST, "v2", slow=0.03, slow_ms=600)
    report = scene.report(20)
    assert report.verdict is Verdict.FAIL
    assert report.value == pytest.approx(470, rel=0.1)
    assert "2.95% of 950 requests were slower" in report.detail
    assert "interpolated" not in report.detail
    scene = Scene(P99, weight=50)
    scene.metrics.behave(HOST, "v2", slow=0.005, slow_ms=600)
    assert scene.report(20).verdict is Verdict.PASS
    inside = Scene(replace(P99, limit=300.0), weight=50).report(20)
    assert "inside the bucket 250 ms to 500 ms and is interpolated as Prometheus does" in inside.detail


def test_p99_waits_for_500_requests_unless_most_are_slow() -> None:
    """A slow tail needs its minimum; half of everything being slow does not, but it is not deciding either."""
    scene = Scene(P99)
    scene.metrics.behave(HOST, "v2", slow=0.05, slow_ms=800)
    assert scene.report(20).verdict is Verdict.INCONCLUSIVE
    scene = Scene(P99)
    scene.metrics.behave(HOST, "v2", slow=0.9, slow_ms=800)
    report = scene.report(20)
    assert (report.verdict, report.deciding) == (Verdict.FAIL, False)


def test_relative_p99_compares_both_sides_above_the_same_boundary() -> None:
    """1.2 times stable's p99: the same latencies pass, a tail twice as slow fails, and the boundary is told in ms."""
    scene = Scene(RELATIVE_P99, weight=50)
    for version in ("v1", "v2"):
        scene.metrics.behave(HOST, version, slow=0.05, slow_ms=200)
    assert scene.report(20).verdict is Verdict.PASS
    scene.metrics.behave(HOST, "v2", slow=0.05, slow_ms=800)
    report = scene.report(40)
    assert report.verdict is Verdict.FAIL
    assert "1.2 times v1's" in report.detail
    assert "v1: p99" in report.detail


def test_a_slow_stable_is_not_the_release() -> None:
    """Both sides break the absolute limit alike."""
    scene = Scene(P99, weight=50)
    for version in ("v1", "v2"):
        scene.metrics.behave(HOST, version, slow=0.05, slow_ms=800)
    report = scene.report(20)
    assert (report.verdict, report.stable_fails) == (Verdict.FAIL, True)


def test_the_worse_reporter_decides() -> None:
    """Refused connections lower nothing at the destination, whose own proxy saw only good requests."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.behave(HOST, "v2", refuse=0.5)
    report = scene.report(20)
    assert report.verdict is Verdict.FAIL
    assert "as the callers' proxies saw it" in report.detail


def test_a_canary_that_turns_bad_late_is_seen_in_the_last_two_minutes() -> None:
    """Twenty good minutes do not hide a 5% error rate."""
    scene = Scene(ERROR_RATE, weight=50, scrape_s=15)
    assert scene.report(1200).verdict is Verdict.PASS
    scene.metrics.behave(HOST, "v2", fail=0.05)
    report = scene.report(60)
    assert report.verdict is Verdict.FAIL
    assert "in the last 2 min" in report.detail


def test_only_requests_after_the_weight_was_set_are_judged() -> None:
    """Errors of an earlier step do not count against this one."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.behave(HOST, "v2", fail=0.5)
    scene.clock.advance(30)
    scene.metrics.behave(HOST, "v2", fail=0.0)
    scene.rollout = scene.rollout.with_(bake=replace(scene.rollout.bake, confirmed_at=scene.clock.now()))
    report = scene.report(20)
    assert (report.verdict, report.value) == (Verdict.PASS, 0)


@pytest.mark.parametrize("spec", [ERROR_RATE, P99, MISSING, DROPS], ids=lambda spec: spec.name)
def test_a_failing_prometheus_is_an_error_in_its_own_words(spec: GateSpec) -> None:
    """Cannot measure is not bad."""
    scene = Scene(spec)
    scene.metrics.broken = "Prometheus answered 503: gone"
    report = scene.report(60)
    assert report.verdict is Verdict.ERROR
    assert report.detail == "Cannot measure: Prometheus answered 503: gone."


@pytest.mark.parametrize(("skew_s", "verdict"), [(6.0, Verdict.ERROR), (-6.0, Verdict.ERROR), (4.0, Verdict.PASS)])
def test_clocks_more_than_five_seconds_apart_are_an_error(skew_s: float, verdict: Verdict) -> None:
    """Windows begin at our moment on Prometheus' clock, so the two have to agree."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.skew_s = skew_s
    report = scene.report(30)
    assert report.verdict is verdict
    assert ("clock" in report.detail) is (verdict is Verdict.ERROR)


def test_samples_that_stopped_coming_are_no_data() -> None:
    """A Prometheus that answers but no longer scrapes does not keep on passing."""
    scene = Scene(ERROR_RATE, P99, weight=50)
    scene.clock.advance(30)
    scene.metrics.outage(scene.clock.now(), scene.clock.now() + 1000)
    look = scene.look(70)
    assert {report.verdict for report in look.reports} == {Verdict.INCONCLUSIVE}
    assert "the newest sample" in look.reports[0].detail


def test_sides_that_metrics_cannot_tell_apart_are_an_error() -> None:
    """One workload and one version on both sides: nothing measured would mean anything."""
    same = target(canary=Side("v2", Destination(HOST, "v2"), ("payments-v1",), "v1"))
    report = Scene(ERROR_RATE, of=same).report(30)
    assert report.verdict is Verdict.ERROR
    assert "cannot tell them apart" in report.detail


@pytest.mark.parametrize(
    ("pods", "verdict", "deciding", "words"),
    [
        ((pod("a"), pod("b")), Verdict.PASS, False, "2 of 2 pods of v2 ready"),
        ((pod("a"), pod("b", ready=False)), Verdict.PASS, False, "1 of 2"),
        ((), Verdict.FAIL, True, "nowhere to go"),
        ((pod("a", ready=False),), Verdict.FAIL, True, "0 of 1 pod of v2 ready"),
        ((pod("a"), pod("b", looping=True)), Verdict.FAIL, True, "b is in a crash loop"),
        ((pod("a"), pod("b", restarts=4)), Verdict.FAIL, False, "b 1 time"),
        ((pod("a"), pod("new", restarts=1)), Verdict.FAIL, False, "new 1 time"),
        (None, Verdict.ERROR, False, "the API server does not say"),
    ],
)
def test_pods(pods: tuple[object, ...] | None, verdict: Verdict, deciding: bool, words: str) -> None:
    """No ready pod, crash loops and risen restarts fail; an API server that is away is an error."""
    scene = Scene(PODS)
    scene.pinned = (pod("a"), pod("b", restarts=3))
    scene.canary_pods = pods  # type: ignore[assignment]
    report = scene.report(5)
    assert (report.verdict, report.deciding) == (verdict, deciding)
    assert words in report.detail


def test_no_ready_pod_on_either_side_is_not_the_release() -> None:
    """A cluster that lost both sides is marked so."""
    scene = Scene(PODS)
    scene.canary_pods = scene.stable_pods = ()
    assert scene.report(5).stable_fails


def test_a_canary_that_hangs_after_its_weight_arrived_fails() -> None:
    """Nothing completes, so nothing fails; what is missing from its share does."""
    scene = Scene(MISSING, ERROR_RATE)
    assert scene.report(20).verdict is Verdict.PASS
    scene.arrive()
    scene.metrics.behave(HOST, "v2", hang=1.0)
    report = scene.report(10)
    assert report.verdict is Verdict.FAIL
    assert "it hangs" in report.detail


@pytest.mark.parametrize(("hang", "seen", "verdict"), [(0.4, True, Verdict.FAIL), (0.4, False, Verdict.PASS)])
def test_a_part_that_hangs_fails_only_where_the_route_is_known_to_bind(
    hang: float, seen: bool, verdict: Verdict
) -> None:
    """60% of its share answered: missing where the weight was measured before, else perhaps other matches."""
    scene = Scene(MISSING)
    scene.clock.advance(10)
    scene.arrive(seen=seen)
    scene.metrics.behave(HOST, "v2", hang=hang)
    assert scene.report(30).verdict is verdict


def test_clients_that_give_up_on_a_hanging_canary_fail_it() -> None:
    """They are completed requests and no answers."""
    scene = Scene(MISSING)
    scene.metrics.behave(HOST, "v2", client_left=1.0)
    assert scene.look(10).share.arrived is True
    scene.arrive()
    report = scene.report(20)
    assert report.verdict is Verdict.FAIL
    assert "the client gave up" in report.detail


def test_a_weight_that_has_not_arrived_is_not_a_hanging_canary() -> None:
    """Nothing at the canary: held at first, and after three times the wait sent back, which harms nobody."""
    scene = Scene(MISSING)
    scene.metrics.weight(HOST, 0)
    early, late = scene.report(60), scene.report(130)
    assert early.verdict is Verdict.INCONCLUSIVE
    assert "has not been seen in the traffic" in early.detail
    assert late.verdict is Verdict.FAIL
    assert "the callers' proxies never got the weight" in late.detail


@pytest.mark.parametrize("weight", [10, 50, 100])
def test_a_look_before_the_first_scrape_after_the_arrival_still_has_data(weight: int) -> None:
    """What the weight's first scrapes answered counts until there is one since it arrived: "answered nothing in 0 s" is
    no finding."""
    scene = Scene(MISSING, weight=weight, scrape_s=15.0)
    assert scene.report(40).verdict is Verdict.PASS
    scene.arrive()
    assert scene.report(1).verdict is Verdict.PASS


def test_an_old_share_still_in_the_proxies_is_not_a_hanging_canary() -> None:
    """10% where 50% is wanted is late, however long."""
    scene = Scene(MISSING, weight=50)
    scene.metrics.weight(HOST, 10)
    assert scene.report(600).verdict is Verdict.INCONCLUSIVE


def test_custom_gates_ask_for_both_sides_over_a_fitting_window() -> None:
    """The window is never longer than the time since the weight; both values are shown."""
    scene = Scene(DROPS)
    scene.clock.advance(20)
    texts = [query.promql for query in questions(scene.rollout, scene.clock.now())][1:]
    assert texts == [drops("v2", "15s"), drops("v1", "15s")]
    scene.metrics.answers = {drops("v2", "15s"): [({}, 0.6)], drops("v1", "15s"): [({}, 0.1)]}
    report = scene.report()
    assert (report.verdict, report.value, report.stable_value, report.window_s) == (Verdict.FAIL, 0.6, 0.1, 15)
    assert report.detail == "0.6 1/s over 15 s (limit 0.5 1/s); v1 0.1 1/s."
    assert report.query == drops("v2", "15s")


@pytest.mark.parametrize(
    ("rows", "verdict", "words"),
    [
        ([({}, 0.5)], Verdict.PASS, "0.5 1/s over"),
        ([({}, float("inf"))], Verdict.FAIL, "inf"),
        ([({}, float("nan"))], Verdict.INCONCLUSIVE, "the query gave NaN"),
        ([], Verdict.INCONCLUSIVE, "the query gave no series"),
        ([({"pod": "a"}, 1), ({"pod": "b"}, 2)], Verdict.ERROR, 'one is expected: {pod="a"}, {pod="b"}'),
        (CannotMeasure("parse error"), Verdict.ERROR, "parse error"),
    ],
)
def test_custom_answers(rows: object, verdict: Verdict, words: str) -> None:
    """One number is judged; NaN and nothing are no data; several series are an error that names them."""
    scene = Scene(DROPS)
    scene.metrics.answers[drops("v2", "15s")] = rows  # type: ignore[assignment]
    report = scene.report(20)
    assert report.verdict is verdict
    assert words in report.detail


def test_custom_gates_can_be_relative_and_have_a_minimum() -> None:
    """Twice stable's; and no verdict before enough requests."""
    relative = replace(DROPS, relation=Relation.RELATIVE, limit=2.0)
    for value, verdict in ((0.19, Verdict.PASS), (0.21, Verdict.FAIL)):
        scene = Scene(relative)
        scene.metrics.answers = {drops("v2", "15s"): [({}, value)], drops("v1", "15s"): [({}, 0.1)]}
        assert scene.report(20).verdict is verdict
    scene = Scene(replace(DROPS, min_requests=1000))
    scene.metrics.answers = {drops("v2", "15s"): [({}, 9)]}
    report = scene.report(20)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.detail.startswith("190/1000 requests so far")


def test_a_weight_set_just_now_asks_nothing_custom_yet() -> None:
    """No window fits: INCONCLUSIVE, not an error."""
    assert Scene(DROPS).report(2).verdict is Verdict.INCONCLUSIVE


def test_one_failing_gate_does_not_hide_the_others() -> None:
    """All gates are judged and reported in their order, each with its own weight of evidence."""
    scene = Scene(ERROR_RATE, replace(P99, fail_after=3, fail_total=7), PODS, DROPS, MISSING, weight=50)
    scene.metrics.behave(HOST, "v2", fail=0.2)
    scene.metrics.answers[drops("v2", "15s")] = CannotMeasure("down")
    look = scene.look(20)
    assert [report.gate for report in look.reports] == ["error-rate", "p99", "pods", "drops", "missing-responses"]
    assert [report.verdict for report in look.reports] == [
        Verdict.FAIL,
        Verdict.PASS,
        Verdict.PASS,
        Verdict.ERROR,
        Verdict.PASS,
    ]
    assert (look.reports[1].fail_after, look.reports[1].fail_total) == (3, 7)
    assert not look.passed


@pytest.mark.parametrize(
    ("level", "node", "verdict", "words"),
    [
        (Level.CRITICAL, "node-2", Verdict.FAIL, "node-2 under v2 is critical: Steal is 15%."),
        (Level.CRITICAL, "node-1", Verdict.PASS, "How node-2 is doing is not known"),
        (Level.WARN, "node-2", Verdict.PASS, "None is critical. node-2: Steal is 15%."),
        (Level.OK, "node-2", Verdict.PASS, "node-2 under v2 is well."),
    ],
)
def test_a_critical_node_under_the_canary_holds_and_fails_no_release(
    level: Level, node: str, verdict: Verdict, words: str
) -> None:
    """Its FAIL is marked as one that holds; what is not known is not held against anybody."""
    scene = Scene(GateSpec("nodes", "nodes"), weight=50)
    health = NodeHealth(node, level, ("Steal is 15%.",) if level else ())
    scene.clock.advance(5)
    look = assess(scene.rollout, scene.clock.now(), {}, scene.canary_pods, scene.stable_pods, nodes={node: health})
    (report,) = look.reports
    assert (report.verdict, report.holds) == (verdict, verdict is Verdict.FAIL)
    assert words in report.detail, report.detail
    assert (report.value, report.limit) == (float(verdict is Verdict.FAIL), 0.0)
    assert not report.deciding


def test_nodes_cannot_be_judged_without_knowing_where_the_pods_run() -> None:
    """ERROR, as every gate whose source is away."""
    scene = Scene(GateSpec("nodes", "nodes"))
    scene.canary_pods = None
    assert scene.report(5).verdict is Verdict.ERROR


def test_the_registry_names_every_kind() -> None:
    """The kinds that parser and catalog may use."""
    assert set(GATES) == {"error-rate", "p99", "custom", "pods", "missing-responses", "nodes"}


def test_nothing_is_asked_before_the_first_weight() -> None:
    """A scheduled rollout costs Prometheus nothing, and its look judges nothing but counts pods."""
    scene = Scene(ERROR_RATE, PODS)
    idle = scene.rollout.with_(weight_percent=0, step=-1, bake=type(scene.rollout.bake)())
    assert questions(idle, scene.clock.now()) == ()
    look = assess(idle, scene.clock.now(), {}, scene.canary_pods, scene.stable_pods)
    assert (look.reports, look.stable_ready, look.canary_ready, look.passed) == ((), 2, 2, False)


def test_answers_may_come_back_a_little_later_than_the_questions() -> None:
    """A look that falls over a rung of the window ladder still finds its answers."""
    scene = Scene(ERROR_RATE, P99, DROPS, weight=50)
    scene.clock.advance(59.9)
    asked = questions(scene.rollout, scene.clock.now())
    answers = asyncio.run(scene.metrics.ask(asked))
    scene.clock.advance(0.5)
    assert questions(scene.rollout, scene.clock.now()) != asked
    look = assess(scene.rollout, scene.clock.now(), answers, None, None)
    assert [report.verdict for report in look.reports] == [Verdict.PASS, Verdict.PASS, Verdict.INCONCLUSIVE]
