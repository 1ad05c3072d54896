"""The route changed, deleted, made again, or without anything behind it, in whichever phase: held and asked, never
fought; and 0 where that is the only thing left that works."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from bot.rollout.drift import STUBBORN
from bot.rollout.effects import Decision, Direction, MessageKind, Page, SetWeight
from bot.rollout.events import Clocked, Looked, Remains, RouteGone, TookOver, WriteFailed
from bot.rollout.gate import Verdict
from bot.rollout.model import HoldReason, OnSilence, Phase
from bot.rollout.wake import UNSERVED_S
from bot.views.message import render
from tests.unit.rollout.test_machine import asked, begun, kinds, said, writes
from tests.unit.rollout.world import LINUS, World

DELETED = RouteGone("VirtualService shop/payments is not there")
TAKEN_OUT = RouteGone(
    "VirtualService shop/payments has no http route named primary now, and nothing in it sends to v2", Remains.OBJECT
)
RENAMED = RouteGone(
    "VirtualService shop/payments has no http route named primary now, but its route main sends 5% to v2",
    Remains.TRAFFIC,
)


def _weights(world: World) -> None:
    world.route.canary, world.route.stable = 40, 60


def _reverted(world: World) -> None:
    world.route.canary, world.route.stable = 0, 100


def _made_again(world: World) -> None:
    world.route.uid, world.route.mark = "uid-2", None
    world.route.canary, world.route.stable = 0, 100


def _made_again_with_weight(world: World) -> None:
    world.route.uid, world.route.mark = "uid-2", None
    world.route.canary, world.route.stable = 40, 60


def _another_match(world: World) -> None:
    world.route.changed = "the match of route primary is not what it was"


def _no_mark(world: World) -> None:
    world.route.mark = None


def _canary_taken_out(world: World) -> None:
    world.route.canary, world.route.stable = None, 100  # type: ignore[assignment]


def _stable_taken_out(world: World) -> None:
    world.route.stable, world.route.stable_lost = 0, "v1 is no longer a destination of the route"


def _stable_subset(world: World) -> None:
    world.route.stable_lost = "no DestinationRule has the subset v1"


def _gone(world: World) -> None:
    world.route.gone = DELETED


def _out(world: World) -> None:
    world.route.gone = TAKEN_OUT


def _elsewhere(world: World) -> None:
    world.route.gone = RENAMED


Meddle = Callable[[World], None]
BOTH, OURS, NONE = ("drift:adopt", "drift:reapply"), ("drift:reapply",), ()
CHANGES: tuple[tuple[Meddle, str, tuple[str, ...]], ...] = (
    (_weights, "v2 40% instead of", BOTH),
    (_reverted, "v2 0% instead of", BOTH),
    (_made_again, "deleted and made again", BOTH),
    (_made_again_with_weight, "v2 40% instead of", BOTH),
    (_another_match, "the match of route primary", NONE),
    (_no_mark, "our annotation", BOTH),
    (_canary_taken_out, "v2 is no longer a destination", NONE),
    (_stable_taken_out, "v1 is no longer a destination", NONE),
    (_stable_subset, "no DestinationRule has the subset v1", NONE),
    (_gone, "scale it to 0", NONE),
    (_out, "Put the route back", NONE),
    (_elsewhere, "by hand", NONE),
)
IDS = [one[0].__name__.strip("_") for one in CHANGES]


def _baking() -> World:
    world = begun()
    world.pass_time(5)
    return world


def _held() -> World:
    world = _baking()
    world.ask("hold", reason="lunch")
    return world


def _last() -> World:
    world = asked()
    world.ask("approve", LINUS)
    world.step(world.look())
    while world.rollout.weight_percent < 100:
        world.pass_time(5)
    return world


SCENES = {"baking": _baking, "asked": asked, "held": _held, "last": _last}


def _buttons(decision: Decision) -> list[str]:
    """What can be clicked under the question of a decision, the way back left out."""
    found = []
    for message in decision.messages:
        if message.kind is MessageKind.ASK:
            shown = render(message, decision.rollout)
            found += [one["action_id"] for block in shown.blocks for one in block.get("elements", ()) if "style" in one
                      or "action_id" in one]  # fmt: skip
    return sorted({name for name in found if name.startswith("drift")})


@pytest.mark.parametrize(("meddle", "words", "offered"), CHANGES, ids=IDS)
@pytest.mark.parametrize("scene", SCENES)
def test_whatever_happens_to_the_route_it_is_held_and_asked_about_and_not_written(
    scene: str, meddle: Meddle, words: str, offered: tuple[str, ...]
) -> None:
    """In every running phase: one question that says what happened and offers only what works, and no write for
    minutes of passing gates."""
    world = SCENES[scene]()
    meddle(world)
    world.now += 5
    decision = world.step(world.look())
    questions = [message.text for message in decision.messages if message.kind is MessageKind.ASK]
    assert len(questions) == 1
    assert words in questions[0]
    assert tuple(_buttons(decision)) == offered
    assert world.rollout.hold_reasons & {HoldReason.DRIFT, HoldReason.STABLE_UNHEALTHY}
    before, told = world.route.state(), len(world.texts())
    for _ in range(12):
        world.now += 5
        assert not writes(world.step(world.look()))
    assert world.route.state() == before
    assert not [text for text in world.texts()[told:] if "is held" in text]


@pytest.mark.parametrize(("meddle", "words", "offered"), CHANGES, ids=IDS)
def test_it_goes_on_by_itself_when_all_is_as_it_was(meddle: Meddle, words: str, offered: tuple[str, ...]) -> None:
    """Whoever undoes what they did has to press nothing: the hold goes, the bake starts anew, the plan goes on."""
    world = _baking()
    ours = replace(world.route)
    meddle(world)
    world.now += 5
    world.step(world.look())
    world.route = ours
    world.now += 5
    world.step(world.look())
    assert (world.rollout.phase, world.rollout.gone, world.rollout.found) == (Phase.PROGRESSING, "", None)
    world.until(Phase.AWAITING_APPROVAL)


@pytest.mark.parametrize(("meddle", "words", "offered"), CHANGES, ids=IDS)
def test_a_click_on_what_is_not_offered_changes_nothing_and_says_what_to_do(
    meddle: Meddle, words: str, offered: tuple[str, ...]
) -> None:
    """A typed or late wish to adopt or re-apply is answered with the reason and the way on."""
    world = _baking()
    meddle(world)
    world.now += 5
    world.step(world.look())
    for option in ("adopt", "reapply"):
        if f"drift:{option}" in offered or world.rollout.held(HoldReason.DRIFT) is None:
            continue
        before = replace(world.rollout, heard=())
        answer = said(world.ask("drift", option=option))
        assert "Nothing changed" in answer
        assert "back" in answer
        assert replace(world.rollout, heard=()) == before


@pytest.mark.parametrize("option", ["adopt", "reapply", "rollback"])
@pytest.mark.parametrize("meddle", [_made_again, _made_again_with_weight])
def test_an_object_that_was_made_again_is_steered_after_a_person_said_so(meddle: Meddle, option: str) -> None:
    """Each of the three ways works on the object that is there now: who clicks was told that it is another one."""
    world = _baking()
    meddle(world)
    world.now += 5
    world.step(world.look())
    found = world.route.canary
    if option == "rollback":
        world.ask("rollback")
        assert (world.rollout.phase, world.route.canary) == (Phase.ROLLED_BACK, 0)
        return
    world.ask("drift", option=option)
    assert world.rollout.target.route.uid == "uid-2"
    assert world.route.canary == (found if option == "adopt" else 5)
    world.now += 5
    world.step(world.look())
    world.until(Phase.AWAITING_APPROVAL)


def test_gates_alone_write_to_no_other_object() -> None:
    """A FAIL beside an object that was made again with weight: not ours to write, so people are paged, and one more
    word of a person sends it to 0."""
    world = _baking()
    _made_again_with_weight(world)
    world.now += 5
    world.step(world.look())
    world.now += 5
    world.step(world.look(world.report(Verdict.FAIL, deciding=True)))
    assert (world.rollout.phase, world.route.canary) == (Phase.ROLLING_BACK, 40)
    assert _pages(world) == [("payments-7f3a:cannot-roll-back", False)]
    assert "once more sends the one that is there now to 0" in world.texts()[-1]
    world.ask("rollback")
    assert (world.rollout.phase, world.route.canary) == (Phase.ROLLED_BACK, 0)
    assert _pages(world)[-1] == ("payments-7f3a:cannot-roll-back", True)


def test_a_button_drawn_for_other_weights_is_stale() -> None:
    """Weights that change again while it is held are asked about again: nobody adopts what they have not seen."""
    world = _baking()
    _weights(world)
    world.now += 5
    first = world.step(world.look()).rollout.revision
    world.route.canary, world.route.stable = 80, 20
    world.now += 5
    decision = world.step(world.look())
    assert [kind for kind in kinds(decision) if kind is not MessageKind.CARD] == [MessageKind.ASKED, MessageKind.ASK]
    answer = said(world.ask("drift", option="adopt", revision=first, step=0))
    assert "earlier state" in answer
    assert world.rollout.weight_percent == 5


def _pages(world: World) -> list[tuple[str, bool]]:
    effects = [effect for decision in world.decisions for effect in decision.effects]
    return [(effect.key, effect.resolved) for effect in effects if isinstance(effect, Page)]


def test_a_canary_without_its_subset_goes_to_0_in_two_seconds() -> None:
    """Proxies answer its share with 503, and stable can take it: held at the first sight, at 0 at the second."""
    world = _baking()
    world.route.canary_lost = "no DestinationRule has the subset v2"
    decision = world.step(world.look())
    assert (world.rollout.hold_reasons, MessageKind.ASK in kinds(decision)) == ({HoldReason.DRIFT}, False)
    assert decision.wake_at == world.now + UNSERVED_S
    world.now += UNSERVED_S
    world.step(world.look())
    assert (world.rollout.phase, world.route.canary) == (Phase.ROLLED_BACK, 0)
    assert "No DestinationRule has the subset v2: 5% of the requests had nowhere to go" in world.rollout.reason


def test_a_subset_that_is_being_replaced_rolls_nothing_back() -> None:
    """Gone at one look and there at the next."""
    world = _baking()
    world.route.canary_lost = "no DestinationRule has the subset v2"
    world.step(world.look())
    world.route.canary_lost = ""
    world.now += UNSERVED_S
    world.step(world.look())
    assert (world.rollout.phase, world.route.canary) == (Phase.PROGRESSING, 5)


@pytest.mark.parametrize("stable", ["lost", "not ready"])
def test_a_canary_without_its_subset_stays_where_stable_cannot_take_it(stable: str) -> None:
    """0 would be an outage: held, paged and asked; who rolls back all the same is obeyed and warned."""
    world = _baking()
    world.route.canary_lost = "no DestinationRule has the subset v2"
    world.route.stable_lost = "no DestinationRule has the subset v1" if stable == "lost" else ""
    for _ in range(6):
        world.now += 5
        world.step(world.look(stable_ready=0 if stable == "not ready" else 2))
    assert (world.rollout.phase, world.route.canary) == (Phase.HOLDING, 5)
    assert HoldReason.STABLE_UNHEALTHY in world.rollout.hold_reasons
    assert _pages(world) == [("payments-7f3a:stable-unhealthy", False)]
    answer = said(world.ask("rollback"))
    assert ("subset v1" if stable == "lost" else "v1 has no ready pod") in answer
    assert world.rollout.phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("meddle", [_stable_subset, _stable_taken_out])
def test_no_fail_sends_traffic_to_a_stable_that_cannot_be_reached(meddle: Meddle) -> None:
    """A deciding FAIL while stable's destination leads nowhere is held and paged, and goes to 0 once it leads again."""
    world = _baking()
    ours = replace(world.route)
    meddle(world)
    for _ in range(3):
        world.now += 5
        world.step(world.look(world.report(Verdict.FAIL, deciding=True)))
    assert (world.rollout.phase, world.route.canary) == (Phase.HOLDING, 5)
    assert _pages(world) == [("payments-7f3a:stable-unhealthy", False)]
    world.route = ours
    world.now += 5
    world.step(world.look(world.report(Verdict.FAIL, deciding=True)))
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert _pages(world)[-1] == ("payments-7f3a:stable-unhealthy", True)


