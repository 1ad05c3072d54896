"""`rollback`: the canary to 0 now, also when Redis is gone."""

from bot.handlers.asking import Asked, roll_back
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered


def parse(line: Line) -> tuple[str, str]:
    """An id, a service or `all` (always in lower case, whatever a phone makes of it), and the reason."""
    what = line.take("an id, a service or `all`")
    return "all" if what.key == "all" else what.text.lower(), line.rest()


async def run(desk: Desk, args: tuple[str, str], who: Who) -> Rendered | Asked:
    """The holder answers, or the routes do."""
    what, reason = args
    return await roll_back(desk, what, who, reason)


COMMAND = Command(
    verb="rollback",
    usage="<id, service or all> [<reason>]",
    summary="Send the canary to 0 at once. Works without Redis by reading the routes themselves.",
    example="rollback payments-7f3a checkout errors",
    parse=parse,
    run=run,
    aliases=("abort",),
    permission="rollback",
    changes=True,
    urgent=True,
)
