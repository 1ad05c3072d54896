"""`services`: what can be steered."""

from bot.handlers.command import Command, nothing
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


async def run(desk: Desk, args: None, who: Who) -> Rendered:
    """Read only."""
    views = await reading.services(desk)
    return answers.services([(view.service, view.namespace, view.subsets, view.active) for view in views])


COMMAND = Command(
    verb="services",
    usage="",
    summary="Services that can be steered, and what runs on them.",
    example="services",
    parse=nothing,
    run=run,
)
