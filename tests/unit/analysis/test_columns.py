"""Numbers that share their moments tell what they would tell if each had its own."""

from bisect import bisect_right
from copy import copy
from sys import getsizeof

from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.columns import Counters, Table, layout
from bot.analysis.counts import Counter

_steps = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), max_size=5)), min_size=1, max_size=12)
_moment = st.floats(-5, 140)


def both(steps: list[tuple[bool, list[int]]]) -> tuple[Table, Counters]:
    """Moments 10 s apart; each may begin a further counter, and counts these numbers at its first places."""
    table, times = Table(), list[float]()
    totals: list[list[float]] = []
    for number, (born, counts) in enumerate(steps):
        table.begin(10.0 * number)
        times.append(10.0 * number)
        for column in totals:
            column.append(column[-1])
        if born:
            assert table.widen() == len(totals)
            totals.append([0.0] * len(times))
        for place, more in enumerate(counts[: len(totals)]):
            table.count(place, float(more))
            totals[place][-1] += more
    return table, Counters(tuple(Counter({}, tuple(times), tuple(column)) for column in totals))


@given(_steps, _moment, _moment)
def test_a_table_tells_what_single_counters_tell(steps: list[tuple[bool, list[int]]], begin: float, end: float) -> None:
    """Increases, moments, the oldest and the newest, whatever came when."""
    table, counters = both(steps)
    places = range(len(counters.each))
    begin, end = sorted((begin, end))
    assert table.increases(places, begin, end) == counters.increases(places, begin, end)
    assert sorted(table.moments(places, begin, end)) == sorted(counters.moments(places, begin, end))
    assert (table.oldest(places), table.newest(places)) == (counters.oldest(places), counters.newest(places))
    assert [list(table.counter(place).totals) for place in places] == [list(one.totals) for one in counters.each]


@given(_steps, st.data())
def test_what_was_counted_since_a_kept_moment_stays_when_others_are_left_out(
    steps: list[tuple[bool, list[int]]], data: st.DataObject
) -> None:
    """Between two moments that are kept a thinned table counts as before."""
    table, counters = both(steps)
    rows = data.draw(st.sets(st.integers(0, len(steps) - 1), min_size=1).map(sorted))
    kept = [10.0 * row for row in rows]
    table.keep(rows)
    assert list(table.times) == kept
    begin, end = sorted((data.draw(st.sampled_from(kept)), data.draw(st.sampled_from(kept))))
    places = range(len(counters.each))
    assert table.increases(places, begin, end) == counters.increases(places, begin, end)
    assert bisect_right(table.times, end) <= len(rows)


@given(_steps)
def test_a_table_has_no_room_to_spare(steps: list[tuple[bool, list[int]]]) -> None:
    """There are two for each of thousands of rollouts: their numbers take no more than a copy of them would."""
    table, _ = both(steps)
    for numbers in (table.times, table.cells):
        assert getsizeof(numbers) == getsizeof(copy(numbers))


def test_services_of_the_same_series_share_their_layout() -> None:
    """What follows from it is worked out once for all of them."""
    assert layout((("source", 1), ("source", 2))) is layout((("source", 1), ("source", 2)))
    assert layout((("source", 1),)) is not layout((("source", 2),))
