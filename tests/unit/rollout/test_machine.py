"""What the product promises of a rollout, one promise a test, over the simulated route."""

from dataclasses import replace
from typing import Any

import pytest

from bot.rollout.effects import Decision, Direction, MessageKind, Page, SetWeight
from bot.rollout.events import Clocked, Due, Looked, TookOver, WriteFailed, Written
from bot.rollout.gate import Blame, Cause, Share, Verdict
from bot.rollout.machine import IllegalEvent, decide
from bot.rollout.model import ApprovalPolicy, Freeze, HoldReason, OnSilence, Phase, Rules
from bot.rollout.start import opening, undo
from tests.unit.rollout.world import ADA, GRACE, LINUS, START, World, rollout

RULES = Rules(check_every_s=5.0, arrival_s=30.0)


def begun(**options: object) -> World:
    """A world whose canary is at the first weight."""
    world = World(rollout(**options))  # type: ignore[arg-type]
    world.step(Due())
    world.step(world.look())
    assert world.rollout.weight_percent == 5
    return world


def asked(**approval: object) -> World:
    """A world that waits for an approval."""
    policy = ApprovalPolicy(expires_s=600.0, **approval)  # type: ignore[arg-type]
    world = begun(steps="5%:20s, 50%:20s:approve, 100%:20s", rules=replace(RULES, approval=policy))
    world.until(Phase.AWAITING_APPROVAL)
    return world


def kinds(decision: Decision) -> list[MessageKind]:
    return [message.kind for message in decision.messages]


def said(decision: Decision) -> str:
    return " ".join(f"{message.text} {message.detail}" for message in decision.messages)


def writes(decision: Decision) -> list[SetWeight]:
    return [effect for effect in decision.effects if isinstance(effect, SetWeight)]


def pages(world: World, *, resolved: bool = False) -> list[Page]:
    return [
        effect
        for decision in world.decisions
        for effect in decision.effects
        if isinstance(effect, Page) and effect.resolved is resolved
    ]


def fail(world: World, **changes: object) -> Decision:
    world.now += 5
    return world.step(world.look(world.report(Verdict.FAIL, **changes)))


def test_a_good_release_is_promoted_through_its_steps() -> None:
    """The weights follow the plan, each raise tests the mark before it, and the last mark says Promoted."""
    world = begun(steps="5%:20s, 25%:20s, 100%:20s")
    world.until(Phase.PROMOTED)
    sent = [change for decision in world.decisions for change in writes(decision)]
    assert [(change.direction, change.weight_percent, change.from_percent) for change in sent] == [
        (Direction.RAISE, 5, 0), (Direction.RAISE, 25, 5), (Direction.RAISE, 100, 25), (Direction.MARK, 100, 100),
    ]  # fmt: skip
    assert [change.expected for change in sent] == [None, *(change.mark.revision for change in sent[:-1])]
    assert world.route.mark is not None
    assert world.route.mark.phase == "Promoted"
    assert world.rollout.ended_at == world.now


def test_a_step_bakes_its_whole_time_after_its_weight_arrived() -> None:
    """The next raise comes when samples have covered the bake, not before."""
    world = begun(steps="5%:20s, 100%:20s")
    arrived = world.now + 5
    world.pass_time(20)
    assert world.rollout.weight_percent == 5
    world.pass_time(5)
    assert (world.rollout.weight_percent, world.now - arrived) == (100, 20)


def test_a_gap_without_samples_makes_the_bake_longer() -> None:
    """Time that no samples cover is not counted."""
    world = begun(steps="5%:20s, 100%:20s")
    world.pass_time(5)
    for _ in range(10):
        world.now += 5
        world.step(world.look(coverage=None))
    assert (world.rollout.weight_percent, world.rollout.bake.covered_s) == (5, 0.0)


def test_the_deciding_fail_sends_zero_in_the_same_decision() -> None:
    """The second FAIL in a row goes to 0 at once; the first one only counts."""
    world = begun()
    assert not writes(fail(world))
    decision = fail(world)
    assert [(change.direction, change.weight_percent) for change in writes(decision)] == [(Direction.ZERO, 0)]
    assert (world.rollout.phase, world.route.canary, world.route.stable) == (Phase.ROLLED_BACK, 0, 100)
    assert "error-rate failed: 0.2% of 200 requests failed, limit 1%." in world.rollout.reason


