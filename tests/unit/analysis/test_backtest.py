"""Gates tried on the past: what is counted, who stands for the canary, what a run and its advice say."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.assessment import assess, questions
from bot.analysis.backtest import (
    GateResult,
    GateRun,
    Outcome,
    Split,
    advice,
    begins,
    better_limit,
    custom_questions,
    imagined,
    judged_together,
    look_spacing,
    recorded,
    run,
    spelled,
    split_of,
    untried,
)
from bot.analysis.history import METRICS, History, Piece, Recorder, halved, pieces, question, resolution
from bot.analysis.look import REQUESTS
from bot.analysis.samples import Answer, Series
from bot.rollout.gate import THRESHOLD, YESTERDAY, GateSpec
from bot.rollout.model import Bake, Rules
from bot.rollout.plan import Plan, Step, parse_steps
from bot.usecases.backtest import drawing
from tests.fakes.clock import FakeClock
from tests.fakes.metrics import FakeMetrics
from tests.unit.analysis.scene import HOST, MISSING, PODS, RELATIVE_ERRORS, target

INTERVAL_S = 15.0
PLAN = parse_steps("10%:5m,50%:5m,100%:5m")
ERRORS = GateSpec("error-rate", "error-rate", limit=0.01, unit="%", min_requests=50, judge=THRESHOLD)
SLOW = GateSpec("p99", "p99", limit=250.0, unit="ms", min_requests=100, judge=THRESHOLD)
SEQUENTIAL_ERRORS = replace(ERRORS, judge="sequential")


class Past:
    """A made-up mesh whose past is read in pieces, as the backtest does."""

    def __init__(self, rate: float = 20.0) -> None:
        self.clock = FakeClock()
        self.metrics = FakeMetrics(self.clock.now, scrape_s=INTERVAL_S)
        self.metrics.serve(HOST, rate=rate)
        self.clock.advance(600)
        self.begin = self.clock.now()

    async def history(self, piece_s: float = 900.0) -> History:
        """Everything since `begin`."""
        now = self.clock.now()
        recorder = Recorder(target(), self.begin, now, INTERVAL_S)
        edges = [self.begin + index * piece_s for index in range(int((now - self.begin) / piece_s) + 1)] + [now]
        for metric in METRICS:
            for begin, end in pairwise(edges):
                piece = Piece(begin, end)
                asked = question(metric, target(), piece)
                answer = (await self.metrics.ask([asked]))[asked]
                assert isinstance(answer, Answer)
                recorder.add(metric, piece, answer)
        return recorder.history()

    async def runs(
        self, *gates: GateSpec, plan: Plan = PLAN, seed: int = 7, look_every_s: float = 30.0
    ) -> dict[str, GateRun]:
        """One imagined rollout from the beginning of the past."""
        return judged(await self.history(), *gates, begin=self.begin, plan=plan, seed=seed, look_every_s=look_every_s)


def judged(
    history: History,
    *gates: GateSpec,
    begin: float,
    plan: Plan = PLAN,
    seed: int = 7,
    look_every_s: float = 30.0,
    split: Split = Split.BY_WEIGHT,
) -> dict[str, GateRun]:
    base = imagined(target(), plan, gates, Rules(), begin)
    known = recorded(history, base.gates, {}, look_every_s)
    return run(base, split, known, begin, look_every_s, drawing(random.Random(seed)))


async def test_a_healthy_past_passes_with_the_thinness_of_each_weight() -> None:
    """No gate fails on traffic that keeps its limits, and the canary had its share of the requests."""
    past = Past()
    past.clock.advance(1200)
    fared = await past.runs(ERRORS, SLOW)
    assert {name: one.outcome for name, one in fared.items()} == {"error-rate": "passed", "p99": "passed"}
    samples = fared["error-rate"].samples
    assert samples is not None
    assert samples == pytest.approx(20 * 300, rel=0.1)
    assert fared["p99"].value == pytest.approx(10, abs=1)


async def test_too_little_traffic_waits_instead_of_passing() -> None:
    """A canary at 10% of few requests has too little for a verdict, and that is told apart from failing."""
    past = Past(rate=0.5)
    past.clock.advance(1200)
    one = (await past.runs(ERRORS))["error-rate"]
    assert one.outcome is Outcome.WAITED
    assert one.samples is not None
    assert one.samples < 50


async def test_no_requests_at_all_wait() -> None:
    """A stretch without any request is neither good nor bad."""
    past = Past()
    past.metrics.rate(HOST, 0.0)
    past.clock.advance(1200)
    past.begin += INTERVAL_S
    one = (await past.runs(ERRORS))["error-rate"]
    assert (one.outcome, one.samples) == (Outcome.WAITED, 0)


@pytest.mark.parametrize("gate", [ERRORS, SEQUENTIAL_ERRORS], ids=["threshold", "sequential"])
async def test_a_limit_that_stable_breaks_fails_whichever_way_it_is_judged(gate: GateSpec) -> None:
    """Errors of stable itself are the canary's in the imagined rollout; the failing look says when and how bad."""
    past = Past()
    past.metrics.behave(HOST, "v1", fail=0.05)
    past.clock.advance(1200)
    one = (await past.runs(gate))["error-rate"]
    assert one.outcome is Outcome.FAILED
    assert one.failed_at is not None
    assert past.begin < one.failed_at < past.begin + 620
    assert one.value == pytest.approx(0.05, abs=0.03)


