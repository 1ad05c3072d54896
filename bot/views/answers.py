"""Private answers: tables of rollouts, freezes, plans, services and nodes, help, and what went wrong."""

from collections.abc import Mapping, Sequence

from bot.analysis.nodes import Level, NodeHealth
from bot.analysis.sentences import percent
from bot.errors import UserError
from bot.ports.mesh import Finding, Severity
from bot.rollout.duration import spoken
from bot.rollout.gate import Assessment
from bot.rollout.model import Freeze, HoldReason, Phase, Rollout, Target
from bot.rollout.plan import DEFAULT_PLAN, Plan
from bot.rollout.plan import text as plan_text
from bot.views.blocks import Block, Rendered, context, header, paragraphs, rendered, section, table
from bot.views.byhand import by_hand
from bot.views.escape import code, code_block, date, escape, person, stamp
from bot.views.gates import gate_table
from bot.views.numbers import counted, share
from bot.views.situation import EMOJI, HELD, approvals, held_for

Listed = tuple[str, str, tuple[str, ...], str]
"""A service, its namespace, its subsets, and the id of its active rollout."""

SHOWN_BY_HAND = 5
"""Rollouts that are told how to be sent to 0 without the bot."""
LEVELS = {Level.OK: "ok", Level.WARN: "! warning", Level.CRITICAL: "✗ CRITICAL"}


def said(text: str, hint: str = "") -> Rendered:
    """One sentence, and the way on."""
    told = escape(text, 2500)
    way_on = escape(hint, 1500)
    return rendered(f"{told} {way_on}".strip(), [section(told), context(way_on)])


def error(problem: UserError, link: str = "") -> Rendered:
    """Bad input or a refusal, as it is; `link` is the address of a card to look at."""
    told = escape(problem.message, 2500)
    way_on = escape(problem.hint, 1500)
    card = f"<{escape(link)}|Its card>" if link.startswith("https://") and "|" not in link else ""
    return rendered(f"{told} {way_on}".strip(), [section(told), context(way_on), section(card)])


def misunderstood(expected: str, line: str, start: int, width: int, example: str) -> Rendered:
    """A line that could not be read, with a caret under the place."""
    begin = max(0, start - 60)
    cut_before = "…" if begin else ""
    shown = cut_before + line[begin : begin + 120]
    caret = " " * (start - begin + len(cut_before)) + "^" * min(width, max(1, len(shown) - start + begin))
    place = code_block(f"{shown}\n{caret}")
    told = f"{escape(expected, 1000)} Nothing was changed."
    way_on = f"For example {code(f'/canary {example}')}"
    return rendered(f"{told} {way_on}", [section(f"{told}\n{place}"), section(way_on)])


def failed(error_id: str) -> Rendered:
    """Something broke that is not the person's fault."""
    return said(
        f"Something went wrong in the bot (error {error_id}). What was asked may not have been done.",
        "`/canary status` shows how things are; the error id finds the details in the bot's log.",
    )


def unreachable() -> Rendered:
    """The store or the API server cannot be reached."""
    return said(
        "The state store or the cluster cannot be reached right now. Nothing was changed.",
        "Try again in a minute. `/canary rollback` works meanwhile, by the routes themselves.",
    )


def nobody_holds(rollouts: Sequence[str], targets: Sequence[Target]) -> Rendered:
    """A request that no holder has taken, for these ids; `targets` are those of the first `SHOWN_BY_HAND`."""
    ids = ", ".join(code(name) for name in rollouts)
    told = (
        f"Your request for {ids} is kept, but no replica of the bot has taken it yet. It is done as soon as one does."
    )
    lines = [by_hand(target) for target in targets[:SHOWN_BY_HAND]]
    return rendered(told, [section(told), *(section(f"To 0% by hand:\n{code_block(line)}") for line in lines if line)])


def rolled_back(sentences: Sequence[str]) -> Rendered:
    """What came of a rollback that did not go through the holder."""
    told = escape("\n".join(sentences), 2800)
    return rendered(told, [section(told)])


