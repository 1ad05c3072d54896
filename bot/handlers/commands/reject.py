"""`reject`: the typed twin of the rejection's button."""

from bot.handlers.asking import Asked, ask_holder
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.who import Who


def parse(line: Line) -> tuple[str, str]:
    """An id or service, and the reason."""
    what = line.take("an id or service").text
    if line.ended():
        raise line.missing("the reason")
    return what, line.rest()


async def run(desk: Desk, args: tuple[str, str], who: Who) -> Asked:
    """The holder answers."""
    what, reason = args
    return await ask_holder(desk, "reject", what, who, reason=reason)


COMMAND = Command(
    verb="reject",
    usage="<id or service> <reason>",
    summary="Refuse the step that is being asked for; the rollout holds.",
    example="reject payments-7f3a the dashboard looks odd",
    parse=parse,
    run=run,
    permission="reject",
    changes=True,
)