def _failing(world: World) -> Looked:
    return world.look(world.report(Verdict.FAIL, deciding=True))


@pytest.mark.parametrize(("gone", "phase"), [(DELETED, Phase.ROLLING_BACK), (RENAMED, Phase.ROLLING_BACK),
                                             (TAKEN_OUT, Phase.ROLLED_BACK)])  # fmt: skip
def test_a_fail_without_a_route_pages_as_long_as_the_canary_may_have_traffic(gone: RouteGone, phase: Phase) -> None:
    """Held for the lost route the gates are judged all the same. With nothing in the object for the canary it is over;
    else it is tried until the route is back."""
    world = _baking()
    world.route.gone = gone
    world.now += 5
    world.step(world.look())
    world.now += 5
    world.step(_failing(world))
    assert world.rollout.phase is phase
    assert _pages(world) == ([] if phase is Phase.ROLLED_BACK else [("payments-7f3a:cannot-roll-back", False)])
    if phase is Phase.ROLLED_BACK:
        return
    for _ in range(20):
        world.now += 5
        world.step(gone)
    assert world.rollout.phase is Phase.ROLLING_BACK
    world.route.gone = None
    world.now += 5
    world.step(_failing(world))
    assert (world.rollout.phase, world.route.canary) == (Phase.ROLLED_BACK, 0)
    assert _pages(world)[-1] == ("payments-7f3a:cannot-roll-back", True)


