"""`status`: one card, or all active rollouts in a table."""

from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers
from bot.views.card import card


def parse(line: Line) -> str:
    """A service or id, "" for all."""
    what = "" if line.ended() else line.take("a service or id").text
    line.end()
    return what


async def run(desk: Desk, what: str, who: Who) -> Rendered:
    """Read only."""
    if what:
        return card(await reading.status(desk, what))
    active = await reading.listing(desk)
    return answers.status(active.first, active.unreadable, active.count)


COMMAND = Command(
    verb="status",
    usage="[<service or id>]",
    summary="One rollout's card, or every active rollout in one table.",
    example="status payments",
    parse=parse,
    run=run,
)
