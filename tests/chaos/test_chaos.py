"""A short run of the fault bench: real processes, a fault of each part, and nothing lost, doubled or unsaid."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.__main__ import story
from tests.chaos.city import City
from tests.chaos.judge import judge
from tests.chaos.record import MACHINE, Record
from tests.chaos.schedule import Ask, Fault, Release, Schedule, Start
from tests.chaos.storm import Storm
from tests.fixtures.requirements import needs_binary, needs_module

SCHEDULE = Schedule(
    seed=1,
    starts=(Start(0.0, "orders", "short", Release.GOOD), Start(0.3, "cart", "two", Release.SPOILED, 4.5)),
    asks=(Ask(3.0, "U0GRACE", "status", "orders"),),
    faults=(
        Fault(2.5, 3.0, "slack lost"),
        Fault(3.5, 0.5, "bot kill", bot="a"),
        Fault(4.0, 1.0, "redis kill"),
        Fault(5.5, 1.5, "link", to="kube", how="cut"),
        Fault(7.0, 1.0, "prometheus down"),
    ),
)


@pytest.fixture(scope="module")
def record() -> Record:
    """What happened in one run with a fault of each part."""
    needs_binary("redis-server")
    needs_module("envoy")
    return asyncio.run(_played())


async def _played() -> Record:
    city = City()
    try:
        await city.open()
        return await Storm(city, SCHEDULE).play()
    finally:
        await city.close()


def test_no_rule_is_broken_by_a_fault_of_each_part(record: Record) -> None:
    """A good and a bad release end as they should although everything fails once."""
    judgement = judge(record)
    assert judgement.broken == (), story(record)
    assert {one.kind for one in record.troubles} - {MACHINE} == {one.kind for one in SCHEDULE.faults}
    assert {name.partition("-")[0] for name in record.rollouts} == {"orders", "cart"}


def test_both_rollouts_had_traffic_while_the_faults_came(record: Record) -> None:
    """What was tried was tried on canaries that had weight."""
    raised = {one.service for one in record.writes if one.ours and one.weight > one.was}
    assert raised == {"orders", "cart"}, story(record)
