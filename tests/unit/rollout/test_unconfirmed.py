"""A raise whose reply was lost, and a roll back before anybody could read the route."""

from dataclasses import replace

from bot.rollout.effects import MessageKind
from bot.rollout.events import Clocked, Request, RouteGone, TookOver, WriteFailed
from bot.rollout.machine import decide
from bot.rollout.model import Direction, Hold, HoldReason, Phase, Write
from bot.rollout.route import Mark, RouteState
from tests.fixtures.rollouts import ADA, NOW, rollout

RAISE = Write(100, 4, Direction.RAISE, "all gates pass", ADA, NOW + 60, step=1, from_percent=5)


def test_a_raise_that_may_have_landed_is_recorded_at_its_weight() -> None:
    """The audit names the weight the canary may have had, and every later sentence of the way back does."""
    failed = decide(rollout(write=RAISE, holds=()), WriteFailed(4, "transient", "no answer"), NOW + 61)
    assert [line.weight_percent for line in failed.audit] == [100]
    assert "5% or 100%" in failed.messages[0].text
    back = decide(failed.rollout, Request("q9", "payments-7f3a", "rollback", ADA, NOW + 62), NOW + 62)
    assert any("from 5% (100% was tried and not confirmed) to 0" in message.text for message in back.messages)


def test_a_raise_that_was_refused_is_not_in_doubt() -> None:
    """What the API server refused is not on the route, and nothing says that it may be."""
    failed = decide(rollout(write=RAISE, holds=()), WriteFailed(4, "refused", "forbidden"), NOW + 61)
    back = decide(failed.rollout, Request("q9", "payments-7f3a", "rollback", ADA, NOW + 62), NOW + 62)
    assert not any("tried" in message.text for message in back.messages)


def test_a_raise_that_was_overwritten_at_once_was_there() -> None:
    """It landed and somebody wrote over it before it was read back: audit and channel name the weight, each time."""
    there = RouteState("uid-1", "12", 0, 100, last_manager="argocd-controller")
    event = WriteFailed(4, "overwritten", "VirtualService shop/payments was overwritten at once by argocd", there)
    for failures in (0, 1):
        failed = decide(rollout(write=RAISE, holds=(), write_failures=failures), event, NOW + 61)
        assert 100 in [line.weight_percent for line in failed.audit]
        assert any("100% was on the route for a moment" in message.text for message in failed.messages)
        assert failed.rollout.held(HoldReason.DRIFT) is not None


def test_a_raise_whose_route_went_away_may_have_landed() -> None:
    """The object was deleted between our patch and its reading: the canary may have had that weight for a moment."""
    gone = decide(rollout(write=RAISE, holds=()), RouteGone("the VirtualService is not there"), NOW + 61)
    assert 100 in [line.weight_percent for line in gone.audit]
    assert any("5% or 100%" in message.text for message in gone.messages)


def test_a_raise_in_hand_that_others_have_written_over_may_have_landed() -> None:
    """Two more holders could save nothing of what they did: the next one knows the raise, and finds the route at 0."""
    mark = Mark("payments-7f3a", 9, 0, Phase.ROLLED_BACK.value, reason="Ada asked for it.")
    over = decide(rollout(write=RAISE, holds=()), TookOver(RouteState("uid-1", "12", 100, 0, mark=mark)), NOW + 90)
    assert over.rollout.phase is Phase.ROLLED_BACK
    assert 100 in [line.weight_percent for line in over.audit]
    assert any(message.text.startswith("100% may have been on the route") for message in over.messages)


def test_an_end_that_is_found_on_the_route_names_a_raise_that_nobody_confirmed() -> None:
    """The way back was told by nobody, as its holder could save nothing: the final word says what may have been."""
    failed = decide(rollout(write=RAISE, holds=()), WriteFailed(4, "transient", "no answer"), NOW + 61)
    mark = Mark("payments-7f3a", 9, 0, Phase.ROLLED_BACK.value, reason="Ada asked for it.")
    over = decide(failed.rollout, TookOver(RouteState("uid-1", "12", 100, 0, mark=mark)), NOW + 90)
    assert over.rollout.phase is Phase.ROLLED_BACK
    assert any("Rolled back" in one.text and "100% was tried and not confirmed" in one.text for one in over.messages)


