"""What a look means: FAIL verdicts are counted per gate, and the deciding one sends the canary back in this wake-up."""

from collections.abc import Sequence

from bot.rollout.draft import GATES, Draft
from bot.rollout.effects import Tone
from bot.rollout.gate import Assessment, GateReport, Verdict
from bot.rollout.holds import drop_hold, observe_nodes
from bot.rollout.model import HoldReason, OnSilence, Phase, Tally, Told
from bot.rollout.retreat import hold_for_stable, roll_back, stable_cannot_carry

COUNTS_ANEW_S = 300.0
"""How long after a take-over too little data is no news: its holder may count from its own beginning."""


def judge(draft: Draft, look: Assessment) -> bool:
    """Count the verdicts of a look and act on the deciding FAIL; True when the rollout goes back."""
    draft.set(tallies=counted(draft.rollout.tallies, look))
    decisive = deciding(draft.rollout.tallies, look)
    guilty = [report for report in decisive if not report.stable_fails]
    machine = look.likely_machine if _blames_machine(draft, guilty, look) else ""
    observe_nodes(draft, look, machine)
    cannot = stable_cannot_carry(draft.rollout, look.stable_ready, look.stable_lost)
    if not decisive or not guilty or machine or cannot:
        _announce(draft, look)
    if not decisive:
        if cannot:
            hold_for_stable(draft, cannot, GATES)
        elif not any(report.verdict is Verdict.FAIL and report.stable_fails for report in look.reports):
            drop_hold(draft, HoldReason.STABLE_UNHEALTHY)
        return False
    if not guilty:
        stable = draft.rollout.target.stable.label
        hold_for_stable(draft, f"{stable} breaks the same limit: {decisive[0].detail}", GATES)
        return False
    if machine:
        return False
    if not cannot:
        drop_hold(draft, HoldReason.STABLE_UNHEALTHY)
    roll_back(draft, _reason(guilty, look), GATES, stable_ready=look.stable_ready, stable_lost=look.stable_lost)
    return draft.rollout.phase in (Phase.ROLLING_BACK, Phase.CANCELLED)


def counted(tallies: Sequence[Tally], look: Assessment) -> tuple[Tally, ...]:
    """The tallies after a look; a verdict counts only when newer samples than the last one's have arrived.

    Only a PASS ends a row of FAILs: too little data or no measurement says nothing for the release.
    """
    known = {tally.gate: tally for tally in tallies}
    for report in look.reports:
        if report.holds:
            continue
        tally = known.get(report.gate) or Tally(report.gate)
        newest = look.at if report.newest_sample_at is None else report.newest_sample_at
        if newest <= tally.last_sample_at:
            continue
        match report.verdict:
            case Verdict.FAIL:
                tally = Tally(report.gate, tally.consecutive + 1, tally.total + 1, newest)
            case Verdict.PASS:
                tally = Tally(report.gate, 0, tally.total, newest)
            case Verdict.INCONCLUSIVE | Verdict.ERROR:
                continue
        known[report.gate] = tally
    return tuple(known.values())


def deciding(tallies: Sequence[Tally], look: Assessment) -> list[GateReport]:
    """The FAIL reports that end the rollout: overwhelming by themselves, or at their gate's limit."""
    known = {tally.gate: tally for tally in tallies}
    failing = [report for report in look.reports if report.verdict is Verdict.FAIL and not report.holds]
    return [report for report in failing if _at_limit(report, known)]


def _at_limit(report: GateReport, tallies: dict[str, Tally]) -> bool:
    tally = tallies.get(report.gate) or Tally(report.gate)
    return report.deciding or tally.consecutive >= report.fail_after or tally.total >= report.fail_total


def _blames_machine(draft: Draft, guilty: Sequence[GateReport], look: Assessment) -> bool:
    if draft.rollout.rules.on_machine is not OnSilence.HOLD:
        return False
    standing = draft.rollout.held(HoldReason.NODES) is not None and bool(look.likely_machine)
    return look.machine_explains(guilty) if guilty else standing


def _reason(guilty: Sequence[GateReport], look: Assessment) -> str:
    reason = " ".join(f"{report.gate} failed: {report.detail}" for report in guilty)
    return f"{reason} {look.cause.sentence}" if look.cause is not None else reason


def _announce(draft: Draft, look: Assessment) -> None:
    """Reply in the thread when the verdict over all gates is another than was told of this step."""
    last = draft.rollout.told
    before, after = last.verdict if last is not None and last.step == look.step else None, _overall(look)
    counts_anew = before is None or draft.now - draft.rollout.fresh_after < COUNTS_ANEW_S
    if after is None or before is after or (after is Verdict.INCONCLUSIVE and counts_anew):
        return
    draft.set(told=Told(after, look.step))
    if after is Verdict.PASS:
        text = f"All gates pass at {look.weight_percent}%."
        if before is Verdict.FAIL:
            text = f"All gates pass again at {look.weight_percent}%."
        draft.note(text, tone=Tone.GOOD)
        return
    wanted = [report for report in look.reports if report.verdict is after and not report.holds]
    words = "fails" if after is Verdict.FAIL else "has too little data"
    draft.note(
        " ".join(f"{report.gate} {words} at {look.weight_percent}%: {report.detail}" for report in wanted),
        tone=Tone.BAD if after is Verdict.FAIL else Tone.WAIT,
    )


def _overall(look: Assessment | None) -> Verdict | None:
    """The worst verdict of a look; None when some gate cannot be measured. That and what holds are told elsewhere."""
    if look is None or not look.reports:
        return None
    verdicts = {report.verdict for report in look.reports if not report.holds}
    for verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE):
        if verdict in verdicts:
            return None if verdict is Verdict.ERROR else verdict
    return Verdict.PASS
