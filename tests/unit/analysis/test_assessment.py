"""What a look says beside its gates: the observed share, covered bake time, nodes, and shared questions."""

import asyncio
from dataclasses import replace

import pytest

from bot.analysis.assessment import assess, questions
from bot.analysis.facts import fingerprint
from bot.analysis.nodes import Level, NodeHealth, Signal
from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure
from bot.rollout.gate import Blame, Verdict
from bot.rollout.model import Actor, Bake, Hold, HoldReason, Source
from tests.unit.analysis.scene import ERROR_RATE, HOST, MISSING, P99, Scene, pod


@pytest.mark.parametrize(
    ("weight", "really", "rate", "seconds", "arrived"),
    [
        (10, 10, 100, 10, True),
        (10, 0, 100, 10, False),
        (50, 25, 100, 10, False),
        (100, 100, 100, 10, True),
        (100, 50, 100, 10, False),
        (5, 5, 100, 3, True),
        (5, 0, 100, 3, None),
        (50, 50, 0, 60, None),
    ],
)
def test_a_weight_arrives_when_the_share_agrees_with_it(
    weight: int, really: int, rate: float, seconds: float, arrived: bool | None
) -> None:
    """True within 3.3 standard errors and half a point, False outside, None where it cannot be told yet."""
    scene = Scene(ERROR_RATE, weight=weight, rate=rate)
    scene.metrics.weight(HOST, really)
    share = scene.look(seconds).share
    assert share.arrived is arrived
    if rate:
        assert share.percent == pytest.approx(really, abs=1.5)


