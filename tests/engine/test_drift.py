"""What others do to the route, its object, its subsets and its pods, in every phase and in the moment of a write."""

from collections.abc import Callable
from typing import Any

import pytest

from bot.rollout.effects import Direction, MessageKind
from bot.rollout.model import HoldReason, Phase, Rollout
from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, GRACE, HOST, Stage, stage
from tests.engine.test_stories import started

LONG = "10%:12s, 50%:12s:approve, 100%:12s"
NO_V1 = "no DestinationRule for payments has the subset v1 any more"
NO_V2 = "no DestinationRule for payments has the subset v2 any more"
Meddle = Callable[[Stage], None]


def weights(made: Stage) -> None:
    made.mesh.edit("payments", canary_weight=30)


def reverted(made: Stage) -> None:
    made.mesh.edit("payments", canary_weight=0, by="argocd-controller")


def deleted(made: Stage) -> None:
    made.mesh.delete("payments")


def made_again(made: Stage) -> None:
    made.mesh.make_again("payments", canary_weight=0)


def made_again_with_weight(made: Stage) -> None:
    made.mesh.make_again("payments", canary_weight=30)


def _route(manifest: dict[str, Any]) -> dict[str, Any]:
    route: dict[str, Any] = manifest["spec"]["http"][0]
    return route


def renamed(made: Stage) -> None:
    made.mesh.change("payments", lambda manifest: _route(manifest).update(name="main"))


def replaced(made: Stage) -> None:
    """Another route in the place of ours, to stable alone."""
    only = [{"destination": {"host": HOST, "subset": "v1"}}]
    made.mesh.change("payments", lambda manifest: _route(manifest).update(name="all", route=only))


def another_match(made: Stage) -> None:
    made.mesh.change("payments", lambda manifest: _route(manifest).update(match=[{"uri": {"prefix": "/v2"}}]))


def canary_out(made: Stage) -> None:
    made.mesh.change("payments", lambda manifest: _route(manifest)["route"].pop(1))


def stable_out(made: Stage) -> None:
    made.mesh.change("payments", lambda manifest: _route(manifest)["route"].pop(0))


def stable_subset(made: Stage) -> None:
    made.mesh.lose("payments", stable_lost=NO_V1)


def canary_subset(made: Stage) -> None:
    made.mesh.lose("payments", canary_lost=NO_V2)


def canary_pods(made: Stage) -> None:
    made.cluster.remove("payments-v2")


def stable_pods(made: Stage) -> None:
    made.cluster.remove("payments-v1")


HELD: tuple[tuple[Meddle, HoldReason, str], ...] = (
    (weights, HoldReason.DRIFT, "Last changed by `kubectl-edit`"),
    (reverted, HoldReason.DRIFT, "Last changed by `argocd-controller`"),
    (deleted, HoldReason.DRIFT, "go to all its ready pods"),
    (made_again, HoldReason.DRIFT, "deleted and made again"),
    (made_again_with_weight, HoldReason.DRIFT, "Last changed by `helm`"),
    (renamed, HoldReason.DRIFT, "its route main sends"),
    (replaced, HoldReason.DRIFT, "no http route named primary"),
    (another_match, HoldReason.DRIFT, "the match of route primary"),
    (canary_out, HoldReason.DRIFT, "v2 is no longer a destination"),
    (stable_out, HoldReason.STABLE_UNHEALTHY, "v1 is no longer a destination"),
    (stable_subset, HoldReason.STABLE_UNHEALTHY, NO_V1),
    (stable_pods, HoldReason.STABLE_UNHEALTHY, "v1 has no ready pod"),
)
BACK: tuple[tuple[Meddle, str], ...] = ((canary_subset, "No DestinationRule"), (canary_pods, "0 of 0 pods of v2 ready"))
HELD_IDS = [one[0].__name__ for one in HELD]


async def baking(made: Stage) -> str:
    name = await started(made, LONG)
    await made.play(8, until=lambda: made.weights() == [10])
    await made.play(2)
    return name


