"""Shards among replicas: everybody gets an even part, and no shard moves that need not."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.engine.share import SETTLED_AFTER_S, Part, part
from bot.ports.store import Replica

LONG = SETTLED_AFTER_S + 1


def replicas(*held: int, there_s: float = LONG) -> list[Replica]:
    return [Replica("abcdefgh"[place], count, there_s) for place, count in enumerate(held)]


@pytest.mark.parametrize(
    ("held", "shards", "expected"),
    [
        ((0,), 4, [Part(4, False)]),
        ((4, 0), 4, [Part(0, True), Part(2, False)]),
        ((3, 0), 4, [Part(0, True), Part(2, False)]),
        ((2, 0), 4, [Part(0, False), Part(2, False)]),
        ((2, 2), 4, [Part(0, False), Part(0, False)]),
        ((2, 2, 0), 4, [Part(0, True), Part(0, False), Part(1, False)]),
        ((1, 2, 0), 4, [Part(0, False), Part(0, False), Part(1, False)]),
        ((2, 1, 1), 4, [Part(0, False), Part(0, False), Part(0, False)]),
        ((3, 1, 1), 5, [Part(0, True), Part(0, False), Part(0, False)]),
        ((1, 0, 0), 1, [Part(0, False), Part(0, False), Part(0, False)]),
        ((0, 0), 1, [Part(1, False), Part(1, False)]),
        ((2, 2), 8, [Part(2, False), Part(2, False)]),
    ],
)
def test_parts(held: Sequence[int], shards: int, expected: list[Part]) -> None:
    """What each replica does for what all of them hold: `a` first, then by name."""
    all_of_them = replicas(*held)
    assert [part(one.name, all_of_them, shards) for one in all_of_them] == expected


def test_one_that_has_just_come_gets_room_later() -> None:
    """The others do not count it yet, while it would take what lies free."""
    young = [Replica("a", 4, LONG), Replica("b", 0, 0.5)]
    assert part("a", young, 4) == Part(0, False)
    assert part("b", young, 4) == Part(2, False)
    assert part("a", [Replica("a", 4, LONG), Replica("b", 0, SETTLED_AFTER_S)], 4) == Part(0, True)


def test_a_fleet_that_starts_shares_from_the_beginning() -> None:
    """While nobody is settled everybody counts, so that the first one does not take all."""
    assert part("a", replicas(0, 0, there_s=0.1), 4) == Part(2, False)


def test_a_young_one_takes_over_from_the_last_that_dies() -> None:
    """Alone it takes everything, however young."""
    assert part("b", [Replica("b", 0, 0.5)], 4) == Part(4, False)


@dataclass
class Fleet:
    """Replicas that follow the rule over a store; each round they act one after the other, on what was said before."""

    shards: int
    held: dict[str, set[int]] = field(default_factory=dict)
    moves: int = 0

    def round(self) -> None:
        said = [Replica(name, len(mine), LONG) for name, mine in self.held.items()]
        for name, mine in self.held.items():
            wanted = part(name, said, self.shards)
            free = set(range(self.shards)) - {number for one in self.held.values() for number in one}
            for number in sorted(free)[: wanted.take]:
                mine.add(number)
            if wanted.give:
                mine.remove(max(mine))
                self.moves += 1

    @property
    def counts(self) -> list[int]:
        return [len(mine) for mine in self.held.values()]


@given(
    shards=st.integers(1, 24),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=8),
)
def test_whoever_comes_and_goes_parts_become_even_and_stay(shards: int, changes: list[tuple[bool, int]]) -> None:
    """After each change all shards are held, no two parts differ by more than one, no more moved than had to, and
    nothing moves any more."""
    fleet = Fleet(shards, {"r0": set()})
    for number, (comes, which) in enumerate(changes):
        if comes:
            fleet.held[f"r{number + 1}"] = set()
        elif len(fleet.held) > 1:
            del fleet.held[sorted(fleet.held)[which % len(fleet.held)]]
        fleet.moves = 0
        even = shards // len(fleet.held)
        needed = sum(max(0, even - count) for count in fleet.counts)
        for _ in range(2 * shards + 4):
            fleet.round()
        assert sum(fleet.counts) == shards
        assert max(fleet.counts) - min(fleet.counts) <= 1
        assert fleet.moves <= needed
        settled = [set(mine) for mine in fleet.held.values()]
        fleet.round()
        assert [set(mine) for mine in fleet.held.values()] == settled
