"""Every decision of every engine test is held against the nine safety rules."""

from collections.abc import Iterator

import pytest

from bot.engine import wake
from bot.rollout.effects import Decision
from bot.rollout.events import Event
from bot.rollout.invariants import violations
from bot.rollout.machine import decide
from bot.rollout.model import Rollout


@pytest.fixture(autouse=True)
def nine_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was broken, empty at the end of every test."""
    broken: list[str] = []

    def watched(rollout: Rollout, event: Event, now: float) -> Decision:
        decision = decide(rollout, event, now)
        broken.extend(f"{text} ({event})" for text in violations(rollout, event, decision, now))
        return decision

    monkeypatch.setattr(wake, "decide", watched)
    yield broken
    assert broken == []
