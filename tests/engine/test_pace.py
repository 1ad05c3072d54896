"""Looks that are near to each other come together."""

from hypothesis import given
from hypothesis import strategies as st

from bot.engine.pace import FEW, MOST, WANTED, shared_moment

MOMENTS = st.floats(1.7e9, 1.9e9)


@given(MOMENTS, st.sampled_from([1.0, 15.0, 60.0]), st.integers(0, 20_000))
def test_no_look_is_early_and_none_is_much_later(wake_at: float, every_s: float, active: int) -> None:
    """A look comes at its time or at most a fifteenth of the time between two looks after it."""
    at = shared_moment(wake_at, every_s, active)
    assert wake_at <= at <= wake_at + MOST * every_s + 1e-6


def test_a_few_rollouts_look_at_their_own_time() -> None:
    """There is nothing to share."""
    assert shared_moment(1_800_000_000.123, 15.0, FEW - 1) == 1_800_000_000.123


@given(st.lists(st.floats(0.0, 15.0), min_size=400, max_size=400), st.integers(2000, 20_000))
def test_many_looks_come_at_few_moments(offsets: list[float], active: int) -> None:
    """However starts are spread, there are no more moments than fill a question each."""
    moments = {round(shared_moment(1_800_000_000.0 + offset, 15.0, active), 3) for offset in offsets}
    assert len(moments) <= active / WANTED + 2, (len(moments), active)
