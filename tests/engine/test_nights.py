"""Unlucky nights: what must not happen when Redis is wiped, objects are made again, and people type the wrong thing."""

import asyncio
import copy
from dataclasses import replace

import pytest

from bot.analysis.facts import fingerprint
from bot.catalog import load
from bot.errors import Permanent, Transient, UserError
from bot.ports.people import Person
from bot.rollout.events import Request
from bot.rollout.model import Freeze, HoldReason, Phase, Rollout, Target
from bot.usecases import freezing
from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from bot.usecases.undo import undo
from tests.engine.stage import ADA, CATALOG, GRACE, Stage, stage
from tests.engine.test_stories import started


async def promoted(made: Stage) -> str:
    """A rollout of payments that has been promoted."""
    name = await started(made)
    await made.play(120, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
    assert (await made.rollout(name)).phase is Phase.PROMOTED
    return name


def made_again(made: Stage, canary_weight: int) -> None:
    """Somebody deletes the VirtualService and applies it again."""
    manifest = copy.deepcopy(made.mesh.manifest("payments"))
    made.mesh.delete("payments")
    manifest["metadata"] = {"name": "payments", "namespace": "shop", "uid": "uid-of-another-object"}
    stable, canary = manifest["spec"]["http"][0]["route"]
    stable["weight"], canary["weight"] = 100 - canary_weight, canary_weight
    made.mesh._store(manifest, "helm")


async def test_a_rollout_of_an_object_made_again_without_the_canary_can_be_ended() -> None:
    """The old object is gone and the new one sends nothing to the canary: a roll back has nothing to wait for."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        made_again(made, 0)
        await made.play(3)
        assert HoldReason.DRIFT in (await made.rollout(name)).hold_reasons
        await put(made.desk, "rollback", name, ADA)
        await made.play(5)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.ROLLED_BACK
        assert "another object" in rollout.reason or "made again" in rollout.reason, rollout.reason
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_roll_back_done_by_hand_ends_the_rollout() -> None:
    """The API server refuses our patch and somebody uses the kubectl line: the paging stops, the rollout ends."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        made.mesh.fail("refused", times=1000)
        await put(made.desk, "rollback", name, ADA)
        await made.play(10)
        assert (await made.rollout(name)).phase is Phase.ROLLING_BACK
        made.mesh.edit("payments", canary_weight=0, by="kubectl-patch")
        await made.play(12)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK
        assert any(page.resolved for page in made.pager.pages), made.pager.pages


async def test_a_route_that_cannot_be_taken_up_again_leaves_nobody_in_the_dark() -> None:
    """Its record is gone and its canary stands for nothing: people are paged with the route and the way on."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        await made.engine.stop()
        made.store.wipe()

        async def stands_for_nothing(target: Target) -> Target:
            raise Permanent("no DestinationRule has a subset v2")

        made.mesh.resolved = stands_for_nothing  # type: ignore[method-assign]
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(20)
        assert made.mesh.weights("payments") == (90, 10)
        (page,) = [page for page in made.pager.pages if page.key == f"{name}:lost"]
        assert "10%" in page.summary
        assert f"rollback {name}" in page.detail
        assert any("nobody watches" in text for text in made.chat.texts), made.chat.texts
        await rollback(made.desk, "payments", ADA, "")
        assert made.mesh.weights("payments") == (100, 0)
        await made.play(301)
        assert made.pager.pages[-1].key == f"{name}:lost"
        assert made.pager.pages[-1].resolved


async def test_a_look_that_cannot_be_made_is_told() -> None:
    """A fault of ours in judging must not leave a canary with traffic and nobody watching."""
    async with stage() as made:
        await started(made)
        await made.play(8, until=lambda: made.weights() == [10])

        async def broken(queries: object) -> object:
            raise RuntimeError("a fault of ours")

        made.metrics.ask = broken  # type: ignore[method-assign, assignment]
        await made.play(30)
        assert any("payments" in page.key and not page.resolved for page in made.pager.pages), made.pager.pages


async def test_an_error_of_ours_in_the_patch_is_told_like_any_other() -> None:
    """Going to 0 fails for a reason nobody thought of: people are paged, and it is tried again."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        write = made.mesh.write

        async def broken(target: object, change: object) -> object:
            raise KeyError("spec")

        made.mesh.write = broken  # type: ignore[method-assign, assignment]
        await put(made.desk, "rollback", name, ADA)
        await made.play(5)
        assert any("cannot-roll-back" in page.key for page in made.pager.pages), made.pager.pages
        made.mesh.write = write  # type: ignore[method-assign]
        await made.play(8)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK


async def test_undo_asks_whether_the_former_stable_still_runs() -> None:
    """After a promotion the old version is often scaled down: all traffic must not go to no pod."""
    async with stage() as made:
        await promoted(made)
        made.cluster.change("payments-v1", ready=False)
        with pytest.raises(UserError, match="no ready pod"):
            await undo(made.desk, "payments", ADA)
        await made.play(3)
        assert made.mesh.weights("payments") == (0, 100)


async def test_a_start_that_was_cancelled_does_not_stand_in_the_way_of_undo() -> None:
    """Cancelled rollouts have moved nothing: the promotion before them can still be undone."""
    async with stage() as made:
        await promoted(made)
        target = made.mesh.targets["payments"]
        made.mesh.targets["payments"] = replace(target, stable=target.canary, canary=target.stable)
        later = await start(made.desk, StartAsk("payments", at=made.clock.now() + 600), ADA)
        assert later.rollout is not None
        await made.play(1)
        await put(made.desk, "cancel", later.rollout.id, ADA)
        await made.play(2)
        made.mesh.targets["payments"] = target
        back = await undo(made.desk, "payments", ADA)
        await made.play(3)
        assert (await made.rollout(back.id)).phase is Phase.ROLLED_BACK
        assert made.mesh.weights("payments") == (100, 0)


TWO_TEAMS = (
    CATALOG
    + """
  checkout:
    namespace: shop
    route: {name: checkout}
    subsets: [v1, v2]
    rollback: [U0GRACE]
"""
)


@pytest.mark.parametrize("store", ["there", "away"])
async def test_roll_back_all_goes_on_where_one_service_is_not_allowed(store: str) -> None:
    """Who may not roll back one service is told so, and all the others go back."""
    async with stage() as made:
        made.catalog = load(TWO_TEAMS)
        await made.add_service("checkout")
        for service in ("checkout", "payments"):
            await start(
                made.desk, StartAsk(service, steps="10%:60s, 100%:10s"), GRACE if service == "checkout" else ADA
            )
        await made.play(10)
        assert made.mesh.weights("payments")[1] == made.mesh.weights("checkout")[1] == 10
        if store == "away":
            made.store.down = True
        said = await rollback(made.desk, "all", ADA, "fire")
        await made.play(5)
        assert made.mesh.weights("payments") == (100, 0)
        assert made.mesh.weights("checkout") == (90, 10)
        assert any("checkout" in sentence for sentence in said), said


async def test_a_freeze_just_announced_binds_a_raise_that_is_about_to_happen() -> None:
    """From the moment a freeze stands no weight goes up, also when the raise was decided just before."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        save = made.store.rollouts.save

        async def freeze_meanwhile(rollout: Rollout, *rest: object, **more: object) -> None:
            await save(rollout, *rest, **more)  # type: ignore[arg-type]
            if rollout.write is not None and rollout.write.weight_percent == 50:
                frozen = Freeze("f1", "all", "audit", ADA.actor, made.clock.now())
                await made.desk.freezes.add(frozen)

        made.store.rollouts.save = freeze_meanwhile  # type: ignore[method-assign]
        await made.play(30)
        assert made.weights() == [10]
        assert HoldReason.FREEZE in (await made.rollout(name)).hold_reasons


async def test_freezes_that_cannot_be_read_are_no_permission() -> None:
    """While the store does not tell its freezes nothing goes up; it goes on when it does."""
    async with stage() as made:
        await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        tell = made.store.freezes.all

        async def away() -> tuple[Freeze, ...]:
            raise Transient("Redis is busy")

        made.store.freezes.all = away  # type: ignore[method-assign]
        await made.play(30)
        assert made.weights() == [10]
        made.store.freezes.all = tell  # type: ignore[method-assign]
        await made.play(30)
        assert made.weights()[:2] == [10, 50]


async def test_a_freeze_of_a_service_that_does_not_exist_is_refused() -> None:
    """A slip of the finger must not leave somebody believing that payments is frozen."""
    async with stage() as made:
        with pytest.raises(UserError, match="paymnets") as refused:
            await freezing.freeze(made.desk, "paymnets", None, "audit", ADA)
        assert "payments" in refused.value.hint
        assert await made.store.freezes.all() == ()


NAMED = CATALOG.replace('    channel: "#payments"', '    channel: "#payments"\n    starters: [U0GRACE]')


async def test_the_name_of_the_virtualservice_is_no_way_around_the_roles() -> None:
    """A service of the catalog is started by its name there; its route's other names do not bypass its starters."""
    async with stage() as made:
        made.catalog = load(NAMED.replace("  payments:\n", "  pay:\n"))
        with pytest.raises(UserError, match="`pay`"):
            await start(made.desk, StartAsk("payments", "v2"), ADA)
        assert made.store.rollouts.records == {}


async def test_a_request_of_an_unknown_verb_is_answered() -> None:
    """A newer replica may ask what this holder does not know: it says so instead of losing it."""
    async with stage() as made:
        name = await started(made)
        await made.play(3)
        await made.desk.inbox.put(Request("r1", name, "dance", ADA.actor, made.clock.now(), reply=ADA.reply))
        await made.play(3)
        assert any("dance" in text for text in (said.text for said in made.chat.whispers)), made.chat.whispers


async def test_a_chat_that_hangs_does_not_hold_up_a_roll_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going to 0 needs no chat: one that does not answer who somebody is counts as one that cannot tell."""
    monkeypatch.setattr("bot.usecases.permission.ROLLBACK_WAITS_S", 0.05)
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])

        async def hangs(user_id: str) -> Person:
            await asyncio.Event().wait()
            raise AssertionError

        made.directory.person = hangs  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await rollback(made.desk, name, ADA, "fire")
        await made.play(3)
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_group_that_was_deleted_stops_no_roll_back() -> None:
    """Where only a group may roll back and Slack knows it no more, any full member may."""
    async with stage() as made:
        made.catalog = load(CATALOG.replace("    approvers:", '    rollback: ["@long-gone"]\n    approvers:'))
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        await rollback(made.desk, name, ADA, "fire")
        await made.play(3)
        assert made.mesh.weights("payments") == (100, 0)


async def test_a_stable_without_pods_is_told_while_the_canary_is_well() -> None:
    """Most of the traffic goes nowhere: hold, page, and ask; it clears by itself when stable is back."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        made.cluster.change("payments-v1", ready=False)
        await made.play(5)
        assert HoldReason.STABLE_UNHEALTHY in (await made.rollout(name)).hold_reasons
        assert [page.resolved for page in made.pager.pages] == [False]
        assert "v1 has no ready pod" in made.pager.pages[0].detail
        assert made.weights() == [10]
        made.cluster.change("payments-v1", ready=True)
        await made.play(5)
        assert (await made.rollout(name)).holds == ()
        assert [page.resolved for page in made.pager.pages] == [False, True]


async def scheduled(made: Stage) -> str:
    """A start in a minute."""
    answer = await start(made.desk, StartAsk("payments", "v2", at=made.clock.now() + 60), ADA)
    assert answer.rollout is not None
    return answer.rollout.id


async def test_what_is_deployed_before_a_scheduled_start_is_what_is_started() -> None:
    """The canary is pinned when the start is due: nothing was measured of the one before."""
    async with stage() as made:
        name = await scheduled(made)
        made.cluster.change("payments-v2", template="hash-2", images=("sha256:2",))
        pods = await made.cluster.pods("shop", made.mesh.targets["payments"].canary.selector)
        made.mesh.targets["payments"] = replace(made.mesh.targets["payments"], fingerprint=fingerprint(pods))
        await made.play(68)
        assert (await made.rollout(name)).holds == ()
        assert made.weights() == [10]


async def test_a_scheduled_start_whose_stable_is_another_by_then_is_cancelled() -> None:
    """Another rollout was promoted meanwhile: the plan was made for a route that is no more."""
    async with stage() as made:
        name = await scheduled(made)
        target = made.mesh.targets["payments"]
        made.mesh.edit("payments", canary_weight=100)
        made.mesh.targets["payments"] = replace(target, stable=target.canary, canary=target.stable)
        await made.play(70)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.CANCELLED
        assert "not what it was" in rollout.reason
        assert made.weights() == []


async def test_a_start_that_is_long_overdue_begins_at_no_odd_hour() -> None:
    """The API server and then the bot were away when the start was due: hours later it is cancelled and told."""
    async with stage() as made:
        name = await scheduled(made)
        made.mesh.fail("transient", on="survey", times=100_000)
        await made.play(120)
        assert (await made.rollout(name)).phase is Phase.SCHEDULED
        await made.engine.stop()
        made.clock.advance(5 * 3600)
        made.mesh.recover()
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(5)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.CANCELLED
        assert "it was due 5 h" in rollout.reason
        assert any("it was due 5 h" in text for text in made.chat.texts), made.chat.texts


async def test_roll_back_all_says_when_the_routes_cannot_be_read() -> None:
    """An API server that is away is not an answer that there is nothing to roll back."""
    async with stage() as made:

        async def away(namespaces: object) -> object:
            raise Transient("the API server is away")

        made.mesh.steered = away  # type: ignore[method-assign, assignment]
        with pytest.raises(Transient):
            await rollback(made.desk, "all", ADA, "fire")


async def test_sides_that_metrics_cannot_tell_apart_are_not_started() -> None:
    """The rollout would hold at its first step for ever, with nobody able to judge it."""
    async with stage() as made:
        target = made.mesh.targets["payments"]
        canary = replace(target.canary, workloads=target.stable.workloads, version=target.stable.version)
        made.mesh.targets["payments"] = replace(target, canary=canary)
        with pytest.raises(UserError, match="cannot tell them apart"):
            await start(made.desk, StartAsk("payments", "v2"), ADA)
        assert made.store.rollouts.records == {}


async def test_a_deleted_route_is_not_called_safe() -> None:
    """Without its VirtualService a host sends to all its pods: who rolls back reads that."""
    async with stage() as made:
        name = await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        made.mesh.delete("payments")
        await made.play(3)
        await put(made.desk, "rollback", name, ADA)
        await made.play(3)
        rollout = await made.rollout(name)
        assert rollout.phase is Phase.ROLLED_BACK
        assert "may send to all its ready pods" in rollout.reason


async def test_who_approves_while_it_is_held_reads_that_nothing_goes_up_yet() -> None:
    """An approval does not lift a hold, and does not promise what the hold forbids."""
    async with stage() as made:
        name = await started(made, "10%:10s, 50%:10s:approve, 100%:10s")
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase is Phase.AWAITING_APPROVAL)
        made.mesh.edit("payments", canary_weight=40)
        await made.play(3)
        await put(made.desk, "approve", name, GRACE)
        await made.play(3)
        assert "Still held: the route says v1 60%" in made.chat.whispers[-1].text, made.chat.whispers[-1].text
        assert made.weights() == [10]


async def test_a_holder_that_cannot_take_up_its_work_is_told() -> None:
    """It holds the lease, so that no other process works either: people are paged."""
    async with stage() as made:
        await started(made)
        await made.play(8, until=lambda: made.weights() == [10])
        await made.engine.stop()

        async def broken() -> object:
            raise RuntimeError("a fault of ours")

        made.store.rollouts.active = broken  # type: ignore[method-assign, assignment]
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(10)
        assert not made.engine.leading
        assert [page.key for page in made.pager.pages] == ["loop:lease"]