def started(rollout: Rollout, findings: Sequence[Finding]) -> Rendered:
    """A start that was accepted."""
    target = rollout.target
    what = f"{escape(target.service, 100)} {escape(target.canary.label, 100)}"
    if rollout.phase is Phase.SCHEDULED and rollout.scheduled_at > rollout.created_at:
        told = f"{code(rollout.id)}: {what} starts {date(rollout.scheduled_at, '{date_long} at {time}')}."
    else:
        told = f"{code(rollout.id)}: {what} has been started."
    warnings = [finding for finding in findings if finding.severity is Severity.WARN]
    return rendered(
        told, [section(told), section(finding_lines(warnings)), context(code(f"/canary status {rollout.id}"))]
    )


def undoing(rollout: Rollout) -> Rendered:
    """An undo that was accepted."""
    target = rollout.target
    told = (
        f"{code(rollout.id)}: all traffic of {escape(target.service, 100)} goes back to {escape(target.stable.label)}."
    )
    return rendered(told, [section(told), context(code(f"/canary status {rollout.id}"))])


def finding_lines(findings: Sequence[Finding]) -> str:
    """Preflight items as a list, mrkdwn."""
    marks = {Severity.OK: "✓", Severity.WARN: "!", Severity.REFUSE: "✗"}
    return "\n".join(
        f"{marks[finding.severity]} *{escape(finding.item, 80)}*: {escape(finding.text, 500)}"
        + (f" _{escape(finding.way_on, 500)}_" if finding.way_on else "")
        for finding in findings
    )


def start_usage(usage: str, example: str, services: Sequence[Listed]) -> Rendered:
    """How `start` is used, and what this person may start."""
    told = f"{code(usage, 500)}\nFor example {code(f'/canary {example}')}"
    names = ", ".join(code(name) for name, *_ in services[:30])
    may = f"You may start {names}." if services else "There is no service that you may start."
    return rendered(f"{may} {told}", [section(told), section(may), _service_table(services)])


def services(listed: Sequence[Listed]) -> Rendered:
    """Services that can be steered."""
    if not listed:
        return said("There is no service here that can be steered.", "Services come from the catalog and the mesh.")
    return rendered(f"{counted(len(listed), 'service')} can be steered.", [_service_table(listed)])


def _service_table(listed: Sequence[Listed]) -> Block | None:
    rows = [(name, namespace, ", ".join(subsets), active) for name, namespace, subsets, active in listed]
    return table(("Service", "Namespace", "Subsets", "Running"), rows)


def status(rollouts: Sequence[Rollout], quarantined: Sequence[tuple[str, str]], count: int | None = None) -> Rendered:
    """Active rollouts in one table, the first of `count` (that is all there are when it is not given)."""
    count = len(rollouts) if count is None else count
    unreadable = "\n".join(f"✗ {code(name)} cannot be read: {escape(why, 300)}" for name, why in quarantined[:10])
    if not rollouts:
        told = "No rollout is active."
        return rendered(told, [section(told), section(unreadable), context("`/canary start` begins one.")])
    rows = [
        (
            rollout.id,
            f"{EMOJI[rollout.phase]} {rollout.phase.value}",
            f"{rollout.target.canary.label} {rollout.weight_percent}%",
            share(rollout.assessment.share.percent if rollout.assessment else None),
            f"{rollout.step + 1}/{len(rollout.plan.steps)}",
            _waits_for(rollout),
        )
        for rollout in rollouts
    ]
    told = f"{count} active: " + ", ".join(
        f"{rollout.id} {rollout.phase.value} {rollout.weight_percent}%" for rollout in rollouts[:20]
    )
    heads = ("Id", "State", "Wanted", "Seen", "Step", "Waits for")
    return rendered(escape(told, 1500), [table(heads, rows, right=(2, 3, 4), count=count), section(unreadable)])