async def asked(made: Stage) -> str:
    name = await started(made, LONG)
    await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase is Phase.AWAITING_APPROVAL)
    return name


async def finishing(made: Stage) -> str:
    """At 100%, where only the bake is left."""
    name = await asked(made)
    await put(made.desk, "approve", name, GRACE)
    await made.play(60, until=lambda: made.weights()[-1] == 100)
    await made.play(2)
    return name


SCENES = {"baking": baking, "asked": asked, "finishing": finishing}


def record(made: Stage, name: str) -> Rollout:
    return made.store.rollouts.records[name].rollout


def pages(made: Stage, key: str) -> list[bool]:
    return [page.resolved for page in made.pager.pages if page.key.endswith(key)]


@pytest.mark.parametrize(("meddle", "reason", "words"), HELD, ids=HELD_IDS)
@pytest.mark.parametrize("scene", SCENES)
async def test_what_others_do_is_held_told_once_and_never_written_over(
    scene: str, meddle: Meddle, reason: HoldReason, words: str
) -> None:
    """Half a minute of passing gates later nothing was written, and the channel was asked once, with the name of who
    did it or what is missing."""
    async with stage() as made:
        name = await SCENES[scene](made)
        meddle(made)
        written = len(made.mesh.writes)
        await made.play(30)
        assert reason in record(made, name).hold_reasons
        assert len(made.mesh.writes) == written
        questions = [one for _, one in made.store.said if one.kind is MessageKind.ASK and one.step is None]
        assert len(questions) == 1, questions
        assert words in questions[0].text
        assert pages(made, "stable-unhealthy") == ([False] if reason is HoldReason.STABLE_UNHEALTHY else [])
        assert made.telemetry.failures == []


@pytest.mark.parametrize(("meddle", "reason", "words"), HELD, ids=HELD_IDS)
async def test_a_person_gets_out_of_each_by_rolling_back(meddle: Meddle, reason: HoldReason, words: str) -> None:
    """The canary has nothing by our route afterwards, or people are paged as long as it may have."""
    async with stage() as made:
        name = await baking(made)
        meddle(made)
        await made.play(5)
        await rollback(made.desk, name, ADA, "enough")
        await made.play(10)
        if meddle in (stable_out, renamed):
            assert (record(made, name).phase, pages(made, "cannot-roll-back")) == (Phase.ROLLING_BACK, [False])
            return
        assert record(made, name).phase is Phase.ROLLED_BACK
        if meddle not in (deleted, replaced):
            assert not made.mesh.weights("payments")[1]


@pytest.mark.parametrize(("meddle", "words"), BACK, ids=["canary_subset", "canary_pods"])
@pytest.mark.parametrize("scene", SCENES)
async def test_traffic_that_nothing_serves_goes_to_stable_by_itself(scene: str, meddle: Meddle, words: str) -> None:
    """The canary's subset or its pods are gone: its share fails, and stable can take it."""
    async with stage() as made:
        name = await SCENES[scene](made)
        meddle(made)
        at = made.clock.now()
        await made.play(10, until=lambda: record(made, name).phase.final)
        rollout = record(made, name)
        assert (rollout.phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))
        assert words in rollout.reason
        assert made.clock.now() - at < 5


@pytest.mark.parametrize("meddle", [canary_subset, canary_pods])
async def test_without_pods_of_stable_nothing_goes_there(meddle: Meddle) -> None:
    """Both sides are gone: held and paged, for 0 would be an outage of everything."""
    async with stage() as made:
        name = await baking(made)
        stable_pods(made)
        meddle(made)
        await made.play(20)
        assert (record(made, name).phase, made.weights()) == (Phase.HOLDING, [10])
        assert pages(made, "stable-unhealthy") == [False]