async def test_evidence_is_carried_over_the_steps() -> None:
    """A small excess that no single step shows is found by the evidence of all of them together."""
    past = Past(rate=12.0)
    past.metrics.behave(HOST, "v1", fail=0.021)
    past.clock.advance(3600)
    many = Plan("", tuple(Step(weight, 120.0) for weight in (8, 10, 12, 14, 16, 18, 20, 100)))
    history = await past.history()
    alone = [
        judged(history, SEQUENTIAL_ERRORS, begin=past.begin, plan=Plan("", (step,)))["error-rate"].outcome
        for step in many.steps[:-1]
    ]
    together = judged(history, SEQUENTIAL_ERRORS, begin=past.begin, plan=many)["error-rate"]
    assert Outcome.FAILED not in alone
    assert together.outcome is Outcome.FAILED


async def test_a_run_counts_what_a_look_at_the_same_time_counted() -> None:
    """At 100% the imagined canary is all of stable: numbers equal those of a live look at stable then."""
    past = Past()
    past.metrics.behave(HOST, "v1", fail=0.004, slow=0.03, slow_ms=800)
    past.clock.advance(300 + 2 * INTERVAL_S)
    live_now = past.clock.now()
    base = imagined(target(), parse_steps("100%:5m"), (ERRORS, SLOW), Rules(), past.begin)
    swapped = target(stable=target().canary, canary=target().stable)
    bake = Bake(confirmed_at=past.begin, arrived_at=past.begin, covered_until=past.begin, seen=True)
    live = base.with_(target=swapped, step=0, weight_percent=100, bake=bake)
    seen = assess(live, live_now, await past.metrics.ask(questions(live, live_now)), None, None)
    fared = judged(await past.history(), ERRORS, SLOW, begin=past.begin, plan=parse_steps("100%:5m"))
    at_end = {name: one.seen[-1][1] for name, one in fared.items()}
    for report in seen.reports:
        assert report.value == pytest.approx(at_end[report.gate], rel=0.02)


async def test_what_the_canary_of_the_past_did_is_not_stable_s() -> None:
    """A bad release that once ran beside stable counts for nothing, nor do its failed connections without a name."""
    past = Past()
    past.metrics.behave(HOST, "v2", fail=0.5, refuse=0.5)
    past.metrics.weight(HOST, 20)
    past.clock.advance(1200)
    assert (await past.runs(ERRORS))["error-rate"].value == 0.0


async def test_failed_connections_without_a_name_are_stable_s_when_it_is_alone() -> None:
    """Requests that reached no pod name no side; with stable alone they can only be its own."""
    past = Past()
    past.metrics.behave(HOST, "v1", refuse=0.1)
    past.clock.advance(1200)
    assert (await past.runs(ERRORS))["error-rate"].outcome is Outcome.FAILED


