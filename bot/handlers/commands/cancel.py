"""`cancel`: take back a start that has not begun."""

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
    return await ask_holder(desk, "cancel", what, who)


COMMAND = Command(
    verb="cancel",
    usage="<id or service>",
    summary="Take back a start that has not begun.",
    example="cancel payments-7f3a",
    parse=parse,
    run=run,
    permission="cancel",
    changes=True,
)