@pytest.mark.parametrize("meddle", [deleted, renamed])
async def test_a_failing_canary_without_a_route_is_paged_and_goes_to_0_when_it_is_back(meddle: Meddle) -> None:
    """Rule 9 without a route: judged, decided, and applied as soon as there is something to apply it to."""
    async with stage() as made:
        name = await baking(made)
        before = made.mesh.manifest("payments")
        meddle(made)
        await made.play(3)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(20)
        assert (record(made, name).phase, pages(made, "cannot-roll-back")) == (Phase.ROLLING_BACK, [False])
        made.mesh._store(before, "kubectl-client-side-apply")
        await made.play(10)
        assert (record(made, name).phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))
        assert pages(made, "cannot-roll-back") == [False, True]


MOMENTS: tuple[tuple[str, Meddle, bool], ...] = tuple(
    (direction, meddle, after)
    for direction in ("raise", "zero")
    for meddle in (deleted, made_again, renamed, replaced, another_match, canary_out, stable_out, weights)
    for after in (False, True)
)


@pytest.mark.parametrize(
    ("direction", "meddle", "after"), MOMENTS, ids=[f"{one[0]}-{one[1].__name__}-{one[2]}" for one in MOMENTS]
)
async def test_in_the_very_moment_of_a_write_nothing_is_lost(direction: str, meddle: Meddle, after: bool) -> None:
    """Just before a patch is sent or just after it was taken: never more weight than before, and the rollout is held,
    goes back, or pages."""
    async with stage() as made:
        name = await baking(made)
        made.mesh.meddle(lambda: meddle(made), after=after)
        if direction == "zero":
            await rollback(made.desk, name, ADA, "enough")
        await made.play(40)
        rollout = record(made, name)
        raised = [change.weight_percent for change in made.mesh.writes if change.direction is Direction.RAISE]
        assert raised in ([10], [10, 50])
        paged = pages(made, "cannot-roll-back")
        if direction == "raise":
            assert rollout.phase in (Phase.HOLDING, Phase.AWAITING_APPROVAL)
        elif rollout.phase is Phase.ROLLING_BACK:
            assert paged == [False]
        else:
            assert rollout.phase is Phase.ROLLED_BACK
            assert paged in ([], [False, True])


@pytest.mark.parametrize("meddle", [deleted, made_again, replaced, another_match])
async def test_a_scheduled_start_whose_route_is_another_is_cancelled_aloud(meddle: Meddle) -> None:
    """Preflight is done again when it is due, and nothing is written to what was not examined."""
    async with stage() as made:
        answer = await start(made.desk, StartAsk("payments", steps=LONG, at=made.clock.now() + 60), ADA)
        assert answer.rollout is not None
        meddle(made)
        await made.play(70)
        assert record(made, answer.rollout.id).phase is Phase.CANCELLED
        assert made.mesh.writes == []
        assert [one for _, one in made.store.said if one.kind is MessageKind.ALERT]


async def test_argo_cd_that_reverts_everything_is_not_fought() -> None:
    """Self-heal puts 0 back after each write. Each word of a person gives one write, each question says how to stop it,
    and without a word nothing is written, also not when the weights happen to be ours again."""
    async with stage() as made:
        name = await baking(made)
        for time in range(1, 5):
            reverted(made)
            await made.play(4)
            assert HoldReason.DRIFT in record(made, name).hold_reasons
            await put(made.desk, "drift", name, GRACE, option="adopt")
            await made.play(6, until=lambda: made.mesh.weights("payments")[1] == 10)
            raises = [change for change in made.mesh.writes if change.direction is Direction.RAISE]
            assert len(raises) == 1 + time
        reverted(made)
        await made.play(10)
        made.mesh.edit("payments", canary_weight=10, by="argocd-controller")
        await made.play(60)
        assert HoldReason.DRIFT in record(made, name).hold_reasons
        assert [change for change in made.mesh.writes if change.direction is Direction.RAISE] == raises
        questions = [one.text for _, one in made.store.said if one.kind is MessageKind.ASK]
        assert all("RespectIgnoreDifferences=true" in text for text in questions[:5])
