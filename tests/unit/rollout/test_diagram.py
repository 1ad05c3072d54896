"""The picture of the machine."""

from pathlib import Path

from bot.rollout.diagram import mermaid, page
from bot.rollout.machine import TABLE
from bot.rollout.model import Phase


def test_the_diagram_shows_the_table_and_nothing_else() -> None:
    """Every change of phase that the table allows is an arrow, and no final phase has one that leaves it."""
    drawn = {
        tuple(line.split(":")[0].split(" --> "))
        for line in (line.strip() for line in mermaid().splitlines())
        if " --> " in line and "[*]" not in line
    }
    expected = {(phase.value, to.value) for (phase, _), one in TABLE.items() for to in one.to if to is not phase}
    assert drawn == expected
    assert not {source for source, _ in drawn} & {phase.value for phase in Phase if phase.final}


def test_the_docs_show_the_present_table() -> None:
    """`docs/states.md` is what `diagram.page()` draws now."""
    assert (Path(__file__).parents[3] / "docs" / "states.md").read_text() == page()