def test_an_object_made_again_is_told_also_right_after_the_page_about_its_deletion() -> None:
    """Paged that there is no route, and a moment later there is another object: a person who rolls back once more has
    to know what that means. Said once for each object."""
    world = _baking()
    world.route.gone = DELETED
    world.step(_failing(world))
    world.route.gone = None
    _made_again_with_weight(world)
    for _ in range(3):
        world.now += 5
        world.step(Clocked())
    alerts = _alerts(world)
    assert len(alerts) == 2
    assert "once more sends the one that is there now to 0" in alerts[-1]
    world.route.uid = "uid-3"
    world.now += 5
    world.step(Clocked())
    assert world.texts()[-1].count("made again") == 1
    assert len(_pages(world)) == 3
    world.ask("rollback")
    assert (world.rollout.phase, world.route.canary) == (Phase.ROLLED_BACK, 0)


def test_a_deletion_is_told_also_right_after_a_page_about_the_api_server() -> None:
    """Paged that the API server refuses the way to 0, and then there is no route: its canary has more traffic than was
    said, and a roll back once more ends the rollout. Said when it is found, and again only when something else is."""
    world = _baking()
    world.step(_failing(world), "away")
    alerts = _alerts(world)
    assert len(alerts) == 1
    assert "v2 keeps 5%" in alerts[0]
    world.route.gone = DELETED
    for number, (gone, words) in enumerate(
        ((DELETED, "scale it to 0"), (RENAMED, "Take v2 out of that one by hand")), 2
    ):
        for _ in range(3):
            world.now += 5
            world.step(gone)
        alerts = _alerts(world)
        assert len(alerts) == number
        assert gone.detail in alerts[-1]
        assert words in alerts[-1]
    assert _pages(world) == [("payments-7f3a:cannot-roll-back", False)] * 3


