"""The tests' arithmetic: no factor is expected to grow under the null, and splitting or carrying changes nothing."""

from itertools import pairwise, product
from math import comb, exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.statistics import (
    EMPTY,
    LATE,
    NONE,
    TOGETHER,
    WHOLE,
    Evidence,
    Interval,
    against_limit,
    against_stable,
    begins,
    clearly_worse,
    clump,
    requests_to_show,
    scattered,
    smallest_visible,
    upper_bound,
)

HORIZON_S = 3600.0
_counts = st.integers(0, 40)
_intervals = st.lists(
    st.builds(
        lambda seconds, good, bad, stable_good, stable_bad: Interval(
            seconds, good + bad, bad, stable_good + stable_bad, stable_bad
        ),
        st.floats(0.5, 60),
        _counts,
        st.integers(0, 5),
        _counts,
        st.integers(0, 5),
    ),
    max_size=12,
)


def binomial(number: int, of: int, probability: float) -> float:
    return comb(of, number) * probability**number * (1 - probability) ** (of - number)


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.2, 0.9])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_below_the_limit_no_alternative_is_expected_to_grow(limit: float, part: float) -> None:
    """One Bernoulli request at or below the limit, summed over both outcomes, for every alternative of both halves."""
    true = part * limit
    begun = Evidence(late=(0.0,) * len(LATE), spent=1.0)
    bad = against_limit(begun, [Interval(0, 1, 1)], limit, inf)
    good = against_limit(begun, [Interval(0, 1, 0)], limit, inf)
    for if_bad, if_good in zip(bad.whole + bad.late, good.whole + good.late, strict=True):
        assert true * exp(if_bad) + (1 - true) * exp(if_good) <= 1 + 1e-12


@pytest.mark.parametrize(("requests", "stable_requests"), [(4, 4), (4, 9), (7, 5), (5, 30)])
def test_with_one_shared_probability_no_alternative_is_expected_to_grow(requests: int, stable_requests: int) -> None:
    """Given the bad requests of an interval, the canary's part is hypergeometric: enumerated exactly, for every total,
    so it holds whatever the shared probability is and however it changes from interval to interval."""
    for total in range(requests + stable_requests + 1):
        expected = [0.0] * len(WHOLE)
        for bad in range(max(0, total - stable_requests), min(requests, total) + 1):
            chance = comb(requests, bad) * comb(stable_requests, total - bad) / comb(requests + stable_requests, total)
            found = against_stable(NONE, [Interval(1, requests, bad, stable_requests, total - bad)], 1.0, inf)
            expected = [one + chance * exp(logarithm) for one, logarithm in zip(expected, found.whole, strict=True)]
        assert max(expected) <= 1 + 1e-9


@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("probability", [0.001, 0.05, 0.3])
def test_at_the_ratio_no_alternative_is_expected_to_grow(ratio: float, probability: float) -> None:
    """Canary at exactly `ratio` times stable's probability, both sides' outcomes enumerated."""
    requests, stable_requests = 5, 8
    expected = [0.0] * len(WHOLE)
    for bad, stable_bad in product(range(requests + 1), range(stable_requests + 1)):
        chance = binomial(bad, requests, ratio * probability) * binomial(stable_bad, stable_requests, probability)
        found = against_stable(NONE, [Interval(1, requests, bad, stable_requests, stable_bad)], ratio, inf)
        expected = [one + chance * exp(logarithm) for one, logarithm in zip(expected, found.whole, strict=True)]
    assert max(expected) <= 1 + 1e-9


@given(_intervals, st.integers(0, 12), st.sampled_from([0.01, 0.05]))
def test_carried_evidence_is_that_of_one_batch(intervals: list[Interval], at: int, limit: float) -> None:
    """Wherever the looks fall between the same intervals, the numbers are the same, for both tests."""
    before = sum(one.seconds for one in intervals[:at])
    half = against_limit(NONE, intervals[:at], limit, HORIZON_S)
    carried = against_limit(half, intervals[at:], limit, HORIZON_S, before)
    assert close(carried, against_limit(NONE, intervals, limit, HORIZON_S))
    half = against_stable(NONE, intervals[:at], 2.0, HORIZON_S)
    carried = against_stable(half, intervals[at:], 2.0, HORIZON_S, before)
    assert close(carried, against_stable(NONE, intervals, 2.0, HORIZON_S))


def close(one: Evidence, other: Evidence) -> bool:
    pairs = zip(one.whole + one.late, other.whole + other.late, strict=True)
    return all(a == b or a == pytest.approx(b, abs=1e-6) for a, b in pairs) and one.spent == pytest.approx(other.spent)


