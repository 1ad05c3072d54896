"""What every store promises: the fake that the engine is built on, Redis as Debian ships it, and the oldest Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import pytest

from bot.adapters.redis import RedisStore
from bot.errors import Conflict, LeaseLost, NotFound, RouteTaken
from bot.ports.store import LEASE_FREED, Lease, Letter, Posted
from bot.rollout.effects import MessageKind
from bot.rollout.model import Phase, Rollout
from tests.fakes.clock import FakeClock
from tests.fakes.store import FakeStore
from tests.fixtures.redis import RedisServer
from tests.fixtures.rollouts import NOW, audit, ended, freeze, message, request, rollout

pytestmark = pytest.mark.usefixtures("patient")


class _Shard:
    """What the holder of one shard of several works with."""

    def __init__(self, store: RedisStore) -> None:
        shard = store.of(2)
        self.rollouts, self.inbox = shard.rollouts, shard.inbox
        self.leases, self.outbox = shard.leases, shard.outbox
        self.freezes, self.seen = store.freezes, store.seen


Store = FakeStore | RedisStore | _Shard


@dataclass(frozen=True, slots=True)
class World:
    """A store and a way to let time pass for it."""

    store: Store
    wait: Callable[[float], Awaitable[None]]
    monotonic: Callable[[], float]

    async def lease(self, owner: str = "one", ttl_s: float = 30.0) -> Lease:
        lease = await self.store.leases.acquire(owner, ttl_s)
        assert lease is not None
        return lease

    async def save(self, saved: Rollout, lease: Lease, save_id: str = "s1", wake_at: float | None = NOW) -> None:
        await self.store.rollouts.save(saved, wake_at, (), (), token=lease.token, save_id=save_id)


@pytest.fixture(params=["fake", "redis", "redis-6.2", "redis-shard"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        clock = FakeClock()

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        yield World(FakeStore(clock), advance, clock.monotonic)
        return
    fixture = "redis_server_62" if request.param == "redis-6.2" else "redis_server"
    server = cast(RedisServer, request.getfixturevalue(fixture))
    store = RedisStore(server.url, shards=4 if request.param == "redis-shard" else 1)
    seen = _Shard(store) if request.param == "redis-shard" else store
    yield World(seen, asyncio.sleep, asyncio.get_running_loop().time)
    await store.close()


class TestRollouts:
    async def test_what_was_created_is_loaded_equal(self, world: World) -> None:
        """Every field of a record comes back as it was."""
        await world.store.rollouts.create(rollout(), NOW + 15, (), ())
        assert await world.store.rollouts.load("payments-7f3a") == rollout()
        assert (await world.store.rollouts.active()).rollouts == ((rollout(), NOW + 15),)

    async def test_unknown_id_is_not_found(self, world: World) -> None:
        """Loading what is not there says so."""
        with pytest.raises(NotFound):
            await world.store.rollouts.load("nobody-0000")

    async def test_a_route_is_taken_once(self, world: World) -> None:
        """The second rollout on a route is refused with the first one's id, and nothing of it is kept."""
        await world.store.rollouts.create(rollout(), NOW, (), ())
        with pytest.raises(RouteTaken) as taken:
            await world.store.rollouts.create(rollout("payments-beef"), NOW, (message(),), (audit("payments-beef"),))
        assert taken.value.rollout_id == "payments-7f3a"
        assert len((await world.store.rollouts.active()).rollouts) == 1
        assert await world.store.outbox.depth() == 0
        assert await world.store.rollouts.audited("payments-beef") == ()
        with pytest.raises(NotFound):
            await world.store.rollouts.load("payments-beef")

    async def test_an_id_is_taken_once(self, world: World) -> None:
        """The same id for another route is refused."""
        await world.store.rollouts.create(rollout("x-1"), NOW, (), ())
        with pytest.raises(Conflict):
            await world.store.rollouts.create(rollout("x-1", "checkout"), NOW, (), ())
        assert (await world.store.rollouts.load("x-1")).target.service == "payments"

    async def test_one_of_many_simultaneous_starts_wins(self, world: World) -> None:
        """Ten starts on one route at once: one is created, nine are told of it."""
        starts = [world.store.rollouts.create(rollout(f"payments-{n:04d}"), NOW, (), ()) for n in range(10)]
        results = await asyncio.gather(*starts, return_exceptions=True)
        assert [result for result in results if result is None] == [None]
        (winner,) = (await world.store.rollouts.active()).rollouts
        refused = [result for result in results if isinstance(result, RouteTaken)]
        assert len(refused) == 9
        assert {error.rollout_id for error in refused} == {winner[0].id}

    async def test_repeated_creation_is_success(self, world: World) -> None:
        """A creation whose reply was lost is repeated: success, said once, also when it was saved meanwhile."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (message(),), (audit(),))
        await world.save(rollout(revision=9), lease)
        await world.store.rollouts.create(rollout(), NOW, (message(),), (audit(),))
        assert (await world.store.rollouts.load("payments-7f3a")).revision == 9
        assert await world.store.outbox.depth() == 1
        assert len(await world.store.rollouts.audited("payments-7f3a")) == 1

    async def test_a_save_is_one_step(self, world: World) -> None:
        """Record, wake-up, letters and audit of a save are all there."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        later = rollout(revision=4, weight_percent=25)
        await world.store.rollouts.save(
            later, NOW + 30, (message("up"),), (audit(text="to 25%"),), token=lease.token, save_id="s1"
        )
        assert (await world.store.rollouts.active()).rollouts == ((later, NOW + 30),)
        assert [letter.message.text for letter in await world.store.outbox.take(NOW, 10)] == ["up"]
        assert [line.text for line in await world.store.rollouts.audited()] == ["to 25%"]

    async def test_a_repeated_save_is_success_and_says_nothing_twice(self, world: World) -> None:
        """The same save id again changes nothing and is no conflict, even when the lease has moved on."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        for _ in range(2):
            await world.store.rollouts.save(
                rollout(revision=4), NOW, (message(),), (audit(),), token=lease.token, save_id="s1"
            )
        await world.store.leases.release("one", lease)
        await world.lease("two")
        await world.save(rollout(revision=4), lease, "s1")
        assert await world.store.outbox.depth() == 1
        assert len(await world.store.rollouts.audited("payments-7f3a")) == 1

    async def test_a_save_that_arrives_after_those_that_followed_it_changes_nothing(self, world: World) -> None:
        """Its sender gave it up, repeated it with success, and has saved more since at the same revision: the record
        does not go back, and nothing is said twice."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        first, later = rollout(revision=4, step=0), rollout(revision=4, step=1)
        for saved, save_id in ((first, "s1"), (later, "s2"), (later, "s3"), (first, "s1")):
            await world.store.rollouts.save(saved, NOW, (message(),), (audit(),), token=lease.token, save_id=save_id)
        assert await world.store.rollouts.load(later.id) == later
        assert await world.store.outbox.depth() == 3
        assert len(await world.store.rollouts.audited(later.id)) == 3

    async def test_an_old_token_saves_nothing(self, world: World) -> None:
        """A holder that lost its lease to another is refused, and nothing of its save is kept."""
        old = await world.lease("one")
        await world.store.rollouts.create(rollout(), NOW, (), ())
        await world.store.leases.release("one", old)
        await world.lease("two")
        with pytest.raises(LeaseLost):
            await world.store.rollouts.save(
                rollout(revision=4), None, (message(),), (audit(),), token=old.token, save_id="s1"
            )
        assert (await world.store.rollouts.active()).rollouts == ((rollout(), NOW),)
        assert await world.store.outbox.depth() == 0
        assert await world.store.rollouts.audited() == ()

    async def test_revisions_do_not_go_back(self, world: World) -> None:
        """A save behind the stored revision is a conflict; the same revision is not."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        await world.save(rollout(revision=5), lease, "s1")
        await world.save(rollout(revision=5, weight_percent=6), lease, "s2")
        with pytest.raises(Conflict):
            await world.save(rollout(revision=4), lease, "s3")
        assert (await world.store.rollouts.load("payments-7f3a")).weight_percent == 6

    async def test_final_stays_final(self, world: World) -> None:
        """An ended rollout takes no other phase, but its own again."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        await world.save(ended("payments-7f3a"), lease, "s1")
        for phase in (Phase.PROGRESSING, Phase.ROLLED_BACK):
            with pytest.raises(Conflict):
                await world.save(rollout(phase=phase, revision=99), lease, f"s-{phase}")
        await world.save(ended("payments-7f3a", reason="all well", revision=4), lease, "s2")
        assert (await world.store.rollouts.load("payments-7f3a")).reason == "all well"

    async def test_the_end_gives_the_route_free(self, world: World) -> None:
        """After a final save the rollout is no longer active or due, and the route can be taken again."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        await world.save(ended("payments-7f3a"), lease)
        assert await world.store.rollouts.active() == type(await world.store.rollouts.active())(())
        assert await world.store.rollouts.due(NOW + 1e6) == ()
        await world.store.rollouts.create(rollout("payments-beef"), NOW, (), ())
        assert (await world.store.rollouts.load("payments-7f3a")).phase is Phase.PROMOTED

    async def test_saving_an_ended_one_again_leaves_the_successor_its_route(self, world: World) -> None:
        """A late save of an ended rollout does not give away the route of the next."""
        lease = await world.lease()
        await world.store.rollouts.create(rollout(), NOW, (), ())
        await world.save(ended("payments-7f3a"), lease, "s1")
        await world.store.rollouts.create(rollout("payments-beef"), NOW, (), ())
        await world.save(ended("payments-7f3a", reason="late"), lease, "s2")
        with pytest.raises(RouteTaken):
            await world.store.rollouts.create(rollout("payments-cafe"), NOW, (), ())

    async def test_a_save_brings_back_what_the_store_lost(self, world: World) -> None:
        """A holder saves a rollout that the store does not know (it was wiped): record, route and wake-up are there."""
        lease = await world.lease()
        await world.save(rollout(), lease, wake_at=NOW + 15)
        assert (await world.store.rollouts.active()).rollouts == ((rollout(), NOW + 15),)
        with pytest.raises(RouteTaken):
            await world.store.rollouts.create(rollout("payments-beef"), NOW, (), ())

    async def test_finished_are_listed_newest_first_and_by_service(self, world: World) -> None:
        """History is ordered by the end, can be narrowed to a service, and is cut at the limit."""
        lease = await world.lease()
        for number, service in enumerate(["payments", "checkout", "payments", "cart"]):
            await world.save(ended(f"{service}-{number}", service, at=NOW + 100 - number), lease, f"s{number}")
        names = [one.id for one in await world.store.rollouts.finished()]
        assert names == ["payments-0", "checkout-1", "payments-2", "cart-3"]
        assert [one.id for one in await world.store.rollouts.finished("payments")] == ["payments-0", "payments-2"]
        assert [one.id for one in await world.store.rollouts.finished(limit=2)] == ["payments-0", "checkout-1"]
        assert await world.store.rollouts.finished("nobody") == ()

    async def test_due_are_those_whose_moment_has_passed(self, world: World) -> None:
        """The wake index answers in order of time, without what sleeps or has no wake-up."""
        lease = await world.lease()
        for name, when in (("b", NOW - 1), ("a", NOW), ("c", NOW + 1), ("d", NOW - 5)):
            await world.store.rollouts.create(rollout(f"{name}-1", name), when, (), ())
        await world.save(rollout("d-1", "d"), lease, wake_at=None)
        assert await world.store.rollouts.due(NOW) == ("b-1", "a-1")

    async def test_audit_is_kept_newest_first_also_for_what_is_no_save(self, world: World) -> None:
        """Audit lines of saves and notes are read by rollout or for all, newest first."""
        await world.store.rollouts.create(rollout(), NOW, (), (audit(text="one"), audit(text="two")))
        await world.store.rollouts.note((audit("", "freeze"), audit(text="three")))
        await world.store.rollouts.note(())
        assert [line.text for line in await world.store.rollouts.audited()] == ["three", "freeze", "two", "one"]
        assert [line.text for line in await world.store.rollouts.audited("payments-7f3a", 2)] == ["three", "two"]

    async def test_ping_names_the_server(self, world: World) -> None:
        """`check` can say what it talks to."""
        assert len((await world.store.rollouts.ping()).split()) == 2


class TestInbox:
    async def test_requests_wait_in_order_until_done(self, world: World) -> None:
        """Taking removes nothing, done does; an empty inbox is not waiting."""
        for number in (1, 2, 3):
            await world.store.inbox.put(request(f"q{number}"))
        assert [one.id for one in await world.store.inbox.take("payments-7f3a")] == ["q1", "q2", "q3"]
        assert (await world.store.inbox.take("payments-7f3a"))[0] == request("q1")
        await world.store.inbox.done("payments-7f3a", ("q1", "q3"))
        assert [one.id for one in await world.store.inbox.take("payments-7f3a")] == ["q2"]
        assert await world.store.inbox.waiting() == ("payments-7f3a",)
        await world.store.inbox.done("payments-7f3a", ("q2",))
        assert await world.store.inbox.waiting() == ()
        assert await world.store.inbox.take("payments-7f3a") == ()

    async def test_a_request_put_twice_is_kept_once(self, world: World) -> None:
        """A put whose reply was lost may be repeated."""
        await world.store.inbox.put(request("q1"))
        await world.store.inbox.put(request("q1"))
        assert len(await world.store.inbox.take("payments-7f3a")) == 1

    async def test_inboxes_do_not_mix(self, world: World) -> None:
        """Each rollout has its own."""
        await world.store.inbox.put(request("q1", "a-1"))
        await world.store.inbox.put(request("q2", "b-1"))
        await world.store.inbox.done("a-1", ("q2",))
        assert await world.store.inbox.waiting() == ("a-1", "b-1")
        assert [one.id for one in await world.store.inbox.take("b-1")] == ["q2"]

    async def test_putting_and_ringing_are_heard(self, world: World) -> None:
        """A listener hears the id of a put request and of a bare ring."""
        async with aclosing(world.store.inbox.rings()) as rings:  # type: ignore[type-var]
            heard = asyncio.ensure_future(anext(rings))
            while not heard.done():
                await world.store.inbox.put(request("q1"))
                await asyncio.sleep(0.01)
            assert await heard == "payments-7f3a"
            heard = asyncio.ensure_future(anext(rings))
            while not heard.done() or heard.result() != "b-1":
                if heard.done():
                    heard = asyncio.ensure_future(anext(rings))
                await world.store.inbox.ring("b-1")
                await asyncio.sleep(0.01)
            assert await heard == "b-1"


class TestLeases:
    async def test_only_one_holds(self, world: World) -> None:
        """While one holds the lease another gets none, and everybody can see who."""
        assert await world.store.leases.holder() == ""
        await world.lease("one")
        assert await world.store.leases.acquire("two", 30.0) is None
        assert await world.store.leases.holder() == "one"

    async def test_a_lease_lapses(self, world: World) -> None:
        """Not renewed, it can be taken by another, with a higher token; the first cannot renew it any more."""
        first = await world.lease("one", 0.1)
        await world.wait(0.15)
        assert await world.store.leases.holder() == ""
        second = await world.lease("two")
        assert second.token > first.token
        assert await world.store.leases.renew("one", first, 30.0) is None
        assert await world.store.leases.holder() == "two"

    async def test_a_lapsed_lease_is_not_renewed(self, world: World) -> None:
        """Even when nobody else took it: it has to be acquired again, under a new token."""
        first = await world.lease("one", 0.1)
        await world.wait(0.15)
        assert await world.store.leases.renew("one", first, 30.0) is None

    async def test_renewing_prolongs_under_the_same_token(self, world: World) -> None:
        """A renewed lease outlives its first time."""
        first = await world.lease("one", 2.0)
        renewed = await world.store.leases.renew("one", first, 30.0)
        assert renewed is not None
        assert renewed.token == first.token
        await world.wait(2.1)
        assert await world.store.leases.acquire("two", 30.0) is None

    async def test_until_is_never_later_than_the_server_believes(self, world: World) -> None:
        """`until` counts from before the call."""
        before = world.monotonic()
        lease = await world.lease("one", 30.0)
        assert before + 30.0 <= lease.until <= world.monotonic() + 30.0

    async def test_release_frees_at_once_but_only_ones_own(self, world: World) -> None:
        """A released lease is free; releasing with an old token or as another does nothing."""
        first = await world.lease("one")
        await world.store.leases.release("two", first)
        await world.store.leases.release("one", replace(first, token=first.token - 1))
        assert await world.store.leases.holder() == "one"
        await world.store.leases.release("one", first)
        assert await world.store.leases.holder() == ""
        second = await world.lease("two")
        await world.store.leases.release("one", first)
        assert await world.store.leases.holder() == "two"
        assert second.token > first.token

    async def test_giving_a_lease_back_rings(self, world: World) -> None:
        """Whoever waits for the lease hears at once that it is free; giving back another's rings nothing."""
        lease = await world.lease("one")
        async with aclosing(world.store.inbox.rings()) as rings:  # type: ignore[type-var]
            heard = asyncio.ensure_future(anext(rings))
            while not heard.done():
                await world.store.inbox.ring("b-1")
                await asyncio.sleep(0.01)
            await world.store.leases.release("two", lease)
            await world.store.leases.release("one", lease)
            await world.store.inbox.ring("c-1")
            while (key := await anext(rings)) == "b-1":
                pass
            assert [key, await anext(rings)] == [LEASE_FREED, "c-1"]

    async def test_a_lease_says_which_one_was_before(self, world: World) -> None:
        """0 for an empty store: whoever held a lease before knows by it that the store has lost its data."""
        first = await world.lease("one")
        assert first.previous == 0
        await world.store.leases.release("one", first)
        second = await world.lease("two")
        assert second.previous == first.token
        renewed = await world.store.leases.renew("two", second, 30.0)
        assert renewed is not None
        assert renewed.previous == first.token

    async def test_acquiring_again_is_a_new_token(self, world: World) -> None:
        """A holder that asks again (its reply was lost) gets the lease under a higher token."""
        first = await world.lease("one")
        second = await world.lease("one")
        assert second.token > first.token
        assert await world.store.leases.renew("one", first, 30.0) is None