@given(st.integers(1, 40), st.integers(60, 2000))
def test_pieces_cover_the_past_without_gap_or_overlap(series_thousands: int, seconds: int) -> None:
    """Each moment of the history is in exactly one piece, and no piece asks for more than it may."""
    begin = 1_000_000.0
    cut = pieces(begin, begin + 60.0 * seconds, 1000 * series_thousands, INTERVAL_S)
    assert cut[0].begin == begin
    assert cut[-1].end == pytest.approx(begin + 60.0 * seconds)
    assert all(one.end == other.begin for one, other in pairwise(cut))
    assert resolution(1000 * series_thousands, 60.0 * seconds, INTERVAL_S) % INTERVAL_S == 0


async def test_the_size_of_the_pieces_changes_nothing() -> None:
    """Births, baselines and resets are counted alike wherever the history is cut."""
    past = Past()
    past.metrics.behave(HOST, "v1", fail=0.01)
    past.clock.advance(700)
    past.metrics.behave(HOST, "v1", fail=0.0, refuse=0.02)
    past.clock.advance(1100)
    whole, cut = await past.history(1800.0), await past.history(105.0)
    assert {group.labels: sum(group.counts) for group in whole.groups if group.metric == REQUESTS} == {
        group.labels: sum(group.counts) for group in cut.groups if group.metric == REQUESTS
    }
    assert whole.requests(past.begin, past.clock.now()) == pytest.approx(20 * 1800, rel=0.02)


def test_a_restarted_pod_is_counted_on() -> None:
    """A counter that falls begins again: nothing is lost and nothing counted twice."""
    points = [(1000.0 + 15 * index, float(value)) for index, value in enumerate((100, 110, 120, 4, 14, 24))]
    history = told({"pod": "a"}, points)
    assert history.requests(1000.0, 1100.0) == 44.0


def told(labels: dict[str, str], points: Sequence[tuple[float, float]]) -> History:
    """The history of one series of stable's own proxies."""
    series = Series({**stable_labels(), **labels}, tuple(points))
    recorder = Recorder(target(), points[0][0], points[-1][0], INTERVAL_S)
    recorder.add(REQUESTS, Piece(points[0][0], points[-1][0]), Answer((series,)))
    return recorder.history()


def stable_labels() -> dict[str, str]:
    return {
        "reporter": "destination",
        "destination_service": HOST,
        "destination_workload": "payments-v1",
        "destination_version": "v1",
        "response_code": "200",
    }


def test_halves_of_pods_live_at_the_same_time() -> None:
    """A pod that replaces another takes its half, so that both halves always have pods."""
    halves = halved({"a1": (0, 100), "b1": (0, 100), "a2": (101, 200), "b2": (102, 200), "b3": (102, 200)})
    assert halves["a1"] != halves["b1"]
    assert halves["a2"] != halves["b2"]
    assert halved({"a": (0, 10), "b": (20, 30)}) == {}
    assert halved({"a": (0, 10)}) == {}


def two_pods(rate_a: float, rate_b: float, errors_a: float = 0.0, minutes: int = 30) -> History:
    """Two pods of stable, requests per scrape each, and how many of the first one's fail."""
    begin, scrapes = 1_000_000.0, minutes * 4
    rows = []
    for pod, code, per_scrape in (
        ("a", "200", rate_a),
        ("b", "200", rate_b),
        ("a", "500", errors_a),
        ("b", "500", 0.0),
    ):
        points = tuple((begin + INTERVAL_S * index, 1000 + per_scrape * index) for index in range(scrapes + 1))
        rows.append(Series({**stable_labels(), "pod": pod, "response_code": code}, points))
    recorder = Recorder(target(), begin, begin + INTERVAL_S * scrapes, INTERVAL_S)
    recorder.add(REQUESTS, Piece(begin, begin + INTERVAL_S * scrapes), Answer(tuple(rows)))
    return recorder.history()


