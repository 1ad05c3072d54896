"""What a command is: how it is typed, who may, what it does. Adding one is a file and a line in `COMMANDS`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bot.handlers.asking import Asked
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered

Parse = Callable[[Line], Any]
Run = Callable[[Desk, Any, Who], Awaitable[Rendered | Asked]]


def silent(args: Any) -> str:
    """Most commands answer at once."""
    return ""


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `usage` is what follows it, `example` a whole line without `/canary`.

    `parse` turns the words after the verb into the arguments of `run`; it raises UserError. `run` answers privately,
    or with Asked when the holder answers. `permission` is the verb that policy knows it by, "" for what everybody may.
    `waiting` says of the arguments what is whispered before a long run, "" for nothing.
    `changes` marks what may not be done twice; `urgent` what is never dropped, even if it cannot be told from a repeat.
    """

    verb: str
    usage: str
    summary: str
    example: str
    parse: Parse
    run: Run
    aliases: tuple[str, ...] = ()
    permission: str = ""
    changes: bool = False
    urgent: bool = False
    waiting: Callable[[Any], str] = silent

    @property
    def line(self) -> str:
        """How it is typed."""
        return f"/canary {self.verb} {self.usage}".rstrip()


def nothing(line: Line) -> None:
    """Arguments of a command that takes none."""
    line.end()
