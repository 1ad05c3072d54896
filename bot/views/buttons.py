"""The buttons of a rollout: one per thing that can be done now, each bound to revision and step."""

import json
from collections.abc import Iterator

from bot.rollout.drift import against_adopting, against_reapplying
from bot.rollout.gate import Verdict
from bot.rollout.model import HoldReason, Phase, Rollout
from bot.views.blocks import Block, actions, button, confirm, overflow, pointer
from bot.views.numbers import value

EXTEND_S = 600


def card_buttons(rollout: Rollout) -> Block | None:
    """What can be done with a rollout in its present phase; None when nothing can."""
    match rollout.phase:
        case Phase.SCHEDULED:
            return actions(_cancel(rollout))
        case Phase.PROGRESSING:
            return actions(_promote(rollout), _hold(rollout), _roll_back(rollout), _more(rollout))
        case Phase.AWAITING_APPROVAL:
            return actions(*_approval(rollout), _hold(rollout), _roll_back(rollout), _more(rollout))
        case Phase.HOLDING:
            return actions(*_ways_out(rollout), _roll_back(rollout), _more(rollout))
        case _:
            return None


def approval_buttons(rollout: Rollout) -> Block | None:
    """Approve, reject, roll back."""
    return actions(*_approval(rollout), _roll_back(rollout))


def hold_buttons(rollout: Rollout) -> Block | None:
    """The ways out of a hold."""
    return actions(*_ways_out(rollout), _roll_back(rollout))


def offered(verb: str, rollout: Rollout) -> Block | None:
    """The button that comes with an answer; None when there is none or it can do nothing any more."""
    going = rollout.phase not in (Phase.SCHEDULED, Phase.ROLLING_BACK) and not rollout.phase.final
    return actions(_roll_back(rollout)) if verb == "rollback" and going else None


def _cancel(rollout: Rollout) -> Block:
    text = f"{_what(rollout)} has not begun. It will not start."
    return button(
        "Cancel",
        "cancel",
        pointer(rollout),
        style="danger",
        confirm=confirm(f"Cancel {rollout.target.service}?", text, "Cancel it", style="danger"),
    )


def _promote(rollout: Rollout) -> Block | None:
    step = rollout.next_step
    if rollout.current is None or rollout.write is not None or rollout.hurry:
        return None
    goal = f"{step.weight_percent}%" if step else "done"
    ask = " Approval is still asked." if step and step.approval else ""
    text = f"{_what(rollout)}: from {rollout.weight_percent}% to {goal} at the next look that passes.{ask}"
    label = f"Promote to {goal}" if step else "Finish now"
    return button(
        f"Ask for {goal} now" if step and step.approval else label,
        "promote",
        pointer(rollout),
        confirm=confirm("End this bake now?", _with_warnings(rollout, text), "End the bake"),
    )


def _hold(rollout: Rollout) -> Block:
    return button("Hold", "hold", pointer(rollout))


def _roll_back(rollout: Rollout) -> Block:
    target = rollout.target
    text = (
        f"{_what(rollout)}: from {rollout.weight_percent}% to 0% at once. "
        f"{target.stable.label} gets all traffic. It does not come back by itself."
    )
    if rollout.gone:
        text = f"{_what(rollout)}: the rollout ends. Without its route there is nothing to write."
    return button(
        "Roll back",
        "rollback",
        pointer(rollout),
        style="danger",
        confirm=confirm(f"Roll back {target.service}?", text, "Roll back", style="danger"),
    )


def _approval(rollout: Rollout) -> tuple[Block, ...]:
    step = rollout.next_step
    if rollout.approval is None or step is None or rollout.granted:
        return ()
    text = f"{_what(rollout)}: from {rollout.weight_percent}% to {step.weight_percent}%."
    approve = button(
        f"Promote to {step.weight_percent}%",
        "approve",
        pointer(rollout, rollout.approval.step),
        style="primary",
        confirm=confirm(
            f"Promote {rollout.target.service} to {step.weight_percent}%?", _with_warnings(rollout, text), "Promote"
        ),
    )
    return (approve, button("Reject…", "reject", pointer(rollout, rollout.approval.step)))


def _ways_out(rollout: Rollout) -> tuple[Block, ...]:
    reasons = rollout.hold_reasons
    shown = list(_drift(rollout)) if HoldReason.DRIFT in reasons else []
    if HoldReason.REDEPLOYED in reasons:
        text = f"{_what(rollout)}: goes to 0% and then through the plan from its first step."
        shown.append(
            button(
                "Start again",
                "restart",
                pointer(rollout),
                confirm=confirm("Start again from the first step?", text, "Start again"),
            )
        )
    if reasons & {HoldReason.PERSON, HoldReason.RECOVERED}:
        shown.append(button("Resume", "resume", pointer(rollout), style="primary"))
    return tuple(shown)


def _drift(rollout: Rollout) -> Iterator[Block]:
    """Keep theirs, write ours: each only where it would work."""
    found = rollout.found.canary_weight if rollout.found else None
    now = "no weight" if found is None else f"{found}%"
    if not against_adopting(rollout):
        text = f"{_what(rollout)}: {now} is taken as ours."
        ask = confirm("Keep the weights as found?", text, "Keep theirs")
        yield button("Keep theirs", "drift:adopt", pointer(rollout), confirm=ask)
    if not against_reapplying(rollout):
        text = f"{_what(rollout)}: {rollout.weight_percent}% is written again, over {now}."
        ask = confirm("Write our weights again?", text, "Write ours")
        yield button("Write ours again", "drift:reapply", pointer(rollout), confirm=ask)


def _more(rollout: Rollout) -> Block | None:
    if rollout.current is None:
        return None
    return overflow(
        "more",
        (f"Bake {EXTEND_S // 60} min longer", _option(rollout, "extend")),
        ("Show queries", _option(rollout, "queries")),
    )


def _option(rollout: Rollout, verb: str) -> str:
    return json.dumps([verb, rollout.id, rollout.revision, rollout.step], separators=(",", ":"))


def _what(rollout: Rollout) -> str:
    target = rollout.target
    return f"{target.service} {target.canary.label} in {target.namespace}"


def _with_warnings(rollout: Rollout, text: str) -> str:
    look = rollout.assessment
    if look is None:
        return text
    warnings = [
        f"{report.gate} {value(report)} ({report.verdict.value})"
        for report in look.reports
        if report.verdict is not Verdict.PASS
    ]
    if look.nodes_critical:
        warnings.append(f"node {', '.join(look.nodes_critical)} is critical")
    return f"{text} Warnings: {'; '.join(warnings)}." if warnings else f"{text} No warnings."