def test_a_relative_gate_compares_two_halves_of_the_pods() -> None:
    """Pods that behave alike pass beside each other; where one half is three times worse, the limit of 2x is broken."""
    gate = replace(RELATIVE_ERRORS, min_requests=50, judge=THRESHOLD)
    plan = parse_steps("50%:10m,100%:1m")
    alike = two_pods(300, 300)
    worse = two_pods(300, 300, errors_a=20.0)
    outcomes = {
        name: judged(history, gate, begin=1_000_000.0, plan=plan, split=Split.BY_PODS)["error-rate"]
        for name, history in (("alike", alike), ("worse", worse))
    }
    assert outcomes["alike"].failed_at is None
    assert outcomes["worse"].outcome is Outcome.FAILED


def test_a_half_without_answers_is_missing_responses() -> None:
    """The share of the pods is held against the weight: pods that answer less than their part are seen."""
    history = two_pods(300, 300)
    known = judged(history, MISSING, begin=1_000_000.0, split=Split.BY_PODS)["missing-responses"]
    assert known.outcome is Outcome.PASSED


def test_what_cannot_be_tried_says_why() -> None:
    """Pods and nodes have no recorded past, and a comparison needs two pods."""
    alone = told({"pod": "a"}, [(1000.0 + 15 * index, 10.0 * index) for index in range(10)])
    two = two_pods(10, 10)
    assert "not recorded" in untried(PODS, two, "v1")
    assert "two pods of v1" in untried(RELATIVE_ERRORS, alone, "v1")
    assert untried(RELATIVE_ERRORS, two, "v1") == ""
    assert untried(ERRORS, alone, "v1") == ""
    assert split_of(replace(RELATIVE_ERRORS, against=YESTERDAY)) is Split.BY_WEIGHT


def test_gates_that_share_alpha_are_judged_together() -> None:
    """The split of alpha is that of the whole rollout; gates without a share of it are left to their own runs."""
    gates = (SEQUENTIAL_ERRORS, SLOW, MISSING)
    assert judged_together(gates, Split.BY_PODS) == (MISSING,)
    assert judged_together(gates, Split.BY_WEIGHT) == (SEQUENTIAL_ERRORS, SLOW)
    relative = replace(RELATIVE_ERRORS, name="ratio", judge="sequential")
    assert judged_together((*gates, relative), Split.BY_PODS) == (SEQUENTIAL_ERRORS, MISSING, relative)


async def test_the_same_time_yesterday_is_read_from_the_day_before() -> None:
    """A limit against yesterday compares with stable's requests of a day earlier."""
    past = Past(rate=5.0)
    past.metrics.behave(HOST, "v1", fail=0.01)
    past.clock.advance(86400)
    today = past.clock.now()
    past.metrics.behave(HOST, "v1", fail=0.08)
    past.clock.advance(1200)
    gate = replace(RELATIVE_ERRORS, min_requests=50, judge="sequential", against=YESTERDAY)
    one = judged(await past.history(7200.0), gate, begin=today)["error-rate"]
    assert one.outcome is Outcome.FAILED
    assert one.value is not None
    assert one.value > 4


def test_custom_gates_are_answered_from_what_was_recorded() -> None:
    """The query of a custom gate is asked once for the whole past; each look gets the value of its moment."""
    gate = GateSpec("queue", "custom", limit=10.0, query="max(queue_length)")
    base = imagined(target(), PLAN, (gate,), Rules(), 1_000_000.0)
    (text,) = custom_questions(base, 30.0, INTERVAL_S)
    assert text == "max(queue_length)"
    points = tuple((1_000_000.0 + 30 * index, 5.0 if index < 20 else 50.0) for index in range(40))
    known = recorded(two_pods(300, 300), base.gates, {text: [Series({}, points)]}, 30.0)
    one = run(base, Split.BY_WEIGHT, known, 1_000_000.0, 30.0, drawing(random.Random(1)))["queue"]
    assert one.outcome is Outcome.FAILED
    assert one.failed_at == pytest.approx(1_000_000.0 + 600 + 60, abs=61)


