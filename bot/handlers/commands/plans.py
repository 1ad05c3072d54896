"""`plans`: the catalog's plans."""

from bot.handlers.command import Command, nothing
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


async def run(desk: Desk, args: None, who: Who) -> Rendered:
    """Read only."""
    return answers.plans(reading.plans(desk))


COMMAND = Command(
    verb="plans",
    usage="",
    summary="The catalog's plans.",
    example="plans",
    parse=nothing,
    run=run,
)
