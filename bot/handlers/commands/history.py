"""`history`: finished rollouts."""

from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


def parse(line: Line) -> str:
    """A service, "" for all."""
    service = "" if line.ended() else line.take("a service").text
    line.end()
    return service


async def run(desk: Desk, service: str, who: Who) -> Rendered:
    """Read only."""
    return answers.history(await reading.history(desk, service), service)


COMMAND = Command(
    verb="history",
    usage="[<service>]",
    summary="Finished rollouts: who, what, how long, how it ended and why.",
    example="history payments",
    parse=parse,
    run=run,
)
