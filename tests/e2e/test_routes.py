"""Routes as people have them: during a rollout only the two weights change, and afterwards they are as before."""

from collections.abc import Callable

import pytest

from tests.e2e import routes


@pytest.mark.parametrize("story", routes.STORIES, ids=lambda story: story.__name__)
def test_a_route_is_left_as_it_was_found(story: Callable[..., object], play: Callable[..., None]) -> None:
    """Each story's promise is its docstring; the API server's history of the objects shows it."""
    play(story)
