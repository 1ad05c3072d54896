"""`unfreeze`: lift a freeze."""

from bot.errors import UserError
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases import freezing
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers


def parse(line: Line) -> str:
    """A scope, "" for the only one that stands."""
    scope = line.peek()
    if scope is None:
        return ""
    line.take("a service or `all`")
    line.end()
    return freezing.ALL if scope.key == freezing.ALL else scope.text


async def run(desk: Desk, scope: str, who: Who) -> Rendered:
    """Lift, and say what was lifted."""
    return answers.unfrozen(await freezing.unfreeze(desk, scope or await _only(desk), who))


async def _only(desk: Desk) -> str:
    scopes = sorted({freeze.scope for freeze in await freezing.freezes(desk)})
    if len(scopes) == 1:
        return scopes[0]
    if not scopes:
        raise UserError("Nothing is frozen.", "`/canary freeze all for 4h <reason>` freezes.")
    listed = ", ".join(f"`{scope}`" for scope in scopes)
    raise UserError(f"Several freezes stand: {listed}. Nothing was lifted.", "Name one: `/canary unfreeze all`.")


COMMAND = Command(
    verb="unfreeze",
    usage="[<service or all>]",
    summary="Lift a freeze; rollouts go on by themselves.",
    example="unfreeze all",
    parse=parse,
    run=run,
    permission="unfreeze",
    changes=True,
)
