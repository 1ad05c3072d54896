"""Undo a promotion: all weight back to the former stable, at once, also in a freeze."""

from bot.errors import RouteTaken, UserError
from bot.rollout import start
from bot.rollout.model import Phase, Rollout
from bot.rollout.wake import wake_at
from bot.usecases.desk import Desk
from bot.usecases.permission import require
from bot.usecases.who import Who


async def undo(desk: Desk, service: str, who: Who) -> Rollout:
    """A new rollout that only goes back; UserError when the newest of the service did not end as Promoted."""
    person = await require(desk, "undo", service, who)
    finished = await desk.rollouts.finished(service, 1)
    if not finished or finished[0].phase is not Phase.PROMOTED:
        how = f"ended as {finished[0].phase}" if finished else "is not known"
        raise UserError(
            f"There is nothing to undo: the newest rollout of `{service}` {how}. Nothing was changed.",
            "A running rollout is ended with `/canary rollback`.",
        )
    now = desk.clock.now()
    named = Who(who.user_id, who.channel, who.thread, who.response_url, who.via, person.name)
    back = start.undo(finished[0], f"{service}-{desk.new_id()[:4]}", named.actor, now)
    first = start.opening(back, now)
    try:
        await desk.rollouts.create(first.rollout, wake_at(first.rollout, now) or now, first.messages, first.audit)
    except RouteTaken as error:
        raise UserError(
            f"{error.rollout_id} is running on this route. Nothing was changed.",
            f"Roll that one back instead: `/canary rollback {error.rollout_id}`.",
        ) from error
    await desk.inbox.ring(first.rollout.id)
    return first.rollout
