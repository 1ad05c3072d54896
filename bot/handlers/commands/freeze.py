"""`freeze`: nothing starts and no weight goes up."""

from dataclasses import dataclass

from bot.errors import UserError
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.rollout.duration import parse_duration
from bot.usecases.desk import Desk
from bot.usecases.freezing import ALL, freeze
from bot.usecases.who import Who
from bot.views import Rendered, answers


@dataclass(frozen=True, slots=True)
class Args:
    """`for_s` None lasts until it is lifted."""

    scope: str
    for_s: float | None
    reason: str


def parse(line: Line) -> Args:
    """Scope, how long, why."""
    scope = line.take("a service or `all`")
    for_s: float | None = None
    if line.take_key("for"):
        word = line.take("how long, as in `4h`")
        try:
            for_s = parse_duration(word.text)
        except UserError as error:
            raise line.wrong(word, error.message) from error
        if for_s <= 0:
            raise line.wrong(word, "A freeze has to last longer than nothing.")
    if line.ended():
        raise line.missing("the reason")
    return Args(ALL if scope.key == ALL else scope.text, for_s, line.rest())


async def run(desk: Desk, args: Args, who: Who) -> Rendered:
    """Freeze, and say until when."""
    return answers.frozen(await freeze(desk, args.scope, args.for_s, args.reason, who))


COMMAND = Command(
    verb="freeze",
    usage="<service or all> [for 4h] <reason>",
    summary="Nothing starts and no weight goes up; gates stay on and can roll back.",
    example="freeze all for 4h audit week",
    parse=parse,
    run=run,
    permission="freeze",
    changes=True,
)
