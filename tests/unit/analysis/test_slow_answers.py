"""An answer that took long is late, not a sign of a wrong clock."""

import pytest

from bot.analysis.assessment import _ahead_s


@pytest.mark.parametrize(
    ("server_time", "ahead_s"),
    [(100.0, 0.0), (95.0, 0.0), (90.0, 0.0), (83.0, -7.0), (108.0, 8.0)],
    ids=["now", "on its way", "as it was asked", "behind", "ahead"],
)
def test_a_clock_is_wrong_by_what_asking_and_answering_cannot_explain(server_time: float, ahead_s: float) -> None:
    """Asked at 90 and judged at 100: whatever lies between may be right."""
    assert _ahead_s(server_time, 90.0, 100.0) == ahead_s


def test_without_the_moment_of_asking_the_answer_counts_as_given_now() -> None:
    """Also when our own clock was set back meanwhile."""
    assert _ahead_s(95.0, None, 100.0) == -5.0
    assert _ahead_s(95.0, 200.0, 100.0) == -5.0
