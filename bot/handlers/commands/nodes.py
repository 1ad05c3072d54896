"""`nodes`: the machines underneath."""

from bot.handlers.command import Command, nothing
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


async def run(desk: Desk, args: None, who: Who) -> Rendered:
    """Read only."""
    views = await reading.nodes(desk)
    return answers.nodes([(view.health, view.rollouts) for view in views])


COMMAND = Command(
    verb="nodes",
    usage="",
    summary="Node conditions, steal and iowait, and which rollouts they touch.",
    example="nodes",
    parse=nothing,
    run=run,
)
