"""The card: the one message of a rollout, edited in place. The point first, then the story, then the buttons."""

from bot.rollout.duration import spoken
from bot.rollout.model import Phase, Rollout
from bot.views.blocks import Block, Rendered, context, fields, header, rendered, section
from bot.views.buttons import card_buttons
from bot.views.byhand import by_hand
from bot.views.escape import code, code_block, date, escape, person
from bot.views.gates import gate_table
from bot.views.situation import approvals, headline, seen_share, short_verdict, situation
from bot.views.timeline import bars, steps


def card(rollout: Rollout) -> Rendered:
    """A rollout as it is now."""
    told = situation(rollout)
    look = rollout.assessment
    return rendered(
        lock_screen(rollout),
        [
            header(headline(rollout)),
            context(_particulars(rollout)),
            section(told.why),
            section(f"{steps(rollout)}\n{bars(rollout)}"),
            _fields(rollout, told.next),
            gate_table(look.reports) if look is not None else None,
            section(told.can),
            card_buttons(rollout),
            *_by_hand(rollout),
            context(_updated(rollout)),
        ],
    )


def lock_screen(rollout: Rollout) -> str:
    """The whole point in one line, for a notification."""
    told = headline(rollout)
    where = f" in {rollout.target.namespace}"
    if rollout.phase.final or rollout.phase is Phase.ROLLING_BACK:
        reason = rollout.reason or (rollout.write.reason if rollout.write else "")
        return escape(f"{told}{where}{': ' + reason if reason else ''}", 1000)
    if rollout.current is None:
        return escape(f"{told}{where}", 1000)
    return escape(f"{told}{where} ({short_verdict(rollout)})", 1000)


def _particulars(rollout: Rollout) -> str:
    parts = [
        code(rollout.id),
        f"{escape(rollout.target.namespace, 80)} / {escape(rollout.target.route.name, 80)}",
        f"by {person(rollout.started_by.id, rollout.started_by.name)}",
        date(rollout.started_at or rollout.scheduled_at),
    ]
    if rollout.current is not None and not rollout.phase.final:
        parts.append(f"step {rollout.step + 1} of {len(rollout.plan.steps)}")
    if rollout.ended_at is not None:
        begun = rollout.started_at or rollout.created_at
        parts.append(f"ended {date(rollout.ended_at)} after {spoken(rollout.ended_at - begun)}")
    if rollout.undo_of:
        parts.append(f"takes back {code(rollout.undo_of)}")
    return "  ·  ".join(parts)


def _fields(rollout: Rollout, following: str) -> Block | None:
    bake = rollout.bake
    baked = ""
    if rollout.current is not None and not rollout.phase.final:
        baked = f"{spoken(min(bake.covered_s, rollout.needed_s))} of {spoken(rollout.needed_s)}"
        if bake.arrived_at is None:
            baked = f"not begun ({spoken(rollout.needed_s)})"
    traffic = "" if rollout.current is None or rollout.phase.final else seen_share(rollout)
    return fields(
        ("Next", following),
        ("Baked", baked),
        ("Traffic", traffic),
        ("Approvals", approvals(rollout)),
    )


def _by_hand(rollout: Rollout) -> tuple[Block | None, ...]:
    line = by_hand(rollout.target)
    if not line or (rollout.phase.final and rollout.phase is not Phase.PROMOTED):
        return ()
    if rollout.phase is Phase.ROLLING_BACK and rollout.write_failures:
        return (section(f"*It cannot be applied. By hand, at once:*\n{code_block(line)}"),)
    return (context(f"Without the bot, to 0% by hand:\n{code_block(line, 1800)}"),)


def _updated(rollout: Rollout) -> str:
    look = rollout.assessment
    at = max(rollout.card_at, rollout.ended_at or 0.0, look.at if look and not rollout.card_at else 0.0)
    updated = f"Updated {date(at, '{date_short_pretty} at {time_secs}')}  ·  " if at else ""
    return f"{updated}{code(f'/canary status {rollout.id}')}"
