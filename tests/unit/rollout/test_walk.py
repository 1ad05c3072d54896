"""Random walks through the machine: every legal (phase, event) pair is met often, and no safety rule ever breaks."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.rollout.machine import TABLE, Kind, decide
from bot.rollout.model import Phase
from tests.unit.rollout.world import KINDS, rules_of, scenes, stage, walk

WALKS = 3000
MOVES = st.lists(st.tuples(st.integers(0, KINDS), st.integers(0, 255), st.integers(0, 255)), min_size=24, max_size=40)


def test_no_walk_breaks_a_safety_rule_and_every_pair_is_met_a_hundred_times() -> None:
    """Whatever happens in whatever order, the nine rules hold; each legal pair is visited at least 100 times."""
    visits: Counter[tuple[Phase, Kind]] = Counter()

    @settings(
        max_examples=WALKS, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(scenes()), st.integers(0, 15), MOVES)
    def walks(scene: str, rules: int, moves: list[tuple[int, int, int]]) -> None:
        walk(stage(scene, rules_of(rules), decide, visits), moves)

    walks()
    print("\nvisits of each (phase, event):")
    for phase in Phase:
        row = [f"{kind.value} {visits[phase, kind]}" for kind in Kind if (phase, kind) in TABLE]
        print(f"  {phase.value}: {', '.join(row)}")
    seldom = {pair: visits[pair] for pair in TABLE if visits[pair] < 100}
    assert not seldom
