"""Clicks: each button asks for one verb, for the rollout, revision and step it was drawn for."""

import json
from dataclasses import dataclass
from typing import Any

from bot.errors import UserError
from bot.handlers.asking import Asked, ask_holder, roll_back
from bot.handlers.unreadable import UNREADABLE
from bot.usecases import reading
from bot.usecases.desk import Desk
from bot.usecases.who import Who
from bot.views import Rendered, answers
from bot.views.buttons import EXTEND_S

BUTTONS: dict[str, tuple[str, str]] = {
    "approve": ("approve", ""),
    "hold": ("hold", ""),
    "resume": ("resume", ""),
    "promote": ("promote", ""),
    "cancel": ("cancel", ""),
    "rollback": ("rollback", ""),
    "drift:adopt": ("drift", "adopt"),
    "drift:reapply": ("drift", "reapply"),
    "restart": ("restart", "restart"),
}
"""action_id to the verb and option it asks for."""
REJECT = "reject"
MORE = "more"
URGENT = frozenset({"rollback"})


@dataclass(frozen=True, slots=True)
class Click:
    """What was clicked; `verb` may be `queries` or `reject`, which ask for nothing by themselves."""

    verb: str
    option: str
    rollout: str
    revision: int
    step: int


def click(action: dict[str, Any]) -> Click:
    """Read an action of Slack's. Raises UserError for one that we never drew."""
    action_id = str(action.get("action_id", ""))
    try:
        if action_id == MORE:
            verb, rollout, revision, step = json.loads(action["selected_option"]["value"])
            option = str(EXTEND_S) if verb == "extend" else ""
            if verb not in ("extend", "queries"):
                raise KeyError(verb)
            return Click(verb, option, str(rollout), int(revision), int(step))
        verb, option = (REJECT, "") if action_id == REJECT else BUTTONS[action_id]
        return pointed(verb, option, str(action["value"]))
    except UNREADABLE as error:
        raise UserError("This button is not known any more. Nothing was changed.", "`/canary help`") from error


def pointed(verb: str, option: str, value: str) -> Click:
    """A click from the value of a button. Raises ValueError, KeyError, TypeError."""
    pointer = json.loads(value)
    return Click(verb, option, str(pointer["rollout"]), int(pointer["revision"]), int(pointer["step"]))


async def perform(desk: Desk, clicked: Click, who: Who, reason: str = "") -> Rendered | Asked:
    """Ask for what the button says."""
    match clicked.verb:
        case "queries":
            return answers.queries(await reading.status(desk, clicked.rollout))
        case "rollback":
            return await roll_back(desk, clicked.rollout, who, reason, revision=clicked.revision, step=clicked.step)
        case _:
            return await ask_holder(
                desk,
                clicked.verb,
                clicked.rollout,
                who,
                reason=reason,
                option=clicked.option,
                revision=clicked.revision,
                step=clicked.step,
            )
