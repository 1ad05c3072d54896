"""The sandbox's faults through the real bot: what is held, what goes back, and what people are told."""

from collections.abc import Callable

import pytest

from tests.e2e import stories
from tests.e2e.town import Town


@pytest.mark.parametrize("story", stories.BESIDE, ids=lambda story: story.__name__)
def test_beside_each_other(story: Callable[..., object], play: Callable[..., None]) -> None:
    """Each story's promise is its docstring; all of them run at the same time in one world."""
    play(story)


@pytest.mark.parametrize("alone", stories.ALONE, ids=lambda story: story.__name__)
def test_alone(alone: Callable, play: Callable[..., None], stories_town: Town) -> None:
    """The same for faults that everyone feels, one after the other, after the others have ended."""
    stories_town.play(stories_town.play_alone(alone))
