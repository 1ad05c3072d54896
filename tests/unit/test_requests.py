"""What people ask for costs no more than it must."""

from __future__ import annotations

import pytest

from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, Stage


async def started(services: int) -> Stage:
    """So many rollouts that no holder has taken up yet."""
    made = Stage()
    for index in range(services):
        await made.add_service(f"service-{index}")
        await start(made.desk, StartAsk(f"service-{index}", "v2"), ADA)
    return made


@pytest.mark.parametrize("services", [1, 5])
async def test_rolling_back_all_reads_the_records_once(services: int) -> None:
    """However many there are: reading all of them for each of them would take minutes with thousands."""
    made = await started(services)
    before = made.store.calls["active"]
    assert await rollback(made.desk, "all", ADA, "fire") == ()
    assert made.store.calls["active"] - before == 1
    assert len(await made.store.inbox.waiting()) == services


async def test_a_request_reads_the_records_once_and_tells_whose_it_is() -> None:
    """By the service's name, as people type it."""
    made = await started(2)
    before = made.store.calls["active"]
    rollout = await put(made.desk, "hold", "service-1", ADA)
    assert rollout.target.service == "service-1"
    assert made.store.calls["active"] - before == 1
    assert await made.store.inbox.waiting() == (rollout.id,)
