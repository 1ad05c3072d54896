"""Counting: births, resets, gaps and coarse points, against counters that are known exactly."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bot.analysis.counts import count, covered
from bot.analysis.samples import Answer, Series

A = {"code": "200", "instance": "a"}
BAD = {"code": "500", "instance": "a"}


def series(labels: Mapping[str, str], *points: tuple[float, float]) -> Series:
    return Series(labels, points)


def increases(answer: Answer, begin: float, end: float) -> dict[str, float]:
    return {
        counter.labels["instance"] + counter.labels["code"]: counter.increase(begin, end)
        for counter in count(answer).counters
    }


def test_the_first_count_of_a_new_series_counts_in_full() -> None:
    """A series of errors that appears with its first count is that many errors, not none."""
    answer = Answer((series(A, *((t, 10.0 * t) for t in range(10))), series(BAD, (6, 3), (7, 3), (8, 5))))
    assert increases(answer, 4, 9) == {"a200": 50, "a500": 5}


def test_a_series_merely_older_than_the_window_counts_from_its_baseline() -> None:
    """The count before the window is not the canary's."""
    answer = Answer((series(A, (0, 1000), (1, 1010), (2, 1020)),))
    assert increases(answer, 0, 2) == {"a200": 20}
    assert increases(answer, 1, 2) == {"a200": 10}


def test_when_scraping_itself_began_nothing_was_born() -> None:
    """All series begin together when Prometheus has just started: their first values are baselines."""
    answer = Answer((series(A, (5, 500), (6, 510)), series(BAD, (5, 70), (6, 71))))
    assert increases(answer, 0, 6) == {"a200": 10, "a500": 1}


def test_targets_scraped_at_other_moments_are_not_born() -> None:
    """Two targets of one interval show up within one interval of each other."""
    other = {"code": "200", "instance": "b"}
    answer = Answer((series(A, (0, 5), (15, 6), (30, 7)), series(other, (14, 900), (29, 910), (44, 920))))
    assert increases(answer, -1, 44) == {"a200": 2, "b200": 20}


def test_a_new_pod_counts_from_nothing_but_an_unreachable_one_does_not() -> None:
    """A target that comes late with few requests is new; one that brings a long past was only away."""
    new, back = {"code": "200", "instance": "new"}, {"code": "200", "instance": "back"}
    steady = series(A, *((15.0 * n, 150.0 * n) for n in range(20)))
    late = series(new, *((150.0 + 15 * n, 40 + 30.0 * n) for n in range(5)))
    returned = series(back, *((150.0 + 15 * n, 90_000 + 30.0 * n) for n in range(5)))
    found = increases(Answer((steady, late, returned)), 60, 300)
    assert found["new200"] == 160
    assert found["back200"] == 120


def test_a_reset_is_undone_per_series() -> None:
    """A restarted proxy begins at 0: what it counted since is added, nothing is subtracted."""
    answer = Answer((series(A, (0, 100), (1, 110), (2, 4), (3, 9)), series(BAD, (0, 50), (1, 50), (2, 50), (3, 51))))
    assert increases(answer, 0, 3) == {"a200": 19, "a500": 1}


def test_nan_samples_are_no_samples() -> None:
    """They neither count nor reset."""
    answer = Answer((series(A, (0, 1), (1, math.nan), (2, 3)), series(BAD, (0, math.nan))))
    assert increases(answer, 0, 2) == {"a200": 2}


def test_coarse_points_reach_back_and_raw_ones_are_exact_at_the_end() -> None:
    """A long window is the sum over both, whatever their overlap."""
    raw = Answer((series(A, *((t, 2.0 * t) for t in range(900, 1201, 15))),))
    coarse = Answer((series(A, *((t, 2.0 * t) for t in range(0, 1201, 60))),))
    counted = count(raw, coarse)
    assert counted.counters[0].increase(120, 1200) == 2160
    assert counted.interval_s == 15
    assert counted.newest_at == 1200


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=40),
    st.sets(st.integers(1, 39), max_size=4),
    st.integers(0, 39),
    st.integers(0, 39),
)
def test_counting_agrees_with_what_was_added(added: list[int], resets: set[int], first: int, last: int) -> None:
    """For any additions and restarts right after a scrape, an increase is what was added between the two samples."""
    value, points = 1000.0, []
    for moment, amount in enumerate(added):
        if moment in resets:
            value = 0.0
        value += amount
        points.append((float(moment), value))
    begin, end = sorted((min(first, len(added) - 1), min(last, len(added) - 1)))
    visible = all(points[moment][1] < points[moment - 1][1] for moment in resets if moment < len(added))
    assume(visible)
    found = count(Answer((series(A, *points),))).counters[0].increase(begin, end)
    assert found == sum(added[begin + 1 : end + 1])


@pytest.mark.parametrize(
    ("times", "since", "expected"),
    [
        ([0, 1, 2, 3], 1, (2.0, 3)),
        ([0, 1, 2, 3], 1.5, (1.5, 3)),
        ([0, 1, 2, 10, 11], 0, (3.0, 11)),
        ([0, 2, 4], 0, (4.0, 4)),
        ([], 7, (0.0, 7)),
        ([3], 1, (0.0, 3)),
    ],
)
def test_only_stretches_between_close_samples_are_covered(
    times: list[float], since: float, expected: tuple[float, float]
) -> None:
    """A gap longer than 2.5 scrapes does not count, a missed scrape does, and nothing before `since`."""
    assert covered(times, since, 1.0) == expected
