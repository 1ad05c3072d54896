"""What the fake adds for tests: being away, losing replies, and remembering everything that was said."""

import pytest

from bot.errors import LeaseLost, Transient
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore
from tests.fixtures.rollouts import NOW, message, rollout


async def test_a_store_that_is_down_does_nothing() -> None:
    """Every call is Transient and changes nothing; afterwards all is as before."""
    store = FakeStore(FakeClock())
    store.down = True
    for call in (
        store.rollouts.create(rollout(), NOW, (message(),), ()),
        store.rollouts.active(),
        store.inbox.waiting(),
        store.leases.acquire("one", 3.0),
        store.outbox.depth(),
        store.freezes.all(),
        store.seen.first_time("x", 1.0),
    ):
        with pytest.raises(Transient):
            await call
    store.down = False
    assert (await store.rollouts.active()).rollouts == ()
    assert store.said == []


async def test_a_lost_reply_comes_after_the_work() -> None:
    """The save is done though its caller hears nothing; repeated with its id it is success and says nothing twice."""
    store = FakeStore(FakeClock())
    lease = await store.leases.acquire("one", 3.0)
    assert lease is not None
    store.lost_replies = 1
    with pytest.raises(Transient):
        await store.rollouts.save(rollout(), NOW, (message(),), (), token=lease.token, save_id="s1")
    assert await store.rollouts.load("payments-7f3a") == rollout()
    await store.rollouts.save(rollout(), NOW, (message(),), (), token=lease.token, save_id="s1")
    assert [said.text for _, said in store.said] == ["hello"]


async def test_a_stolen_lease_ends_the_holders_saves() -> None:
    """What a fail-over looks like to the old holder."""
    store = FakeStore(FakeClock())
    lease = await store.leases.acquire("one", 3.0)
    assert lease is not None
    store.leases.steal()
    assert await store.leases.renew("one", lease, 3.0) is None
    with pytest.raises(LeaseLost):
        await store.rollouts.save(rollout(), NOW, (), (), token=lease.token, save_id="s1")


async def test_a_corrupt_record_is_quarantined_until_mended() -> None:
    """The others go on."""
    store = FakeStore(FakeClock())
    await store.rollouts.create(rollout("a-1", "a"), NOW, (), ())
    await store.rollouts.create(rollout("b-1", "b"), NOW, (), ())
    store.corrupt("a-1", "no")
    active = await store.rollouts.active()
    assert ([one.id for one, _ in active.rollouts], active.quarantined) == (["b-1"], (("a-1", "no"),))
    store.mend("a-1")
    assert len((await store.rollouts.active()).rollouts) == 2
