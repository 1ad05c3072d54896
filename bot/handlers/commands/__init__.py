"""The Slack commands by verb: the one table that the parser, the help and the docs read."""

from bot.handlers.command import Command
from bot.handlers.commands import (
    approve,
    cancel,
    freeze,
    freezes,
    gates,
    help,
    history,
    hold,
    nodes,
    pending,
    plans,
    promote,
    reject,
    resume,
    rollback,
    services,
    start,
    status,
    undo,
    unfreeze,
    version,
)

COMMANDS: dict[str, Command] = {
    command.verb: command
    for command in (
        start.COMMAND,
        status.COMMAND,
        promote.COMMAND,
        hold.COMMAND,
        resume.COMMAND,
        cancel.COMMAND,
        rollback.COMMAND,
        undo.COMMAND,
        approve.COMMAND,
        reject.COMMAND,
        pending.COMMAND,
        history.COMMAND,
        gates.COMMAND,
        nodes.COMMAND,
        freeze.COMMAND,
        unfreeze.COMMAND,
        freezes.COMMAND,
        plans.COMMAND,
        services.COMMAND,
        help.COMMAND,
        version.COMMAND,
    )
}
