"""The judge's error rates and its power, simulated: a constant that breaks them is caught here.

Few runs with fixed seeds; `make bench ARGS=judge` measures the same with ten thousand.
"""

from math import inf

import numpy as np
import pytest

from bot.analysis import statistics
from bot.analysis.statistics import ALPHA, Interval
from tests.bench import methods
from tests.bench.judge import called
from tests.bench.traffic import (
    LOOK_S,
    MINUTE,
    Chance,
    Split,
    Traffic,
    beside,
    changing,
    drifting,
    outbursts,
    rollout,
    same,
    simulate,
)

LIMIT = 0.01
BOTH = ("limit, alpha 1%", "stable, alpha 1%")
RELATIVE = ("stable, alpha 1%",)


def test_the_arrays_are_the_judge() -> None:
    """What is simulated below is `bot.analysis.statistics`, number for number."""
    assert methods.differs(np.random.default_rng(1)) < 1e-9


@pytest.mark.parametrize(
    ("split", "chance", "harmless"),
    [
        pytest.param(rollout(1.0), same(LIMIT), BOTH, id="60/min, at the limit"),
        pytest.param(rollout(0.1, burst=0.5), same(LIMIT), BOTH, id="6/min bursty, at the limit"),
        pytest.param(rollout(1.0), drifting(LIMIT, at_most=LIMIT), BOTH, id="60/min, autocorrelated up to the limit"),
        pytest.param(rollout(10.0), drifting(0.005), RELATIVE, id="10/s, autocorrelated"),
        pytest.param(rollout(1.0, burst=0.5), outbursts(0.005), RELATIVE, id="60/min bursty, outbursts"),
    ],
)
def test_false_alarms_over_a_whole_rollout(split: Split, chance: Chance, harmless: tuple[str, ...]) -> None:
    """At most 1% of five-step rollouts are flagged when nothing is wrong, with a look every five seconds."""
    flagged = _flagged([simulate(np.random.default_rng((2, batch)), 500, split, chance) for batch in range(4)])
    for method in harmless:
        assert flagged[method] <= ALPHA, method
    assert flagged["2 points"] > 0.5, "the same traffic, judged by two points over the limit"


@pytest.mark.parametrize(
    ("split", "bad", "alone", "shared"),
    [
        pytest.param(beside(0.1, 1.9, 30), 0.05, 0.85, 0.75, id="6 beside 114/min, 5% against 0.5%"),
        pytest.param(beside(1.0, 19.0, 30), 0.02, 0.99, 0.97, id="60 beside 1,140/min, 2% against 0.5%"),
    ],
)
def test_power_against_stable(split: Split, bad: float, alone: float, shared: float) -> None:
    """A bad release is seen in 30 minutes, with all of alpha and with a fourth of it."""
    traffic = [simulate(np.random.default_rng((3, batch)), 500, split, same(0.005), same(bad)) for batch in range(4)]
    flagged = _flagged(traffic)
    assert flagged["stable, alpha 1%"] >= alone
    assert flagged["stable, alpha 0.25%"] >= shared


def test_a_small_effect_at_many_requests_is_seen() -> None:
    """A rate half as large again is called when there are requests enough, not only a gross one."""
    traffic = simulate(np.random.default_rng(4), 100, rollout(10.0), same(0.01), same(0.015))
    assert min(_flagged([traffic])[method] for method in (*BOTH, "stable, alpha 0.25%")) > 0.95


@pytest.mark.parametrize("horizon_s", [30_600.0, 3000.0], ids=["planned for that long", "held that long"])
def test_a_failure_after_eight_healthy_hours(horizon_s: float) -> None:
    """Five points more at 60 requests/min are mostly called within five minutes, against stable and against 1%."""
    healthy = 8 * 60 * MINUTE
    split = beside(1.0, 19.0, 8 * 60 + 5)
    traffic = simulate(np.random.default_rng(5), 100, split, same(0.005), changing(0.005, 0.055, healthy))
    for log_e in (
        methods.limit_log_e(traffic, LIMIT, horizon_s),
        methods.stable_log_e(traffic, 1.0, horizon_s),
    ):
        looks = methods.first(log_e, ALPHA)
        assert (looks >= healthy).mean() > 0.5
        assert ((looks != methods.NEVER) & (looks < healthy)).mean() <= 0.03


