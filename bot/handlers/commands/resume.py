"""`resume`: go on after a hold."""

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
    return await ask_holder(desk, "resume", what, who)


COMMAND = Command(
    verb="resume",
    usage="<id or service>",
    summary="Go on after a hold by a person.",
    example="resume payments-7f3a",
    parse=parse,
    run=run,
    permission="resume",
    changes=True,
)