@given(_intervals, st.sampled_from([0.01, 0.05]))
def test_splitting_an_interval_changes_nothing_since_the_first_request(intervals: list[Interval], limit: float) -> None:
    """Against a limit only sums count, so it does not matter how the scrapes fall."""
    together = EMPTY
    for one in intervals:
        together = together.joined(one)
    whole = against_limit(NONE, [together], limit, HORIZON_S).whole
    assert whole == pytest.approx(against_limit(NONE, intervals, limit, HORIZON_S).whole, abs=1e-6)


@given(st.lists(st.floats(0, 5000), min_size=2, max_size=20), st.floats(60, 40_000))
def test_what_is_given_to_late_failures_never_exceeds_the_whole(times: list[float], horizon_s: float) -> None:
    """Parts are not negative and add up to at most 1, however long a rollout is held."""
    moments = sorted([0.0, *times, 100 * horizon_s])
    parts = [begins(since, until, horizon_s) for since, until in pairwise(moments)]
    assert min(parts) >= -1e-12
    assert sum(parts) <= 1 + 1e-9
    assert sum(parts) == pytest.approx(begins(0.0, moments[-1], horizon_s))


def test_an_interval_too_thin_to_compare_waits_for_the_next() -> None:
    """Fewer than a few requests of a side say nothing yet and are not lost."""
    thin = Interval(5, TOGETHER - 1, 1, 50, 0)
    waiting = against_stable(NONE, [thin], 1.0, HORIZON_S)
    assert waiting.whole == NONE.whole
    assert waiting.waiting == thin
    judged = against_stable(waiting, [thin], 1.0, HORIZON_S)
    assert judged.waiting == EMPTY
    assert judged.whole[-1] > 0


@given(st.floats(0.0001, 0.99), st.floats(0.001, 1e9), st.floats(0, 1))
def test_requests_that_keep_the_limit_are_no_evidence_against_it(limit: float, requests: float, part: float) -> None:
    """However many they are, and however near the limit: so where stable keeps it there is no need to weigh stable."""
    bad = part * limit * requests
    assert against_limit(NONE, [Interval(1, requests, bad)], limit, inf).log_e <= 1e-12


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.05])
def test_five_of_five_failing_requests_fail(limit: float) -> None:
    """Even with alpha split over two gates and two reporters; a single failure does not."""
    assert against_limit(NONE, [Interval(5, 5, 5)], limit, HORIZON_S).fails(0.01 / 4)
    assert not against_limit(NONE, [Interval(5, 1, 1)], limit, HORIZON_S).fails(0.01 / 4)


@pytest.mark.parametrize(("requests", "bad"), [(100, 0), (500, 3), (5000, 40)])
def test_the_upper_bound_lies_above_what_was_seen_and_comes_nearer(requests: int, bad: int) -> None:
    """Above the observed fraction, below 1, and twice as many requests say more."""
    bound = upper_bound(requests, bad, 0.01)
    assert bad / requests < bound < 1
    assert upper_bound(2 * requests, 2 * bad, 0.01) < bound
    assert upper_bound(0, 0, 0.01) == 1.0


def test_what_can_be_seen_shrinks_to_the_limit_with_more_requests() -> None:
    """And both questions agree: the fraction visible with n requests takes n requests to show."""
    assert smallest_visible(1, 0.01, 0.0025) is None
    seen = [smallest_visible(requests, 0.01, 0.0025) or 1.0 for requests in (20, 200, 2000, 20_000)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.015
    assert requests_to_show(seen[1], 0.01, 0.0025) == pytest.approx(200, rel=0.01)
    assert requests_to_show(0.01, 0.01, 0.0025) == inf


def test_requests_that_fail_together_are_told_from_those_that_fail_alone() -> None:
    """Failures spread as chance spreads them are not divided; the same in clumps of four are, by about four."""
    alone = [Interval(15, 0, 0, 100, number % 3) for number in range(100)]
    assert clump(scattered((0, 0, 0, 0), alone)) == 1.0
    clumps = [Interval(15, 0, 0, 100, 4 if number % 4 == 0 else 0) for number in range(100)]
    assert clump(scattered((0, 0, 0, 0), clumps)) == pytest.approx(3, abs=1.5)
    few = [Interval(15, 0, 0, 100, 4 if number == 0 else 0) for number in range(100)]
    assert clump(scattered((0, 0, 0, 0), few)) == 1.0


def test_a_canary_is_clearly_worse_only_beyond_twice_stable_and_beyond_chance() -> None:
    """50% beside 2% is, 5% beside 5% is not, and neither is one failure more of ten."""
    assert clearly_worse(50, 100, 2, 100)
    assert not clearly_worse(5, 100, 5, 100)
    assert not clearly_worse(2, 10, 1, 20)
