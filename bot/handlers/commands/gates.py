"""`gates`: judge now, privately."""

from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


def parse(line: Line) -> tuple[str, str]:
    """A service and its namespace ("" when not said)."""
    service = line.take("a service").text
    namespace = line.take("a namespace").text if line.take_key("in") else ""
    line.end()
    return service, namespace


async def run(desk: Desk, args: tuple[str, str], who: Who) -> Rendered:
    """Read only."""
    service, namespace = args
    look = await reading.gates(desk, service, namespace)
    return answers.gates(look.target, look.assessment, look.active.id if look.active else "", look.queries)


COMMAND = Command(
    verb="gates",
    usage="<service> [in <namespace>]",
    summary="Judge now: value, limit, samples, stable beside canary, the query.",
    example="gates payments",
    parse=parse,
    run=run,
)
