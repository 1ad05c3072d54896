"""Requests to the holder, typed or clicked; and what a person is told when no holder takes them."""

from dataclasses import dataclass

from bot.errors import CanaryError, UserError
from bot.usecases import requests
from bot.usecases.desk import Desk
from bot.usecases.rollback import ALL, rollback
from bot.usecases.who import Who
from bot.views import Rendered, answers


@dataclass(frozen=True, slots=True)
class Asked:
    """The holder was asked and answers; `what` is the id, service or `all` that it was asked about."""

    what: str


class AlreadyRunning(UserError):
    """A start refused while a rollout of the same service runs; `rollout_id` is that one."""

    def __init__(self, error: UserError, rollout_id: str) -> None:
        super().__init__(error.message, error.hint)
        self.rollout_id = rollout_id


async def ask_holder(
    desk: Desk,
    verb: str,
    what: str,
    who: Who,
    *,
    reason: str = "",
    option: str = "",
    revision: int | None = None,
    step: int | None = None,
) -> Asked:
    """Put a request into the inbox of the rollout that `what` names."""
    rollout = await requests.put(desk, verb, what, who, reason=reason, option=option, revision=revision, step=step)
    return Asked(rollout.id)


async def roll_back(
    desk: Desk, what: str, who: Who, reason: str, *, revision: int | None = None, step: int | None = None
) -> Rendered | Asked:
    """Roll back by the holder, else by the routes themselves."""
    sentences = await rollback(desk, what, who, reason, revision=revision, step=step)
    return answers.rolled_back(sentences) if sentences else Asked(what)


async def untaken(desk: Desk, asked: Asked) -> Rendered | None:
    """What to say when the request still lies in the inbox after a while: nobody holds the lease."""
    try:
        waiting = await desk.inbox.waiting()
        active = [one for one in await desk.rollouts.outlines() if one.id in waiting]
        meant = [one.id for one in active if asked.what in (ALL, one.id, one.service) or one.id.startswith(asked.what)]
        shown = [(await desk.rollouts.load(name)).target for name in meant[: answers.SHOWN_BY_HAND]]
    except CanaryError:
        return None
    return answers.nobody_holds(meant, shown) if meant else None
