"""`version`: what runs here."""

from importlib.metadata import PackageNotFoundError, version

from bot.handlers.command import Command, nothing
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


async def run(desk: Desk, args: None, who: Who) -> Rendered:
    """The installed distribution's version."""
    try:
        return answers.version(version("canary-bot"))
    except PackageNotFoundError:
        return answers.version("not installed as a distribution")


COMMAND = Command(
    verb="version",
    usage="",
    summary="The bot's version.",
    example="version",
    parse=nothing,
    run=run,
)
