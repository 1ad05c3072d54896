"""The way of a rollout: its steps in a line, and the wanted weight beside the observed share of traffic."""

from bot.rollout.model import Phase, Rollout
from bot.rollout.plan import Step
from bot.views.escape import code_block
from bot.views.numbers import bar, share


def steps(rollout: Rollout) -> str:
    """mrkdwn: passed steps struck through, the present one bold, ✋ where a person is asked."""
    shown = []
    for index, step in enumerate(rollout.plan.steps):
        label = f"{step.weight_percent}%{_asks(rollout, index, step)}"
        if rollout.phase is Phase.PROMOTED or index < rollout.step:
            shown.append(f"~{label}~")
        elif index == rollout.step and not rollout.phase.final:
            shown.append(f"*{label}*")
        else:
            shown.append(label)
    return " → ".join(shown)


def _asks(rollout: Rollout, index: int, step: Step) -> str:
    return " ✋" if step.approval and index > rollout.step else ""


def bars(rollout: Rollout) -> str:
    """Two bars of 20 cells in code font, narrow enough for a phone."""
    look = rollout.assessment
    seen = look.share.percent if look is not None and not rollout.phase.final else None
    lines = [f"wanted {bar(rollout.weight_percent)} {rollout.weight_percent:>4}%"]
    if not rollout.phase.final:
        lines.append(f"seen   {bar(seen)} {share(seen):>6}")
    return code_block("\n".join(lines))
