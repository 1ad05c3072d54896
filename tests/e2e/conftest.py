"""The stories' town: one world for all stories of a session that can be played beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from bot.sandbox.world import Options
from tests.e2e.routes import LAID_OUT
from tests.e2e.stories import SERVICES
from tests.e2e.town import Json, Town, another
from tests.fixtures.requirements import needs_module

Story = Callable[[Town], Coroutine[Any, Any, None]]
CATALOG = Path(__file__).with_name("stories.yaml")
RATE = 40.0


def opened(options: Options, *, bot: bool = True) -> Town:
    """A town with everything up."""
    for module in ("envoy", "jsonpatch"):
        needs_module(module)
    town = Town(options)
    town.open(bot=bot)
    return town


@pytest.fixture(scope="session")
def stories_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The world with one more service for every story, each with traffic."""
    seed = tmp_path_factory.mktemp("seed") / "services.json"
    seed.write_text(json.dumps(_manifests()))
    names = ",".join(["payments", "checkout", *SERVICES, *LAID_OUT])
    town = opened(Options(catalog=str(CATALOG), rate=RATE, with_page=False, seeds=(str(seed),), services=names))
    yield town
    town.close()


def _manifests() -> list[Json]:
    plain = [manifest for service in SERVICES for manifest in another(service)]
    return plain + [manifest for service, lay_out in LAID_OUT.items() for manifest in lay_out(another(service))]


@pytest.fixture(scope="session")
def play(request: pytest.FixtureRequest, stories_town: Town) -> Callable[[Story], None]:
    """Wait for a story; all that this session asks for have begun together."""
    wanted = {
        item.callspec.params["story"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "story" in item.callspec.params
    }
    begun = {story: stories_town.begin(story(stories_town)) for story in cast(set[Story], wanted)}

    def wait(story: Story) -> None:
        begun[story]()

    return wait