def _on_its_way_back(gone: RouteGone) -> World:
    """Held since its route is gone, and then failing."""
    world = _baking()
    world.route.gone = gone
    world.now += 5
    world.step(world.look())
    world.now += 5
    world.step(_failing(world))
    assert world.rollout.phase is Phase.ROLLING_BACK
    return world


def test_a_ramp_by_another_tool_is_no_news_at_every_step() -> None:
    """Paged at most every five minutes while nothing but a weight changes in what is told."""
    world = _on_its_way_back(RENAMED)
    for number in range(12):
        world.now += 5
        world.route.gone = RouteGone(RENAMED.detail.replace("5%", f"{6 + number}%"), Remains.TRAFFIC)
        world.step(world.route.gone)
    assert len(_pages(world)) <= 2


def test_a_route_that_comes_and_goes_is_told_once() -> None:
    """There and gone in turn, and never to be written: no page for each time."""
    world = _on_its_way_back(DELETED)
    for number in range(12):
        world.now += 5
        world.route.gone = DELETED if number % 2 else None
        assert world.rollout.write is not None
        revision = world.rollout.write.revision
        world.step(DELETED if number % 2 else WriteFailed(revision, "refused", "no", world.route.state()))
    assert len(_pages(world)) <= 2


def _alerts(world: World) -> list[str]:
    return [one.text for decision in world.decisions for one in decision.messages if one.kind is MessageKind.ALERT]


