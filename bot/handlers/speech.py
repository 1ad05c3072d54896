"""A line that somebody said to the bot: found in the table, read, done, answered."""

from dataclasses import dataclass
from typing import Any

from bot.errors import UserError
from bot.handlers.command import Command
from bot.handlers.commands import COMMANDS
from bot.handlers.grammar import LONGEST, Line, Misunderstood, decode, nearest, words
from bot.views import Rendered, answers

BY_NAME = {name: command for command in COMMANDS.values() for name in (command.verb, *command.aliases)}


@dataclass(frozen=True, slots=True)
class Understood:
    """A command and its arguments."""

    command: Command
    args: Any


def understand(text: str) -> Understood:
    """Read a line as Slack sends it, without `/canary`; nothing at all means `help`. Raises UserError."""
    line = decode(text)
    if len(line) > LONGEST:
        raise UserError(f"That is too long: at most {LONGEST} characters can be read. Nothing was changed.")
    found = words(line)
    if not found:
        return Understood(COMMANDS["help"], "")
    verb = found[0]
    command = BY_NAME.get(verb.key)
    if command is None:
        near = nearest(verb.text, BY_NAME)
        guess = f" Did you mean `{near}`?" if near else ""
        example = COMMANDS[BY_NAME[near].verb].example if near else "help"
        raise Misunderstood(
            line,
            verb.start,
            verb.end - verb.start,
            f"There is no verb `{verb.text}`.{guess}",
            example,
        )
    return Understood(command, command.parse(Line(line, found[1:], command.example)))


def explained(error: UserError, link: str = "") -> Rendered:
    """Bad input as its writer sees it; `link` leads to the card of the rollout that is in the way."""
    if isinstance(error, Misunderstood):
        return answers.misunderstood(error.message, error.line, error.start, error.width, error.hint)
    return answers.error(error, link)
