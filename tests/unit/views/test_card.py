"""What the card says to somebody who was just woken: state, cause, what comes next, what can be done."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.gate import Assessment, GateReport, Share, Verdict
from bot.rollout.model import (
    Actor,
    Approval,
    ApprovalPolicy,
    Bake,
    Direction,
    Hold,
    HoldReason,
    OnSilence,
    Phase,
    Rollout,
    Rules,
    Source,
    Write,
)
from bot.rollout.plan import Plan, Step
from bot.rollout.route import RouteState
from bot.views import Rendered, render
from bot.views.byhand import by_hand
from bot.views.card import card
from tests.fixtures.rollouts import ADA, NOW, ended, rollout, target

GRACE = Actor(Source.PERSON, "U0GRACE", "Grace", "button")
BOT = Actor(Source.BOT)
FOUND = RouteState("uid-1", "9", 70, 30)
PLAN = Plan("standard", (Step(5, 600.0), Step(25, 600.0), Step(50, 600.0, True), Step(100, 600.0)))
BAD = GateReport(
    "error-rate", Verdict.FAIL, "5.2% of 120 requests failed (limit 1%).", 0.052, 0.001, 0.01, "%", 120, 900, 50
)
GOOD = GateReport("p99", Verdict.PASS, "p99 120 ms (limit 250 ms).", 120.0, 118.0, 250.0, "ms", 120, 900, 50)


def at(**changes: Any) -> Rollout:
    """A rollout at 25% of the plan, nothing wrong."""
    look = Assessment(NOW + 60, 1, 25, (GOOD,), Share(24.1, 1204, True))
    usual: dict[str, Any] = {
        "plan": PLAN,
        "step": 1,
        "weight_percent": 25,
        "holds": (),
        "assessment": look,
        "bake": Bake(NOW, NOW + 5, 240.0, NOW + 60),
    }
    return rollout(**{**usual, **changes})


def prose(shown: Rendered) -> str:
    """Everything that the blocks say, in order."""

    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [found for key, part in value.items() if key != "value" for found in strings(part)]
        if isinstance(value, list | tuple):
            return [found for part in value for found in strings(part)]
        return [value] if isinstance(value, str) else []

    return "\n".join(strings(list(shown.blocks)))


def buttons(shown: Rendered) -> dict[str, dict[str, Any]]:
    """The elements of the actions blocks by action_id."""
    rows = [block["elements"] for block in shown.blocks if block["type"] == "actions"]
    return {element["action_id"]: element for row in rows for element in row}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "🐤 Progressing: payments v2 at 25% in shop (gates pass)"),
        (
            {"write": Write(50, 4, Direction.RAISE, "baked", BOT, NOW)},
            "🐤 Raising: payments v2 from 25% to 50% in shop (gates pass)",
        ),
        (
            {"phase": Phase.AWAITING_APPROVAL, "approval": Approval(2, NOW, NOW + 3600)},
            "✋ Approval needed: payments v2 from 25% to 50% in shop (gates pass)",
        ),
        (
            {"phase": Phase.HOLDING, "holds": (Hold(HoldReason.FREEZE, NOW, "audit", ADA),)},
            "⏸️ Holding: payments v2 at 25% (freeze) in shop (gates pass)",
        ),
        (
            {"phase": Phase.ROLLING_BACK, "write": Write(0, 4, Direction.ZERO, "error-rate 5.2% > 1%", BOT, NOW)},
            "⏪ Rolling back: payments v2 from 25% to 0% in shop: error-rate 5.2% &gt; 1%",
        ),
        (
            {"phase": Phase.ROLLED_BACK, "weight_percent": 0, "reason": "error-rate 5.2% > 1%"},
            "🔴 Rolled back: payments v2 has no traffic in shop: error-rate 5.2% &gt; 1%",
        ),
        ({"phase": Phase.SCHEDULED, "step": -1, "weight_percent": 0}, "🗓️ Scheduled: payments v1 → v2 in shop"),
    ],
)
def test_the_notification_says_it_all(changes: dict[str, Any], text: str) -> None:
    """The text on a lock screen has state, service, weight, place, and cause."""
    assert card(at(**changes)).text == text


def test_wanted_and_observed_stand_beside_each_other() -> None:
    """Two bars of 20 cells, and passed steps struck through."""
    told = prose(card(at()))
    assert "wanted █████░░░░░░░░░░░░░░░   25%" in told
    assert "seen   █████░░░░░░░░░░░░░░░  24.1%" in told
    assert "~5%~ → *25%* → 50% ✋ → 100%" in told
    assert "24.1% seen in 1,204 requests" in told
    assert "4 min of 10 min" in told


def test_a_weight_that_cannot_be_seen_says_why() -> None:
    """The reason stands below the share, escaped."""
    look = Assessment(NOW, 1, 25, (GOOD,), Share(None, 12, None, "only 12 requests <yet>"))
    assert "not seen yet\nonly 12 requests &lt;yet&gt;" in prose(card(at(assessment=look)))


def test_the_next_step_is_told_with_its_time() -> None:
    """When the bake ends follows from the last look and the time that is still to be covered."""
    told = prose(card(at()))
    assert f"Approval for 50% is asked about <!date^{int(NOW + 60 + 360)}^{{time}}|" in told
    assert "after 6 min more of passing gates" in told


def test_a_failing_gate_is_told_in_words_and_numbers() -> None:
    """The cause is a sentence with value, limit and samples; the table has all gates, right-aligned numbers."""
    shown = card(at(assessment=Assessment(NOW, 1, 25, (BAD, GOOD), Share(25.0, 400, True))))
    assert "✗ 5.2% of 120 requests failed (limit 1%)." in prose(shown)
    (table,) = [block for block in shown.blocks if block["type"] == "table"]
    cells = [[cell["text"] for cell in row] for row in table["rows"]]
    assert cells[1] == ["error-rate", "5.2%", "0.1%", "1%", "120", "–", "✗ FAIL"]
    assert cells[2] == ["p99", "120 ms", "118 ms", "250 ms", "120", "–", "✓ pass"]
    assert [column["align"] for column in table["column_settings"]] == ["left", *["right"] * 5, "left"]


@pytest.mark.parametrize(("silence", "words"), [(OnSilence.ROLL_BACK, "it rolls back"), (OnSilence.HOLD, "it holds")])
def test_an_approval_tells_who_is_missing_and_what_silence_means(silence: OnSilence, words: str) -> None:
    """One of two approvals, by whom, and what happens when nobody else answers."""
    waiting = at(
        phase=Phase.AWAITING_APPROVAL,
        approval=Approval(2, NOW, NOW + 3600, (GRACE,)),
        rules=Rules(approval=ApprovalPolicy(quorum=2, on_expiry=silence)),
    )
    told = prose(card(waiting))
    assert "1 of 2: <@U0GRACE>" in told
    assert f"If nobody answers until <!date^{int(NOW + 3600)}^" in told
    assert words in told


@pytest.mark.parametrize("reason", list(HoldReason))
def test_every_hold_says_why_and_how_it_ends(reason: HoldReason) -> None:
    """No hold is a dead end: since when, why, and what lifts it."""
    shown = card(at(phase=Phase.HOLDING, holds=(Hold(reason, NOW, "the detail", BOT),)))
    told = prose(shown)
    assert "the detail" in told
    assert f"since <!date^{int(NOW)}^" in told
    assert any(words in told for words in ("oes on ", "somebody has to", "start again")), told
    assert "rollback" in buttons(shown)


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, ["promote", "hold", "rollback", "more"]),
        ({"hurry": "step"}, ["hold", "rollback", "more"]),
        ({"step": -1, "weight_percent": 0}, ["hold", "rollback"]),
        ({"phase": Phase.SCHEDULED}, ["cancel"]),
        (
            {"phase": Phase.AWAITING_APPROVAL, "approval": Approval(2, NOW, NOW + 9)},
            ["approve", "reject", "hold", "rollback", "more"],
        ),
        (
            {"phase": Phase.HOLDING, "holds": (Hold(HoldReason.PERSON, NOW, "x", ADA),)},
            ["resume", "rollback", "more"],
        ),
        (
            {"phase": Phase.HOLDING, "holds": (Hold(HoldReason.DRIFT, NOW, "x", BOT),), "found": FOUND},
            ["drift:adopt", "drift:reapply", "rollback", "more"],
        ),
        (
            {"phase": Phase.HOLDING, "holds": (Hold(HoldReason.DRIFT, NOW, "x", BOT),), "gone": "it was deleted"},
            ["rollback", "more"],
        ),
        (
            {"phase": Phase.HOLDING, "holds": (Hold(HoldReason.REDEPLOYED, NOW, "x", BOT),)},
            ["restart", "rollback", "more"],
        ),
        ({"phase": Phase.ROLLING_BACK}, []),
        ({"phase": Phase.PROMOTED}, []),
        ({"phase": Phase.ROLLED_BACK}, []),
        ({"phase": Phase.CANCELLED}, []),
    ],
)
def test_the_buttons_are_those_that_can_act_now(changes: dict[str, Any], ids: list[str]) -> None:
    """Each phase and hold has its own; a final card has none."""
    assert list(buttons(card(at(**changes)))) == ids


def test_a_button_is_bound_to_what_it_was_drawn_for() -> None:
    """Its value names rollout, revision and step; an approval's the step that is asked about."""
    waiting = at(phase=Phase.AWAITING_APPROVAL, approval=Approval(2, NOW, NOW + 9), revision=17)
    drawn = buttons(card(waiting))
    assert json.loads(drawn["hold"]["value"]) == {"rollout": "payments-7f3a", "revision": 17, "step": 1}
    assert json.loads(drawn["approve"]["value"]) == {"rollout": "payments-7f3a", "revision": 17, "step": 2}