def test_an_overwhelming_fail_does_not_wait_for_a_second_one() -> None:
    """A deciding report rolls back at its first look."""
    world = begun()
    fail(world, deciding=True)
    assert world.rollout.phase is Phase.ROLLED_BACK


def test_the_same_samples_do_not_fail_twice() -> None:
    """A verdict counts only when newer samples have arrived."""
    world = begun()
    fail(world, newest_sample_at=world.now)
    for _ in range(5):
        fail(world, newest_sample_at=world.rollout.tallies[0].last_sample_at)
    assert world.rollout.weight_percent == 5
    fail(world)
    assert world.rollout.phase is Phase.ROLLED_BACK


def test_fails_with_passes_between_reach_the_total() -> None:
    """The fourth FAIL of a step decides, also when none followed another."""
    world = begun(steps="5%:10m, 100%:10m")
    for _ in range(3):
        fail(world)
        world.pass_time(5)
    assert world.rollout.phase is Phase.PROGRESSING
    fail(world)
    assert world.rollout.phase is Phase.ROLLED_BACK


def test_an_outage_of_the_metrics_holds_and_recovers_and_is_spoken_of_sparingly() -> None:
    """ERROR never rolls back; it is said after 1 min, after 15 min, then hourly, and when it is over."""
    world = begun()
    spoken = []
    began = world.now + 5
    for _ in range(2 * 3600 // 5):
        world.now += 5
        decision = world.step(world.look(world.report(Verdict.ERROR, detail="503"), coverage=None))
        spoken += [world.now - began for message in decision.messages if "cannot measure" in message.text]
    assert spoken == [60, 900, 4500]
    assert world.rollout.phase is Phase.HOLDING
    world.pass_time(5)
    assert world.rollout.phase is Phase.PROGRESSING
    assert any("can be measured again, after 2 h" in text for text in world.texts())


def test_a_short_failure_to_measure_does_not_make_buttons_stale() -> None:
    """A hold that nobody was told of leaves the revision alone, and draws no card."""
    world = begun()
    revision = world.rollout.revision
    world.now += 5
    decision = world.step(world.look(world.report(Verdict.ERROR)))
    assert (world.rollout.revision, world.rollout.phase) == (revision, Phase.HOLDING)
    assert kinds(decision) == []


@pytest.mark.parametrize(
    ("silence", "phase"), [(OnSilence.HOLD, Phase.HOLDING), (OnSilence.ROLL_BACK, Phase.ROLLED_BACK)]
)
def test_too_little_data_for_too_long_does_what_the_rules_say(silence: OnSilence, phase: Phase) -> None:
    """After twice the bake of INCONCLUSIVE it holds and asks, or rolls back."""
    world = begun(rules=replace(RULES, on_no_data=silence))
    began = world.now + 5
    while world.rollout.phase is Phase.PROGRESSING:
        world.now += 5
        decision = world.step(world.look(world.report(Verdict.INCONCLUSIVE, detail="37/50 requests.")))
    assert (world.now - began, world.rollout.phase) == (40, phase)
    assert "37/50 requests" in said(decision)


def test_when_stable_fails_as_well_it_holds_and_pages_until_stable_is_well() -> None:
    """It is not the release: nothing is rolled back before stable can be the better place."""
    world = begun()
    for _ in range(4):
        fail(world, stable_fails=True)
    assert (world.rollout.weight_percent, world.rollout.hold_reasons) == (5, {HoldReason.STABLE_UNHEALTHY})
    assert len(pages(world)) == 1
    fail(world)
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert len(pages(world, resolved=True)) == 1


def test_nothing_goes_to_a_stable_without_ready_pods_unless_a_person_says_so() -> None:
    """Known to have none: hold and page; a person's word goes ahead."""
    world = begun()
    world.now += 5
    world.step(world.look(world.report(Verdict.FAIL, deciding=True), stable_ready=0))
    assert (world.rollout.phase, world.rollout.weight_percent) == (Phase.HOLDING, 5)
    decision = world.ask("rollback", reason="I know")
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert "v1 has no ready pod" in said(decision)


@pytest.mark.parametrize("waiting", ["held", "asked", "drifted"])
def test_holding_is_not_blind(waiting: str) -> None:
    """While it holds, waits for approval, or sees drift, the deciding FAIL still rolls back."""
    world = asked() if waiting == "asked" else begun()
    if waiting == "held":
        world.ask("hold")
    if waiting == "drifted":
        world.route.canary, world.route.stable = 40, 60
        world.step(world.look())
    fail(world, deciding=True)
    assert (world.rollout.phase, world.route.canary, world.route.stable) == (Phase.ROLLED_BACK, 0, 100)


def test_an_approval_needs_other_people_and_each_only_once() -> None:
    """Four eyes and quorum: who started does not count, a second click does not, the second person does."""
    world = asked(quorum=2)
    assert "you started this rollout" in said(world.ask("approve", ADA))
    assert "1 of 2" in said(world.ask("approve", GRACE))
    assert "approved it already (1 of 2)" in said(world.ask("approve", GRACE))
    decision = world.ask("approve", LINUS)
    assert decision.look
    assert "Approved by Grace, Linus" in said(decision)
    world.step(world.look())
    assert world.rollout.weight_percent == 50


def test_the_second_approver_s_button_is_good_although_the_card_changed() -> None:
    """Buttons of one question stay good while it stands; those of another step do not."""
    world = asked(quorum=2)
    revision = world.rollout.revision
    world.ask("approve", GRACE, revision=revision, step=1)
    assert "earlier question" in said(world.ask("approve", LINUS, revision=revision, step=0))
    world.ask("approve", LINUS, revision=revision, step=1)
    assert world.rollout.granted


@pytest.mark.parametrize(
    ("silence", "phase"), [(OnSilence.HOLD, Phase.HOLDING), (OnSilence.ROLL_BACK, Phase.ROLLED_BACK)]
)
def test_an_approval_reminds_twice_and_expires_into_its_default(silence: OnSilence, phase: Phase) -> None:
    """Reminders at half and at 90%, then the stated default, called expired and not denied."""
    world = asked(on_expiry=silence)
    opened, reminders = world.now, []
    while world.rollout.phase is Phase.AWAITING_APPROVAL:
        assert world.decisions[-1].wake_at is not None
        world.now = world.decisions[-1].wake_at
        decision = world.step(Clocked(route=world.route.state()))
        reminders += [world.now - opened for message in decision.messages if "Still waiting" in message.text]
    assert (reminders, world.now - opened, world.rollout.phase) == ([300, 540], 600, phase)
    assert any("Expired after 10 min" in text for text in world.texts())
    assert any(entry.kind == "expired" for entry in world.rollout.history)


def test_a_rejection_holds_and_resuming_asks_again() -> None:
    """A person's no keeps the weight where it is; it does not roll back by itself."""
    world = asked()
    assert "needs a reason" in said(world.ask("reject"))
    world.ask("reject", reason="not on a Friday")
    assert (world.rollout.phase, world.rollout.weight_percent) == (Phase.HOLDING, 5)
    world.ask("resume")
    world.pass_time(5)
    assert world.rollout.phase is Phase.AWAITING_APPROVAL


def test_a_stale_button_changes_nothing_and_is_answered() -> None:
    """A click for an earlier revision or step gets a private answer."""
    world = begun()
    earlier: tuple[dict[str, Any], ...] = ({"revision": world.rollout.revision - 1}, {"step": world.rollout.step - 1})
    for bound in earlier:
        before = world.rollout
        decision = world.ask("rollback", **bound)
        assert world.rollout is before
        assert kinds(decision) == [MessageKind.ANSWER]
        assert "earlier state" in said(decision)


def test_a_request_that_comes_twice_promotes_once() -> None:
    """The inbox may give a request again after a crash: it is not heard a second time."""
    world = begun(steps="5%:10m, 25%:10m, 100%:10m")
    request = world.request("promote")
    world.step(request)
    world.pass_time(5)
    assert world.rollout.weight_percent == 25
    decision = world.step(request)
    assert (decision.messages, decision.rollout.hurry) == ((), "")


def test_promote_ends_the_bake_at_the_next_pass_only() -> None:
    """It waits for a PASS, and goes one step."""
    world = begun(steps="5%:10m, 25%:10m, 100%:10m")
    world.ask("promote")
    world.now += 5
    world.step(world.look(world.report(Verdict.INCONCLUSIVE)))
    assert world.rollout.weight_percent == 5
    world.pass_time(30)
    assert world.rollout.weight_percent == 25


def test_promote_full_goes_on_to_the_last_step_which_still_bakes() -> None:
    """Each step on a PASS, and 100% bakes its time."""
    world = begun(steps="5%:10m, 25%:10m, 100%:10m")
    world.ask("promote", option="full")
    world.pass_time(20)
    assert (world.rollout.weight_percent, world.rollout.phase) == (100, Phase.PROGRESSING)
    world.pass_time(300)
    assert world.rollout.phase is Phase.PROGRESSING


def test_an_override_needs_a_reason_and_skips_the_pass_but_no_approval() -> None:
    """Break-glass is announced with its reason, and still asks before a step that wants approval."""
    world = begun(steps="5%:10m, 25%:10m, 50%:10m:approve, 100%:10m")
    assert "needs a reason" in said(world.ask("promote", option="override"))
    decision = world.ask("promote", option="override", reason="the metrics are wrong")
    assert "Grace overrides the gates on the way to 25%: the metrics are wrong" in said(decision)
    for _ in range(2):
        world.now += 5
        world.step(world.look(world.report(Verdict.INCONCLUSIVE)))
    assert world.rollout.weight_percent == 25
    world.ask("promote", option="override", reason="again")
    world.step(world.look(world.report(Verdict.ERROR)))
    assert world.rollout.phase is Phase.AWAITING_APPROVAL


def test_an_override_does_not_break_a_freeze() -> None:
    """Holds other than missing measurements still bind."""
    world = begun()
    world.freezes = (Freeze("f", "payments", "audit", GRACE, START, None),)
    world.step(world.look())
    assert "it is held: frozen by Grace" in said(world.ask("promote", option="override", reason="hurry"))


def test_a_freeze_holds_every_raise_and_ends_by_itself() -> None:
    """Nothing goes up while it lasts; rolling back stays possible."""
    world = World(rollout())
    world.freezes = (Freeze("f", "all", "audit", GRACE, START, START + 60),)
    world.step(Due())
    world.step(world.look())
    assert (world.rollout.phase, world.rollout.weight_percent) == (Phase.HOLDING, 0)
    world.pass_time(65)
    assert world.rollout.weight_percent == 5


def test_critical_nodes_hold_and_recover() -> None:
    """No weight goes up while nodes under the canary are critical."""
    world = begun()
    for _ in range(20):
        world.now += 5
        world.step(world.look(nodes_critical=("node-2",)))
    assert (world.rollout.weight_percent, world.rollout.hold_reasons) == (5, {HoldReason.NODES})
    world.pass_time(5)
    assert world.rollout.weight_percent == 25


def test_a_failure_of_the_machine_holds_where_the_rules_say_so() -> None:
    """`on_machine: hold` keeps the weight when the verdict blames the machine; the default rolls back."""
    for silence, phase in ((OnSilence.HOLD, Phase.HOLDING), (OnSilence.ROLL_BACK, Phase.ROLLED_BACK)):
        world = begun(rules=replace(RULES, on_machine=silence))
        for _ in range(2):
            world.now += 5
            failing = world.report(Verdict.FAIL)
            world.step(world.look(failing, cause=Cause(Blame.MACHINE, "Likely the machine.", (failing.gate,))))
            if world.rollout.phase.final:
                break
        assert world.rollout.phase is phase


def test_a_weight_that_does_not_arrive_holds_until_it_does() -> None:
    """After `arrival_s` without its share it holds, and bakes only from its arrival."""
    world = begun()
    for _ in range(8):
        world.now += 5
        world.step(world.look(share=Share(0.5, 900, False)))
    assert (world.rollout.hold_reasons, world.rollout.bake.covered_s) == ({HoldReason.NOT_ARRIVED}, 0.0)
    world.pass_time(5)
    assert (world.rollout.phase, world.rollout.bake.arrived_at) == (Phase.PROGRESSING, world.now)


def test_a_share_that_cannot_be_measured_is_waited_out() -> None:
    """Without a measurable share the bake begins `arrival_s` after the API server took the weight."""
    world = begun()
    confirmed = world.now
    for _ in range(6):
        world.now += 5
        world.step(world.look(share=Share(None, 3, None)))
    assert world.rollout.bake.arrived_at == confirmed + 30
    assert not world.rollout.holds


def test_drift_holds_and_names_the_manager_and_vanishes_by_itself() -> None:
    """Weights that are not ours hold; when they are ours again the bake starts anew."""
    world = begun()
    world.pass_time(15)
    world.route.canary, world.route.stable, world.route.manager = 40, 60, "kubectl-edit"
    decision = world.step(world.look())
    assert "v1 60%, v2 40% instead of 95% and 5%. Last changed by `kubectl-edit`." in said(decision)
    assert MessageKind.ASK in kinds(decision)
    world.pass_time(60)
    assert (world.route.canary, world.rollout.weight_percent) == (40, 5)
    world.route.canary, world.route.stable = 5, 95
    world.pass_time(5)
    assert (world.rollout.phase, world.rollout.bake.covered_s) == (Phase.PROGRESSING, 0.0)


def test_a_question_never_overtakes_the_end_of_the_one_before() -> None:
    """Questions and their ends wait in the same lane, so that each end is told of its own question."""
    world = begun()
    told = []
    for canary in (40, 5, 60):
        world.route.canary, world.route.stable = canary, 100 - canary
        world.now += 5
        told += [one for one in world.step(world.look()).messages if one.kind in (MessageKind.ASK, MessageKind.ASKED)]
    assert [(one.kind, one.urgent) for one in told] == [
        (MessageKind.ASK, True),
        (MessageKind.ASKED, True),
        (MessageKind.ASK, True),
    ]


def test_found_weights_can_be_adopted() -> None:
    """Adopting takes the found weight as ours, fences it, and bakes it anew; an approval is not skipped by it."""
    world = begun()
    world.route.canary, world.route.stable = 30, 70
    world.step(world.look())
    world.ask("drift", option="adopt")
    assert (world.rollout.weight_percent, world.rollout.step, world.rollout.phase) == (30, 1, Phase.PROGRESSING)
    world.route.canary, world.route.stable = 60, 40
    world.step(world.look())
    assert "50% needs an approval" in said(world.ask("drift", option="adopt"))


def test_reapplying_downwards_is_immediate_and_upwards_needs_a_pass() -> None:
    """Writing our weight over a lower one is a raise and obeys its rules."""
    world = begun()
    world.pass_time(5)
    world.route.canary, world.route.stable = 40, 60
    world.step(world.look())
    world.ask("drift", option="reapply")
    assert (world.route.canary, world.rollout.phase) == (5, Phase.PROGRESSING)
    world.route.canary, world.route.stable = 1, 99
    world.now += 5
    world.step(world.look(world.report(Verdict.INCONCLUSIVE)))
    assert "may not get more traffic now" in said(world.ask("drift", option="reapply"))
    world.now += 5
    world.step(world.look())
    world.ask("drift", option="reapply")
    assert world.route.canary == 5


@pytest.mark.parametrize(("stable", "canary"), [(60, 5), (95, 30), (0, 5), (0, 40)])
def test_reapplying_writes_both_weights_when_they_do_not_sum_to_the_total(stable: int, canary: int) -> None:
    """An edit of one weight alone is repaired as well: both are written, and tested at what was found."""
    world = begun()
    world.pass_time(5)
    world.route.canary, world.route.stable = canary, stable
    world.step(world.look())
    decision = world.ask("drift", option="reapply")
    (change,) = writes(decision)
    assert (change.direction, change.from_percent, change.from_stable) == (Direction.RAISE, canary, stable)
    assert (world.route.stable, world.route.canary) == (95, 5)
    assert not world.rollout.holds


def test_reapplying_against_a_heavier_stable_is_a_raise() -> None:
    """What counts is the canary's share: 5 beside 995 is less than 5%, so writing ours needs passing gates."""
    world = begun()
    world.route.stable = 995
    world.now += 5
    world.step(world.look(world.report(Verdict.INCONCLUSIVE)))
    assert "may not get more traffic now" in said(world.ask("drift", option="reapply"))
    world.now += 5
    world.step(world.look())
    world.ask("drift", option="reapply")
    assert (world.route.stable, world.route.canary) == (95, 5)


def test_reapplying_says_when_two_weights_would_not_repair_it() -> None:
    """A third destination with weight stays as it is: the person reads what to do instead of a write that fails."""
    world = begun()
    world.step(Looked(world.look().assessment, route=replace(world.route.state(), others=(("v3", 10),))))
    answer = said(world.ask("drift", option="reapply"))
    assert "v3 10%" in answer
    assert world.rollout.hold_reasons == {HoldReason.DRIFT}


def test_weights_of_another_hand_are_not_waited_for_in_the_traffic() -> None:
    """A share that is not ours because somebody edited the weights adds no second hold, which would bar re-applying."""
    world = begun()
    world.route.canary, world.route.stable = 1, 99
    for _ in range(20):
        world.now += 5
        world.step(world.look(share=Share(1.0, 900, False)))
    assert world.rollout.hold_reasons == {HoldReason.DRIFT}
    world.ask("drift", option="reapply")
    assert (world.route.canary, world.rollout.hold_reasons) == (5, set())


def test_a_redeployed_canary_holds_until_a_person_chooses() -> None:
    """Its evidence is void; starting again goes to 0, pins what runs now, and follows the plan from step 1."""
    world = begun()
    world.now += 5
    world.step(world.look(canary_fingerprint="print-2"))
    assert world.rollout.hold_reasons == {HoldReason.REDEPLOYED}
    world.pass_time(60)
    assert world.rollout.weight_percent == 5
    world.step(world.look(canary_fingerprint="print-2"))
    decision = world.ask("restart")
    assert [change.direction for change in writes(decision)] == [Direction.ZERO]
    assert (world.rollout.step, world.rollout.weight_percent, world.rollout.target.fingerprint) == (-1, 0, "print-2")
    world.step(world.look())
    assert world.rollout.weight_percent == 5


def test_a_new_holder_fences_and_withdraws_and_wants_fresh_samples() -> None:
    """A pending raise is not replayed, the revision on the route rises, and old samples raise nothing."""
    world = begun(steps="5%:20s, 25%:20s, 100%:20s")
    world.pass_time(20)
    world.now += 5
    world.step(world.look(), "crash")
    assert world.rollout.write is not None
    decision = world.step(TookOver(world.route.state()))
    assert [(change.direction, change.weight_percent) for change in writes(decision)] == [(Direction.MARK, 5)]
    assert world.rollout.marked == world.rollout.revision - 1 or world.rollout.marked == world.rollout.revision
    world.step(world.look(world.report(newest_sample_at=world.now)))
    assert world.rollout.weight_percent == 5
    world.now += 5
    world.step(world.look())
    assert world.rollout.weight_percent == 25


def test_a_raise_whose_answer_was_lost_is_found_on_the_route() -> None:
    """Our own mark ahead of the record wins, and that step bakes from now."""
    world = World(rollout())
    world.step(Due())
    world.step(world.look(), "lost")
    assert world.rollout.weight_percent == 0
    world.now += 5
    world.step(world.look())
    assert (world.rollout.weight_percent, world.rollout.step, world.rollout.bake.confirmed_at) == (5, 0, world.now)


def test_a_zero_that_was_not_saved_is_finished_by_the_next_holder() -> None:
    """A death between patch and save reads as what it is, not as drift."""
    world = begun()
    world.now += 5
    world.step(world.look(world.report(Verdict.FAIL, deciding=True)), "landed")
    assert world.rollout.phase is Phase.PROGRESSING
    world.step(TookOver(world.route.state()))
    assert (world.rollout.phase, world.rollout.weight_percent) == (Phase.ROLLED_BACK, 0)
    assert "error-rate failed" in world.rollout.reason


def test_a_failing_roll_back_is_tried_for_ever_and_people_are_paged() -> None:
    """Retries after 1, 2, 5, 5 s; a page at once and every 5 min; resolved when it is done."""
    world = begun()
    world.step(world.look(world.report(Verdict.FAIL, deciding=True)), "away")
    waits = []
    for _ in range(130):
        wake_at = world.decisions[-1].wake_at
        assert wake_at is not None
        waits.append(wake_at - world.now)
        world.now = wake_at
        world.step(Clocked(), "conflict")
    assert waits[:4] == [1, 2, 5, 5]
    assert len(pages(world)) == 3
    world.step(Clocked())
    assert world.rollout.phase is Phase.ROLLED_BACK
    assert len(pages(world, resolved=True)) == 1


def test_a_write_that_fails_is_decided_afresh() -> None:
    """A raise that the API server did not take leaves the weight and is tried with a new revision."""
    world = World(rollout())
    world.step(Due())
    world.step(world.look(), "away")
    assert (world.rollout.write, world.rollout.weight_percent) == (None, 0)
    world.now += 5
    world.step(world.look())
    assert world.rollout.weight_percent == 5


def test_undo_takes_all_weight_back_at_once() -> None:
    """After Promoted a new rollout goes straight to 0."""
    world = begun(steps="5%:20s, 100%:20s")
    world.until(Phase.PROMOTED)
    undone = undo(world.rollout, "payments-9999", GRACE, world.now)
    first = opening(undone, world.now)
    assert [change.direction for change in writes(first)] == [Direction.ZERO]
    route, world = world.route, World(undone)
    world.route = route
    world.step(TookOver(route.state()))
    assert (world.rollout.phase, route.canary, world.rollout.reason) == (Phase.ROLLED_BACK, 0, "undone by Grace")


def test_an_adopted_weight_is_judged_before_it_rises() -> None:
    """`--adopt` goes on from the step above the present weight, after that weight baked and passed."""
    world = World(rollout(start_weight=10))
    world.step(Due())
    world.now += 5
    world.step(world.look(world.report(Verdict.INCONCLUSIVE)))
    assert (world.rollout.step, world.rollout.weight_percent) == (0, 10)
    world.pass_time(40)
    assert world.rollout.weight_percent == 25


def test_cancel_takes_back_only_what_has_not_begun() -> None:
    """Before the first weight it ends as Cancelled and writes nothing; afterwards it points to rollback."""
    world = World(rollout(at=START + 600))
    world.ask("cancel")
    assert world.rollout.phase is Phase.CANCELLED
    world = begun()
    assert "Use `rollback payments-7f3a` instead" in said(world.ask("cancel"))


def test_a_scheduled_start_that_preflight_refuses_is_cancelled_aloud() -> None:
    """Nobody is watching then: the channel is told."""
    world = World(rollout(at=START + 600))
    decision = world.step(Due(("v2 has no ready pod",)))
    assert world.rollout.phase is Phase.CANCELLED
    assert MessageKind.ALERT in kinds(decision)


def test_a_wake_up_that_changes_nothing_writes_nothing() -> None:
    """The same object comes back, nothing is said, nothing is to be saved."""
    world = begun()
    world.pass_time(5)
    before = world.rollout
    decision = world.step(Clocked(route=world.route.state()))
    assert decision == Decision(before, wake_at=world.now + 5)
    assert decision.rollout is before


def test_looks_that_only_move_numbers_edit_the_card_at_most_every_30_s() -> None:
    """Progress of a bake is not saved at each look."""
    world = begun(steps="5%:10m, 100%:10m")
    world.pass_time(5)
    cards, saves = 0, 0
    for _ in range(24):
        world.now += 5
        decision = world.step(world.look())
        cards += kinds(decision).count(MessageKind.CARD)
        saves += decision.save
    assert (cards, saves) == (4, 4)


@pytest.mark.parametrize("late", ["written", "failed"])
def test_an_answer_to_no_write_is_illegal(late: str) -> None:
    """A confirmation of another revision raises, and changes nothing."""
    world = begun()
    event = Written(1, 5, world.route.state()) if late == "written" else WriteFailed(1, "transient", "late", None)
    with pytest.raises(IllegalEvent, match="answers no write"):
        decide(world.rollout, event, world.now)


def test_requests_are_for_their_own_rollout() -> None:
    """A request that names another rollout, or a verb that does not exist, is illegal."""
    world = begun()
    for wrong in (replace(world.request("hold"), rollout="other-1"), world.request("explode")):
        with pytest.raises(IllegalEvent):
            decide(world.rollout, wrong, world.now)


def test_an_override_that_cannot_be_used_is_taken_back() -> None:
    """It does not lie in wait and raise without a PASS hours later."""
    world = begun()
    world.ask("promote", option="override", reason="now")
    decision = world.step(world.look(canary_ready=0))
    assert "the canary has no ready pod" in said(decision)
    assert world.rollout.override == ""


def test_open_questions_are_closed_when_the_canary_goes_back() -> None:
    """No button stands in the channel that asks about what is over."""
    world = asked()
    world.now += 5
    decision = world.step(world.look(world.report(Verdict.FAIL, deciding=True)))
    closed = [message.step for message in decision.messages if message.kind is MessageKind.ASKED]
    assert closed == [1]
    world = begun()
    world.route.canary, world.route.stable = 40, 60
    world.step(world.look())
    assert MessageKind.ASKED in kinds(world.ask("rollback"))


def test_a_changing_error_text_is_not_saved_at_each_look() -> None:
    """A long outage costs neither a card nor a record per look."""
    world = begun()
    world.now += 5
    world.step(world.look(world.report(Verdict.ERROR, detail="503 after 0.1 s")))
    world.now += 5
    decision = world.step(world.look(world.report(Verdict.ERROR, detail="503 after 0.2 s")))
    assert (decision.save, decision.messages) == (False, ())
