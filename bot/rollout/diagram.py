"""Draws the state diagram of the docs from the transition table."""

from bot.rollout.machine import TABLE, Kind
from bot.rollout.model import Phase


def page() -> str:
    """The page `docs/states.md`: the diagram, and what each event may lead to in each phase."""
    rows = []
    for phase in Phase:
        for kind in Kind:
            transition = TABLE.get((phase, kind))
            if transition is not None and (not phase.final or kind is Kind.PROMOTE):
                name = "any request" if phase.final else kind.value
                to = ", ".join(other.value for other in Phase if other in transition.to)
                rows.append(f"| {phase.value} | {name} | {to} |")
    return "\n".join(
        [
            "# Phases and what moves them",
            "",
            "Drawn from the table in `bot/rollout/machine.py` by `bot/rollout/diagram.py`; a test compares them.",
            "An event that a phase does not have is illegal: it raises and changes nothing.",
            "",
            "```mermaid",
            mermaid().rstrip(),
            "```",
            "",
            "| phase | event | may lead to |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def mermaid() -> str:
    """The table as a mermaid `stateDiagram-v2`: one arrow per pair of phases, with the events that can cause it."""
    arrows: dict[tuple[Phase, Phase], list[Kind]] = {}
    for (phase, kind), transition in TABLE.items():
        for to in transition.to:
            if to is not phase:
                arrows.setdefault((phase, to), []).append(kind)
    order = {phase: number for number, phase in enumerate(Phase)}
    lines = [
        "stateDiagram-v2",
        f"    [*] --> {Phase.SCHEDULED.value}: start",
        f"    [*] --> {Phase.ROLLING_BACK.value}: undo",
    ]
    for source, to in sorted(arrows, key=lambda pair: (order[pair[0]], order[pair[1]])):
        causes = ", ".join(kind.value for kind in Kind if kind in arrows[source, to])
        lines.append(f"    {source.value} --> {to.value}: {causes}")
    lines += [f"    {phase.value} --> [*]" for phase in Phase if phase.final]
    return "\n".join(lines) + "\n"
