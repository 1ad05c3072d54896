"""`pending`: what waits for whom."""

from bot.handlers.command import Command, nothing
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


async def run(desk: Desk, args: None, who: Who) -> Rendered:
    """Read only."""
    return answers.pending(await reading.pending(desk))


COMMAND = Command(
    verb="pending",
    usage="",
    summary="What waits for whom.",
    example="pending",
    parse=nothing,
    run=run,
)
