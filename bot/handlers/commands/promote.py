"""`promote`: end this bake now."""

from dataclasses import dataclass

from bot.handlers.asking import Asked, ask_holder
from bot.handlers.command import Command
from bot.handlers.grammar import Line
from bot.usecases.desk import Desk
from bot.usecases.who import Who


@dataclass(frozen=True, slots=True)
class Args:
    """`option` is "", "full" or "override"; an override carries its reason."""

    what: str
    option: str = ""
    reason: str = ""


def parse(line: Line) -> Args:
    """An id or service, then at most one flag."""
    what = line.take("an id or service").text
    if line.take_key("--full"):
        line.end()
        return Args(what, "full")
    if line.take_key("--override"):
        if line.ended():
            raise line.missing("the reason (it is recorded and announced)")
        return Args(what, "override", line.rest())
    word = line.peek()
    if word is not None:
        raise line.wrong(word, "Expected `--full`, `--override <reason>` or nothing.")
    return Args(what)


async def run(desk: Desk, args: Args, who: Who) -> Asked:
    """The holder answers."""
    return await ask_holder(desk, "promote", args.what, who, reason=args.reason, option=args.option)


COMMAND = Command(
    verb="promote",
    usage="<id or service> [--full | --override <reason>]",
    summary="End this bake now if the gates pass; `--full` goes on to 100% the same way, `--override` needs no pass.",
    example="promote payments-7f3a",
    parse=parse,
    run=run,
    permission="promote",
    changes=True,
)
