"""`help`: what one may do, from the table that the parser uses."""

from bot.handlers.command import Command
from bot.handlers.grammar import Line, nearest
from bot.usecases.desk import Desk
from bot.usecases.permission import may
from bot.usecases.who import Who
from bot.views import Rendered, answers


def parse(line: Line) -> str:
    """A verb, "" for all."""
    from bot.handlers.commands import COMMANDS

    word = line.peek()
    if word is None:
        return ""
    line.take("a verb")
    line.end()
    known = {alias: command.verb for command in COMMANDS.values() for alias in (command.verb, *command.aliases)}
    if word.key not in known:
        near = nearest(word.text, known)
        raise line.wrong(word, f"There is no such verb.{f' Did you mean `{near}`?' if near else ''}")
    return known[word.key]


async def run(desk: Desk, verb: str, who: Who) -> Rendered:
    """One command in full, or all that this person may run."""
    from bot.handlers.commands import COMMANDS

    if verb:
        command = COMMANDS[verb]
        return answers.help_one(command.line, command.summary, command.example, command.aliases)
    allowed = [
        command for command in COMMANDS.values() if not command.permission or await may(desk, command.permission, who)
    ]
    return answers.help_all([(command.line, command.summary) for command in allowed], len(COMMANDS) - len(allowed))


COMMAND = Command(
    verb="help",
    usage="[<verb>]",
    summary="This list, or one command with an example.",
    example="help start",
    parse=parse,
    run=run,
)