async def _texts(world: World, now: float = NOW, limit: int = 50) -> list[str]:
    return [letter.message.text for letter in await world.store.outbox.take(now, limit)]


async def _head(world: World, now: float = NOW) -> Letter:
    return (await world.store.outbox.take(now, 1))[0]


class TestOutbox:
    async def test_one_letter_per_rollout_in_order(self, world: World) -> None:
        """Taking gives the head of each queue, oldest first, and again until it is done."""
        await world.store.outbox.add("a-1", (message("a1"), message("a2")), NOW)
        await world.store.outbox.add("b-1", (message("b1"),), NOW)
        assert await _texts(world) == ["a1", "b1"]
        assert await _texts(world) == ["a1", "b1"]
        await world.store.outbox.done(await _head(world))
        assert await _texts(world) == ["b1", "a2"] or await _texts(world) == ["a2", "b1"]
        assert await world.store.outbox.depth() == 2

    async def test_a_letter_comes_back_whole(self, world: World) -> None:
        """Message, rollout and time are as they were put in; ids rise."""
        await world.store.outbox.add("a-1", (message("a1"), message("a2")), NOW)
        first = await _head(world)
        assert (first.rollout, first.message, first.attempts, first.due) == ("a-1", message("a1"), 0, 0.0)
        await world.store.outbox.done(first)
        assert (await _head(world)).id > first.id

    async def test_urgent_goes_first_and_past_its_queue(self, world: World) -> None:
        """An urgent letter is taken before older ones, its rollout's own head as well."""
        await world.store.outbox.add("a-1", (message("a1"),), NOW)
        await world.store.outbox.add("b-1", (message("b1"), message("b2", urgent=True)), NOW)
        assert await _texts(world) == ["b2", "a1", "b1"]
        assert await _texts(world, limit=1) == ["b2"]
        await world.store.outbox.done(await _head(world))
        assert await _texts(world) == ["a1", "b1"]

    async def test_urgent_letters_of_one_rollout_keep_their_order(self, world: World) -> None:
        """The second urgent letter waits for the first."""
        await world.store.outbox.add("a-1", (message("u1", urgent=True), message("u2", urgent=True)), NOW)
        assert await _texts(world) == ["u1"]
        await world.store.outbox.done(await _head(world))
        assert await _texts(world) == ["u2"]

    async def test_a_delayed_letter_holds_back_its_queue_only(self, world: World) -> None:
        """Later letters of the same rollout wait behind a delayed one, other rollouts do not; attempts are counted."""
        await world.store.outbox.add("a-1", (message("a1"), message("a2")), NOW)
        await world.store.outbox.add("b-1", (message("b1"),), NOW)
        await world.store.outbox.delay(await _head(world), NOW + 10)
        assert await _texts(world) == ["b1"]
        assert await _texts(world, NOW + 9.9) == ["b1"]
        assert await _texts(world, NOW + 10) == ["b1", "a1"]
        delayed = (await world.store.outbox.take(NOW + 10, 5))[1]
        assert (delayed.attempts, delayed.due) == (1, NOW + 10)
        await world.store.outbox.done(delayed)
        assert sorted(await _texts(world, NOW + 10)) == ["a2", "b1"]

    async def test_a_delayed_urgent_letter_waits_too(self, world: World) -> None:
        """Delaying an urgent letter lets the ones before it pass, and holds back the ones after it."""
        await world.store.outbox.add(
            "a-1", (message("a1"), message("u1", urgent=True), message("a2"), message("u2", urgent=True)), NOW
        )
        await world.store.outbox.delay(await _head(world), NOW + 10)
        assert await _texts(world) == ["a1"]
        await world.store.outbox.done(await _head(world))
        assert await _texts(world) == []
        assert await _texts(world, NOW + 10) == ["u1"]

    async def test_done_twice_and_late_delay_are_harmless(self, world: World) -> None:
        """A letter that is gone stays gone."""
        await world.store.outbox.add("a-1", (message("a1"), message("a2")), NOW)
        first = await _head(world)
        await world.store.outbox.done(first)
        await world.store.outbox.done(first)
        await world.store.outbox.delay(first, NOW + 10)
        assert await _texts(world) == ["a2"]
        assert await world.store.outbox.depth() == 1

    async def test_waiting_cards_become_one(self, world: World) -> None:
        """A card behind others stands for later cards; the head may be on its way and does not."""
        card = message("", MessageKind.CARD)
        await world.store.outbox.add("a-1", (card, message("n1"), card, message("n2"), card, card), NOW)
        kinds = []
        while letters := await world.store.outbox.take(NOW, 1):
            kinds.append(letters[0].message.kind.value)
            await world.store.outbox.done(letters[0])
        assert kinds == ["card", "note", "card", "note"]
        await world.store.outbox.add("a-1", (card, card, card), NOW)
        assert await world.store.outbox.depth() == 2

    async def test_posted_messages_are_remembered(self, world: World) -> None:
        """Where a card stands is known later, and can be moved."""
        assert await world.store.outbox.posted("card:a-1") is None
        await world.store.outbox.set_posted("card:a-1", Posted("C0", "1.0"))
        await world.store.outbox.set_posted("card:a-1", Posted("C0", "2.0"))
        assert await world.store.outbox.posted("card:a-1") == Posted("C0", "2.0")
        assert await world.store.outbox.posted("card:b-1") is None

    async def test_allowance_is_a_shared_bucket(self, world: World) -> None:
        """As many as the limit are granted at once, then one for each share of the window; buckets are apart."""
        take = world.store.outbox.allowance
        assert [await take("edits", 3, 6.0, NOW) for _ in range(3)] == [0.0, 0.0, 0.0]
        assert await take("edits", 3, 6.0, NOW) == pytest.approx(2.0)
        assert await take("edits", 3, 6.0, NOW + 1.5) == pytest.approx(0.5)
        assert await take("posts", 3, 6.0, NOW) == 0.0
        assert await take("edits", 3, 6.0, NOW + 2.0) == 0.0
        assert await take("edits", 3, 6.0, NOW + 2.0) > 0.0
        assert [await take("edits", 3, 6.0, NOW + 100) for _ in range(4)][:3] == [0.0, 0.0, 0.0]

    async def test_a_clock_that_is_behind_does_not_fill_the_bucket(self, world: World) -> None:
        """A replica whose clock lags takes from the same bucket and gives nothing back."""
        take = world.store.outbox.allowance
        assert await take("edits", 1, 10.0, NOW) == 0.0
        assert await take("edits", 1, 10.0, NOW - 5) == pytest.approx(10.0)
        assert await take("edits", 1, 10.0, NOW + 5) == pytest.approx(5.0)


class TestFreezes:
    async def test_freezes_are_listed_until_lifted(self, world: World) -> None:
        """Lifting a scope lifts all of its freezes, tells which, and leaves the others."""
        kept = freeze("f3", "pay", NOW + 60)
        for one in (freeze("f1", "payments"), freeze("f2", "payments", NOW + 60), kept):
            await world.store.freezes.add(one)
        assert len(await world.store.freezes.all()) == 3
        lifted = await world.store.freezes.remove("payments")
        assert lifted == (freeze("f1", "payments"), freeze("f2", "payments", NOW + 60))
        assert await world.store.freezes.all() == (kept,)
        assert await world.store.freezes.remove("payments") == ()


class TestSeen:
    async def test_a_key_is_new_once(self, world: World) -> None:
        """The second sight within the time is no first one."""
        assert await world.store.seen.first_time("click-1", 30.0)
        assert not await world.store.seen.first_time("click-1", 30.0)
        assert await world.store.seen.first_time("click-2", 30.0)

    async def test_a_key_is_forgotten_after_its_time(self, world: World) -> None:
        """After the time it counts as new again."""
        assert await world.store.seen.first_time("click-1", 0.1)
        await world.wait(0.15)
        assert await world.store.seen.first_time("click-1", 0.1)
