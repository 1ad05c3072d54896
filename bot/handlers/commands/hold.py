"""`hold`: stop advancing, with the gates on."""

from bot.handlers.asking import Asked, ask_holder
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.who import Who


def parse(line: Line) -> tuple[str, str]:
    """An id or service, and the reason."""
    what = line.take("an id or service").text
    return what, line.rest()


async def run(desk: Desk, args: tuple[str, str], who: Who) -> Asked:
    """The holder answers."""
    what, reason = args
    return await ask_holder(desk, "hold", what, who, reason=reason)


COMMAND = Command(
    verb="hold",
    usage="<id or service> [<reason>]",
    summary="Stop advancing; gates stay on and can still roll back.",
    example="hold payments-7f3a waiting for the database",
    parse=parse,
    run=run,
    permission="hold",
    changes=True,
)
