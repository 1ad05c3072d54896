"""Quantiles and limits from buckets agree with each other and with Prometheus' interpolation."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.latency import Histogram, Shown
from bot.analysis.requests import Whose

SAMPLE = Histogram(((10, 50), (25, 90), (50, 98), (100, 100), (inf, 100)))


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.5, 10), (0.25, 5), (0.9, 25), (0.94, 37.5), (0.99, 75), (1, 100)]
)
def test_quantiles_interpolate_inside_their_bucket(fraction: float, expected: float) -> None:
    """By hand: rank 99 lies half way through the bucket 50 to 100."""
    assert SAMPLE.quantile(fraction) == pytest.approx(expected)


def test_the_top_bucket_answers_with_its_lower_bound() -> None:
    """Prometheus never guesses beyond the highest finite bound."""
    assert Histogram(((10, 1), (100, 2), (inf, 10))).quantile(0.99) == 100
    assert Histogram(((10, 1), (100, 2), (inf, 10))).above(5000) == 8


@pytest.mark.parametrize(("limit_ms", "slower"), [(10, 50), (25, 10), (75, 1), (100, 0), (17.5, 30), (5, 75)])
def test_requests_above_a_limit(limit_ms: float, slower: float) -> None:
    """Exact on a boundary, linear inside a bucket."""
    assert SAMPLE.above(limit_ms) == pytest.approx(slower)


def test_no_requests_have_no_quantile() -> None:
    """Nothing, or only empty buckets: None, and nobody is slow."""
    for empty in (Histogram(), Histogram(((10, 0), (inf, 0)))):
        assert empty.quantile(0.99) is None
        assert empty.requests == 0
        assert empty.above(10) == 0


@given(st.lists(st.integers(0, 500), min_size=4, max_size=4).filter(lambda counts: sum(counts) > 0), st.floats(1, 99))
def test_p99_above_the_limit_is_the_same_as_more_than_a_hundredth_above_it(counts: list[int], limit_ms: float) -> None:
    """Judging the fraction and judging the quantile never disagree."""
    total, buckets = 0, []
    for bound, added in zip((10.0, 25.0, 50.0, 100.0), counts, strict=True):
        total += added
        buckets.append((bound, float(total)))
    histogram = Histogram((*buckets, (inf, float(total))))
    p99 = histogram.quantile(0.99)
    assert p99 is not None
    fraction = histogram.above(limit_ms) / total
    if p99 > limit_ms + 1e-6:
        assert fraction > 0.01 - 1e-9
    if p99 < limit_ms - 1e-6:
        assert fraction <= 0.01 + 1e-9


@given(st.lists(st.tuples(st.floats(1, 10_000), st.integers(0, 50)), min_size=1, unique_by=lambda one: one[0]))
def test_a_side_that_is_shown_has_the_quantiles_of_its_histogram(seen: list[tuple[float, int]]) -> None:
    """Read without making the histogram, beside another side's counts; a side that was not seen has none."""
    bounds = (*sorted(bound for bound, _ in seen), inf)
    shown = Shown(0.0, 1.0, bounds)
    for side in (Whose.STABLE, Whose.CANARY):
        for place, bound in enumerate(bounds):
            more = sum(count for _, count in seen[:place]) * (2 if side is Whose.CANARY else 1)
            shown.count(("source", side), bound, float(more))
    for side in Whose:
        for fraction in (0.5, 0.99):
            assert shown.quantile(fraction, "source", side) == shown.histogram("source", side).quantile(fraction)
    assert shown.quantile(0.5, "source", Whose.OTHER) is None