def test_the_dialog_repeats_target_weights_and_warnings() -> None:
    """Nobody confirms without reading from where to where, and what speaks against it."""
    look = Assessment(NOW, 1, 25, (BAD,), Share(25.0, 400, True), nodes_critical=("node-2",))
    waiting = at(phase=Phase.AWAITING_APPROVAL, approval=Approval(2, NOW, NOW + 9), assessment=look)
    dialog = buttons(card(waiting))["approve"]["confirm"]
    assert dialog["title"]["text"] == "Promote payments to 50%?"
    assert dialog["text"]["text"] == (
        "payments v2 in shop: from 25% to 50%. Warnings: error-rate 5.2% (fail); node node-2 is critical."
    )


def test_the_line_that_works_without_the_bot_is_on_every_live_card() -> None:
    """kubectl and jq, by host and subset and never by place, guarded by the version that was read."""
    host = "payments.shop.svc.cluster.local"
    line = by_hand(target())
    assert line == (
        "kubectl -n shop get virtualservices.networking.istio.io payments -o json | jq "
        f'\'(.spec.http[]|select(.name=="primary")|.route[])|=(if .destination.host=="{host}" and '
        f'.destination.subset=="v2" then .weight=0 elif .destination.host=="{host}" and '
        '.destination.subset=="v1" then .weight=100 else . end)\' | kubectl replace -f -'
    )
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert escaped in prose(card(at()))
    assert escaped in prose(card(at(phase=Phase.ROLLING_BACK, write_failures=3)))


