"""`approve`: the typed twin of the approval's button."""

from bot.handlers.asking import Asked, ask_holder
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.who import Who


def parse(line: Line) -> str:
    """An id or service."""
    what = line.take("an id or service").text
    line.end()
    return what


async def run(desk: Desk, what: str, who: Who) -> Asked:
    """The holder answers."""
    return await ask_holder(desk, "approve", what, who)


COMMAND = Command(
    verb="approve",
    usage="<id or service>",
    summary="Agree to the step that is being asked for.",
    example="approve payments-7f3a",
    parse=parse,
    run=run,
    permission="approve",
    changes=True,
)