def _waits_for(rollout: Rollout) -> str:
    if rollout.phase is Phase.AWAITING_APPROVAL and rollout.approval:
        return f"approval, {len(rollout.approval.approved_by)} of {rollout.rules.approval.quorum}"
    if rollout.holds:
        return ", ".join(held_for(rollout, hold) for hold in rollout.holds)
    if rollout.phase is Phase.SCHEDULED:
        return stamp(rollout.scheduled_at)
    return ""


def pending(rollouts: Sequence[Rollout]) -> Rendered:
    """What waits for people."""
    alone = {HoldReason.FREEZE, HoldReason.NODES, HoldReason.CANNOT_MEASURE, HoldReason.NOT_ARRIVED}
    lines = []
    for rollout in rollouts:
        name = code(rollout.id)
        if rollout.phase is Phase.AWAITING_APPROVAL and rollout.approval and rollout.next_step:
            lines.append(
                f"✋ {name} waits for approval of {rollout.next_step.weight_percent}% ({approvals(rollout)}), "
                f"until {date(rollout.approval.expires_at)}. {code(f'/canary approve {rollout.id}')}"
            )
        for hold in rollout.holds:
            if hold.reason not in alone:
                lines.append(
                    f"⏸️ {name} holds since {date(hold.since)}: {escape(hold.detail or HELD[hold.reason], 400)}"
                )
    if not lines:
        return said("Nothing waits for anybody.")
    return rendered(f"{counted(len(lines), 'question')} for people:\n" + "\n".join(lines), paragraphs(lines))


def history(rollouts: Sequence[Rollout], service: str) -> Rendered:
    """Finished rollouts, newest first."""
    if not rollouts:
        return said(f"No rollout{f' of `{service}`' if service else ''} has ended yet.")
    rows = [
        (
            rollout.id,
            stamp(rollout.ended_at) if rollout.ended_at else "",
            rollout.phase.value,
            f"{rollout.target.stable.label} → {rollout.target.canary.label}",
            spoken(rollout.ended_at - rollout.started_at) if rollout.ended_at and rollout.started_at else "",
            rollout.started_by.name or rollout.started_by.id,
            rollout.reason,
        )
        for rollout in rollouts
    ]
    heads = ("Id", "Ended", "How", "What", "Took", "By", "Why")
    return rendered(f"The last {counted(len(rollouts), 'rollout')} that ended.", [table(heads, rows, right=(4,))])


def gates(target: Target, look: Assessment, active: str, queries: Sequence[str]) -> Rendered:
    """The gates as they judge now."""
    which = f"for {code(active)}" if active else "over the last ten minutes, as no rollout is running"
    title = f"Gates of {target.service}: {target.canary.label} beside {target.stable.label}"
    seen = f"{share(look.share.percent)} of {look.share.requests:,} requests reached the canary."
    details = "\n".join(f"• *{escape(report.gate, 60)}*  {escape(report.detail, 500)}" for report in look.reports)
    asked = list(dict.fromkeys([report.query for report in look.reports if report.query] + list(queries)))
    told = escape(f"{title}: " + ", ".join(f"{report.gate} {report.verdict.value}" for report in look.reports), 1500)
    return rendered(
        told,
        [
            header(title),
            context(f"Judged {which}.", seen),
            gate_table(look.reports),
            section(details),
            *(section(code_block(query, 2800)) for query in asked[:20]),
        ],
    )


def queries(rollout: Rollout) -> Rendered:
    """The questions that a rollout's gates asked last."""
    look = rollout.assessment
    asked = list(dict.fromkeys(report.query for report in look.reports if report.query)) if look else []
    if not asked:
        return said(f"The gates of `{rollout.id}` have not asked anything yet.")
    told = f"The gates of {code(rollout.id)} ask:"
    return rendered(told, [section(told), *(section(code_block(query, 2800)) for query in asked[:40])])


