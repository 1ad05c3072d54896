"""An inbox is read when somebody may have written into it, and not at every look."""

import pytest

from bot.rollout.model import HoldReason
from bot.usecases.requests import put
from tests.engine.stage import ADA, Stage, stage
from tests.engine.test_stories import started


def _counted(made: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of rollouts whose inbox is read from now on."""
    read: list[str] = []
    take = made.store.inbox.take

    async def counting(rollout_id: str) -> object:
        read.append(rollout_id)
        return await take(rollout_id)

    monkeypatch.setattr(made.store.inbox, "take", counting)
    return read


async def test_looks_read_no_inbox_while_nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten looks cost no reading."""
    async with stage() as made:
        await started(made, "10%:60s, 100%:10s")
        await made.play(5)
        read = _counted(made, monkeypatch)
        looks = len(made.timeline.rung)
        await made.play(10)
        assert len(made.timeline.rung) >= looks + 8
        assert read == []


async def test_a_request_whose_ring_was_lost_is_heard_within_a_second_or_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep finds what no ring announced."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:10s")
        await made.play(5)
        monkeypatch.setattr(made.store.inbox, "_ring", lambda rollout_id: None)
        await put(made.desk, "hold", name, ADA)
        await made.play(2)
        assert (await made.rollout(name)).held(HoldReason.PERSON)
