"""Every kind of message as Slack shows it."""

from typing import assert_never

from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.model import Phase, Rollout
from bot.views.blocks import BLOCKS, Block, Rendered, context, header, rendered, section
from bot.views.buttons import approval_buttons, hold_buttons, offered
from bot.views.byhand import by_hand
from bot.views.card import card
from bot.views.escape import code, code_block, escape, mention
from bot.views.final import final
from bot.views.gates import gate_table
from bot.views.situation import approvals, following, headline, short_verdict, warned
from bot.views.timeline import steps

TONES = {Tone.GOOD: "✅", Tone.BAD: "🔴", Tone.WAIT: "✋", Tone.INFO: "ℹ️"}


def render(message: Message, rollout: Rollout | None) -> Rendered:
    """A message as it is shown; `rollout` is its latest state, None for one that belongs to no rollout.

    A card, question or final message whose record is gone is shown by its sentences alone.
    """
    match message.kind:
        case MessageKind.CARD:
            return card(rollout) if rollout else _plain(message)
        case MessageKind.ASK:
            return _ask(message, rollout) if rollout else _plain(message)
        case MessageKind.ASKED:
            return _asked(message, rollout) if rollout else _plain(message)
        case MessageKind.ALERT:
            return _alert(message, rollout)
        case MessageKind.FINAL:
            return final(message, rollout) if rollout else _plain(message)
        case MessageKind.NODE:
            return _node(message)
        case MessageKind.ANSWER:
            return _plain(message, offered(message.offer, rollout) if rollout else None)
        case MessageKind.NOTE | MessageKind.NOTICE:
            return _plain(message)
        case _:
            assert_never(message.kind)


def _plain(message: Message, buttons: Block | None = None) -> Rendered:
    told = f"{TONES[message.tone]} {escape(message.text, 2500)}"
    return rendered(told, [section(told), _detail(message), buttons])


def meant_for(channel: str, shown: Rendered) -> Rendered:
    """The same, where it is told in another channel than it is for."""
    told = context(f"For {escape(channel, 200)}, which is not there or closed to the bot.")
    return rendered(shown.text, [*shown.blocks[: BLOCKS - 1], told])


def _detail(message: Message) -> Block | None:
    return context(escape(message.detail, 1900)) if message.detail else None


def _ask(message: Message, rollout: Rollout) -> Rendered:
    if message.step is None:
        return _ask_about_hold(message, rollout)
    approval = rollout.approval
    if approval is None or approval.step != message.step or rollout.granted:
        return _asked(message, rollout)
    wanted = rollout.plan.steps[message.step].weight_percent
    target = rollout.target
    title = f"✋ Approval needed: {target.service} {target.canary.label} to {wanted}% in {target.namespace}"
    warnings = warned(rollout)
    verdict = f"{short_verdict(rollout)}, {warnings}" if warnings else short_verdict(rollout)
    look = rollout.assessment
    called = mention(rollout.rules.mention)
    return rendered(
        escape(f"{title} ({verdict})", 1000) + (f" {called}" if called else ""),
        [
            header(title),
            section("\n".join(part for part in (called, escape(message.detail, 1500)) if part)),
            section(f"{steps(rollout)}\n*Approvals*  {approvals(rollout)}\n{following(rollout)}"),
            gate_table(look.reports) if look else None,
            approval_buttons(rollout),
            context(_pointers(rollout, "approve", "reject")),
        ],
    )


def _ask_about_hold(message: Message, rollout: Rollout) -> Rendered:
    called = mention(rollout.rules.mention)
    held = bool(rollout.holds) and not rollout.phase.final and rollout.phase is not Phase.ROLLING_BACK
    return rendered(
        f"✋ {escape(message.text, 1000)}" + (f" {called}" if called else ""),
        [
            header(headline(rollout)),
            section("\n".join(part for part in (called, escape(message.text, 2000)) if part)),
            _detail(message),
            section(following(rollout)),
            hold_buttons(rollout) if held else None,
            context(_pointers(rollout, "status")),
        ],
    )


def _asked(message: Message, rollout: Rollout) -> Rendered:
    approval, target = rollout.approval, rollout.target
    about = f"{target.service} {target.canary.label}"
    if message.step is not None and 0 <= message.step < len(rollout.plan.steps):
        about += f" to {rollout.plan.steps[message.step].weight_percent}%"
    told = f"{TONES[message.tone]} {escape(f'{about} in {target.namespace}: {message.text}', 2000)}"
    still_open = (
        message.step is not None
        and approval is not None
        and approval.step == message.step
        and not rollout.granted
        and not rollout.phase.final
        and rollout.phase is not Phase.ROLLING_BACK
    )
    return rendered(
        told,
        [
            section(told),
            _detail(message),
            section(f"*Approvals*  {approvals(rollout)}\n{following(rollout)}") if still_open else None,
            approval_buttons(rollout) if still_open else None,
            context(_pointers(rollout, "status")),
        ],
    )


def _alert(message: Message, rollout: Rollout | None) -> Rendered:
    called = mention(rollout.rules.mention) if rollout else ""
    told = f"{TONES[message.tone]} {escape(message.text, 2000)}"
    if rollout is None:
        return rendered(told, [section(told), _detail(message)])
    line = by_hand(rollout.target) if not rollout.phase.final else ""
    return rendered(
        told + (f" {called}" if called else ""),
        [
            header(headline(rollout)),
            section("\n".join(part for part in (called, escape(message.text, 2000)) if part)),
            _detail(message),
            section(f"*To 0% by hand:*\n{code_block(line)}") if line else None,
            context(_pointers(rollout, "status")),
        ],
    )


def _node(message: Message) -> Rendered:
    told = f"{'✅' if message.tone is Tone.GOOD else '🖥️'} {escape(message.text, 2000)}"
    return rendered(told, [section(told), _detail(message), context("`/canary nodes`")])


def _pointers(rollout: Rollout, *verbs: str) -> str:
    return "  ·  ".join([code(rollout.id), *(code(f"/canary {verb} {rollout.id}") for verb in verbs)])