def test_requests_that_fail_together() -> None:
    """Three at once would be three times the evidence; divided by how stable's clump, they are not."""
    random, chance, split = np.random.default_rng(6), same(LIMIT / (3 - 2 * LIMIT)), rollout(1.0)
    traffic = simulate(random, 1000, split, chance, together=3)
    known = simulate(random, 1000, Split(np.zeros(18), split.per_s), chance, together=3)
    flagged = {method: (looks != methods.NEVER).mean() for method, looks in called(traffic, known, True).items()}
    assert max(flagged["limit, alpha 0.25%"], flagged["stable, alpha 0.25%"]) <= ALPHA
    assert flagged["limit 1%, not thinned"] > 0.5


@pytest.mark.parametrize("alpha", [ALPHA, ALPHA / 4])
def test_when_every_request_fails_five_are_enough(alpha: float) -> None:
    """A gross failure is called within a handful of requests at a limit of 1%."""
    evidence = statistics.NONE
    for request in range(5):
        evidence = statistics.against_limit(evidence, [Interval(10.0, 1.0, 1.0)], LIMIT, 3000.0, 10.0 * request)
    assert evidence.fails(alpha)


def test_thin_sides_are_judged_in_stretches() -> None:
    """Pieces without a request of the canary are kept for the next, carried by the evidence, and dropped when old."""
    pieces = [Interval(5.0, float(look % 8 == 0), float(look % 16 == 0), 9.0, 0.0) for look in range(64)]
    carried = statistics.NONE
    for look, piece in enumerate(pieces):
        carried = statistics.against_stable(carried, [piece], 1.0, 3000.0, 5.0 * look)
    at_once = statistics.against_stable(statistics.NONE, pieces, 1.0, 3000.0)
    assert carried.log_e == pytest.approx(at_once.log_e)
    assert carried.fails(ALPHA)
    assert carried.waiting.requests < statistics.TOGETHER

    rare = [Interval(150.0, 1.0, 1.0, 500.0, 0.0) for _ in range(20)]
    assert statistics.against_stable(statistics.NONE, rare, 1.0, 3000.0).whole == statistics.NONE.whole


@pytest.mark.parametrize(("fraction", "limit"), [(0.02, 0.01), (0.05, 0.01), (0.015, 0.01), (0.2, 0.05)])
def test_the_requests_that_are_foretold_are_those_that_it_takes(fraction: float, limit: float) -> None:
    """`requests_to_show` is near the median of simulated calls, and `smallest_visible` is its inverse."""
    foretold = statistics.requests_to_show(fraction, limit, ALPHA)
    assert statistics.smallest_visible(foretold * 1.0001, limit, ALPHA) == pytest.approx(fraction, rel=1e-3)
    looks = 3 * MINUTE * 10
    split = Split(np.full(looks, 100.0), 3 * foretold / (looks * LOOK_S))
    traffic = simulate(np.random.default_rng(7), 300, split, same(0.0), same(fraction))
    hits = methods.first(methods.limit_log_e(traffic, limit, looks * LOOK_S), ALPHA)
    assert (hits != methods.NEVER).mean() > 0.9
    assert 0.5 * foretold < float(np.median(methods.requests_at(traffic, hits))) < 1.5 * foretold
    assert statistics.requests_to_show(limit, limit, ALPHA) == inf


def _flagged(batches: list[Traffic]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for traffic in batches:
        for method, looks in called(traffic).items():
            found.setdefault(method, []).append(float((looks != methods.NEVER).mean()))
    return {method: float(np.mean(parts)) for method, parts in found.items()}