def test_a_rollback_that_fails_says_how_often_it_was_tried() -> None:
    """While it cannot be applied, the card says so and puts the line by hand first."""
    told = prose(card(at(phase=Phase.ROLLING_BACK, write_failures=3, reason="error-rate")))
    assert "It has failed 3 times and is tried again until it works." in told
    assert "*It cannot be applied. By hand, at once:*" in told


def test_after_promotion_git_is_spoken_of() -> None:
    """The route may be kept in Git, which still says what it said; undo is offered."""
    told = prose(card(ended("payments-7f3a", started_at=NOW)))
    assert "Git still says what it said before" in told
    assert "`/canary undo payments`" in told


def test_a_decided_question_loses_its_buttons() -> None:
    """The message of an approval names who decided and has nothing left to click."""
    shown = render(Message(MessageKind.ASKED, "Approved by Grace after 5 min.", tone=Tone.GOOD, step=2), at())
    assert shown.text == "✅ payments v2 to 50% in shop: Approved by Grace after 5 min."
    assert buttons(shown) == {}


def test_a_half_decided_question_keeps_them() -> None:
    """With one of two approvals the question still stands."""
    waiting = at(
        phase=Phase.AWAITING_APPROVAL,
        approval=Approval(2, NOW, NOW + 3600, (GRACE,)),
        rules=Rules(approval=ApprovalPolicy(quorum=2)),
    )
    shown = render(Message(MessageKind.ASKED, "1 of 2 approved by Grace.", tone=Tone.WAIT, step=2), waiting)
    assert list(buttons(shown)) == ["approve", "reject", "rollback"]


def test_a_question_that_comes_late_is_not_asked_again() -> None:
    """Delivered after it was decided, an approval shows no buttons."""
    shown = render(Message(MessageKind.ASK, "Approval needed", step=2), at(approval=None))
    assert buttons(shown) == {}


def test_a_card_of_the_same_state_is_the_same_card() -> None:
    """Nothing in it depends on when it is rendered, so an unchanged card is not edited."""
    assert card(at()) == card(at())


def test_the_gate_table_says_what_the_samples_could_have_shown() -> None:
    """The smallest visible effect beside the samples, and `not decided` where it is not data that is missing."""
    seen = replace(GOOD, gate="error-rate", smallest_visible=0.021, alpha=0.0025)
    slow = replace(seen, gate="p99")
    open_ = replace(seen, verdict=Verdict.INCONCLUSIVE, samples=60, needed_samples=50)
    shown = card(at(assessment=Assessment(NOW, 1, 25, (seen, slow, open_), Share(25.0, 400, True))))
    (table,) = [block for block in shown.blocks if block["type"] == "table"]
    cells = [[cell["text"] for cell in row][-2:] for row in table["rows"]]
    assert cells == [["Could show", "Result"], ["2.1%", "✓ pass"], ["2.1% slow", "✓ pass"], ["2.1%", "… not decided"]]
