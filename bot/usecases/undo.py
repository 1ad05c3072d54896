"""Undo a promotion: all weight back to the former stable, at once, also in a freeze."""

from bot.errors import RouteTaken, UserError
from bot.rollout import start
from bot.rollout.model import Phase, Rollout
from bot.rollout.wake import wake_at
from bot.usecases.desk import Desk
from bot.usecases.permission import require
from bot.usecases.who import Who

LOOKED_BACK = 20


async def undo(desk: Desk, service: str, who: Who) -> Rollout:
    """A new rollout that only goes back.

    UserError when the newest of the service that moved anything did not end as Promoted, or when the former stable is
    known to have no ready pod.
    """
    person = await require(desk, "undo", service, who)
    finished = await desk.rollouts.finished(service, LOOKED_BACK)
    newest = next((one for one in finished if one.phase is not Phase.CANCELLED), None)
    if newest is None or newest.phase is not Phase.PROMOTED:
        how = f"ended as {newest.phase}" if newest else "is not known"
        raise UserError(
            f"There is nothing to undo: the newest rollout of `{service}` {how}. Nothing was changed.",
            "A running rollout is ended with `/canary rollback`.",
        )
    stable = newest.target.stable
    if await desk.cluster.ready_pods(newest.target.namespace, stable.selector) == 0:
        raise UserError(
            f"{stable.label} of `{service}` has no ready pod, so the traffic would go nowhere. Nothing was changed.",
            f"Scale {', '.join(f'`{name}`' for name in stable.workloads) or stable.label} up first, then undo again.",
        )
    now = desk.clock.now()
    back = start.undo(newest, f"{service}-{desk.new_id()[:4]}", who.called(person.name).actor, now)
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