def test_rollouts_begin_only_where_they_can_end() -> None:
    """Every imagined rollout fits into the history; one that fits exactly is there."""
    plan = parse_steps("100%:10m")
    assert begins(0.0, 600.0 + 2 * INTERVAL_S, plan, 60.0, INTERVAL_S) == (0.0,)
    assert begins(0.0, 600.0, plan, 60.0, INTERVAL_S) == ()
    assert begins(0.0, 900.0, plan, 60.0, INTERVAL_S)[-1] + 630 <= 900.0


def test_looks_are_no_rarer_than_a_third_of_a_step() -> None:
    """A budget of looks makes them rarer, but leaves a step three of them."""
    assert look_spacing(PLAN, 15.0, INTERVAL_S, 10, 100_000) == 15.0
    assert look_spacing(PLAN, 15.0, INTERVAL_S, 96, 2_000) == pytest.approx(96 * 990 / 2_000)
    assert look_spacing(PLAN, 15.0, INTERVAL_S, 96, 10) == 100.0


def result(gate: GateSpec, *runs: GateRun) -> GateResult:
    return GateResult(gate, Split.BY_WEIGHT, runs)


def test_a_failing_limit_is_answered_with_one_that_holds() -> None:
    """The other limit lies above all that was seen, and the advice names both with their counts."""
    failed = GateRun(0.0, Outcome.FAILED, "slow", 60.0, 380.0)
    passed = GateRun(0.0, Outcome.PASSED, value=120.0)
    wide = result(SLOW, failed, failed, *[passed] * 94)
    other = better_limit(wide)
    assert other is not None
    assert other.limit == 400.0
    told = advice(wide, result(other, *[passed] * 96))
    assert told == "p99<250 ms would have failed 2 of 96 runs; 400 ms 0 of 96."
    assert wide.failed_share == pytest.approx(2 / 96)


def test_a_limit_far_above_everything_is_answered_with_a_nearer_one() -> None:
    """A limit that nothing comes near would miss small regressions; one that fits is left alone."""
    passed = GateRun(0.0, Outcome.PASSED, value=40.0)
    other = better_limit(result(SLOW, passed))
    assert other is not None
    assert other.limit == 60.0
    assert better_limit(result(SLOW, GateRun(0.0, Outcome.PASSED, value=120.0))) is None
    assert "Nor would 60 ms" in advice(result(SLOW, passed), result(other, passed))


def test_waiting_runs_are_told_with_what_was_missing() -> None:
    """Runs without enough requests count neither as passed nor as failed."""
    waited = GateRun(0.0, Outcome.WAITED, "12/50 requests of v1.", samples=12)
    told = advice(result(ERRORS, waited, waited), None)
    assert told == "2 of 2 would have waited for more requests: 12/50 requests of v1."
    assert spelled(ERRORS) == "error-rate<1%"


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_quantiles_are_values_that_were_seen(values: list[float], fraction: float) -> None:
    """Nearest rank: the value is one of the runs', and as many runs as asked for do not exceed it."""
    runs = result(SLOW, *(GateRun(0.0, Outcome.PASSED, value=value) for value in values))
    found = runs.quantile(fraction)
    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-9


@pytest.mark.parametrize(("count", "probability"), [(3, 0.1), (30, 0.05), (30, 0.95), (400, 0.02), (1000, 0.5)])
def test_draws_are_binomial(count: int, probability: float) -> None:
    """Mean and variance of many draws are those of the binomial distribution, and none is out of range."""
    draw = drawing(random.Random(11))
    drawn = [draw(count, probability) for _ in range(4000)]
    mean = sum(drawn) / len(drawn)
    variance = sum((one - mean) ** 2 for one in drawn) / len(drawn)
    expected = count * probability
    spread = expected * (1 - probability)
    assert mean == pytest.approx(expected, abs=4 * (spread / len(drawn)) ** 0.5)
    assert variance == pytest.approx(spread, rel=0.12)
    assert 0 <= min(drawn) <= max(drawn) <= count


def test_nothing_and_everything_are_drawn_exactly() -> None:
    """Weights of 0 and 100% leave nothing to chance."""
    draw = drawing(random.Random(1))
    assert (draw(17, 0.0), draw(17, 1.0), draw(0, 0.5)) == (0.0, 17, 0.0)
