"""`docs/commands.md`, written from the table of commands: `python -m bot.handlers.reference > docs/commands.md`."""

from bot.handlers.command import Command
from bot.handlers.commands import COMMANDS
from bot.rollout.policy import ROLE_OF

_HEAD = """# Commands

Typed as `/canary <verb> ...`, or after a mention of the bot (`@canary <verb> ...`; slash commands do not work in
threads), or in a direct message to it. Answers are private; what changes traffic is announced in the service's channel.

Weights are in percent, the `%` may be left out. Durations are `90s`, `10m`, `1h30m`. Times are yours: `at 14:30` is the
next 14:30 in your time zone, `at 2026-11-20T14:30` another day, `at 2026-11-20T14:30Z` another zone. A rollout is named
by its id, by the beginning of one, or by its service. Words with blanks stand in quotes; a reason at the end needs
none.

"""


def page() -> str:
    """The whole page in Markdown."""
    return _HEAD + "\n".join(_section(command) for command in COMMANDS.values())


def _section(command: Command) -> str:
    lines = [f"## {command.verb}", "", f"`{command.line}`", "", command.summary]
    if command.aliases:
        lines.append(f"Also: {', '.join(f'`{alias}`' for alias in command.aliases)}.")
    if command.permission in ROLE_OF:
        lines.append(f"Role: {ROLE_OF[command.permission].value}.")
    return "\n".join([*lines, "", f"    /canary {command.example}", ""])


if __name__ == "__main__":
    print(page(), end="")