def test_a_raise_in_hand_that_nobody_has_written_over_is_read_from_the_route() -> None:
    """The route still has the mark from before it: it did not land, and nothing says that it may have."""
    mark = Mark("payments-7f3a", 3, 5, Phase.PROGRESSING.value)
    over = decide(rollout(write=RAISE, holds=()), TookOver(RouteState("uid-1", "12", 95, 5, mark=mark)), NOW + 90)
    assert not any("may have been" in message.text for message in over.messages)


def test_a_raise_that_landed_and_was_changed_by_hand_before_the_next_holder_came_is_told() -> None:
    """Our mark of it is on the route and the weight is somebody's: it was there, and drift is asked about."""
    mark = Mark("payments-7f3a", 4, 100, Phase.PROGRESSING.value)
    over = decide(rollout(write=RAISE, holds=()), TookOver(RouteState("uid-1", "12", 97, 3, mark=mark)), NOW + 90)
    assert over.rollout.held(HoldReason.DRIFT) is not None
    assert 100 in [line.weight_percent for line in over.audit]
    assert any(message.text.startswith("100% was on the route") for message in over.messages)


def test_a_raise_whose_reply_was_lost_and_that_others_have_changed_since_is_told() -> None:
    """It had failed before, so its second failure was news to nobody; our mark says that it was there: told once."""
    failed = decide(rollout(write=RAISE, holds=()), WriteFailed(4, "transient", "no answer"), NOW + 61).rollout
    again = failed.with_(write=replace(RAISE, revision=failed.revision), write_failures=1)
    failed = decide(again, WriteFailed(failed.revision, "transient", "no answer"), NOW + 66).rollout
    mark = Mark("payments-7f3a", failed.revision, 100, Phase.PROGRESSING.value)
    found = RouteState("uid-1", "12", 97, 3, mark=mark, last_manager="kubectl-edit")
    seen = decide(failed, Clocked(route=found), NOW + 67)
    assert seen.rollout.held(HoldReason.DRIFT) is not None
    assert 100 in [line.weight_percent for line in seen.audit]
    assert [one.text.split(":")[0] for one in seen.messages if one.kind is MessageKind.NOTE] == [
        "100% was on the route for a while"
    ]
    moved = decide(seen.rollout, Clocked(route=replace(found, stable_weight=50, canary_weight=50)), NOW + 68)
    assert not any("for a while" in message.text for message in moved.messages)


def test_a_raise_of_the_former_holder_may_have_landed_while_nobody_can_read() -> None:
    """Who takes over without a reading of the route says what the canary may have; a deleted route never tells."""
    taken = decide(rollout(write=RAISE, holds=()), TookOver(None), NOW + 61)
    assert 100 in [line.weight_percent for line in taken.audit]
    assert any("5% or 100%" in message.text for message in taken.messages)


def test_a_weight_put_back_whose_confirmation_was_lost_is_told_and_baked_anew() -> None:
    """Somebody set the canary to 0, a person had our weight put back, and the process died after the patch."""
    again = Write(5, 4, Direction.RAISE, "Ada put our weights back", ADA, NOW + 60, step=0, from_percent=0)
    drift = (Hold(HoldReason.DRIFT, NOW + 30, "the route says 0%", ADA),)
    mark = Mark("payments-7f3a", 4, 5, Phase.PROGRESSING.value, reason="Ada put our weights back")
    state = RouteState("uid-1", "12", 95, 5, mark=mark)
    over = decide(rollout(write=again, holds=drift, phase=Phase.HOLDING), TookOver(state), NOW + 90)
    assert over.rollout.held(HoldReason.DRIFT) is None
    assert 5 in [line.weight_percent for line in over.audit if line.what == "found"]
    assert any("write of 5% was found on the route" in message.text for message in over.messages)
    assert over.rollout.bake.confirmed_at == NOW + 90


def test_a_re_applying_that_a_new_holder_withdraws_is_to_be_asked_for_again() -> None:
    """Ada was answered that it is under way; it is never replayed, so she is told."""
    again = replace(RAISE, weight_percent=5, step=0, from_percent=3)
    mark = Mark("payments-7f3a", 3, 5, Phase.PROGRESSING.value)
    taken = decide(rollout(write=again, holds=()), TookOver(RouteState("uid-1", "12", 97, 3, mark=mark)), NOW + 61)
    assert any("ask for it again" in message.text for message in taken.messages)
    assert taken.rollout.held(HoldReason.DRIFT) is not None
