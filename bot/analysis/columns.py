"""The counters of one service beside each other, each known by its place.

What the places count is a `Layout`, which services with the same series share, and with it everything that follows from
it. The numbers themselves are `Columns`: `Counters` where each series has moments of its own, as samples have, and a
`Table` where all of them share the moments of the looks.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from bot.analysis.counts import Counter

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True, eq=False)
class Layout(Generic[Kind]):
    """What each place counts. Compared by identity: get it from `layout`."""

    kinds: tuple[Kind, ...]


@lru_cache(maxsize=4096)
def layout(kinds: tuple[Kind, ...]) -> Layout[Kind]:
    """The one layout of these kinds."""
    return Layout(kinds)


class Columns(Protocol):
    """Counters by place; moments are epoch seconds on Prometheus' clock."""

    def increases(self, places: Sequence[int], begin: float, end: float) -> list[float]:
        """What each of them counted after the last moment at or before `begin`, up to `end`."""
        ...

    def moments(self, places: Sequence[int], since: float, until: float) -> Iterable[float]:
        """The moments at which any of them is known, after `since` up to `until`, in no order."""
        ...

    def oldest(self, places: Sequence[int]) -> float | None:
        """The first of all their moments, None when there is none."""
        ...

    def newest(self, places: Sequence[int]) -> float | None:
        """The last of all their moments, None when there is none."""
        ...

    def counter(self, place: int) -> Counter:
        """One of them by itself."""
        ...


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters that each have their own moments and labels."""

    each: tuple[Counter, ...] = ()

    def increases(self, places: Sequence[int], begin: float, end: float) -> list[float]:
        """See `Columns`."""
        each = self.each
        return [each[place].increase(begin, end) for place in places]

    def moments(self, places: Sequence[int], since: float, until: float) -> Iterable[float]:
        """See `Columns`."""
        found: set[float] = set()
        former: Sequence[float] = ()
        for place in places:
            times = self.each[place].times
            if times is not former:
                former = times
                found.update(times[bisect_right(times, since) : bisect_right(times, until)])
        return found

    def oldest(self, places: Sequence[int]) -> float | None:
        """See `Columns`."""
        return min([self.each[place].times[0] for place in places if self.each[place].times], default=None)

    def newest(self, places: Sequence[int]) -> float | None:
        """See `Columns`."""
        return max([self.each[place].times[-1] for place in places if self.each[place].times], default=None)

    def counter(self, place: int) -> Counter:
        """See `Columns`."""
        return self.each[place]


class Table:
    """Counters that share their moments; `cells` has a row of running totals for each of `times`.

    There are two for each of thousands of rollouts, and an array that has grown in place keeps room for more: after a
    change both are new, and no larger than their numbers.
    """

    __slots__ = ("cells", "times", "width")

    def __init__(self) -> None:
        self.width = 0
        self.times = array("d")
        self.cells = array("d")

    def begin(self, at: float) -> None:
        """A further moment, at which nothing more has been counted yet."""
        last = self.cells[-self.width :] if self.times and self.width else array("d", [0.0] * self.width)
        self.cells = self.cells + last
        self.times = self.times + array("d", (at,))

    def count(self, place: int, more: float) -> None:
        """Add to a counter at the newest moment."""
        self.cells[place - self.width] += more

    def widen(self) -> int:
        """A further counter, which has counted nothing so far; returns its place."""
        rows, width = len(self.times), self.width
        wider = array("d")
        for row in range(rows):
            wider.extend(self.cells[row * width : (row + 1) * width])
            wider.append(0.0)
        self.cells, self.width = wider[:], width + 1
        return width

    def keep(self, rows: Sequence[int]) -> None:
        """Leave out all moments but these (ascending places in `times`)."""
        width, cells = self.width, self.cells
        kept = array("d")
        for row in rows:
            kept.extend(cells[row * width : (row + 1) * width])
        self.cells = kept[:]
        self.times = array("d", [self.times[row] for row in rows])

    def increases(self, places: Sequence[int], begin: float, end: float) -> list[float]:
        """See `Columns`."""
        cells, times = self.cells, self.times
        last = (bisect_right(times, end) - 1) * self.width
        first = (bisect_right(times, begin) - 1) * self.width
        if last < 0:
            return [0.0] * len(places)
        if first < 0:
            return [cells[last + place] for place in places]
        return [cells[last + place] - cells[first + place] for place in places]

    def moments(self, places: Sequence[int], since: float, until: float) -> Iterable[float]:
        """See `Columns`."""
        times = self.times
        return times[bisect_right(times, since) : bisect_right(times, until)] if places else ()

    def oldest(self, places: Sequence[int]) -> float | None:
        """See `Columns`."""
        return self.times[0] if places and self.times else None

    def newest(self, places: Sequence[int]) -> float | None:
        """See `Columns`."""
        return self.times[-1] if places and self.times else None

    def counter(self, place: int) -> Counter:
        """See `Columns`."""
        return Counter({}, self.times, self.cells[place :: self.width])
