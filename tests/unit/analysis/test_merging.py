"""Questions of many services in one, and each service's part of the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.merging import LABEL, by_service, merged, part, shape
from bot.analysis.promql import over, selector
from bot.analysis.samples import Answer, Query, Series

METRIC = "istio_requests_total"
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]{1,5}){0,3}", fullmatch=True)


def _range(*services: str, window_s: int = 120, resolution_s: int = 0, at: float | None = None) -> Query:
    series = selector(METRIC, {"destination_service": services if len(services) > 1 else services[0]})
    return Query(over(series, window_s, resolution_s), at)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.sampled_from([(120, 0), (2400, 20)]))
def test_a_question_merged_with_itself_is_the_same(services: list[str], reach: tuple[int, int]) -> None:
    """Taking a question apart and asking it about its own services loses nothing."""
    query = _range(*services, window_s=reach[0], resolution_s=reach[1], at=17.0)
    found = shape(query)
    assert found is not None
    assert set(found[1]) == set(services)
    assert merged(*found) == query


def test_only_metric_window_and_moment_keep_questions_apart() -> None:
    """Two services at one window share a shape; another window, moment or metric is another shape."""
    alike = {shape(_range("a.shop"))[0], shape(_range("b.shop"))[0], shape(_range("c.shop", "d.shop"))[0]}  # type: ignore[index]
    assert len(alike) == 1
    others = (_range("a.shop", window_s=300), _range("a.shop", at=5.0), Query('up{destination_service="a.shop"}[120s]'))
    assert all(shape(query)[0] not in alike for query in others)  # type: ignore[index]


def test_what_this_room_does_not_write_is_asked_as_it_is() -> None:
    """Other labels, names with quotes or patterns, functions around a selector, and instant vectors are left alone."""
    for promql in (
        'x{destination_service="a",job="b"}[120s]',
        'x{destination_service="a\\"b"}[120s]',
        'x{destination_service=~"a.*"}[120s]',
        'x{destination_service=~"a.b"}[120s]',
        'x{destination_service="a|b"}[120s]',
        'x{destination_service="a"}',
        'sum(rate(x{destination_service="a"}[120s]))',
        'max(timestamp(x{destination_service=~"a|b"}))[2400s:20s]',
        'x{destination_service=""}[120s]',
        "up",
    ):
        assert shape(Query(promql)) is None, promql


def test_each_gets_its_own_series_and_nobody_elses() -> None:
    """A name that is the beginning of another does not get the other's series, and two hosts get both."""
    rows = [Series({"destination_service": name}, ((1.0, 2.0),)) for name in ("a", "ab", "b", "a")]
    answer = Answer(tuple(rows), 9.0, ("slow",))
    common, _ = shape(_range("a")) or (None, None)
    assert common is not None
    sorted_series = by_service(answer)
    assert part(common, ("a",), answer, sorted_series) == Answer((rows[0], rows[3]), 9.0, ("slow",))
    assert part(common, ("a", "b"), answer, sorted_series).series == (rows[0], rows[3], rows[2])
    assert part(common, ("gone",), answer, sorted_series) == Answer((), 9.0, ("slow",))


@pytest.mark.parametrize(
    ("alone", "together"),
    [
        ("max(timestamp({}))[2400s:20s]", "max by (destination_service) (timestamp({}))[2400s:20s]"),
        ("max(timestamp({}))", "max by (destination_service) (timestamp({}))"),
        ("count({})", "count by (destination_service) ({})"),
        ("max(count_over_time({}[300s]))", "max by (destination_service) (count_over_time({}[300s]))"),
    ],
)
def test_one_number_for_a_service_is_asked_by_service_and_answered_without_it(alone: str, together: str) -> None:
    """How many series, how often scraped, and the newest sample's time stay one series without labels for each."""
    found = shape(Query(alone.format(selector(METRIC, {LABEL: "a.shop"})), 3.0))
    assert found is not None
    assert found[1] == ("a.shop",)
    assert merged(found[0], ("a.shop", "b.shop")) == Query(
        together.format(selector(METRIC, {LABEL: ("a.shop", "b.shop")})), 3.0
    )
    answer = Answer((Series({LABEL: "a.shop"}, ((1.0, 1.0),)), Series({LABEL: "b.shop"}, ((1.0, 2.0),))))
    assert part(found[0], ("a.shop",), answer, by_service(answer)).series == (Series({}, ((1.0, 1.0),)),)