def test_a_person_ends_a_rollout_whose_route_is_gone() -> None:
    """Who was told that the route is gone and rolls back wants the end; the words say what that leaves."""
    world = _baking()
    world.route.gone = DELETED
    world.now += 5
    world.step(world.look())
    answer = said(world.ask("rollback"))
    assert "Ending it: VirtualService shop/payments is not there" in answer
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert "may send to all its ready pods, v2's too" in world.rollout.reason


def test_a_roll_back_does_not_end_in_the_moment_in_which_the_route_is_replaced() -> None:
    """`kubectl replace --force` deletes and makes again: nobody was told of a deletion, so it is tried again."""
    world = _baking()
    world.route.gone = DELETED
    world.ask("rollback")
    assert world.rollout.phase is Phase.ROLLING_BACK
    world.route.gone = None
    world.now += 1
    world.step(_failing(world))
    assert (world.rollout.phase, world.route.canary) == (Phase.ROLLED_BACK, 0)


def test_a_person_ends_a_roll_back_of_the_gates_that_has_no_route() -> None:
    """Rolled back by the gates, paged, the service is to be gone: one more `rollback` ends it."""
    world = _baking()
    world.route.gone = DELETED
    world.step(_failing(world))
    assert world.rollout.phase is Phase.ROLLING_BACK
    assert "Ended, and nothing was written" in said(world.ask("rollback"))
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert _pages(world) == [("payments-7f3a:cannot-roll-back", False), ("payments-7f3a:cannot-roll-back", True)]


def test_an_approval_expires_also_without_a_route() -> None:
    """What silence means stays true: it rolls back, and pages that there is nothing to write to."""
    world = asked()
    assert world.rollout.rules.approval.on_expiry is OnSilence.ROLL_BACK
    world.route.gone = DELETED
    world.now += 5
    world.step(world.look())
    world.now += world.rollout.rules.approval.expires_s
    world.step(world.look())
    assert world.rollout.phase is Phase.ROLLING_BACK
    assert _pages(world) == [("payments-7f3a:cannot-roll-back", False)]


def test_a_route_back_with_other_weights_is_asked_about_again() -> None:
    """The question about the deletion is closed; the new one offers what works now."""
    world = _baking()
    world.route.gone = DELETED
    world.now += 5
    world.step(world.look())
    world.route.gone = None
    _made_again(world)
    world.now += 5
    decision = world.step(world.look())
    assert [kind for kind in kinds(decision) if kind is not MessageKind.CARD] == [MessageKind.ASKED, MessageKind.ASK]
    assert tuple(_buttons(decision)) == BOTH


