"""`undo`: after Promoted, all weight back to the former stable."""

from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.undo import undo
from bot.usecases.who import Who
from bot.views import Rendered, answers


def parse(line: Line) -> str:
    """A service."""
    service = line.take("a service").text
    line.end()
    return service


async def run(desk: Desk, service: str, who: Who) -> Rendered:
    """Begin the way back."""
    return answers.undoing(await undo(desk, service, who))


COMMAND = Command(
    verb="undo",
    usage="<service>",
    summary="After a promotion: all weight back to the former stable, at once, also in a freeze.",
    example="undo payments",
    parse=parse,
    run=run,
    permission="undo",
    changes=True,
)
