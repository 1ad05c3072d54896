"""`freezes`: freezes in force."""

from bot.handlers.command import Command, nothing
from bot.usecases import freezing
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


async def run(desk: Desk, args: None, who: Who) -> Rendered:
    """Read only."""
    return answers.freezes(await freezing.freezes(desk))


COMMAND = Command(
    verb="freezes",
    usage="",
    summary="Freezes in force.",
    example="freezes",
    parse=nothing,
    run=run,
)