def nodes(views: Sequence[tuple[NodeHealth, Sequence[str]]]) -> Rendered:
    """Nodes with steal, iowait, what is wrong, and the rollouts on them."""
    if not views:
        return said("The cluster shows no nodes.", "The bot needs the right to list nodes.")
    rows = [
        (
            health.name,
            LEVELS[health.level],
            _fraction(health.value("steal")),
            _fraction(health.value("iowait")),
            _fraction(health.value("CPU pressure")),
            " ".join(health.reasons),
            ", ".join(rollouts),
        )
        for health, rollouts in views
    ]
    bad = [health.name for health, _ in views if health.level is not Level.OK]
    told = f"{counted(len(views), 'node')}, {f'{len(bad)} with trouble: ' + ', '.join(bad) if bad else 'all healthy'}."
    heads = ("Node", "State", "Steal", "Iowait", "CPU pressure", "Why", "Rollouts")
    return rendered(escape(told, 1500), [table(heads, rows, right=(2, 3, 4))])


def _fraction(value: float | None) -> str:
    return "" if value is None else percent(value)


def frozen(freeze: Freeze) -> Rendered:
    """A freeze that was made."""
    until = f"until {date(freeze.until)}" if freeze.until is not None else "until it is lifted"
    told = f"{_scope(freeze)} frozen {until}. Gates stay on and can roll back."
    return rendered(told, [section(told), context(code(f"/canary unfreeze {freeze.scope}"))])


def unfrozen(lifted: Sequence[Freeze]) -> Rendered:
    """Freezes that were lifted."""
    told = "\n".join(
        f"Lifted: {_scope(freeze)} frozen by {_by(freeze)}: {escape(freeze.reason, 300)}" for freeze in lifted
    )
    return rendered(told, [section(told)])


def freezes(standing: Sequence[Freeze]) -> Rendered:
    """Freezes in force."""
    if not standing:
        return said("Nothing is frozen.")
    lines = [
        f"❄️ {_scope(freeze)} frozen by {_by(freeze)} since {date(freeze.since)}, "
        f"{f'until {date(freeze.until)}' if freeze.until is not None else 'until it is lifted'}: "
        f"{escape(freeze.reason, 300)}"
        for freeze in standing
    ]
    return rendered("\n".join(lines), paragraphs(lines))


def _scope(freeze: Freeze) -> str:
    return "All services are" if freeze.scope == "all" else f"{code(freeze.scope)} is"


def _by(freeze: Freeze) -> str:
    return person(freeze.by.id, freeze.by.name)


def plans(known: Mapping[str, Plan]) -> Rendered:
    """The catalog's plans."""
    if not known:
        return said(f"The catalog has no plans; without one it is `{plan_text(DEFAULT_PLAN)}`.")
    lines = [f"*{escape(name, 80)}*  {code(plan_text(plan), 1000)}" for name, plan in known.items()]
    return rendered(f"{counted(len(known), 'plan')}.\n" + "\n".join(lines), paragraphs(lines))


def help_all(commands: Sequence[tuple[str, str]], hidden: int) -> Rendered:
    """Everything that this person may run."""
    lines = [f"{code(line, 400)}\n{escape(summary, 400)}" for line, summary in commands]
    rest = f"{counted(hidden, 'more verb')} for people with other roles." if hidden else ""
    more = "The same words work after a mention of the bot, in threads too. `/canary help <verb>` says more."
    told = "What you can do: " + ", ".join(line.split()[1] for line, _ in commands)
    return rendered(escape(told, 1500), [*paragraphs(lines), context(escape(more), rest)])


def help_one(line: str, summary: str, example: str, aliases: Sequence[str]) -> Rendered:
    """One command."""
    also = f"Also: {', '.join(code(alias) for alias in aliases)}" if aliases else ""
    told = f"{code(line, 500)}\n{escape(summary, 500)}\nFor example {code(f'/canary {example}')}"
    return rendered(told, [section(told), context(also)])


def version(number: str) -> Rendered:
    """What runs here."""
    return said(f"canary-bot {number}")