def test_the_share_of_a_late_weight_is_that_since_it_arrived() -> None:
    """Requests that still went the old way for 20 s do not hold up the arrival for minutes."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.weight(HOST, 10)
    assert scene.look(20).share.arrived is False
    scene.metrics.weight(HOST, 50)
    share = scene.look(25).share
    assert share.arrived is True
    assert share.percent == pytest.approx(50, abs=2)


def test_without_callers_in_the_mesh_the_share_is_shown_and_says_nothing() -> None:
    """Only destination reporters: percent from them, arrival unknown."""
    scene = Scene(ERROR_RATE)
    now = scene.clock.now()
    scene.clock.advance(20)
    answers = asyncio.run(scene.metrics.ask(questions(scene.rollout, scene.clock.now())))
    only_destination: dict[Query, Answer | CannotMeasure] = {
        query: Answer(tuple(one for one in answer.series if one.labels["reporter"] == "destination"))
        for query, answer in answers.items()
        if isinstance(answer, Answer)
    }
    look = assess(scene.rollout, now + 20, only_destination, None, None)
    assert look.share.percent == pytest.approx(10, abs=1)
    assert look.share.arrived is None
    assert look.reports[0].verdict == "pass"


def follow(scene: Scene, seconds: int, every_s: int = 5) -> float:
    """Look again and again, keeping the bake as the machine does; returns the covered seconds."""
    for _ in range(seconds // every_s):
        coverage = scene.look(every_s).coverage
        assert coverage is not None
        bake = scene.rollout.bake
        assert coverage.until >= bake.covered_until
        scene.rollout = scene.rollout.with_(
            bake=replace(bake, covered_s=bake.covered_s + coverage.added_s, covered_until=coverage.until)
        )
    return scene.rollout.bake.covered_s


def test_every_second_with_samples_is_covered_once() -> None:
    """However often one looks, covered time is the time that passed, up to the newest sample."""
    for every_s in (1, 5, 20):
        scene = Scene(ERROR_RATE)
        scene.arrive()
        assert follow(scene, 60, every_s) == pytest.approx(60, abs=1)


def test_a_gap_in_the_samples_makes_the_bake_longer() -> None:
    """Thirty seconds without scrapes are not covered, not even afterwards."""
    scene = Scene(ERROR_RATE)
    scene.arrive()
    start = scene.clock.now()
    scene.metrics.outage(start + 20, start + 50)
    assert follow(scene, 80) == pytest.approx(49, abs=1.1)


@pytest.mark.parametrize("away_s", [60, 400, 1500])
def test_a_time_in_which_nobody_looked_is_filled_in_from_history(away_s: int) -> None:
    """The bot was away, Prometheus was not: one look later all of it is covered, whatever its length."""
    scene = Scene(ERROR_RATE, scrape_s=5)
    scene.arrive()
    before = follow(scene, 600)
    scene.clock.advance(away_s)
    assert follow(scene, 5) - before == pytest.approx(away_s + 5, abs=25)


def test_rollouts_of_one_service_and_age_ask_the_same() -> None:
    """Equal questions are equal values, so they can be asked once; windows come from a short ladder."""
    one = Scene(ERROR_RATE, P99, MISSING)
    asked = {questions(one.rollout, one.clock.now() + seconds) for seconds in range(1, 59)}
    assert len(asked) == 1
    assert len(next(iter(asked))) == 2
    everything = {query for hour in range(1, 20) for query in questions(one.rollout, one.clock.now() + 3600 * hour)}
    assert len(everything) <= 16


def test_points_a_series_stay_few_however_long_the_bake() -> None:
    """At a scrape interval of 15 s no window has more than 150 points, and a week is still seen."""
    scene = Scene(ERROR_RATE, scrape_s=15)
    scene.metrics.serve("other.shop.svc.cluster.local")
    for seconds in (60, 600, 1800, 7200, 86400, 500_000):
        rollout = scene.rollout.with_(bake=Bake(confirmed_at=scene.clock.now() - seconds))
        answers = asyncio.run(scene.metrics.ask(questions(rollout, scene.clock.now())))
        assert max(len(one.points) for answer in answers.values() for one in answer.series) <= 150  # type: ignore[union-attr]


def test_the_fingerprint_is_the_one_preflight_pins() -> None:
    """Both sides of the comparison come from one function."""
    scene = Scene(ERROR_RATE)
    look = scene.look(5)
    assert scene.canary_pods is not None
    assert look.canary_fingerprint == fingerprint(scene.canary_pods)
    assert (look.stable_ready, look.canary_ready) == (2, 2)
    scene.canary_pods = scene.stable_pods = None
    look = scene.look(5)
    assert (look.stable_ready, look.canary_ready, look.canary_fingerprint) == (None, None, "")


def starved(name: str, level: Level = Level.WARN) -> NodeHealth:
    lost = Signal(level, samples=(0.15,) * 5)
    return NodeHealth(name, level, ("CPU steal is 15% of each core.",), signals={"steal": lost})


@pytest.mark.parametrize(
    ("fast_ms", "starved_node", "stable_node", "blame"),
    [
        (10.0, "node-2", "node-1", Blame.MACHINE),
        (10.0, "node-2", "node-2", Blame.RELEASE),
        (40.0, "node-2", "node-1", Blame.RELEASE),
        (10.0, "node-1", "node-1", Blame.UNKNOWN),
    ],
    ids=["flat p50 on a starved node", "stable is well on the same node", "slow p50", "canary's node not known"],
)
def test_a_look_says_what_a_failing_p99_is_put_down_to(
    fast_ms: float, starved_node: str, stable_node: str, blame: Blame
) -> None:
    """The cause stands beside the verdict, with the evidence and the gates it is about."""
    scene = Scene(P99, weight=50)
    scene.stable_pods = (pod("payments-v1-a", node=stable_node),)
    scene.metrics.behave(HOST, "v2", slow=0.05, slow_ms=800, fast_ms=fast_ms)
    scene.clock.advance(30)
    now = scene.clock.now()
    answers = asyncio.run(scene.metrics.ask(questions(scene.rollout, now)))
    nodes = {starved_node: starved(starved_node)}
    look = assess(scene.rollout, now, answers, scene.canary_pods, scene.stable_pods, nodes=nodes)
    assert look.reports[0].verdict == "fail"
    assert look.cause is not None
    assert (look.cause.verdict, look.cause.gates) == (blame, ("p99",)), look.cause.sentence
    assert bool(look.likely_machine) is (blame is Blame.MACHINE)


def test_critical_nodes_are_those_under_the_canary() -> None:
    """A critical node without canary pods holds nobody up."""
    scene = Scene(ERROR_RATE)
    nodes = {name: starved(name, Level.CRITICAL) for name in ("node-1", "node-2")}
    look = assess(scene.rollout, scene.clock.now(), {}, scene.canary_pods, None, nodes=nodes)
    assert look.nodes_critical == ("node-2",)


def test_weights_of_another_hand_say_nothing_about_missing_responses() -> None:
    """Less traffic because somebody took weight away is no hanging canary: the gate is left out meanwhile."""
    scene = Scene(ERROR_RATE, MISSING, weight=50)
    scene.arrive()
    scene.metrics.weight(HOST, 15)
    assert [report.gate for report in scene.look(15).reports if report.verdict is Verdict.FAIL] == ["missing-responses"]
    hold = Hold(HoldReason.DRIFT, scene.clock.now(), "v2 15% instead of 50%", Actor(Source.BOT))
    scene.rollout = scene.rollout.with_(holds=(hold,))
    assert [report.gate for report in scene.look(15).reports] == ["error-rate"]
