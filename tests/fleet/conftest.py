"""A town with two replicas of the bot: Slack talks to one of them alone, the other reaches the API server by a wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.fleet.replicas import Fleet

CATALOG = """
defaults: {namespace: shop, channel: "#payments", check_every: 1s, arrival: 4s}
gates:
  error-rate: {max: 60%, min_requests: 10}
services:
  payments: {route: {name: payments, http: primary}}
  checkout: {channel: "#checkout"}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The world, with `wired` started first (so it holds the lease) and then `doored`."""
    catalog: Path = tmp_path_factory.mktemp("fleet") / "catalog.yaml"
    catalog.write_text(CATALOG)
    town = opened(Options(catalog=str(catalog), rate=60.0, with_page=False, slack_mode="http"), bot=False)
    fleet = Fleet(town)
    try:
        town.play(fleet.open())
        yield fleet
        town.play(fleet.told())
    finally:
        town.play(fleet.close())
        town.close()