def test_a_program_that_puts_git_back_again_and_again_is_named_and_not_fought() -> None:
    """Each time somebody re-applies, Argo CD reverts: every question says how to stop it, the bot writes nothing by
    itself, and after the third time our weights alone no longer let it go on."""
    world = _baking()
    questions = []
    for time in range(1, STUBBORN + 1):
        _reverted(world)
        world.route.manager = "argocd-controller"
        world.now += 5
        questions.append(said(world.step(world.look())))
        assert world.rollout.intrusions == time
        assert not writes(world.step(world.look()))
        if time < STUBBORN:
            world.now += 5
            world.step(world.look())
            world.ask("drift", option="reapply")
            assert world.route.canary == 5
    assert all("RespectIgnoreDifferences=true" in text for text in questions)
    assert "change 3 of the route at this step" in questions[-1]
    world.route.canary, world.route.stable = 5, 95
    world.pass_time(120)
    assert (world.rollout.phase, world.rollout.weight_percent) == (Phase.HOLDING, 5)
    assert world.texts()[-1].endswith("adopt these weights to go on, or roll back.")
    world.ask("drift", option="adopt")
    world.until(Phase.AWAITING_APPROVAL)
    assert world.rollout.intrusions == 0


def test_a_route_that_changes_all_the_time_is_asked_about_three_times() -> None:
    """Two writers that fight each other fill no channel; the card has the last state."""
    world = _baking()
    told = []
    for weight in range(20, 60):
        world.route.canary, world.route.stable = weight, 100 - weight
        world.now += 5
        told += kinds(world.step(world.look()))
    assert told.count(MessageKind.ASK) == STUBBORN
    assert world.rollout.found is not None
    assert world.rollout.found.canary_weight == 59


@pytest.mark.parametrize("kind", ["conflict", "overwritten"])
def test_raises_that_are_undone_at_once_are_tried_three_times(kind: str) -> None:
    """Something restores the whole object, mark and all, within each write: after three raises nobody raises by
    itself any more, and a person is asked."""
    world = _baking()
    for _ in range(20):
        if world.rollout.held(HoldReason.DRIFT):
            break
        world.now += 5
        decision = world.decide(world.rollout, world.look(), world.now)
        world.rollout = decision.rollout
        for change in [effect for effect in decision.effects if isinstance(effect, SetWeight)]:
            assert change.direction is Direction.RAISE
            detail = "VirtualService shop/payments was overwritten at once by restorer"
            last = world.step(WriteFailed(change.mark.revision, kind, detail, world.route.state()))
    assert world.rollout.write_failures == STUBBORN
    assert "3 raises in a row" in said(last)
    world.pass_time(60)
    assert (world.rollout.phase, world.route.canary) == (Phase.HOLDING, 5)


def test_a_new_holder_sees_what_happened_to_the_route_meanwhile() -> None:
    """Nobody watched while the object was made again: taking over holds, and writes no mark on it."""
    world = _baking()
    _made_again(world)
    decision = world.step(TookOver(world.route.state()))
    assert not writes(decision)
    assert world.rollout.hold_reasons == {HoldReason.DRIFT}


@pytest.mark.parametrize("scene", SCENES)
def test_a_stale_roll_back_is_answered_with_a_fresh_one(scene: str) -> None:
    """Rule 7 holds, and whoever is in a hurry reads how it stands and needs one click more."""
    world = SCENES[scene]()
    decision = world.ask("rollback", revision=1, step=0)
    assert not writes(decision)
    (answer,) = [message for message in decision.messages if message.kind is MessageKind.ANSWER]
    assert f"is {world.rollout.phase.value} at {world.rollout.weight_percent}% now" in answer.text
    (button,) = [one for block in render(answer, world.rollout).blocks for one in block.get("elements", ())]
    pointer = json.loads(button["value"])
    assert (button["action_id"], pointer["revision"]) == ("rollback", world.rollout.revision)
    world.ask("rollback", revision=pointer["revision"], step=pointer["step"])
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert not [one for block in render(answer, world.rollout).blocks for one in block.get("elements", ())]
